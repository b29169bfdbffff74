"""What a kill -9 costs: the hits of the last second, and none before."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from blocker.store.redis import Store
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from pathlib import Path

# Counts a hit every few milliseconds, says when it did, and flushes as a node does.
COUNTING = """
import asyncio, sys, time, zoneinfo
import blocker
from blocker.hits.counters import HitCounter
from blocker.store.redis import Store

async def main():
    decision = blocker.Matcher.build({"list": ["http://bad.example/"]}).decide("http://bad.example/")
    async with await Store.open(sys.argv[1], "test") as store:
        hits = HitCounter(store, node="node", zone=zoneinfo.ZoneInfo("UTC"))
        running = asyncio.create_task(hits.run())
        while True:
            hits.count(decision)
            sys.stdout.write(f"{time.monotonic()}\\n")
            sys.stdout.flush()
            await asyncio.sleep(0.005)

asyncio.run(main())
"""


async def test_a_kill_loses_at_most_the_last_second(tmp_path: Path) -> None:
    async with RedisServer(tmp_path) as server, await Store.open(server.url, "test") as store:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", COUNTING, server.url, stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        moments = [float(await child.stdout.readline())]
        while moments[-1] < moments[0] + 2.7:
            moments.append(float(await child.stdout.readline()))
        child.kill()
        moments += map(float, (await child.stdout.read()).splitlines())
        await child.wait()
        stored = sum((await store.load_hits("node")).values())
    certain = sum(moment < moments[-1] - 1.0 for moment in moments)
    assert certain <= stored <= len(moments) + 1  # one may be counted and not yet written down
    assert certain > 100
