"""What is left out cannot be computed from what is shown: by linear algebra, by bounds, and by trying all tables."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING

import pytest

from blocker.errors import ReleaseRefused
from blocker.hits.suppress import Entry, Table, suppressed, with_sums

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence


def entries(table: Table) -> list[Entry]:
    return list(product(range(len(table)), range(len(table[0]))))


def equations(table: Table) -> Iterator[list[tuple[Entry, int]]]:
    """Each line: its entries less its sum are nothing."""
    rows, columns = len(table), len(table[0])
    for row in range(rows):
        yield [((row, column), -1 if column == columns - 1 else 1) for column in range(columns)]
    for column in range(columns):
        yield [((row, column), -1 if row == rows - 1 else 1) for row in range(rows)]


def computable(table: Table, gaps: Collection[Entry]) -> set[Entry]:
    """The gaps that have one solution: those that alone stand in a row of the equations' reduced echelon form."""
    order = sorted(gaps)
    system = []
    for line in equations(table):
        known = -sum(sign * table[r][c] for (r, c), sign in line if (r, c) not in gaps)
        signs = dict(line)
        system.append([Fraction(signs.get(gap, 0)) for gap in order] + [Fraction(known)])
    rank = 0
    for place in range(len(order)):
        pivot = next((row for row in range(rank, len(system)) if system[row][place]), None)
        if pivot is None:
            continue
        system[rank], system[pivot] = system[pivot], system[rank]
        system[rank] = [value / system[rank][place] for value in system[rank]]
        for row in range(len(system)):
            if row != rank and system[row][place]:
                factor = system[row][place]
                system[row] = [a - factor * b for a, b in zip(system[row], system[rank], strict=True)]
        rank += 1
    alone = [[place for place in range(len(order)) if row[place]] for row in system]
    return {order[places[0]] for places in alone if len(places) == 1}


def consistent(table: Table, gaps: Collection[Entry]) -> Iterator[Sequence[Sequence[int]]]:
    """All tables of cells without a negative one that show the same; the total is never a gap."""
    rows, columns = len(table) - 1, len(table[0]) - 1
    total = table[-1][-1]

    def fill(place: int, cells: list[list[int]]) -> Iterator[list[list[int]]]:
        if place == rows * columns:
            if all(with_sums(cells)[r][c] == table[r][c] for r, c in entries(table) if (r, c) not in gaps):
                yield [row[:] for row in cells]
            return
        row, column = divmod(place, columns)
        limit = total - sum(map(sum, cells))
        values = range(limit + 1) if (row, column) in gaps else [table[row][column]]
        for value in values:
            cells[row][column] = value
            if (row, columns) in gaps or sum(cells[row]) <= table[row][columns]:
                yield from fill(place + 1, cells)
        cells[row][column] = 0

    yield from fill(0, [[0] * columns for _ in range(rows)])


def random_table(drawn: random.Random, rows: int, columns: int, most: int) -> Table:
    return with_sums([[drawn.choice((0, 1, drawn.randrange(most))) for _ in range(columns)] for _ in range(rows)])


def test_nothing_is_left_out_when_nothing_is_small() -> None:
    assert suppressed(with_sums([[10, 11], [12, 13]]), 10) == frozenset()


def test_one_small_figure_takes_three_others_with_it() -> None:
    table = with_sums([[3, 20, 30], [40, 50, 60]])
    gaps = suppressed(table, 10)
    assert gaps == {(0, 0), (0, 1), (1, 0), (1, 1)}, "the cheapest ring: the smallest figures, and no sum"
    assert computable(table, {(0, 0)}) == {(0, 0)}, "alone it would have been known by subtraction"


def test_gaps_two_in_each_line_are_not_enough_where_rings_are_joined_by_one() -> None:
    # Two rings and a bridge between them: every line has two gaps or more, and the bridge is known all the same.
    table = with_sums([[20] * 6 for _ in range(6)])
    rings = {(0, 0), (0, 1), (1, 0), (1, 1), (2, 2), (2, 3), (3, 2), (3, 3), (0, 2)}
    assert computable(table, rings) == {(0, 2)}
    table[0][2] = 2
    small = with_sums([row[:-1] for row in table[:-1]])
    assert not computable(small, suppressed(small, 10))


