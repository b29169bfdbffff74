"""The published figures: hits by hour of the day and weekday over some weeks, as shares or counts, and their file.

A report is a table of 7 weekdays and 24 hours with its sums. Gaps (`None`) are figures left out, see `suppress`.
Counts are rounded up to the bin, each entry by itself, so rows need not add up to the last digit. Shares are of all
requests, to a hundredth of a percent.

The file is JSON with `"format": "blocker-report/1"`; several of these are merged like this:

- Files with counts are added up, entry by entry; a gap in one file is a gap in the sum. Each count is rounded up in its
  file, so the sum is too high by at most the sum of the bins, less one for each file.
- If one of them has shares only, the others are turned into shares first, and the result is the mean of the shares,
  each file for as much as any other.
- Then the threshold is looked at again: the highest of the files', or a higher one that is asked for.

So a merged file is made of nothing but what its parts have published, and tells nothing about an ISP that the ISP's own
file does not.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from blocker.errors import FormatError, ReleaseRefused
from blocker.hits.release import rounded_up
from blocker.hits.suppress import Entry, suppressed, with_sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from blocker.hits.calendar import Cell

FORMAT = "blocker-report/1"
UNIT = "requests, not people"
NOTE = "The charts show search patterns, not exact findings: small figures are left out, the others rounded."
_SHARE_DIGITS = 4

Figures = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class Report:
    """Published figures.

    Attributes:
        lists: Whose hits.
        first: The first ISO week, as in `2026-W45`.
        last: The last one.
        timezones: Whose wall clocks; several in a merged report.
        table: 7 rows of 24 hours and their sum, then the sums of the hours and of all; None is a gap.
        counts: Whether these are counts; otherwise shares.
        threshold: Figures under it are left out.
        bin: Counts are rounded up to a multiple of it.
        shadow: The lists were in shadow mode: they would have blocked.
        epsilon: Differential privacy's budget for one request, if noise was added.
        clock_changes: Whether clocks were changed in these weeks, so that one hour came twice or not at all.
        parts: How many files it was merged from; 1 for none.
        preview: Not for publication: it is not written down that these figures are out.
    """

    lists: tuple[str, ...]
    first: str
    last: str
    timezones: tuple[str, ...]
    table: Figures
    counts: bool
    threshold: int
    bin: int
    shadow: bool = False
    epsilon: float | None = None
    clock_changes: bool = False
    parts: int = 1
    preview: bool = False

    @property
    def cells(self) -> Figures:
        """7 rows of 24 hours."""
        return tuple(row[:-1] for row in self.table[:-1])

    @property
    def weekdays(self) -> tuple[float | None, ...]:
        """The sums of Monday to Sunday."""
        return tuple(row[-1] for row in self.table[:-1])

    @property
    def hours(self) -> tuple[float | None, ...]:
        """The sums of the hours 0 to 23."""
        return self.table[-1][:-1]

    @property
    def total(self) -> float:
        """The sum of all, which is never a gap; 1 for shares."""
        total = self.table[-1][-1]
        return 0.0 if total is None else total

    @property
    def gaps(self) -> frozenset[Entry]:
        """What was left out."""
        return frozenset((r, c) for r, row in enumerate(self.table) for c, value in enumerate(row) if value is None)

    def as_shares(self) -> Report:
        """The same without counts."""
        if not self.counts:
            return self
        total = self.total
        shares = tuple(
            tuple(None if value is None else round(value / total, _SHARE_DIGITS) for value in row) for row in self.table
        )
        return replace(self, table=shares, counts=False)

    def as_json(self) -> str:
        """The file's text."""
        values = {"format": FORMAT, "unit": UNIT, "note": NOTE, **asdict(self)}
        table = values.pop("table")
        values["cells"] = [row[:-1] for row in table[:-1]]
        values["weekdays"] = [row[-1] for row in table[:-1]]
        values["hours"] = table[-1][:-1]
        values["total"] = table[-1][-1]
        return json.dumps(values, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read what `as_json` wrote.

        Raises:
            FormatError: It is no such file; the message repeats nothing of it.
        """
        try:
            return _File.model_validate_json(text).report()
        except ValidationError as error:
            places = sorted({".".join(map(str, fault["loc"][:1])) or "file" for fault in error.errors()})
            raise FormatError(
                f"no report of `blocker report --format json`: {', '.join(places)} not as expected"
            ) from None


_Figure = Field(ge=0, le=2**53, allow_inf_nan=False)


class _File(BaseModel):
    """What stands in a report's file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: str = Field(pattern=f"^{FORMAT}$")
    lists: tuple[str, ...] = Field(min_length=1, max_length=4096)
    first: str = Field(pattern=r"^\d{4}-W\d\d$")
    last: str = Field(pattern=r"^\d{4}-W\d\d$")
    timezones: tuple[str, ...] = Field(min_length=1, max_length=1024)
    cells: list[list[float | None]]
    weekdays: list[float | None]
    hours: list[float | None]
    total: float = Field(gt=0, le=2**53, allow_inf_nan=False)
    counts: bool
    threshold: int = Field(ge=1, le=10**9)
    bin: int = Field(ge=1, le=1000)
    shadow: bool = False
    epsilon: float | None = Field(None, gt=0)
    clock_changes: bool = False
    parts: int = Field(1, ge=1)
    preview: bool = False

    @model_validator(mode="after")
    def _right_size(self) -> _File:
        rows = [*self.cells, self.hours]
        if len(self.cells) != 7 or len(self.weekdays) != 7 or any(len(row) != 24 for row in rows):
            raise ValueError("7 rows of 24 hours")
        for value in [value for row in [*rows, self.weekdays] for value in row if value is not None]:
            if not 0 <= value <= self.total * (1 if not self.counts else self.bin):
                raise ValueError("a figure above the total")
            if self.counts and value != int(value):
                raise ValueError("counts are whole")
        return self

    def report(self) -> Report:
        values = self.model_dump(exclude={"format", "cells", "weekdays", "hours", "total"})
        rows = [(*row, day) for row, day in zip(self.cells, self.weekdays, strict=True)]
        return Report(table=(*rows, (*self.hours, self.total)), **values)


def week_name(week: tuple[int, int]) -> str:
    """An ISO week as it is written: `2026-W45`."""
    return f"{week[0]:04d}-W{week[1]:02d}"


def counted(
    cells: Iterable[tuple[Cell, int]], lists: Iterable[str], first: str, last: str, shadow: bool
) -> list[list[int]]:
    """The hits of these lists and weeks by weekday and hour, as they were counted: nothing to be published."""
    wanted, hits = frozenset(lists), Counter[tuple[int, int]]()
    for cell, count in cells:
        if cell.list in wanted and cell.shadow is shadow and first <= week_name((cell.iso_year, cell.iso_week)) <= last:
            hits[cell.weekday - 1, cell.hour] += count
    return [[hits[day, hour] for hour in range(24)] for day in range(7)]


def publish(
    hits: Sequence[Sequence[int]],
    threshold: int,
    bin: int,  # noqa: A002 - the setting's own name
    noise: Callable[[Sequence[int]], list[int]] | None = None,
    **about: Any,  # noqa: ANN401 - the other fields of a Report
) -> Report:
    """A report with counts from what was counted.

    Args:
        hits: See `counted`.
        threshold: See `Report`.
        bin: See `Report`.
        noise: Adds noise to each of several cells; sums are then those of the noisy cells, so that they cost no budget.
        about: The other fields of the report.

    Raises:
        ReleaseRefused: There are too few hits.
    """
    if noise is not None:
        hits = [[max(0, count) for count in noise(row)] for row in hits]
    table = with_sums(hits)
    gaps = suppressed(table, threshold)
    figures = tuple(
        tuple(None if (r, c) in gaps else rounded_up(value, bin) for c, value in enumerate(row))
        for r, row in enumerate(table)
    )
    return Report(table=figures, counts=True, threshold=threshold, bin=bin, **about)


def merge(reports: Sequence[Report], threshold: int = 1) -> Report:
    """One report of several; see above.

    Raises:
        ReleaseRefused: They do not fit together, or one is there twice.
    """
    first = reports[0]
    if len(set(reports)) != len(reports):
        raise ReleaseRefused("one file is there twice; its hits would count twice")
    if any((one.first, one.last, one.shadow) != (first.first, first.last, first.shadow) for one in reports):
        raise ReleaseRefused("the files are of different weeks, or some of shadow lists and some not")
    counts = all(one.counts for one in reports)
    parts = reports if counts else [one.as_shares() for one in reports]
    threshold = max(threshold, *(one.threshold for one in reports))
    gaps = frozenset().union(*(one.gaps for one in parts))
    scale = 1 if counts else len(parts)
    sums = [
        [0 if (r, c) in gaps else sum(one.table[r][c] or 0 for one in parts) / scale for c in range(25)]
        for r in range(8)
    ]
    if counts:
        gaps = suppressed([[int(value) for value in row] for row in sums], threshold, gaps)
    table = tuple(
        tuple(
            None if (r, c) in gaps else int(value) if counts else round(value, _SHARE_DIGITS)
            for c, value in enumerate(row)
        )
        for r, row in enumerate(sums)
    )
    budgets = [one.epsilon for one in reports]
    return Report(
        lists=tuple(sorted({name for one in reports for name in one.lists})),
        first=first.first,
        last=first.last,
        timezones=tuple(sorted({zone for one in reports for zone in one.timezones})),
        table=table,
        counts=counts,
        threshold=threshold,
        bin=max(one.bin for one in reports),
        shadow=first.shadow,
        epsilon=max((budget for budget in budgets if budget is not None), default=None) if all(budgets) else None,
        clock_changes=any(one.clock_changes for one in reports),
        parts=sum(one.parts for one in reports),
        preview=any(one.preview for one in reports),
    )
