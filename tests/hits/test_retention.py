"""Old cells leave the store, and no counter takes anything back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from blocker.hits.calendar import Cell, parse_folded, window_of
from blocker.hits.counters import HitCounter
from blocker.hits.retention import fold, keep_folding, oldest_kept
from blocker.store.redis import Store
from tests.hits.support import BAD, WORSE, Clock
from tests.hits.test_counters import MATCHER
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from pathlib import Path

STOCKHOLM = ZoneInfo("Europe/Stockholm")
WEEK = 7 * 24 * 3600.0
START = datetime(2026, 1, 5, 12, tzinfo=UTC).timestamp()  # a Monday, week 2


def counter(store: Store, clock: Clock, boot: str) -> HitCounter:
    return HitCounter(store, node="node", zone=STOCKHOLM, clock=clock, boot=boot)


@pytest.mark.parametrize(
    ("day", "kept", "oldest"),
    [
        ((2026, 11, 29), 1, (2026, 48)),
        ((2026, 11, 30), 1, (2026, 49)),
        ((2027, 1, 3), 2, (2026, 52)),  # still week 53 of 2026
        ((2027, 1, 4), 53, (2026, 2)),
    ],
)
def test_the_oldest_week_is_counted_by_the_calendar(
    day: tuple[int, int, int], kept: int, oldest: tuple[int, int]
) -> None:
    noon = datetime(*day, 12, tzinfo=STOCKHOLM).timestamp()
    assert oldest_kept(noon, STOCKHOLM, kept) == oldest


def test_a_folded_cell_has_no_week() -> None:
    assert Cell("list", 2026, 48, 7, 23).without_week == "list|7|23"
    assert parse_folded("list|7|23") == ("list", False, 167)
    assert parse_folded(Cell("list", 2026, 48, 1, 0, shadow=True).without_week) == ("list", True, 0)
    for text in ("list|8|1", "list|1|24", "list|1", "~~a|1|1", "list|2026-W48|7|23"):
        with pytest.raises(ValueError, match="folded"):
            parse_folded(text)


async def test_counters_go_on_where_they_were_when_old_weeks_are_folded(tmp_path: Path) -> None:
    clock = Clock(START)
    async with RedisServer(tmp_path) as server, await Store.open(server.url, "test") as store:
        first = counter(store, clock, "first")
        for week in range(6):
            for _ in range(5 + week):
                first.count(MATCHER.decide(BAD))
            first.count(MATCHER.decide(WORSE))
            assert await first.flush()
            clock.now += WEEK
        assert await first.flush()
        before = first.released
        cells = await store.load_hits("node")

        oldest = oldest_kept(clock.now, STOCKHOLM, 3)  # weeks 6, 7 and the present one
        assert oldest == (2026, 6)
        assert await fold(store, ["node"], oldest, 8) == 4 * 3  # two lists and a shadow list
        left = {Cell.parse(field).iso_week for field in await store.load_hits("node")}
        assert left == {6, 7}
        assert await store.folded_hits("node") == {"first|1|13": 8 * 4, "~quiet|1|13": 8 * 4, "second|1|13": 8 * 4}
        assert len(cells) == 18
        assert await fold(store, ["node"], oldest, 8) == 0

        assert await first.flush()
        assert first.released == before, "a running node shows what it showed"
        second = counter(store, clock, "second")
        assert await second.flush()
        assert second.released == before, "and so does the next start"


async def test_a_node_folds_all_nodes_and_leaves_what_it_cannot_read(tmp_path: Path) -> None:
    clock, stopping = Clock(START + 60 * WEEK), asyncio.Event()
    old = window_of(START, STOCKHOLM).cell("list").field
    new = window_of(clock.now, STOCKHOLM).cell("list").field
    pauses: list[float] = []

    async with RedisServer(tmp_path) as server, await Store.open(server.url, "test") as store:
        await store.flush_hits("gone", "boot", 1, {old: 9, new: 2, "of another form": 3})
        await store.flush_hits("here", "boot", 1, {old: 1})

        async def opened() -> Store:
            return store

        async def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 1:
                await server.akill()  # the second look finds nobody
            else:
                stopping.set()

        await keep_folding(
            opened, None, keep_weeks=52, bin=8, zone=STOCKHOLM, clock=clock, pause=pause, stopping=stopping
        )
        assert len(pauses) == 2


async def test_only_its_own_cells_without_the_ingest_role(tmp_path: Path) -> None:
    clock, stopping = Clock(START + 60 * WEEK), asyncio.Event()
    old = window_of(START, STOCKHOLM).cell("list").field
    async with RedisServer(tmp_path) as server, await Store.open(server.url, "test") as store:
        for node in ("here", "there"):
            await store.flush_hits(node, "boot", 1, {old: 9, "of another form": 3})

        async def opened() -> Store:
            return store

        async def pause(_seconds: float) -> None:
            stopping.set()

        await keep_folding(
            opened, "here", keep_weeks=52, bin=8, zone=STOCKHOLM, clock=clock, pause=pause, stopping=stopping
        )
        assert await store.load_hits("here") == {"of another form": 3}
        assert await store.folded_hits("here") == {"list|1|13": 16}
        assert await store.load_hits("there") == {old: 9, "of another form": 3}
        stopping.clear()
        await keep_folding(
            opened, None, keep_weeks=52, bin=8, zone=STOCKHOLM, clock=clock, pause=pause, stopping=stopping
        )
        assert await store.folded_hits("there") == {"list|1|13": 16}
        assert await store.fleet_hits() == {"of another form": 6}
