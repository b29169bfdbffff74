"""The Prometheus side: the metrics of a node, with closed label sets, in the text format 0.0.4.

| metric                          | labels              | is                                                           |
|---------------------------------|---------------------|--------------------------------------------------------------|
| `blocker_decisions_total`       | gateway, verdict    | decisions; a block counts as `allow` until its hour is over, |
|                                 |                     | then blocks are rounded up                                   |
| `blocker_decision_seconds`      | gateway             | histogram; a block has the time of some other decision, and  |
|                                 |                     | the sum is estimated from the buckets                        |
| `blocker_invalid_urls_total`    | gateway             | decisions on a text that is no URL                           |
| `blocker_hits_total`            | list, weekday, hour | released hits, summed over all weeks; survives restarts      |
| `blocker_shadow_hits_total`     | list, weekday, hour | the same of lists in shadow mode                             |
| `blocker_list_entries`, `…_serial`, `…_age_seconds` | list | rules, serial, seconds since its source was last good   |
| `blocker_store_up`              |                     | 1 if the store answered last time, else 0                    |
| `blocker_store_failures_total`  |                     | looks at the store that failed                               |
| `blocker_follower_lag_seconds`  |                     | how far the matcher is behind the store's heads              |
| `blocker_hits_waiting_hours`    |                     | hours that are over and whose hits the store has not taken   |
| `blocker_canary_ok`             | list, gateway       | 1 if the list's canaries were as they must be, else 0        |
| `blocker_canary_age_seconds`    | list, gateway       | seconds since that was looked at                             |
| `blocker_build_info`            | version             | 1                                                            |

`gateway` is one of `meters.GATEWAYS`, `verdict` one of three, `list` the name of a configured list, `weekday` `mon` to
`sun`, `hour` `00` to `23` on the wall clock of the configured zone. No label ever comes from a request.
What other parts of a node say of themselves is added (`Exporter.add`): `list_watch`, `load`, `route_metrics`.

None of prometheus_client's own figures of the interpreter and the process is there, since they move with single
requests. For the same reason nothing tells how many hits wait for the store or when they were last flushed: with the
store away that would be the moment of the first hit. Hours that are over are said to wait, as they would be released.
Nor are there exemplars: the format has no place for them.

All 168 cells of a list are there from the first scrape on, at 0, so that a rate misses no first hit; none is there
until the stored totals are known. Released hits change only when an hour ends, so their text is kept: a scrape of 64
lists joins 64 ready pieces.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from itertools import accumulate
from operator import mul
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from blocker.hits.calendar import HOURS_A_WEEK, WEEKDAYS
from blocker.hits.families import Families, Family, FamilySource
from blocker.hits.meters import BOUNDS_NS, MIDDLES_NS, Meters, Shown
from blocker.hits.release import Series
from blocker.matcher import TableList, table_lists

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from blocker._native import Matcher

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

HITS = "blocker_hits_total"
SHADOW_HITS = "blocker_shadow_hits_total"
_HELP = {
    HITS: "Requests blocked, by hour of the week, of hours that are over, each rounded up to the bin. Never people.",
    SHADOW_HITS: "Requests that a list in shadow mode would have blocked, as in blocker_hits_total.",
}
_CELL_LABELS = tuple((day, f"{hour:02d}") for day in WEEKDAYS for hour in range(24))
_NO_HITS = (0,) * HOURS_A_WEEK
_BOUNDS = tuple(repr(bound / 1e9) for bound in BOUNDS_NS)


class ReleasedHits(Protocol):
    """What the exporter needs of the counter of hits."""

    def tick(self) -> None:
        """Notice that an hour has ended."""

    @property
    def released(self) -> Mapping[Series, tuple[int, ...]] | None:
        """Released sums, or None while they are not known."""

    @property
    def waiting_hours(self) -> int:
        """Hours that are over and whose hits the store has not taken."""


class Status(Protocol):
    """What the exporter needs of the follower's status."""

    @property
    def store_up(self) -> bool:
        """Whether the store answered last time."""

    @property
    def failures(self) -> int:
        """Looks at the store that failed."""

    @property
    def lag_seconds(self) -> float:
        """How far behind the matcher is."""

    @property
    def checked(self) -> Mapping[str, float]:
        """List → when its source was last found good."""


class Followed(Protocol):
    """What the exporter needs of the follower."""

    @property
    def matcher(self) -> Matcher | None:
        """The newest matcher."""

    @property
    def status(self) -> Status:
        """How fresh it is."""


class Canary(Protocol):
    """What the exporter needs of the last look at a list's canaries through a gateway."""

    @property
    def list(self) -> str:
        """Whose canaries."""

    @property
    def gateway(self) -> str:
        """Through which gateway."""

    @property
    def reason(self) -> str | None:
        """What is wrong; None if they are ok."""

    @property
    def checked(self) -> float:
        """When that was, in Unix seconds."""


def no_canaries() -> Iterable[Canary]:
    """No list has canaries."""
    return ()


