"""Counters of decisions, invalid URLs and decision times for each gateway; nothing in them comes from a request.

Plain integers that the event loop alone changes, because they are on the path of every decision. Blocks are kept apart
and shown as such only at the end of an hour, rounded up; `release` says why. Until then a block must not be missing
either: who knows from a flow log that there was a request, and sees no counter move, knows that it was blocked. So a
block looks like any other decision at once (`Meter.shown`).
"""

from __future__ import annotations

from itertools import pairwise
from secrets import SystemRandom
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from blocker.hits.release import rounded_up

if TYPE_CHECKING:
    from collections.abc import Callable

# Allow, inspect, blocks, invalid, nanoseconds, histogram; the fields of a `Meter`.
Counts = tuple[int, int, int, int, int, list[int]]
Gateway = Literal["control", "check", "icap", "spoe", "envoy", "dns", "squid-helper"]
GATEWAYS: tuple[str, ...] = get_args(Gateway)

# Upper bounds of the histogram in nanoseconds. A decision takes 0.3 to 1 µs; what is over 100 µs is a stall.
BOUNDS_NS = (
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    10_000_000,
)


# What a decision in each bucket counts for in the sum of times: the middle; the last is open.
MIDDLES_NS = (*((low + high) // 2 for low, high in pairwise((0, *BOUNDS_NS))), BOUNDS_NS[-1])

# Times of blocks as long as nothing else was decided: 200 to 500 ns.
_USUAL = [0, 1, *[0] * (len(BOUNDS_NS) - 1)]

_random = SystemRandom()


class Shown(NamedTuple):
    """What of a meter may be seen at any moment: allow, inspect, block, and how many decisions took how long."""

    allow: int
    inspect: int
    block: int
    buckets: list[int]


class Meter:
    """What one gateway decided since the process started.

    Attributes:
        allow: Decisions with that verdict, and so `inspect`.
        blocks: Blocks since the last release; never shown.
        earlier_blocks: Blocks up to the last release, as they were counted; never shown.
        released_blocks: Blocks of the hours that are over, each hour rounded up.
        invalid: Decisions on a text that is no URL, whatever the verdict.
        nanoseconds: Time of all decisions that did not block; never shown, since exact times can be told apart.
        buckets: How many of these took at most `BOUNDS_NS[i]` and more than the bound before; the last: longer.
    """

    __slots__ = (
        "_disguised", "_shown_allow", "_times_given", "allow", "blocks", "buckets", "earlier_blocks", "inspect",
        "invalid", "nanoseconds", "released_blocks",
    )  # fmt: skip

    def __init__(self) -> None:
        self.allow = 0
        self.inspect = 0
        self.blocks = 0
        self.released_blocks = 0
        self.invalid = 0
        self.nanoseconds = 0
        self.buckets = [0] * (len(BOUNDS_NS) + 1)
        self.earlier_blocks = 0
        self._shown_allow = 0
        self._times_given = 0
        self._disguised = [0] * (len(BOUNDS_NS) + 1)

    def shown(self) -> Shown:
        """What may be seen now.

        - A block stands under `allow` until the end of its hour. Then it moves to `block`; as a counter takes nothing
          back, `allow` stands still for as many decisions as are shown as blocked. So `allow` is computed from the
          number of all decisions, inspects and released blocks, and tells nothing that these do not.
        - A block is given a time, drawn from those of the other decisions, and not its own: it takes longer to find
          something than nothing.

        Cost: 0.5 µs, and 1 µs for each block since the last call.
        """
        blocks = self.earlier_blocks + self.blocks
        new, self._times_given = blocks - self._times_given, blocks
        if new:
            weights = self.buckets if any(self.buckets) else _USUAL
            for bucket in _random.choices(range(len(weights)), weights, k=new):
                self._disguised[bucket] += 1
        self._shown_allow = max(self._shown_allow, self.allow + blocks - self.released_blocks)
        buckets = [mine + others for mine, others in zip(self.buckets, self._disguised, strict=True)]
        return Shown(self._shown_allow, self.inspect, self.released_blocks, buckets)

    def add(self, counts: Counts) -> None:
        """Add what native code counted."""
        allow, inspect, blocks, invalid, nanoseconds, buckets = counts
        self.allow += allow
        self.inspect += inspect
        self.blocks += blocks
        self.invalid += invalid
        self.nanoseconds += nanoseconds
        self.buckets = [mine + more for mine, more in zip(self.buckets, buckets, strict=True)]


class Meters(dict[str, Meter]):
    """The meters by gateway; one is made at its first use, and only for a name in `GATEWAYS`."""

    def __init__(self) -> None:
        super().__init__()
        self._taken: list[tuple[str, Callable[[], Counts]]] = []

    def attach(self, gateway: str, take: Callable[[], Counts]) -> None:
        """Count what native code counts too; `take` hands out what was counted since it was last called."""
        self._taken.append((gateway, take))

    def collect(self) -> None:
        """Bring in what native code has counted; to be called before the meters are read."""
        for gateway, take in self._taken:
            self[gateway].add(take())

    def take(self) -> dict[str, Counts]:
        """Take what was counted since the last time, blocks among it; for a process whose counts another one shows."""
        self.collect()
        taken: dict[str, Counts] = {
            gateway: (one.allow, one.inspect, one.blocks, one.invalid, one.nanoseconds, one.buckets)
            for gateway, one in self.items()
            if one.allow or one.inspect or one.blocks or one.invalid
        }
        self.clear()
        return taken

    def __missing__(self, gateway: str) -> Meter:
        if gateway not in GATEWAYS:
            raise KeyError("no such gateway; see blocker.hits.meters.GATEWAYS")
        meter = self[gateway] = Meter()
        return meter

    def release_blocks(self, bin: int) -> None:  # noqa: A002 - the setting's own name
        """Show the blocks counted so far; to be called when an hour ends and at no other time."""
        self.collect()
        for meter in self.values():
            meter.released_blocks += rounded_up(meter.blocks, bin)
            meter.earlier_blocks += meter.blocks
            meter.blocks = 0
