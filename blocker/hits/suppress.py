"""Which figures of a table are left out, so that none of these can be computed from the others.

The table is the hours of the week, weekdays as rows and hours as columns, with the sums of its rows, of its columns and
of everything as a last column and row. Each line then has one equation: its entries add up to its sum. Nobody may learn
an entry under the threshold, so it is left out (*primary* suppression); but a single gap in a line is filled by
subtraction, and gaps in several lines by solving their equations, so others are left out for its sake (*secondary*
suppression).

What is promised: for every gap there are two tables without a negative entry that agree in everything that is shown,
obey all sums, and differ in that gap by the threshold or more. So neither linear algebra nor bounds tell it closer.

How. Change an entry, and the equations of its row and column want another entry changed in each, and so on until the
changes close a ring. Signs alternate along it (the last row and column count negatively, being the other side of their
equations), and nothing may go below 0. How far an entry can be moved by such rings of gaps is a maximum flow. Where
that is less than the threshold, the cheapest ring that bears it (Dijkstra) is left out whole; gaps that are there
already cost nothing. This is the network view of two-way tables: Cox, "Network models for complementary cell
suppression", JASA 90 (1995).

Not promised: that what is left out is the least possible (that is NP-hard), nor anything against somebody who adds up
several releases of the same hits; `publication` says why there is only one.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING

from blocker.errors import ReleaseRefused

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

Entry = tuple[int, int]
# Rows of whole numbers; the last of each row is its sum, and the last row the sums of the columns.
Table = list[list[int]]

# What it costs to leave an entry out: a sum is a bar of a chart. The sum of all never is, since shares are of it.
_GAP_COST = 0.001
_CELL_COST = 1.0
_SUM_COST = 100.0

_TOO_FEW = "there are too few hits to hide the small figures; take more weeks or lists together"


def with_sums(cells: Sequence[Sequence[int]]) -> Table:
    """The table of these cells with its sums."""
    rows = [[*row, sum(row)] for row in cells]
    return [*rows, [sum(column) for column in zip(*rows, strict=True)]]


def suppressed(table: Table, threshold: int, gaps: Collection[Entry] = ()) -> frozenset[Entry]:
    """The entries to leave out.

    Args:
        table: With its sums. Numbers in gaps given are taken as 0.
        threshold: Entries under it are left out; at least 1.
        gaps: Entries that are left out already, and safe.

    Returns:
        These gaps and all others.

    Raises:
        ReleaseRefused: So few are left that no entry under the threshold could be hidden among them.

    Cost: about 1 ms for each entry under the threshold in 7 by 24 cells.
    """
    found = set(gaps)
    unknown = frozenset(gaps)
    primary = [entry for entry in _entries(table) if entry not in unknown and table[entry[0]][entry[1]] < threshold]
    found.update(primary)
    bottom, right = len(table) - 1, len(table[0]) - 1
    if (bottom, right) in found:
        raise ReleaseRefused(f"there are fewer than {threshold} hits in all; take more weeks or lists together")
    for entry in sorted(primary, key=lambda entry: -table[entry[0]][entry[1]]):
        if _room(table, threshold, found, unknown, entry) < threshold:
            found.update(_ring(table, threshold, found, unknown, entry))
    if len(found) == len(table) * len(table[0]) - 1:
        raise ReleaseRefused(_TOO_FEW)
    return frozenset(found)


def _entries(table: Table) -> Iterator[Entry]:
    return ((row, column) for row in range(len(table)) for column in range(len(table[0])))


def _sign(table: Table, entry: Entry) -> int:
    """-1 for the sums of rows and of columns: with these signs each line of the table adds up to nothing."""
    return -1 if (entry[0] == len(table) - 1) != (entry[1] == len(table[0]) - 1) else 1


def _cost(table: Table, entry: Entry, found: Collection[Entry]) -> float:
    if entry in found:
        return _GAP_COST
    row, column = entry
    is_sum = row == len(table) - 1 or column == len(table[0]) - 1
    return (_SUM_COST if is_sum else _CELL_COST) * (1 + table[row][column] / max(1, table[-1][-1]))


def _room(table: Table, enough: int, found: Collection[Entry], unknown: Collection[Entry], start: Entry) -> int:
    """How far apart two tables can be in `start` that agree in all that is no gap; not looked at beyond `enough`."""
    room = 0
    for direction in (1, -1):
        values = {entry: 0 if entry in unknown else table[entry[0]][entry[1]] for entry in found}
        left = enough - room if direction > 0 else min(enough - room, values[start])
        while left > 0 and (ring := _shortest(table, values, start, direction)):
            amount = min([left, *(values[entry] for entry, change in ring if change < 0)])
            for entry, change in ring:
                values[entry] += change * amount
            left, room = left - amount, room + amount
    return room


def _shortest(table: Table, values: dict[Entry, int], start: Entry, direction: int) -> list[tuple[Entry, int]] | None:
    """The fewest changes by one, up or down, of gaps that let `start` be changed by one in that direction."""
    rows = len(table)
    goal = rows + start[1]
    opposite = -direction * _sign(table, start)
    lines: dict[int, list[Entry]] = {}
    for entry in values:
        if entry != start:
            lines.setdefault(entry[0], []).append(entry)
            lines.setdefault(rows + entry[1], []).append(entry)
    before: dict[int, tuple[int, Entry, int]] = {}
    queue, seen = deque([start[0]]), {start[0]}
    while queue:
        node = queue.popleft()
        if node == goal:
            ring = []
            while node != start[0]:
                node, entry, change = before[node]
                ring.append((entry, change))
            return ring
        for entry in lines.get(node, ()):
            change = (opposite if node < rows else -opposite) * _sign(table, entry)
            reached = rows + entry[1] if node < rows else entry[0]
            if reached not in seen and (change > 0 or values[entry] > 0):
                seen.add(reached)
                before[reached] = (node, entry, change)
                queue.append(reached)
    return None


def _ring(
    table: Table, threshold: int, found: Collection[Entry], unknown: Collection[Entry], start: Entry
) -> list[Entry]:
    """The cheapest ring through `start` in which `start` can grow by the threshold and no entry falls below 0.

    Lines are the nodes of a graph and entries its edges: from the row of `start` over changes opposite to that of
    `start` and like it in turn, to the column of `start`.
    """
    rows, columns = len(table), len(table[0])
    goal = rows + start[1]
    change = _sign(table, start)
    best = {start[0]: 0.0}
    before: dict[int, tuple[int, Entry]] = {}
    queue = [(0.0, start[0])]
    while queue:
        cost, node = heapq.heappop(queue)
        if cost > best[node]:
            continue
        if node == goal:
            return _walked(before, goal, start)
        at_row = node < rows
        wanted = -change if at_row else change
        for other in range(columns if at_row else rows):
            entry = (node, other) if at_row else (other, node - rows)
            value = 0 if entry in unknown else table[entry[0]][entry[1]]
            if entry in (start, (rows - 1, columns - 1)) or (wanted * _sign(table, entry) < 0 and value < threshold):
                continue
            reached = rows + other if at_row else other
            total = cost + _cost(table, entry, found)
            if total < best.get(reached, float("inf")):
                best[reached] = total
                before[reached] = (node, entry)
                heapq.heappush(queue, (total, reached))
    raise ReleaseRefused(_TOO_FEW)


def _walked(before: dict[int, tuple[int, Entry]], goal: int, start: Entry) -> list[Entry]:
    ring, node = [start], goal
    while node != start[0]:
        node, entry = before[node]
        ring.append(entry)
    return ring
