from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from blocker.hits.calendar import Cell, window_of
from blocker.hits.counters import HitCounter
from blocker.hits.release import Series
from tests.hits.support import BAD, GOOD, SHADOWED, WORSE, Clock, MemoryStore, small_matcher

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

UTC = ZoneInfo("UTC")
HOUR = 3600.0
# Sunday, 29 November 2026, 22:00 UTC: two hours before a week's border.
START = window_of(1_795_989_600.0, UTC).start
MATCHER = small_matcher()


def counter(store: Any, clock: Clock, **more: Any) -> HitCounter:  # noqa: ANN401
    return HitCounter(store, node="node", zone=more.pop("zone", UTC), clock=clock, boot="boot", **more)


def sums(hits: HitCounter) -> dict[tuple[str, bool, int], int]:
    """What is released, without its zeros."""
    assert hits.released is not None
    return {
        (series.list, series.shadow, place): count
        for series, cells in hits.released.items()
        for place, count in enumerate(cells)
        if count
    }


async def test_blocks_and_shadow_hits_are_counted_and_nothing_else() -> None:
    store, clock = MemoryStore(), Clock(START + 5)
    hits = counter(store, clock)
    for url in (BAD, BAD, WORSE, SHADOWED, GOOD, "http://bad.example/pardoned", "/no url"):
        hits.count(MATCHER.decide(url))
    hits.count(MATCHER.decide("/no url", "strict"))
    hits.count(MATCHER.decide(WORSE, "hushed"))
    assert await hits.flush()
    # `first` is named for BAD, as the earlier of two lists; `quiet` would have blocked it as well.
    assert store.cells == {
        "first|2026-W48|7|22": 2, "second|2026-W48|7|22": 1, "~quiet|2026-W48|7|22": 3, "~second|2026-W48|7|22": 1,
    }  # fmt: skip


async def test_hits_fall_into_their_hours_across_the_borders_of_hour_day_and_week() -> None:
    store, clock = MemoryStore(), Clock(START)
    hits = counter(store, clock)
    expected: Counter[str] = Counter()
    moments = random.Random(7)  # noqa: S311
    for _ in range(3000):
        hits.count(MATCHER.decide(BAD))
        expected[window_of(clock.now, UTC).cell("first").field] += 1
        clock.now += moments.expovariate(1 / 12)
        if moments.random() < 0.02:
            await hits.flush()
    await hits.flush()
    assert {field: count for field, count in store.cells.items() if not field.startswith("~")} == expected
    assert len(expected) > 5


async def test_nothing_is_sent_when_nothing_was_hit() -> None:
    store = MemoryStore()
    hits = counter(store, Clock(START))
    assert await hits.flush()
    hits.count(MATCHER.decide(GOOD))
    assert await hits.flush()
    assert store.batches == []


async def test_an_unknown_outcome_is_settled_by_the_same_batch_under_the_same_number() -> None:
    store, clock = MemoryStore(), Clock(START)
    hits = counter(store, clock)
    await hits.flush()
    hits.count(MATCHER.decide(WORSE))
    for failing in ("before", "after", "after"):
        store.fails = failing
        assert not await hits.flush()
        hits.count(MATCHER.decide(WORSE))
    store.fails = ""
    assert await hits.flush()
    field = "second|2026-W48|7|22"
    assert store.batches == [("boot", 1, {field: 1})] * 4 + [("boot", 2, {field: 3})]
    assert store.cells == {field: 4}


async def test_a_cancelled_flush_ends_by_itself_and_counts_once() -> None:
    release = asyncio.Event()

    class Slow(MemoryStore):
        async def flush_hits(self, node: str, boot: str, sequence: int, cells: Mapping[str, int]) -> None:
            await release.wait()
            await super().flush_hits(node, boot, sequence, cells)

    store = Slow()
    hits = counter(store, Clock(START))
    hits.count(MATCHER.decide(WORSE))
    first = asyncio.create_task(hits.flush())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(hits.flush())
    hits.count(MATCHER.decide(WORSE))
    release.set()
    assert await second
    assert store.cells == {"second|2026-W48|7|22": 2}
    assert [sequence for _, sequence, _ in store.batches] == [1, 2]


