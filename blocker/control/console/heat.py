"""Released hits as a table of hours and weekdays with a few shades. Only what `/metrics` shows too is ever here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from blocker.hits.calendar import HOURS_A_WEEK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blocker.hits.release import Series

DAY_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
#: Shades beside the one for no hits.
SHADES = 5
_HOURS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """One list.

    Attributes:
        list: Its name.
        shadow: Whether it only would have blocked.
        total: Hits of all hours.
        busiest: The hour with most of them, in words.
        rows: For each hour of the day and each weekday, Monday first: hits and shade.
    """

    list: str
    shadow: bool
    total: int
    busiest: str
    rows: Sequence[Sequence[tuple[int, int]]]


def heats(released: Mapping[Series, tuple[int, ...]]) -> list[Heat]:
    """The tables of lists with hits, by name."""
    return [_heat(series, hits) for series, hits in sorted(released.items()) if any(hits)]


def quiet_lists(released: Mapping[Series, tuple[int, ...]]) -> list[str]:
    """Lists without any, by name."""
    loud = {series.list for series, hits in released.items() if any(hits)}
    return sorted({series.list for series in released} - loud)


def _heat(series: Series, hits: tuple[int, ...]) -> Heat:
    most = max(hits)
    days = range(HOURS_A_WEEK // _HOURS)
    at = hits.index(most)
    return Heat(
        list=series.list,
        shadow=series.shadow,
        total=sum(hits),
        busiest=f"{DAY_NAMES[at // _HOURS]} {at % _HOURS:02d}:00",
        rows=[
            [(hits[day * _HOURS + hour], shade(hits[day * _HOURS + hour], most)) for day in days]
            for hour in range(_HOURS)
        ],
    )


def shade(hits: int, most: int) -> int:
    """0 for none, else 1 to SHADES in equal steps up to the busiest hour."""
    return 0 if hits == 0 else -(-hits * SHADES // most)
