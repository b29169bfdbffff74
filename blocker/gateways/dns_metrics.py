"""How the forwarding side of the `dns` gateway fares, for the metrics: upstreams, questions, cache, refused datagrams.

| metric                                | labels           | is                                                        |
|---------------------------------------|------------------|-----------------------------------------------------------|
| `blocker_dns_upstream_up`             | upstream         | whether it answers the node's own questions: 1 or 0       |
| `blocker_dns_upstream_seconds`        | upstream         | time of its last answer to one, in steps of 5 ms          |
| `blocker_dns_upstream_probes_total`   | upstream, result | such questions: answered, failed (it cannot say), silent  |
| `blocker_dns_upstream_failing_share`  | upstream, reason | of clients' questions asked of it: silent, failed,        |
|                                       |                  | stranger (others spoke: forged, or other letters' case)   |
| `blocker_dns_questions_share`         | answer           | of clients' questions: stale, failed (others cannot say), |
|                                       |                  | none (nobody says: SERVFAIL)                              |
| `blocker_dns_waiting`                 |                  | most questions that waited at once, in steps of 64        |
| `blocker_dns_waiting_limit`           |                  | how many may                                              |
| `blocker_dns_cache_entries`           |                  | answers that are kept, in steps of 1024                   |
| `blocker_dns_cache_bytes`             |                  | what they take, in steps of 1 MiB                         |
| `blocker_dns_cache_limit_bytes`       |                  | how much it may be                                        |
| `blocker_dns_datagrams_refused_total` | reason           | stranger; over the rate: slipped (come by TCP), dropped   |

`upstream` is a resolver as it is configured. Shares, waiting and cache are those of the last minute that is over, of
all processes together, and change once a minute.

**Why no block can be computed from them.** A block counts among `allow` until its hour is over. It is not forwarded,
and not looked for in the cache. Whoever had the number of questions that are would have the blocks of each minute, and
would know of a question that was alone in its second whether it was blocked; also where that number is called
failures, since in an outage all that is forwarded fails. Therefore

- what counts exactly counts no question of a client: the node's own questions go by the clock, and a datagram is
  refused for its address, before its name is read;
- of clients' questions one in eight is looked at, drawn by lot when it is forwarded (`dns_load`). Seven of eight change
  nothing of shares and waiting, exactly as a blocked one does. So whatever is seen, it is at most 8/7 times as likely
  after a blocked question as after one that was forwarded, also for whoever sent all others himself;
- of what was drawn only shares of what was forwarded are told, in steps of a twentieth, and no number but one in steps
  of 64 questions;
- of the cache one of the two nearest steps is told, drawn by lot, the nearer the likelier: an answer more changes that
  once in a thousand times.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from random import SystemRandom
from typing import TYPE_CHECKING, Protocol

from blocker.gateways.dns_load import ONE_IN, DnsLoad
from blocker.gateways.load import LAG_STEP_SECONDS
from blocker.hits.families import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from blocker.gateways.dns import DnsListener
    from blocker.gateways.dns_load import DnsCounts, DnsRoom
    from blocker.gateways.upstream_watch import Result, UpstreamWatch

# What is told of clients' questions changes so often, in seconds.
WINDOW_SECONDS = 60.0
SHARE_STEP = 0.05
# Drawn questions below which a share is told as if there had been so many: one of one that fails is no outage.
LEAST_DRAWN = 16
WAITING_STEP = 64
ENTRIES_STEP = 1024
BYTES_STEP = 2**20
REASONS = ("silent", "failed", "stranger")
FATES = ("stale", "failed", "none")
RESULTS: tuple[Result, ...] = ("answered", "failed", "silent")
REFUSALS = ("stranger", "slipped", "dropped")

_random = SystemRandom()


class Companions(Protocol):
    """What is needed of the host of companions."""

    def rooms(self) -> Iterable[DnsRoom]:
        """Of each companion with the gateway."""

    def take_dns(self) -> Iterable[DnsCounts]:
        """What companions said since this was last called, each of them once."""


class DnsFamilies:
    """The metrics of the gateway in a node and its workers; see `blocker.hits.families.FamilySource`.

    Args:
        listener: The node's own, also where only workers listen.
        host: Knows the workers.
        watch: Looks at the upstreams.
        workers: Whether workers listen instead of the node.
        clock: Seconds since any fixed moment.
    """

    def __init__(
        self,
        listener: DnsListener,
        host: Companions,
        watch: UpstreamWatch,
        *,
        workers: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener = listener
        self._host = host
        self._watch = watch
        self._own = None if workers else DnsLoad(listener)
        self._clock = clock
        self._refused = [0, 0, 0]
        self._told = _Told()
        self._begin(clock())

    def families(self) -> Iterator[Family]:
        """Cost: 60 µs, and 15 µs for each upstream."""
        rooms = list(self._host.rooms()) if self._own is None else [self._own.room]
        self._gather(self._host.take_dns() if self._own is None else [self._own.take()])
        if (now := self._clock()) >= self._ends:
            self._told = self._close(rooms)
            self._begin(now)
        yield from self._upstreams(self._listener.settings.upstreams)
        yield from self._questions()
        for name, documentation, value in (
            ("waiting", "Most questions that waited at once, in steps of 64.", self._told.waiting),
            ("waiting_limit", "How many questions may wait.", sum(one.waiting_limit for one in rooms)),
            ("cache_entries", "Answers that are kept, in steps of 1024.", self._told.entries),
            ("cache_bytes", "Memory of answers that are kept, in steps of 1 MiB.", self._told.bytes),
            ("cache_limit_bytes", "How much that may be.", sum(one.cache_limit for one in rooms)),
        ):
            family = Family(f"blocker_dns_{name}", "gauge", documentation)
            family.add(value)
            yield family
        refused = Family("blocker_dns_datagrams_refused", "counter", "Datagrams that got no answer.", ["reason"])
        for reason, count in zip(REFUSALS, self._refused, strict=True):
            refused.add(count, reason)
        yield refused

    def _begin(self, now: float) -> None:
        self._ends = now + WINDOW_SECONDS
        self._asked: dict[str, Counter[str]] = {}
        self._fates: Counter[str] = Counter()
        self._waiting = 0

    def _gather(self, reports: Iterable[DnsCounts]) -> None:
        waiting = 0
        for one in reports:
            for upstream, outcomes in one.asked.items():
                self._asked.setdefault(upstream, Counter()).update(outcomes)
            self._fates.update(one.fates)
            waiting += one.waiting
            self._refused = [mine + more for mine, more in zip(self._refused, one.refused, strict=True)]
        self._waiting = max(self._waiting, waiting)

    def _close(self, rooms: Sequence[DnsRoom]) -> _Told:
        """What may be told of the window that ends."""
        told = _Told()
        for upstream, outcomes in self._asked.items():
            for reason in REASONS:
                told.failing[upstream, reason] = _share(outcomes[reason], outcomes["asked"])
        for fate in FATES:
            told.fates[fate] = _share(self._fates[fate], self._fates.total())
        told.waiting = self._waiting * ONE_IN // WAITING_STEP * WAITING_STEP
        told.entries = _drawn_step(sum(one.cached for one in rooms), ENTRIES_STEP)
        told.bytes = _drawn_step(sum(one.cache_bytes for one in rooms), BYTES_STEP)
        return told

    def _upstreams(self, upstreams: Sequence[str]) -> Iterator[Family]:
        up = Family("blocker_dns_upstream_up", "gauge", "Whether a resolver answers: 1 or 0.", ["upstream"])
        seconds = Family("blocker_dns_upstream_seconds", "gauge", "Time of its last answer.", ["upstream"])
        probes = Family(
            "blocker_dns_upstream_probes", "counter", "Questions of the node's own.", ["upstream", "result"]
        )
        failing = Family(
            "blocker_dns_upstream_failing_share", "gauge", "Of clients' questions asked of a resolver.",
            ["upstream", "reason"],
        )  # fmt: skip
        for one in dict.fromkeys(upstreams):
            for reason in REASONS:
                failing.add(self._told.failing.get((one, reason), 0.0), one, reason)
            state = self._watch.states.get(one)
            if state is None or state.last is None:
                continue  # it was configured a moment ago
            up.add(state.up, one)
            if state.seconds is not None:
                seconds.add(round(math.ceil(state.seconds / LAG_STEP_SECONDS) * LAG_STEP_SECONDS, 3), one)
            for result in RESULTS:
                probes.add(state.results[result], one, result)
        yield from (up, seconds, probes, failing)

    def _questions(self) -> Iterator[Family]:
        family = Family(
            "blocker_dns_questions_share", "gauge", "Of clients' forwarded questions, by what they got.", ["answer"]
        )
        for fate in FATES:
            family.add(self._told.fates.get(fate, 0.0), fate)
        yield family


class _Told:
    """What is told of the last window."""

    def __init__(self) -> None:
        self.failing: dict[tuple[str, str], float] = {}
        self.fates: dict[str, float] = {}
        self.waiting = 0
        self.entries = 0
        self.bytes = 0


def _share(count: int, total: int) -> float:
    return round(round(count / max(total, LEAST_DRAWN) / SHARE_STEP) * SHARE_STEP, 2)


def _drawn_step(value: int, step: int) -> int:
    """The step below or above, each the likelier the nearer."""
    return (value + _random.randrange(step)) // step * step
