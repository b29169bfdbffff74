"""Each hit is counted once by a real Redis, whatever happens to it."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from blocker.errors import StoreUnavailable
from blocker.hits.calendar import window_of
from blocker.store.redis import Store
from tests.hits.support import BAD, GOOD, SHADOWED, WORSE, Clock
from tests.hits.test_counters import MATCHER, START, UTC, counter, sums
from tests.redis_server import RedisServer
from tests.store.proxy import Proxy

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_real_server_that_is_killed_and_restarted_counts_each_hit_once(tmp_path: Path) -> None:
    clock = Clock(START)
    moments = random.Random(3)  # noqa: S311
    expected: Counter[str] = Counter()
    async with RedisServer(tmp_path, aof=True) as server, await Store.open(server.url, "test") as store:
        hits = counter(store, clock)
        for step in range(120):
            for _ in range(moments.randrange(4)):
                url = moments.choice((BAD, WORSE, SHADOWED, GOOD))
                hits.count(MATCHER.decide(url))
                window = window_of(clock.now, UTC)
                for name, shadow in {BAD: [("first", False), ("quiet", True)], WORSE: [("second", False)],
                                     SHADOWED: [("quiet", True)], GOOD: []}[url]:  # fmt: skip
                    expected[window.cell(name, shadow=shadow).field] += 1
            clock.now += 150
            if step % 20 == 5:
                await server.akill()
            elif step % 20 == 15:
                await server.astart()
            elif server.running or step % 5 == 0:
                await hits.flush()
        assert await hits.flush()
        assert await store.load_hits("node") == expected


async def test_answers_that_are_lost_count_each_hit_once(tmp_path: Path) -> None:
    clock = Clock(START)
    async with RedisServer(tmp_path) as server, Proxy(server) as proxy, await Store.open(proxy.url, "test") as store:
        hits = counter(store, clock)
        assert await hits.flush()
        for _ in range(10):
            hits.count(MATCHER.decide(WORSE))
            proxy.cut(b"EVAL", "after", 3)  # as often as the client tries
            assert not await hits.flush()
            assert proxy.cuts == 3
            hits.count(MATCHER.decide(WORSE))
            assert await hits.flush()
        assert await store.load_hits("node") == {"second|2026-W48|7|22": 20}


async def test_a_server_that_is_away_at_the_start_delays_the_totals_only(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, aof=True)
    clock = Clock(START)
    try:
        async with await Store.open(server.url, "test") as store:
            with pytest.raises(StoreUnavailable):
                await store.load_hits("node")
            hits = counter(store, clock)
            hits.count(MATCHER.decide(WORSE))
            assert not await hits.flush()
            assert hits.released is None
            await server.astart()
            assert await hits.flush()
            assert sums(hits) == {}
            assert await store.load_hits("node") == {"second|2026-W48|7|22": 1}
    finally:
        server.close()