async def test_a_fault_of_the_store_that_nobody_foresaw_loses_nothing() -> None:
    class Broken(MemoryStore):
        async def flush_hits(self, node: str, boot: str, sequence: int, cells: Mapping[str, int]) -> None:
            if not self.batches:
                self.batches.append((boot, sequence, dict(cells)))
                raise RuntimeError
            await super().flush_hits(node, boot, sequence, cells)

    store = Broken()
    hits = counter(store, Clock(START))
    hits.count(MATCHER.decide(WORSE))
    assert not await hits.flush()
    assert await hits.flush()
    assert store.cells == {"second|2026-W48|7|22": 1}


async def test_many_cells_go_in_several_batches() -> None:
    store, clock = MemoryStore(), Clock(START)
    store.fails = "before"
    hits = counter(store, clock)
    for _ in range(700):
        hits.count(MATCHER.decide(WORSE))
        clock.now += HOUR
    assert not await hits.flush()
    store.fails = ""
    assert await hits.flush()
    assert [len(cells) for _, _, cells in store.batches] == [512, 188]
    assert sum(store.cells.values()) == 700


async def test_a_hit_is_released_when_its_hour_is_over_and_not_before() -> None:
    clock = Clock(START + 10)
    hits = counter(MemoryStore(), clock)
    hits.count(MATCHER.decide(WORSE))
    for now in (START + 11, START + HOUR - 0.001):
        clock.now = now
        await hits.flush()
        assert sums(hits) == {}
    clock.now = START + HOUR
    hits.count(MATCHER.decide(WORSE))
    await hits.flush()
    assert sums(hits) == {("second", False, 166): 8}


