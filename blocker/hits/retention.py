"""Which cells are too old to be kept, and what stays of them: the week of each is forgotten.

A cell (list, week, weekday, hour) whose week is older than `keep_weeks` leaves the store. Its released figure, rounded
up to the bin as `/metrics` has shown it, is added to a sum for (list, weekday, hour) that knows no week, in the same
atomic step: so counters that survive restarts go on where they were, and nothing can be said of a single old week.

A node folds its own cells; one with the ingest role those of all nodes, since some of them may be gone for good. Both
may happen at once.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import structlog

from blocker.errors import StoreError
from blocker.hits.calendar import Cell
from blocker.hits.release import rounded_up
from blocker.log import describe

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from datetime import tzinfo

# Between two looks for old cells, in seconds: a week ends once in a week.
FOLD_SECONDS = 6 * 3600.0

log = structlog.get_logger(__name__)

Week = tuple[int, int]


class OldHits(Protocol):
    """What retention needs of the store."""

    async def hit_nodes(self) -> list[str]:
        """The nodes that ever flushed hits."""

    def scan_hits(self, node: str) -> AsyncIterator[dict[str, int]]:
        """A node's cells, some at a time."""

    async def fold_hits(self, node: str, cells: Sequence[tuple[str, int, str, int]]) -> int:
        """Replace cells by a figure for all weeks together."""


def oldest_kept(now: float, zone: tzinfo, keep_weeks: int) -> Week:
    """The first ISO week (year, week) of which cells are kept; the present one is the last of `keep_weeks`."""
    day = datetime.fromtimestamp(now, zone).date() - timedelta(weeks=keep_weeks - 1)
    return day.isocalendar()[:2]


def monday(week: Week) -> date:
    """The first day of an ISO week."""
    return date.fromisocalendar(*week, 1)


async def fold(store: OldHits, nodes: Sequence[str], before: Week, bin: int) -> int:  # noqa: A002 - the setting's own name
    """Fold the cells of weeks before `before`; a cell of an unknown form stays.

    Returns:
        How many cells left.

    Raises:
        StoreError: The store is away; what is folded is folded, and the rest is for the next time.
    """
    folded = 0
    for node in nodes:
        async for cells in store.scan_hits(node):
            old = []
            for field, count in cells.items():
                try:
                    cell = Cell.parse(field)
                except ValueError:
                    continue
                if (cell.iso_year, cell.iso_week) < before:
                    old.append((field, count, cell.without_week, rounded_up(count, bin)))
            folded += await store.fold_hits(node, old)
    return folded


async def keep_folding(
    store: Callable[[], Awaitable[OldHits]],
    node: str | None,
    *,
    keep_weeks: int,
    bin: int,  # noqa: A002 - the setting's own name
    zone: tzinfo,
    clock: Callable[[], float],
    pause: Callable[[float], Awaitable[None]],
    stopping: asyncio.Event,
) -> None:
    """Fold old cells at the start and again and again, until `stopping`.

    Args:
        store: Opens the store.
        node: Whose cells; None for those of all nodes.
        keep_weeks: How many weeks are kept.
        bin: What figures are rounded up to.
        zone: Whose wall clock.
        clock: Unix seconds now.
        pause: Waits so many seconds, or until the stop.
        stopping: When to end.
    """
    while not stopping.is_set():
        try:
            opened = await store()
            nodes = await opened.hit_nodes() if node is None else [node]
            folded = await fold(opened, nodes, oldest_kept(clock(), zone, keep_weeks), bin)
            if folded:
                log.info("old hit cells were folded", cells=folded)
        except StoreError as error:
            log.warning("old hit cells stay until the store is back", **describe(error))
        await pause(FOLD_SECONDS)
