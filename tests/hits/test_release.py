from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocker.hits.calendar import Cell, Slot
from blocker.hits.release import Ledger, Series, rounded_up

SLOTS = [Slot(2026, week, weekday, hour) for week in (47, 48) for weekday in (1, 7) for hour in (0, 23)]
LISTS = [Series("first", shadow=False), Series("first", shadow=True), Series("second", shadow=False)]


def cell(series: Series, slot: Slot) -> Cell:
    return Cell(series.list, *slot, series.shadow)


@pytest.mark.parametrize(("count", "shown"), [(0, 0), (1, 8), (7, 8), (8, 8), (9, 16), (800, 800)])
def test_counts_are_rounded_up_to_the_bin(count: int, shown: int) -> None:
    assert rounded_up(count, 8) == shown


@given(count=st.integers(0, 10**12), bin=st.integers(1, 1000))
def test_rounding_adds_less_than_a_bin(count: int, bin: int) -> None:  # noqa: A002
    assert rounded_up(count, bin) % bin == 0
    assert 0 <= rounded_up(count, bin) - count < bin


def test_a_cell_is_not_seen_before_its_hour_is_over() -> None:
    ledger = Ledger(8)
    ledger.add([(cell(LISTS[0], SLOTS[0]), 3)])
    assert not ledger.release(lambda _slot: False)
    assert ledger.released == {}
    assert ledger.release(lambda slot: slot == SLOTS[0])
    assert ledger.released == {LISTS[0]: (8, *(0,) * 167)}


def test_a_held_hour_stays_back_whole() -> None:
    ledger = Ledger(8)
    ledger.add([(cell(LISTS[0], SLOTS[0]), 3), (cell(LISTS[2], SLOTS[0]), 1), (cell(LISTS[0], SLOTS[1]), 9)])
    assert ledger.release(lambda _slot: True, held={SLOTS[0]})
    assert ledger.released == {LISTS[0]: tuple(16 if place == SLOTS[1].place else 0 for place in range(168))}
    assert list(ledger.open_slots) == [SLOTS[0]]


def test_each_week_is_rounded_by_itself() -> None:
    ledger = Ledger(8)
    ledger.add([(cell(LISTS[0], Slot(2026, week, 1, 0)), 1) for week in range(1, 11)])
    ledger.release(lambda _slot: True)
    assert ledger.released[LISTS[0]][0] == 80


def test_a_late_hit_moves_the_sum_by_whole_bins_and_only_at_a_release() -> None:
    ledger = Ledger(8)
    ledger.add([(cell(LISTS[0], SLOTS[0]), 5)])
    ledger.release(lambda _slot: True)
    for late, shown in ((3, 8), (1, 16)):
        before = ledger.released
        ledger.add([(cell(LISTS[0], SLOTS[0]), late)])
        assert ledger.released is before
        assert not ledger.release(lambda _slot: False)
        ledger.release(lambda _slot: True)
        assert ledger.released[LISTS[0]][0] == shown


def test_what_did_not_change_stays_the_same_object() -> None:
    ledger = Ledger(8)
    ledger.add([(cell(series, SLOTS[0]), 1) for series in LISTS])
    ledger.release(lambda _slot: True)
    before = ledger.released
    ledger.add([(cell(LISTS[0], SLOTS[1]), 1)])
    ledger.release(lambda _slot: True)
    assert ledger.released[LISTS[0]] is not before[LISTS[0]]
    assert ledger.released[LISTS[2]] is before[LISTS[2]]
    assert not ledger.release(lambda _slot: True)


adds = st.lists(st.tuples(st.sampled_from(LISTS), st.sampled_from(SLOTS), st.integers(1, 40)), max_size=8)
steps = st.lists(st.tuples(adds, st.sets(st.sampled_from(SLOTS)), st.sets(st.sampled_from(SLOTS))), max_size=8)


@given(steps=steps, bin=st.integers(1, 16))
def test_a_ledger_shows_what_a_plain_recount_shows(
    steps: list[tuple[list[tuple[Series, Slot, int]], set[Slot], set[Slot]]],
    bin: int,  # noqa: A002
) -> None:
    """Sums equal those of each cell's count at its last release, rounded up, and never shrink."""
    ledger = Ledger(bin)
    counts: Counter[tuple[Series, Slot]] = Counter()
    shown: Counter[tuple[Series, Slot]] = Counter()
    for added, over, held in steps:
        for series, slot, count in added:
            ledger.add([(cell(series, slot), count)])
            counts[series, slot] += count
        before = {series: list(sums) for series, sums in ledger.released.items()}
        ledger.release(lambda slot, over=over: slot in over, held)  # type: ignore[misc]
        shown.update({key: counts[key] - shown[key] for key in counts if key[1] in over - held})
        for series in LISTS:
            expected = [0] * 168
            for (of, slot), count in shown.items():
                expected[slot.place] += rounded_up(count, bin) if of == series else 0
            assert list(ledger.released.get(series, (0,) * 168)) == expected
            assert all(now >= then for now, then in zip(expected, before.get(series, [0] * 168), strict=True))
