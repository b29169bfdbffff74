"""Which cell a moment belongs to, and from when to when: ISO week, weekday and hour of a zone's wall clock.

Everything here is pure; the moment is a parameter (Unix seconds) and so is the zone.

A **slot** is one hour by its name on the wall clock: ISO year, ISO week, ISO weekday (1 Monday to 7 Sunday), hour (0 to
23). A **cell** is a slot of one list. A **window** is a stretch of real time, at most an hour long, during which the
wall clock shows one slot and the zone's offset stays the same. Windows follow each other without gap or overlap.

When clocks go back, an hour of the wall clock happens twice: its two windows bear the same slot and so count into
the same cell, which is over only after the second (`is_over`). Where clocks change by half an hour (Lord Howe), off
the hour (St. John's until 2011) or by two hours (Troll), windows are shorter, or other slots lie between the two;
nothing here assumes otherwise. Zones with offsets of 30 or 45 minutes have hours that begin when *their* clock says so.
"""

from __future__ import annotations

import math
import re
from datetime import date, datetime, timedelta, tzinfo
from typing import NamedTuple

HOUR = 3600  # seconds
DAY = 24 * HOUR
HOURS_A_WEEK = 168
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

# The farthest any zone ever set its clocks back at once: a whole day, in Alaska in 1867 and in Samoa in 1892.
LONGEST_STEP_BACK = DAY

_EPOCH = date(1970, 1, 1).toordinal()
_FIELD = re.compile(r"(~?)([^|~][^|]*)\|([0-9]{4})-W([0-9]{2})\|([1-7])\|([01]?[0-9]|2[0-3])")

_FOLDED = re.compile(r"(~?)([^|~][^|]*)\|([1-7])\|([01]?[0-9]|2[0-3])")


class Slot(NamedTuple):
    """One hour by its name on the wall clock; slots sort as the wall clock runs."""

    iso_year: int
    iso_week: int
    weekday: int
    hour: int

    @property
    def place(self) -> int:
        """Place within the week, 0 (Monday 00) to 167 (Sunday 23)."""
        return (self.weekday - 1) * 24 + self.hour


class Cell(NamedTuple):
    """Where one hit is counted; all that is ever kept of it.

    Attributes:
        list: Name of the list that blocked, or that would have blocked.
        iso_year: Year of the ISO week, which at the turn of a year is not always that of the date.
        iso_week: 1 to 53.
        weekday: 1 Monday to 7 Sunday.
        hour: 0 to 23 on the wall clock.
        shadow: The list was in shadow mode: it would have blocked.
    """

    list: str
    iso_year: int
    iso_week: int
    weekday: int
    hour: int
    shadow: bool = False

    @property
    def slot(self) -> Slot:
        """The cell's hour."""
        return Slot(self.iso_year, self.iso_week, self.weekday, self.hour)

    @property
    def field(self) -> str:
        """The cell as the store writes it: `list|2026-W48|7|23`, a shadow row as `~list|2026-W48|7|23`."""
        mark = "~" if self.shadow else ""
        return f"{mark}{self.list}|{self.iso_year:04d}-W{self.iso_week:02d}|{self.weekday}|{self.hour}"

    @property
    def without_week(self) -> str:
        """What stays of the cell when its week is forgotten: `list|7|23`, or `~list|7|23`."""
        return f"{'~' if self.shadow else ''}{self.list}|{self.weekday}|{self.hour}"

    @classmethod
    def parse(cls, field: str) -> Cell:
        """Read what `field` wrote.

        Raises:
            ValueError: It is no such text, or names a week that its year does not have.
        """
        found = _FIELD.fullmatch(field)
        if found is None:
            raise ValueError("no hit cell: expected list|YYYY-Www|weekday|hour")
        mark, name, year, week, weekday, hour = found.groups()
        date.fromisocalendar(int(year), int(week), int(weekday))
        return cls(name, int(year), int(week), int(weekday), int(hour), mark == "~")


