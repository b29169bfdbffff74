"""One release of each hit: what has been published is written down, and nothing else is ever said about those hits.

Two reports over overlapping weeks tell their difference: four weeks and then five give the fifth alone, without its
threshold. So the figures of a report are kept in the store under its lists and weeks. Asking for the same report again
gives the same figures, whatever has been counted since; asking for another one that shares a list and a week with it is
refused. A late count (of a node that could not reach the store for an hour after the week had ended) is thus never
published. It stays in its cell, and shows in the sums of `/metrics`.

Where no weeks are asked for they are those of the last whole *period*: weeks 1 to 4 of an ISO year, 5 to 8, and so on,
the last one with week 53 where there is one. Periods never overlap, and are the same at every provider, so that reports
can be made one after the other and merged.

A preview is for the operator's own eyes: it is not written down, and says on its face that it is not to be published.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Protocol

from blocker.errors import ReleaseRefused
from blocker.hits.calendar import DAY, HOUR, Cell, Slot, is_over
from blocker.hits.report import Report, counted, publish, week_name
from blocker.hits.retention import Week, monday, oldest_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import tzinfo

# A week is released no sooner than this after its end: nodes that cannot reach the store catch up meanwhile.
SETTLE_SECONDS = HOUR

_WEEK = re.compile(r"(\d{4})-W(\d\d)")


class Releases(Protocol):
    """What publication needs of the store."""

    async def fleet_hits(self) -> Mapping[str, int]:
        """The cells of all nodes, summed."""

    async def releases(self) -> Mapping[str, str]:
        """What was published, by its name."""

    async def add_release(self, name: str, text: str, seen: int) -> str | None:
        """Write down what is published; what stands there now, or None if others came since."""


@dataclass(frozen=True)
class Request:
    """A report that is asked for.

    Attributes:
        first: The first ISO week; None: that of the last period, or with `last` three weeks before that.
        last: The last one; None: that of the last period, or with `first` the last one that is over.
        lists: Whose hits; none: of every list of which hits are kept.
        threshold: Figures under it are left out; None: 10, or as it was when this was released.
        bin: Figures are rounded up to a multiple of it.
        shadow: Hits of lists in shadow mode.
        preview: Do not write it down.
        epsilon: Budget of the noise; None for no noise.
        noise: Adds noise to each of several cells.
    """

    first: Week | None
    last: Week | None
    lists: tuple[str, ...] = ()
    threshold: int | None = None
    bin: int = 8
    shadow: bool = False
    preview: bool = False
    epsilon: float | None = None
    noise: Callable[[Sequence[int]], list[int]] | None = None


DEFAULT_THRESHOLD = 10
PERIOD = 4  # weeks


def parse_week(text: str) -> Week:
    """An ISO week from `2026-W45`, or the one that holds a date such as `2026-11-04`.

    Raises:
        ValueError: It is neither.
    """
    found = _WEEK.fullmatch(text)
    day = date.fromisocalendar(int(found[1]), int(found[2]), 1) if found else date.fromisoformat(text)
    return day.isocalendar()[:2]


def last_period(newest: Week) -> tuple[Week, Week]:
    """First and last week of the last period that ends with `newest` or before."""
    year, week = newest
    first = min((week - 1) // PERIOD * PERIOD, 48) + 1
    end = first + PERIOD - 1 if first < 49 else date(year, 12, 28).isocalendar().week  # 28 December is in the last one
    if week == end:
        return (year, first), (year, end)
    return last_period((monday((year, first)) - timedelta(weeks=1)).isocalendar()[:2])


async def release(
    store: Releases, request: Request, *, timezone: str, zone: tzinfo, now: float, keep_weeks: int
) -> Report:
    """The report that was asked for, with counts; released now, or as it was released.

    Raises:
        ReleaseRefused: It must not be published; the message says why.
        StoreError: The store is away.
    """
    first, last = _weeks(request, zone, now, keep_weeks)
    while True:
        released = await store.releases()
        cells = [(Cell.parse(field), count) for field, count in (await store.fleet_hits()).items() if _readable(field)]
        weeks = f"{'~' if request.shadow else ''}{week_name(first)}..{week_name(last)}|"
        lists = request.lists or _lists(weeks, released, cells, request.shadow)
        if not lists:
            raise ReleaseRefused("no hits were counted yet")
        name = weeks + ",".join(sorted(set(lists)))
        earlier = _earlier(request, name, released)
        if earlier is not None:
            return earlier
        hits = counted(cells, lists, week_name(first), week_name(last), request.shadow)
        report = publish(
            hits,
            request.threshold or DEFAULT_THRESHOLD,
            request.bin,
            request.noise,
            lists=tuple(sorted(set(lists))),
            first=week_name(first),
            last=week_name(last),
            timezones=(timezone,),
            shadow=request.shadow,
            epsilon=request.epsilon,
            clock_changes=_clock_changes(first, last, zone),
            preview=request.preview,
        )
        if request.preview:
            return report
        written = await store.add_release(name, report.as_json(), len(released))
        if written is not None:
            return Report.from_json(written)


def _lists(weeks: str, released: Mapping[str, str], cells: Sequence[tuple[Cell, int]], shadow: bool) -> tuple[str, ...]:
    """All lists of which hits are kept; for weeks of which one report is out, those of that report."""
    out = [name.removeprefix(weeks) for name in released if name.startswith(weeks)]
    return (
        tuple(out[0].split(",")) if len(out) == 1 else tuple(sorted({c.list for c, _ in cells if c.shadow is shadow}))
    )


def _weeks(request: Request, zone: tzinfo, now: float, keep_weeks: int) -> tuple[Week, Week]:
    settled = now - SETTLE_SECONDS
    newest = (datetime.fromtimestamp(settled, zone).date() - timedelta(weeks=1)).isocalendar()[:2]
    if request.first is None and request.last is None:
        first, last = last_period(newest)
    else:
        last = request.last or newest
        first = request.first or (monday(last) - timedelta(weeks=PERIOD - 1)).isocalendar()[:2]
    if first > last:
        raise ReleaseRefused("the first week is after the last one")
    if not is_over(Slot(*last, 7, 23), settled, zone):
        raise ReleaseRefused(f"week {week_name(last)} can be released one hour after its end, and no sooner")
    oldest = oldest_kept(now, zone, keep_weeks)
    if first < oldest:
        raise ReleaseRefused(f"cells are kept from week {week_name(oldest)} on (hits.keep_weeks); begin there")
    return first, last


def _earlier(request: Request, name: str, released: Mapping[str, str]) -> Report | None:
    """The same report if it was released; raises ReleaseRefused where another one is in the way."""
    if name in released:
        report = Report.from_json(released[name])
        asked = (request.threshold or report.threshold, request.epsilon)
        if not request.preview and asked != (report.threshold, report.epsilon):
            raise ReleaseRefused(
                f"these weeks were released with threshold {report.threshold} and "
                f"{'no noise' if report.epsilon is None else f'epsilon {report.epsilon:g}'}; that cannot be changed"
            )
        return replace(report, preview=request.preview)
    if not request.preview:
        mine = _span(name)
        for other in released:
            theirs = _span(other)
            if mine[0] == theirs[0] and mine[1] <= theirs[2] and theirs[1] <= mine[2] and mine[3] & theirs[3]:
                raise ReleaseRefused(
                    f"weeks {theirs[1]} to {theirs[2]} of {', '.join(sorted(theirs[3]))} were released together; a "
                    "second report that overlaps would tell the difference. Ask for the same weeks and lists, for "
                    "others, or for a --preview"
                )
    return None


def _span(name: str) -> tuple[bool, str, str, frozenset[str]]:
    weeks, _, lists = name.partition("|")
    first, _, last = weeks.removeprefix("~").partition("..")
    return weeks.startswith("~"), first, last, frozenset(lists.split(","))


def _readable(field: str) -> bool:
    try:
        Cell.parse(field)
    except ValueError:
        return False
    return True


def _clock_changes(first: Week, last: Week, zone: tzinfo) -> bool:
    """Whether the zone's offset changes within these weeks; looked at once a day."""
    start = datetime.combine(monday(first), time(), zone).timestamp()
    end = datetime.combine(monday(last) + timedelta(weeks=1), time(), zone).timestamp()
    days: Sequence[float] = [start + DAY * day for day in range(int((end - start) // DAY) + 1)] + [end]
    return len({datetime.fromtimestamp(moment, zone).utcoffset() for moment in days}) > 1