def age_seconds(entry: TableList, checked: Mapping[str, float], now: float) -> float | None:
    """Seconds since the list's source was last found good, else since it was published; None if neither is known."""
    since = checked.get(entry.name) or entry.metadata.created
    return max(0.0, now - since) if since else None


class Exporter:
    """Renders the node's metrics.

    Args:
        meters: The engine's counters.
        hits: The counter of hits.
        follower: For the lists and their freshness.
        shadow_lists: Lists that some policy has in shadow mode, whatever their own mode.
        canaries: The last looks at canaries; none by default.
        clock: Unix seconds now.
    """

    def __init__(
        self,
        meters: Meters,
        hits: ReleasedHits,
        follower: Followed,
        *,
        shadow_lists: Iterable[str] = (),
        canaries: Callable[[], Iterable[Canary]] = no_canaries,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        lists = _Lists(follower)
        self._hits = _Hits(hits, lists, frozenset(shadow_lists))
        self._families = Families()
        self._families.add(_Node(meters, hits, follower, lists, canaries, clock))
        self._others = CollectorRegistry(auto_describe=False)
        self.registry.register(self._families)
        self.registry.register(self._hits)

    def shadow_lists(self, names: Iterable[str]) -> None:
        """Take over other lists that some policy has in shadow mode."""
        self._hits.use_shadow_lists(frozenset(names))

    def released(self) -> Mapping[Series, tuple[int, ...]] | None:
        """What `blocker_hits_total` and its shadow say, by list; None while the stored counts are not known."""
        return self._hits.released()

    def add(self, part: FamilySource) -> None:
        """Render what another part of the node counts, too; its labels must be closed as well."""
        self._families.add(part)

    def register(self, collector: Collector) -> None:
        """The same for a collector as prometheus_client has them; slower, so for few samples."""
        self._others.register(collector)
        self.registry.register(collector)

    def unregister(self, collector: Collector) -> None:
        """Let a collector go that was registered."""
        self._others.unregister(collector)
        self.registry.unregister(collector)

    def render(self) -> bytes:
        """The metrics as text; equal to what `registry` collects, but faster.

        Cost at 64 lists and seven gateways: about 1.5 ms; once after the end of an hour 0.1 ms more for each list
        that hit.
        """
        return self._families.text() + generate_latest(self._others) + self._hits.render()


class _Lists:
    """The enforced lists, read anew only when they changed; holds no matcher, whose memory would stay taken."""

    def __init__(self, follower: Followed) -> None:
        self._follower = follower
        self._raw: object = None
        self._entries: tuple[TableList, ...] = ()

    def enforced(self) -> tuple[TableList, ...]:
        """The lists; the same object as long as they are the same."""
        matcher = self._follower.matcher
        raw = matcher.table.lists if matcher else ()
        if matcher is None:
            self._entries = ()
        elif raw != self._raw:
            self._entries = table_lists(matcher.table)
        self._raw = raw
        return self._entries


class _Node:
    """Everything but hits: small, and different at each scrape."""

    def __init__(
        self,
        meters: Meters,
        hits: ReleasedHits,
        follower: Followed,
        lists: _Lists,
        canaries: Callable[[], Iterable[Canary]],
        clock: Callable[[], float],
    ) -> None:
        self._meters = meters
        self._hits = hits
        self._follower = follower
        self._enforced = lists.enforced
        self._canaries = canaries
        self._clock = clock
        self._version = version("blocker")

    def families(self) -> Iterator[Family]:
        """See `FamilySource`."""
        self._hits.tick()  # an hour that has ended releases its blocks, also when nobody was blocked since
        yield from self._decisions()
        yield from self._lists()
        yield from self._canary_looks()
        status = self._follower.status
        for name, kind, documentation, value in (
            ("blocker_store_up", "gauge", "Whether the store answered last time: 1 or 0.", status.store_up),
            ("blocker_store_failures", "counter", "Looks at the store that failed.", status.failures),
            ("blocker_follower_lag_seconds", "gauge", "How far the matcher is behind the store.", status.lag_seconds),
            (
                "blocker_hits_waiting_hours", "gauge", "Hours that are over and whose hits the store has not taken.",
                self._hits.waiting_hours,
            ),
        ):  # fmt: skip
            family = Family(name, "counter" if kind == "counter" else "gauge", documentation)
            family.add(value)
            yield family
        build = Family("blocker_build_info", "gauge", "The running version; always 1.", ["version"])
        build.add(1, self._version)
        yield build

    def _decisions(self) -> Iterator[Family]:
        decisions = Family(
            "blocker_decisions", "counter",
            "Decisions by verdict; a block is among allow until its hour is over, then blocks are rounded up.",
            ["gateway", "verdict"],
        )  # fmt: skip
        seconds = Family(
            "blocker_decision_seconds", "histogram", "Time of a decision, in seconds; a block has that of another.",
            ["gateway"],
        )  # fmt: skip
        invalid = Family("blocker_invalid_urls", "counter", "Decisions on a text that is no URL.", ["gateway"])
        self._meters.collect()
        for gateway, meter in sorted(self._meters.items()):
            shown = meter.shown()
            decisions.add(shown.allow, gateway, "allow")
            decisions.add(shown.inspect, gateway, "inspect")
            decisions.add(shown.block, gateway, "block")
            seconds.add_times(_buckets(shown), sum(map(mul, shown.buckets, MIDDLES_NS)) / 1e9, gateway)
            invalid.add(meter.invalid, gateway)
        yield from (decisions, seconds, invalid)

    def _lists(self) -> Iterator[Family]:
        entries = Family("blocker_list_entries", "gauge", "Rules in the enforced version.", ["list"])
        serial = Family("blocker_list_serial", "gauge", "Serial of the enforced version.", ["list"])
        age = Family(
            "blocker_list_age_seconds", "gauge", "Seconds since the list's source was last found good.", ["list"]
        )
        checked, now = self._follower.status.checked, self._clock()
        for entry in self._enforced():
            serial.add(entry.serial, entry.name)
            entries.add(entry.metadata.entries, entry.name)
            seconds = age_seconds(entry, checked, now)
            if seconds is not None:
                age.add(seconds, entry.name)
        yield from (entries, serial, age)

    def _canary_looks(self) -> Iterator[Family]:
        labels = ["list", "gateway"]
        good = Family("blocker_canary_ok", "gauge", "Whether the list's canaries are as they must be: 1 or 0.", labels)
        age = Family("blocker_canary_age_seconds", "gauge", "Seconds since that was looked at.", labels)
        now = self._clock()
        for canary in sorted(self._canaries(), key=lambda canary: (canary.list, canary.gateway)):
            good.add(canary.reason is None, canary.list, canary.gateway)
            age.add(max(0.0, now - canary.checked), canary.list, canary.gateway)
        yield from (good, age)


class _Hits(Collector):
    """Released hits: up to 168 samples for each of 64 lists, and as many of shadow lists, which change once an hour."""

    def __init__(self, hits: ReleasedHits, lists: _Lists, shadow_lists: frozenset[str]) -> None:
        self._hits = hits
        self._enforced = lists.enforced
        self._shadow_lists = shadow_lists
        self._texts: dict[Series, tuple[tuple[int, ...], bytes]] = {}
        self._kept: tuple[object, object, bytes] = (self, self, b"")  # what the text was made of, and the text

    def use_shadow_lists(self, names: frozenset[str]) -> None:
        """See `Exporter.shadow_lists`."""
        self._shadow_lists, self._kept = names, (self, self, b"")

    def released(self) -> Mapping[Series, tuple[int, ...]] | None:
        """See `Exporter.released`."""
        self._hits.tick()
        return None if self._hits.released is None else self._sums()

    def collect(self) -> Iterator[Metric]:
        self._hits.tick()
        sums = self._sums()
        for name, shadow in ((HITS, False), (SHADOW_HITS, True)):
            family = CounterMetricFamily(name, _HELP[name], labels=["list", "weekday", "hour"])
            for series, hits in sums.items():
                if series.shadow is shadow:
                    for labels, count in zip(_CELL_LABELS, hits, strict=True):
                        family.add_metric([series.list, *labels], count)
            yield family

    def render(self) -> bytes:
        """The same as text, made anew only when a sum or the lists changed, and then only in its changed pieces."""
        self._hits.tick()
        released, entries = self._hits.released, self._enforced()
        if self._kept[0] is not released or self._kept[1] is not entries:
            self._kept = (released, entries, self._joined())
        return self._kept[2]

    def _joined(self) -> bytes:
        pieces: dict[bool, list[bytes]] = {False: [], True: []}
        sums = self._sums()
        for series, hits in sums.items():
            kept = self._texts.get(series)
            if kept is None or kept[0] is not hits:
                kept = self._texts[series] = (hits, _text(series, hits))
            pieces[series.shadow].append(kept[1])
        for gone in self._texts.keys() - sums.keys():
            del self._texts[gone]
        return b"".join((_head(HITS), *pieces[False], _head(SHADOW_HITS), *pieces[True]))

    def _sums(self) -> dict[Series, tuple[int, ...]]:
        released = self._hits.released
        if released is None:
            return {}
        sums: dict[Series, tuple[int, ...]] = {}
        for entry in self._enforced():
            if entry.allow:
                continue  # an exception is no hit
            sums[Series(entry.name, shadow=False)] = _NO_HITS
            if entry.name in self._shadow_lists or entry.metadata.mode == "shadow":
                sums[Series(entry.name, shadow=True)] = _NO_HITS
        sums.update(released)
        return dict(sorted(sums.items()))


def _buckets(shown: Shown) -> list[tuple[str, float]]:
    return list(zip((*_BOUNDS, "+Inf"), accumulate(shown.buckets), strict=True))


def _head(name: str) -> bytes:
    return f"# HELP {name} {_HELP[name]}\n# TYPE {name} counter\n".encode()


def _text(series: Series, hits: tuple[int, ...]) -> bytes:
    name = SHADOW_HITS if series.shadow else HITS
    label = series.list.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return "".join(
        f'{name}{{list="{label}",weekday="{day}",hour="{hour}"}} {count}.0\n'
        for (day, hour), count in zip(_CELL_LABELS, hits, strict=True)
    ).encode()
