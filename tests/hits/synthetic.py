"""Synthetic hits of the shape that was published of internet providers' blocking systems, and a store that holds them.

Over the day: least in the early morning, up between 7 and 10, level from 10 to 21, most in the evening. Over the week:
most on Sunday, down to Friday, up on Saturday.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

from blocker.hits.calendar import Cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Relative weight of each hour and, Monday first, of each weekday.
HOURS = (26, 18, 12, 8, 6, 6, 8, 14, 24, 34, *[40] * 11, 50, 54, 44)
WEEKDAYS = (116, 110, 105, 100, 92, 104, 122)


def hits(
    total: int, weeks: Iterable[tuple[int, int]], *, seed: int, name: str = "police", shadow: bool = False
) -> Counter[Cell]:
    """So many hits, each drawn by itself."""
    drawn = random.Random(seed)  # noqa: S311
    places = [(day, hour) for day in range(7) for hour in range(24)]
    weights = [WEEKDAYS[day] * HOURS[hour] for day, hour in places]
    known = list(weeks)
    cells: Counter[Cell] = Counter()
    for day, hour in drawn.choices(places, weights, k=total):
        cells[Cell(name, *drawn.choice(known), day + 1, hour, shadow)] += 1
    return cells


class HeldHits:
    """Cells of several nodes and what was released of them, as `Store` promises it."""

    def __init__(self, *nodes: Counter[Cell]) -> None:
        self.nodes = list(nodes)
        self.released: dict[str, str] = {}

    async def fleet_hits(self) -> Mapping[str, int]:
        """All cells, summed, and one that a later version wrote."""
        total: Counter[Cell] = Counter()
        for node in self.nodes:
            total.update(node)
        return {cell.field: count for cell, count in total.items()} | {"of another form": 7}

    async def releases(self) -> Mapping[str, str]:
        """All."""
        return dict(self.released)

    async def add_release(self, name: str, text: str, seen: int) -> str | None:
        """Once."""
        if name not in self.released and seen != len(self.released):
            return None
        return self.released.setdefault(name, text)