def test_a_figure_that_two_zeros_would_give_away_is_not_hidden_among_them() -> None:
    # With gaps in all four corners the first row's sum of 1 would tell that both are 0 or 1.
    table = with_sums([[0, 1, 50, 50], [0, 30, 50, 50], [40, 40, 50, 50]])
    gaps = suppressed(table, 10)
    values = [cells[0][1] for cells in consistent_sample(table, gaps)]
    assert max(values) - min(values) >= 10


def consistent_sample(table: Table, gaps: Collection[Entry]) -> list[Sequence[Sequence[int]]]:
    """Tables reached from the true one by rings of gaps around which the figures are moved up or down."""
    found: list[Sequence[Sequence[int]]] = [[row[:-1] for row in table[:-1]]]
    inner = [gap for gap in gaps if gap[0] < len(table) - 1 and gap[1] < len(table[0]) - 1]
    for (a, b), (c, d) in product(inner, inner):
        if a != c and b != d and (a, d) in gaps and (c, b) in gaps:
            moved = [row[:-1] for row in table[:-1]]
            step = min(moved[a][d], moved[c][b])
            moved[a][b] += step
            moved[c][d] += step
            moved[a][d] -= step
            moved[c][b] -= step
            found.append(moved)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_no_gap_has_one_solution(seed: int) -> None:
    drawn = random.Random(seed)  # noqa: S311
    table = random_table(drawn, drawn.randrange(2, 8), drawn.randrange(2, 12), drawn.choice((12, 30, 90)))
    try:
        gaps = suppressed(table, 10)
    except ReleaseRefused:
        return
    assert {(r, c) for r, c in entries(table) if table[r][c] < 10} <= gaps
    assert computable(table, gaps) == set()


def test_most_random_tables_are_released_and_all_have_gaps() -> None:
    released = 0
    for seed in range(40):
        drawn = random.Random(seed)  # noqa: S311
        table = random_table(drawn, drawn.randrange(2, 8), drawn.randrange(2, 12), drawn.choice((12, 30, 90)))
        try:
            released += bool(suppressed(table, 10))
        except ReleaseRefused:
            continue
    assert released >= 25


@pytest.mark.parametrize("seed", range(30))
def test_every_gap_may_be_any_of_many_numbers(seed: int) -> None:
    """Brute force: all tables that somebody who sees what is shown has to think of."""
    drawn = random.Random(1000 + seed)  # noqa: S311
    rows, columns, threshold = *drawn.choice(((2, 2), (2, 3), (3, 2))), 3
    table = random_table(drawn, rows, columns, 7)
    try:
        gaps = suppressed(table, threshold)
    except ReleaseRefused:
        return
    seen = {gap: set[int]() for gap in gaps}
    for cells in consistent(table, gaps):
        whole = with_sums(cells)
        for row, column in gaps:
            seen[row, column].add(whole[row][column])
    for gap, values in seen.items():
        assert table[gap[0]][gap[1]] in values
        assert max(values) - min(values) >= threshold, "known closer than the threshold"


def test_a_table_with_too_few_hits_is_refused() -> None:
    with pytest.raises(ReleaseRefused, match="fewer than 10 hits in all"):
        suppressed(with_sums([[1, 2], [3, 1]]), 10)
    with pytest.raises(ReleaseRefused, match="too few hits to hide"):
        suppressed(with_sums([[4, 3], [3, 2]]), 10)


def test_gaps_that_are_given_stay_and_help() -> None:
    table = with_sums([[3, 20, 30], [40, 50, 60]])
    given = {(0, 1), (0, 2), (1, 1), (1, 2)}
    gaps = suppressed(table, 10, given)
    assert given < gaps
    assert computable(table, gaps) == set()