def parse_folded(field: str) -> tuple[str, bool, int]:
    """Read what `Cell.without_week` wrote: list, whether it is in shadow mode, place within the week.

    Raises:
        ValueError: It is no such text.
    """
    found = _FOLDED.fullmatch(field)
    if found is None:
        raise ValueError("no folded hit cell: expected list|weekday|hour")
    mark, name, weekday, hour = found.groups()
    return name, mark == "~", (int(weekday) - 1) * 24 + int(hour)


class Window(NamedTuple):
    """A stretch of real time with one slot on the wall clock: `start` ≤ t < `end`, both whole Unix seconds."""

    start: float
    end: float
    iso_year: int
    iso_week: int
    weekday: int
    hour: int

    @property
    def slot(self) -> Slot:
        """The hour that the wall clock shows."""
        return Slot(self.iso_year, self.iso_week, self.weekday, self.hour)

    def cell(self, list_name: str, *, shadow: bool = False) -> Cell:
        """The cell in which a hit of this list counts now."""
        return Cell(list_name, *self.slot, shadow)


def window_of(now: float, zone: tzinfo) -> Window:
    """The window that holds `now`.

    Cost: about 10 µs; some 40 µs in the few hours of a year in which the zone's offset changes. Not promised: a zone
    that changes its offset and takes it back within one hour (none does).

    Args:
        now: Unix seconds, in the years 1 to 9999.
        zone: Whose wall clock.
    """
    second = math.floor(now)  # offsets are whole seconds, so a window's borders are too
    offset = _offset(second, zone)
    start = second - (second + offset) % HOUR
    end = start + HOUR
    if _offset(start, zone) != offset:
        start = _first_with(offset, start, second, zone)
    if _offset(end - 1, zone) != offset:
        end = _last_with(offset, second, end - 1, zone) + 1
    days, seconds = divmod(second + offset, DAY)
    iso_year, iso_week, weekday = date.fromordinal(_EPOCH + days).isocalendar()
    return Window(float(start), float(end), iso_year, iso_week, weekday, seconds // HOUR)


def windows_from(now: float, until: float, zone: tzinfo) -> list[Window]:
    """The windows from the one that holds `now` to the one that holds `until`, in order."""
    windows = [window_of(now, zone)]
    while windows[-1].end <= until:
        windows.append(window_of(windows[-1].end, zone))
    return windows


def is_over(slot: Slot, now: float, zone: tzinfo) -> bool:
    """Whether the wall clock has passed `slot` and will not show it again.

    Cost: about 0.2 ms; for many slots at one moment use `still_to_come` once.
    """
    current, to_come = still_to_come(now, zone)
    return slot < current and slot not in to_come


def still_to_come(now: float, zone: tzinfo) -> tuple[Slot, frozenset[Slot]]:
    """The slot shown now, and all slots shown from now on until no clock can go back behind now.

    A slot is over when it sorts before the first and is not among the others. What a government has not yet decided
    is not known: the zone data of this machine is all there is.
    """
    windows = windows_from(now, now + LONGEST_STEP_BACK, zone)
    return windows[0].slot, frozenset(window.slot for window in windows)


def _offset(second: int, zone: tzinfo) -> int:
    offset = datetime.fromtimestamp(second, zone).utcoffset()
    return 0 if offset is None else offset // timedelta(seconds=1)


def _first_with(offset: int, before: int, inside: int, zone: tzinfo) -> int:
    """First second of the stretch with `offset` that holds `inside`; at `before` the offset is another."""
    while inside - before > 1:
        middle = (before + inside) // 2
        if _offset(middle, zone) == offset:
            inside = middle
        else:
            before = middle
    return inside


def _last_with(offset: int, inside: int, after: int, zone: tzinfo) -> int:
    """Last second of the stretch with `offset` that holds `inside`; at `after` the offset is another."""
    while after - inside > 1:
        middle = (inside + after) // 2
        if _offset(middle, zone) == offset:
            inside = middle
        else:
            after = middle
    return inside
