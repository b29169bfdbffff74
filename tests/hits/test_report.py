"""The published figures: the two findings they must show, their file, and several merged."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from blocker.errors import FormatError, ReleaseRefused
from blocker.hits.report import Report, counted, merge, publish
from tests.hits.synthetic import hits
from tests.hits.test_suppress import computable

if TYPE_CHECKING:
    from collections.abc import Sequence

WEEKS = [(2026, week) for week in range(45, 49)]


def made(total: int, seed: int = 1, threshold: int = 10, bin: int = 8, lists: Sequence[str] = ("police",)) -> Report:  # noqa: A002
    cells = hits(total, WEEKS, seed=seed, name=lists[0])
    return publish(
        counted(cells.items(), lists, "2026-W45", "2026-W48", False),
        threshold,
        bin,
        lists=tuple(lists),
        first="2026-W45",
        last="2026-W48",
        timezones=("Europe/Stockholm",),
    )


def shown(values: Sequence[float | None]) -> list[float]:
    assert None not in values
    return [value for value in values if value is not None]


def test_the_week_is_highest_on_sunday_falls_to_friday_and_rises_on_saturday() -> None:
    for report in (made(60_000), made(60_000).as_shares()):
        monday, tuesday, wednesday, thursday, friday, saturday, sunday = shown(report.weekdays)
        assert sunday > monday > tuesday > wednesday > thursday > friday
        assert friday < saturday < sunday


def test_the_day_is_lowest_early_rises_from_7_to_10_stays_level_until_21_and_is_highest_in_the_evening() -> None:
    for report in (made(60_000), made(60_000).as_shares()):
        hours = shown(report.hours)
        assert hours.index(min(hours)) in range(3, 7)
        assert all(earlier < later for earlier, later in pairwise(hours[6:11])), "rises between 7 and 10"
        level = hours[10:21]
        assert max(level) / min(level) < 1.1, "constant from 10 to 21"
        assert hours.index(max(hours)) in (21, 22)
        assert min(hours[21:24]) > max(hours[:10])
        assert min(hours[21:23]) > max(level)


def test_figures_are_rounded_up_and_small_ones_left_out() -> None:
    cells = hits(2500, WEEKS, seed=2)
    true = counted(cells.items(), ["police"], "2026-W45", "2026-W48", False)
    report = made(2500, seed=2)
    for day in range(7):
        for hour in range(24):
            value = report.cells[day][hour]
            if value is None:
                continue
            assert true[day][hour] >= 10
            assert value % 8 == 0
            assert 0 <= value - true[day][hour] < 8
    small = {(day, hour) for day in range(7) for hour in range(24) if true[day][hour] < 10}
    assert small < report.gaps


def test_only_the_lists_weeks_and_mode_that_were_asked_for_are_counted() -> None:
    cells = hits(100, WEEKS, seed=1) + hits(20, WEEKS, seed=2, name="other") + hits(7, WEEKS, seed=3, shadow=True)
    cells += hits(50, [(2026, 44), (2026, 49), (2025, 46)], seed=4)

    def total(lists: Sequence[str], shadow: bool = False) -> int:
        return sum(map(sum, counted(cells.items(), lists, "2026-W45", "2026-W48", shadow)))

    assert (total(["police"]), total(["other"]), total(["police", "other"]), total(["police"], True)) == (
        100,
        20,
        120,
        7,
    )


def test_shares_are_of_all_requests_and_tell_no_count() -> None:
    shares = made(60_000).as_shares()
    assert shares.total == 1
    assert sum(shown(shares.hours)) == pytest.approx(1, abs=0.01)
    assert all(0 <= value <= 1 for row in shares.table for value in row if value is not None)
    assert shares.as_shares() is shares


@pytest.mark.parametrize("report", [made(60_000), made(2500), made(2500).as_shares()], ids=["all", "gaps", "shares"])
def test_a_file_is_read_as_it_was_written(report: Report) -> None:
    text = report.as_json()
    assert Report.from_json(text) == report
    said = json.loads(text)
    assert said["unit"] == "requests, not people"
    assert "not exact findings" in said["note"]


@pytest.mark.parametrize(
    "change",
    [
        {"format": "blocker-report/2"}, {"cells": [[1] * 24] * 6}, {"hours": [1] * 23}, {"total": None}, {"total": 0},
        {"weekdays": ["secret.example"] * 7}, {"weekdays": [-1] * 7}, {"weekdays": [0.5] * 7}, {"bin": 0},
        {"weekdays": [1e17] * 7}, {"first": "../../etc"}, {"lists": []},
    ],
    ids=lambda change: "-".join(change),
)  # fmt: skip
def test_another_file_is_refused_and_not_repeated(change: dict[str, object]) -> None:
    text = json.dumps(json.loads(made(2500).as_json()) | change)
    with pytest.raises(FormatError) as caught:
        Report.from_json(text)
    assert "secret" not in str(caught.value)
    assert "etc" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "{", '"secret.example"'])
def test_what_is_no_report_at_all_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="no report of"):
        Report.from_json(text)


def test_counts_are_added_and_a_gap_in_one_is_a_gap_in_the_sum() -> None:
    one, two = made(2500, seed=1), replace(made(4000, seed=2), timezones=("Europe/Madrid",))
    both = merge([one, two])
    assert both.gaps >= one.gaps | two.gaps
    for row in range(8):
        for column in range(25):
            value = both.table[row][column]
            if value is not None:
                assert value == (one.table[row][column] or 0) + (two.table[row][column] or 0)
    assert (both.parts, both.counts, both.threshold) == (2, True, 10)
    assert both.timezones == ("Europe/Madrid", "Europe/Stockholm")
    assert merge([both, made(9000, seed=3)]).parts == 3


def test_a_merged_file_tells_nothing_about_one_isp_that_its_own_file_does_not() -> None:
    """Who has the merged file and all others knows of one what is the difference; that is in its own file already."""
    one, two = made(2500, seed=1), made(60_000, seed=2)
    both = merge([one, two])
    for row in range(8):
        for column in range(25):
            merged, other = both.table[row][column], two.table[row][column]
            if merged is not None and other is not None:
                assert one.table[row][column] == merged - other
    assert {gap for gap in one.gaps if both.table[gap[0]][gap[1]] is not None} == set()
    true = [[int(value or 1) for value in row] for row in both.table]
    assert computable(true, both.gaps) == set()


def test_a_higher_threshold_is_looked_at_in_the_sum() -> None:
    parts = [made(9000, seed=seed) for seed in (1, 2)]
    plain, strict = merge(parts), merge(parts, 60)
    assert plain.gaps < strict.gaps
    assert all(value >= 60 for row in strict.table for value in row if value is not None)
    assert computable([[int(value or 1) for value in row] for row in strict.table], strict.gaps) == set()


def test_files_with_shares_are_averaged_each_alike() -> None:
    one, two = made(60_000, seed=1), made(9000, seed=2).as_shares()
    both = merge([one, two])
    assert both.counts is False
    assert both.total == 1
    for row in range(8):
        for column in range(25):
            mine, theirs, value = (part.table[row][column] for part in (one.as_shares(), two, both))
            if mine is None or theirs is None:
                assert value is None
            else:
                assert value == pytest.approx((mine + theirs) / 2, abs=1e-4)


def test_files_that_do_not_fit_together_are_refused() -> None:
    report = made(9000)
    with pytest.raises(ReleaseRefused, match="twice"):
        merge([report, report])
    for other in (replace(report, last="2026-W49"), replace(report, first="2026-W44"), replace(report, shadow=True)):
        with pytest.raises(ReleaseRefused, match="different weeks"):
            merge([report, other])


def test_noise_is_added_to_cells_and_sums_are_those_of_the_noisy_cells() -> None:
    cells = [[20] * 24 for _ in range(7)]
    report = publish(
        cells,
        10,
        1,
        lambda counts: [count + 3 for count in counts],
        lists=("a",),
        first="2026-W45",
        last="2026-W48",
        timezones=("UTC",),
        epsilon=0.5,
    )
    assert {value for row in report.cells for value in row} == {23}
    assert report.total == 23 * 168
