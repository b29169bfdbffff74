"""How the forwarding side of the `dns` gateway fares, in one process. `dns_metrics.py` says how that is told, and why.

Of the clients' questions each eighth is looked at, drawn by lot when it is forwarded: whatever becomes of another one
leaves no trace here. Who watches can therefore never conclude that a question was not forwarded.
"""

from __future__ import annotations

from collections import Counter
from random import SystemRandom
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from blocker._native import DnsFound
    from blocker.gateways.dns import DnsListener

#: Of so many forwarded questions one is looked at.
ONE_IN = 8
#: What became of a question that was asked of a resolver, but for the first, which is all of them.
Outcome = Literal["asked", "silent", "failed", "stranger"]
#: What a client got: another resolver's answer, one whose time is over, that others cannot say, that nobody does.
Fate = Literal["answer", "stale", "failed", "none"]

_random = SystemRandom()


class DnsCounts(NamedTuple):
    """Of one process, since its last report.

    Attributes:
        asked: Resolver → outcome → how many; of drawn questions, as all here but the last.
        fates: What clients got → how many.
        waiting: How many waited at once, at most.
        refused: Datagrams that were of strangers, told to come over a connection, and dropped; all of them.
    """

    asked: Mapping[str, Mapping[str, int]]
    fates: Mapping[str, int]
    waiting: int
    refused: Sequence[int]


class DnsRoom(NamedTuple):
    """Of one process, now: questions that may wait; answers that are kept, their bytes, and how many these may be."""

    waiting_limit: int
    cached: int
    cache_bytes: int
    cache_limit: int


def added(reports: Iterable[DnsCounts]) -> DnsCounts:
    """Several reports of one process as one."""
    asked: dict[str, Counter[str]] = {}
    fates: Counter[str] = Counter()
    waiting, refused = 0, [0, 0, 0]
    for one in reports:
        for upstream, outcomes in one.asked.items():
            asked.setdefault(upstream, Counter()).update(outcomes)
        fates.update(one.fates)
        waiting = max(waiting, one.waiting)
        refused = [mine + more for mine, more in zip(refused, one.refused, strict=True)]
    return DnsCounts(asked, fates, waiting, refused)


class Forwarded:
    """What became of the questions that were drawn. Belongs to one event loop."""

    def __init__(self) -> None:
        self._asked: dict[str, Counter[str]] = {}
        self._fates: Counter[str] = Counter()
        self._waiting = 0
        self._most = 0

    @staticmethod
    def drawn() -> bool:
        """Whether a question is to be looked at. Cost: 1 µs."""
        return _random.randrange(ONE_IN) == 0

    def began(self) -> None:
        """One waits."""
        self._waiting += 1
        self._most = max(self._most, self._waiting)

    def ended(self) -> None:
        """One waits no more."""
        self._waiting -= 1

    def asked(self, upstream: str, found: DnsFound | None, *, stranger: bool) -> None:
        """One was asked of a resolver: what came of it, and whether somebody else spoke, too."""
        outcomes = self._asked.setdefault(upstream, Counter())
        outcomes["asked"] += 1
        if found is None:
            outcomes["silent"] += 1
        elif found.state != "answer":
            outcomes["failed"] += 1
        if stranger:
            outcomes["stranger"] += 1

    def told(self, fate: Fate) -> None:
        """A client has got its answer."""
        self._fates[fate] += 1

    def take(self, refused: Sequence[int]) -> DnsCounts:
        """What there was since this was last called."""
        taken = DnsCounts(self._asked, self._fates, self._most, refused)
        self._asked, self._fates, self._most = {}, Counter(), self._waiting
        return taken


class DnsLoad:
    """What one process says of its `dns` gateway.

    Args:
        listener: The gateway.
    """

    def __init__(self, listener: DnsListener) -> None:
        self._listener = listener
        self._refused: Sequence[int] = (0, 0, 0)

    def take(self) -> DnsCounts:
        """What there was since this was last called."""
        before, self._refused = self._refused, self._listener.service.refused
        refused = [now - earlier for now, earlier in zip(self._refused, before, strict=True)]
        return self._listener.forwarder.forwarded.take(refused)

    @property
    def room(self) -> DnsRoom:
        """How full it is."""
        settings, service = self._listener.settings, self._listener.service
        return DnsRoom(settings.max_waiting, service.kept, service.kept_bytes, settings.cache_bytes)