async def test_between_two_releases_nothing_changes_however_often_one_looks() -> None:
    clock = Clock(START)
    hits = counter(MemoryStore(), clock)
    seen: dict[int, set[int]] = {}
    for _ in range(3 * 3600 // 20):
        for _ in range(3):
            hits.count(MATCHER.decide(WORSE))
        await hits.flush()
        assert hits.released is not None
        seen.setdefault(int((clock.now - START) // HOUR), set()).add(sum(map(sum, hits.released.values())))
        clock.now += 20
    assert seen == {0: {0}, 1: {544}, 2: {1088}}  # three times 180 hits an hour, rounded up


async def test_an_hour_stays_back_while_the_store_has_not_all_of_it() -> None:
    store, clock = MemoryStore(), Clock(START)
    hits = counter(store, clock)
    hits.count(MATCHER.decide(WORSE))
    await hits.flush()
    hits.count(MATCHER.decide(WORSE))
    store.fails = "before"
    clock.now = START + HOUR
    hits.count(MATCHER.decide(WORSE))
    await hits.flush()
    assert sums(hits) == {}
    clock.now += 3 * HOUR
    store.fails = ""
    await hits.flush()
    assert sums(hits) == {("second", False, 166): 8, ("second", False, 167): 8}


async def test_a_hit_at_the_border_that_comes_during_a_flush_keeps_its_hour_back() -> None:
    clock = Clock(START)

    class Crossing(MemoryStore):
        async def flush_hits(self, node: str, boot: str, sequence: int, cells: Mapping[str, int]) -> None:
            await super().flush_hits(node, boot, sequence, cells)
            if sequence == 1:
                clock.now = START + HOUR - 1
                hits.count(MATCHER.decide(BAD))
                clock.now = START + HOUR

    store = Crossing()
    hits = counter(store, clock)
    hits.count(MATCHER.decide(WORSE))
    await hits.flush()
    assert sums(hits) == {}
    await hits.flush()
    assert sums(hits) == {("second", False, 166): 8, ("first", False, 166): 8, ("quiet", True, 166): 8}


async def test_a_repeated_hour_is_released_after_its_second_run() -> None:
    zone = ZoneInfo("Europe/Stockholm")
    clock = Clock(1_792_886_400.0)  # 25 October 2026, 02:00 summer time
    store = MemoryStore()
    hits = counter(store, clock, zone=zone)
    for after, shown in ((0, {}), (HOUR, {}), (2 * HOUR, {("second", False, 146): 8})):
        clock.now = 1_792_886_400.0 + after
        hits.count(MATCHER.decide(WORSE))
        await hits.flush()
        assert sums(hits) == shown
    assert store.cells == {"second|2026-W43|7|2": 2, "second|2026-W43|7|3": 1}


async def test_a_clock_set_back_takes_nothing_back_and_shows_nothing_early() -> None:
    clock = Clock(START)
    hits = counter(MemoryStore(), clock)
    for _ in range(8):
        hits.count(MATCHER.decide(WORSE))
    clock.now = START + HOUR
    await hits.flush()
    assert sums(hits) == {("second", False, 166): 8}
    clock.now = START + 60
    hits.count(MATCHER.decide(WORSE))
    await hits.flush()
    assert sums(hits) == {("second", False, 166): 8}
    clock.now = START + HOUR
    await hits.flush()
    assert sums(hits) == {("second", False, 166): 16}


async def test_totals_survive_a_restart_without_a_jump() -> None:
    clock = Clock(START)
    store = MemoryStore()
    before = counter(store, clock)
    for _ in range(11):
        before.count(MATCHER.decide(BAD))
    clock.now = START + HOUR
    before.count(MATCHER.decide(BAD))
    await before.flush()
    shown = sums(before)
    after = counter(store, clock)
    after.count(MATCHER.decide(BAD))
    assert after.released is None
    await after.flush()
    assert sums(after) == shown == {("first", False, 166): 16, ("quiet", True, 166): 16}


async def test_no_total_is_shown_before_the_stored_ones_are_known() -> None:
    clock = Clock(START)
    store = MemoryStore({"first|2026-W40|1|0": 100})
    store.fails = "before"
    hits = counter(store, clock)
    hits.count(MATCHER.decide(BAD))
    assert not await hits.flush()
    assert hits.released is None
    assert store.batches == []
    clock.now += HOUR
    store.fails = ""
    assert await hits.flush()
    assert sums(hits) == {("first", False, 0): 104, ("first", False, 166): 8, ("quiet", True, 166): 8}


async def test_stored_cells_of_another_form_are_left_out() -> None:
    hits = counter(MemoryStore({"first|2026-W40|1|0": 1, "first|garbage": 5, "": 1}), Clock(START))
    await hits.flush()
    assert sums(hits) == {("first", False, 0): 8}


async def test_many_stored_cells_are_read() -> None:
    hours = [(week, day, hour) for week in range(1, 52) for day in (1, 2) for hour in range(24)]
    stored = {Cell("first", 2020, *hour).field: 1 for hour in hours}
    hits = counter(MemoryStore(stored), Clock(START))
    await hits.flush()
    assert hits.released is not None
    assert hits.released[Series("first", shadow=False)][:48] == (51 * 8,) * 48


async def test_listeners_hear_of_a_border_before_the_next_hit() -> None:
    clock = Clock(START)
    hits = counter(MemoryStore(), clock)
    heard: list[float] = []
    hits.on_border(lambda: heard.append(clock.now))
    hits.count(MATCHER.decide(WORSE))
    hits.tick()
    assert heard == []
    clock.now += HOUR
    hits.count(MATCHER.decide(WORSE))
    assert heard == [START + HOUR]
    clock.now += HOUR
    hits.tick()
    hits.tick()
    assert heard == [START + HOUR, START + 2 * HOUR]


async def test_run_flushes_by_itself_and_once_more_at_the_stop() -> None:
    flushed = asyncio.Event()

    class Telling(MemoryStore):
        async def flush_hits(self, node: str, boot: str, sequence: int, cells: Mapping[str, int]) -> None:
            await super().flush_hits(node, boot, sequence, cells)
            flushed.set()

    store = Telling()
    hits = counter(store, Clock(START), flush_seconds=0.001)
    running = asyncio.create_task(hits.run())
    hits.count(MATCHER.decide(WORSE))
    await flushed.wait()
    hits.count(MATCHER.decide(WORSE))
    hits.stop()
    await running
    assert store.cells == {"second|2026-W48|7|22": 2}


async def test_a_cancelled_run_flushes_once_more() -> None:
    store = MemoryStore()
    hits = counter(store, Clock(START))
    running = asyncio.create_task(hits.run())
    await asyncio.sleep(0)
    hits.count(MATCHER.decide(WORSE))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert store.cells == {"second|2026-W48|7|22": 1}


async def test_a_stop_with_the_store_away_ends() -> None:
    store = MemoryStore()
    store.fails = "before"
    hits = counter(store, Clock(START))
    hits.count(MATCHER.decide(WORSE))
    hits.stop()
    await hits.run()
    assert hits.released is None
