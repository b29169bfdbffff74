"""What a kill -9 costs: the hits of the last second, and none before."""

from __future__ import annotations

import asyncio
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

from blocker.store.redis import Store
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from pathlib import Path

# Counts a hit every few milliseconds and says so, and flushes as a node does, saying when each flush that the store
# has taken began.
COUNTING = """
import asyncio, sys, time, zoneinfo
from collections.abc import Mapping
import blocker
from blocker.hits.counters import HitCounter
from blocker.store.redis import Store

class Telling(Store):
    async def flush_hits(self, node: str, boot: str, sequence: int, cells: Mapping[str, int]) -> object:
        began = time.monotonic()
        done = await super().flush_hits(node, boot, sequence, cells)
        say("flushed", began, sum(cells.values()))
        return done

def say(*words):
    print(*words, flush=True)

async def main():
    decision = blocker.Matcher.build({"list": ["http://bad.example/"]}).decide("http://bad.example/")
    async with await Telling.open(sys.argv[1], "test") as store:
        hits = HitCounter(store, node="node", zone=zoneinfo.ZoneInfo("UTC"))
        running = asyncio.create_task(hits.run())
        while True:
            hits.count(decision)
            say("hit")
            await asyncio.sleep(0.005)

asyncio.run(main())
"""


async def test_a_kill_loses_at_most_the_last_second(tmp_path: Path) -> None:
    async with RedisServer(tmp_path) as server, await Store.open(server.url, "test") as store:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", COUNTING, server.url, stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        said: list[list[bytes]] = []
        while len(flushes := [words[1:] for words in said if words[0] == b"flushed"]) < 4:
            said.append((await child.stdout.readline()).split())
        child.kill()
        said += map(bytes.split, (await child.stdout.read()).splitlines())
        await child.wait()
        stored = sum((await store.load_hits("node")).values())
    taken = sum(int(count) for _, count in flushes)
    hits = said.count([b"hit"])
    # One may be counted and not yet said; a flush that ended after the last one read is more.
    assert 100 < taken <= stored <= hits + 1
    # A process that waits for its turn on a busy machine flushes late: at its best it does so within the second.
    began = [float(moment) for moment, _ in flushes]
    assert min(later - earlier for earlier, later in pairwise(began)) < 1.0
