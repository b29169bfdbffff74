"""A released figure never changes, and no second release tells more about the same hits."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from blocker.errors import ReleaseRefused
from blocker.hits.calendar import Cell
from blocker.hits.publication import Request, last_period, parse_week, release
from tests.hits.synthetic import HeldHits, hits

if TYPE_CHECKING:
    from blocker.hits.report import Report
    from blocker.hits.retention import Week

STOCKHOLM = ZoneInfo("Europe/Stockholm")
MONDAY = datetime(2026, 11, 30, 1, 30, tzinfo=STOCKHOLM).timestamp()  # of week 49
FOUR = [(2026, week) for week in range(45, 49)]
ALL = Request(None, None)


@pytest.fixture
def store() -> HeldHits:
    return HeldHits(hits(30_000, FOUR, seed=1), hits(30_000, FOUR, seed=2), hits(9000, FOUR, seed=3, name="other"))


async def ask(store: HeldHits, request: Request = ALL, now: float = MONDAY, keep_weeks: int = 104) -> Report:
    return await release(store, request, timezone="Europe/Stockholm", zone=STOCKHOLM, now=now, keep_weeks=keep_weeks)


@pytest.mark.parametrize(
    ("newest", "first", "last"),
    [
        ((2026, 48), (2026, 45), (2026, 48)),
        ((2026, 51), (2026, 45), (2026, 48)),
        ((2026, 52), (2026, 45), (2026, 48)),  # that year has 53
        ((2026, 53), (2026, 49), (2026, 53)),
        ((2027, 3), (2026, 49), (2026, 53)),
        ((2027, 52), (2027, 49), (2027, 52)),
        ((2028, 4), (2028, 1), (2028, 4)),
    ],
)
def test_periods_are_the_same_everywhere(newest: Week, first: Week, last: Week) -> None:
    assert last_period(newest) == (first, last)


async def test_periods_follow_each_other_and_never_overlap(store: HeldHits) -> None:
    store.nodes.append(hits(9000, [(2026, week) for week in range(20, 45)], seed=9))
    spans = []
    for week in range(20):
        report = await ask(store, now=MONDAY - (19 - week) * 7 * 24 * 3600)
        spans.append((report.first, report.last))
    assert len(set(spans)) == len(store.released) == 6


async def test_without_a_choice_it_is_all_lists_and_the_last_period(store: HeldHits) -> None:
    report = await ask(store)
    assert (report.lists, report.first, report.last) == (("other", "police"), "2026-W45", "2026-W48")
    assert 69_000 <= report.total < 69_008
    assert not report.clock_changes


async def test_what_was_released_stays_as_it_was_whatever_is_counted_later(store: HeldHits) -> None:
    first = await ask(store)
    late = Cell("police", 2026, 48, 7, 23)
    store.nodes[0][late] += 5000
    store.nodes.append(hits(500, [(2026, 49)], seed=8, name="a-new-list"))
    assert await ask(store) == first
    assert await ask(store, Request((2026, 45), (2026, 48), ("police", "other", "police"))) == first
    assert (await ask(store, replace(ALL, preview=True))).table == first.table
    assert len(store.released) == 1
    with pytest.raises(ReleaseRefused, match="threshold 10 and no noise"):
        await ask(store, replace(ALL, threshold=20))


@pytest.mark.parametrize(
    "request_",
    [
        Request((2026, 44), (2026, 48)),
        Request((2026, 45), (2026, 47)),
        Request((2026, 48), (2026, 48), ("police",)),
        Request((2026, 45), (2026, 48), ("police",)),
        Request((2026, 40), (2026, 45), ("other", "third")),
    ],
    ids=["longer", "shorter", "one week", "one list", "one in common"],
)
async def test_a_release_that_would_tell_a_difference_is_refused(store: HeldHits, request_: Request) -> None:
    await ask(store)
    with pytest.raises(ReleaseRefused, match=r"weeks 2026-W45 to 2026-W48 of other, police were released together"):
        await ask(store, request_)
    assert len(store.released) == 1
    if request_.last == (2026, 48):
        preview = await ask(store, replace(request_, preview=True))
        assert preview.preview
        assert len(store.released) == 1


async def test_other_weeks_lists_and_shadow_hits_are_releases_of_their_own(store: HeldHits) -> None:
    store.nodes.append(hits(5000, [(2026, 44)], seed=5) + hits(5000, FOUR, seed=6, shadow=True))
    await ask(store, Request((2026, 45), (2026, 48), ("police",)))
    await ask(store, Request((2026, 45), (2026, 48), ("other",)))
    await ask(store, Request((2026, 44), (2026, 44), ("police",)))
    shadow = await ask(store, Request((2026, 45), (2026, 48), ("police",), shadow=True))
    assert shadow.shadow
    assert 5000 <= shadow.total < 5008
    assert len(store.released) == 4


async def test_of_two_at_once_the_second_sees_the_first(store: HeldHits) -> None:
    class Racing(HeldHits):
        raced = False

        async def add_release(self, name: str, text: str, seen: int) -> str | None:
            if not self.raced:
                self.raced = True
                await ask(self, Request((2026, 44), (2026, 46), ("police",)))
            return await super().add_release(name, text, seen)

    racing = Racing(*store.nodes)
    with pytest.raises(ReleaseRefused, match="2026-W44 to 2026-W46"):
        await ask(racing)
    assert len(racing.released) == 1


async def test_a_week_is_released_an_hour_after_its_end(store: HeldHits) -> None:
    early = MONDAY - 3600
    with pytest.raises(ReleaseRefused, match="fewer than 10"):
        await ask(store, now=early)  # of the period before
    with pytest.raises(ReleaseRefused, match="one hour after its end"):
        await ask(store, Request((2026, 45), (2026, 48)), now=early)
    with pytest.raises(ReleaseRefused, match="one hour after its end"):
        await ask(store, Request((2026, 45), (2027, 1)))


async def test_weeks_that_are_not_kept_or_in_wrong_order_are_refused(store: HeldHits) -> None:
    with pytest.raises(ReleaseRefused, match="from week 2026-W46 on"):
        await ask(store, keep_weeks=4)
    with pytest.raises(ReleaseRefused, match="first week is after"):
        await ask(store, Request((2026, 47), (2026, 46)))


async def test_without_hits_there_is_no_report(store: HeldHits) -> None:
    with pytest.raises(ReleaseRefused, match="no hits were counted"):
        await ask(HeldHits())
    with pytest.raises(ReleaseRefused, match="fewer than 10 hits"):
        await ask(store, Request((2026, 45), (2026, 48), ("unknown",)))
    assert store.released == {}


async def test_weeks_in_which_clocks_change_say_so() -> None:
    october = HeldHits(hits(5000, [(2026, 43)], seed=1))
    assert (await ask(october, Request((2026, 43), (2026, 43)))).clock_changes
    assert not (await ask(HeldHits(hits(5000, [(2026, 42)], seed=1)), Request((2026, 42), (2026, 42)))).clock_changes


@pytest.mark.parametrize(
    ("text", "week"), [("2026-W45", (2026, 45)), ("2026-11-29", (2026, 48)), ("2027-01-03", (2026, 53))]
)
def test_weeks_are_read(text: str, week: tuple[int, int]) -> None:
    assert parse_week(text) == week


@pytest.mark.parametrize("text", ["2026-W54", "2026-W1", "W45", "2026-13-01", "", "2027-W53"])
def test_what_is_no_week_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_week(text)
