"""While it runs: stopping, swapping, and what the event loop feels of it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from blocker._native import LineParser
from blocker.errors import StoreUnavailable
from blocker.follower import Follower
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import publish
from blocker.store.redis import Store
from tests.follower.support import (
    DEADLINE,
    DEPLOYMENT,
    KEYRING,
    NEVER,
    Deployment,
    page,
    running,
    serials,
    until,
    verdict,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class TestStopping:
    @pytest.mark.parametrize("frozen", [False, True])
    async def test_while_it_waits_for_a_commit(self, deployment: Deployment, frozen: bool) -> None:
        await deployment.publish("block", page("one"))
        async with running(deployment.follower()) as follower:
            await until(lambda: follower.status.source == "store")
            if frozen:
                deployment.redis.pause()

    async def test_while_redis_does_not_answer_its_first_question(self, deployment: Deployment) -> None:
        deployment.redis.pause()
        for turns in range(8):
            async with running(deployment.follower()):
                for _ in range(turns):
                    await asyncio.sleep(0)

    async def test_while_it_waits_before_another_try(self, deployment: Deployment) -> None:
        await deployment.redis.akill()
        async with running(deployment.follower()) as follower:
            await until(lambda: follower.status.detail != "")

    async def test_while_it_connects(self, deployment: Deployment) -> None:
        connecting = asyncio.Event()

        async def connect() -> Store:
            connecting.set()
            await asyncio.sleep(NEVER)
            raise StoreUnavailable("never")

        async with running(Follower(connect, deployment.snapshot, KEYRING.lookup)):
            await connecting.wait()

    async def test_in_the_middle_of_reading(self, deployment: Deployment) -> None:
        await deployment.publish("block", page("one"))

        class Freezing(Store):
            async def heads(self) -> Any:  # noqa: ANN401 - as in Store
                deployment.redis.pause()
                reading.set()
                return await super().heads()

        reading = asyncio.Event()
        follower = Follower(
            lambda: Freezing.open(deployment.redis.url, DEPLOYMENT, keyring=KEYRING),
            deployment.snapshot,
            KEYRING.lookup,
        )
        async with running(follower):
            await reading.wait()

    async def test_before_it_runs(self, deployment: Deployment) -> None:
        follower = deployment.follower()
        await follower.stop()
        async with asyncio.timeout(DEADLINE):
            await follower.run()

    async def test_by_cancelling_it(self, deployment: Deployment) -> None:
        follower = deployment.follower()
        task = asyncio.create_task(follower.run())
        await until(lambda: follower.status.store_up)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class TestSwapping:
    async def test_decisions_are_always_those_of_one_serial(self, deployment: Deployment) -> None:
        """A thread asks without pause while ten serials are put in place; each answer is whole."""
        swaps = 10
        urls = [page("always"), *(page(f"at{serial}") for serial in range(1, swaps + 2))]
        filler = [page(f"filler{at}") for at in range(3000)]
        await deployment.publish("block", page("always"), page("at1"), *filler)
        seen: list[tuple[tuple[str, int | None], ...]] = []
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                matcher = follower.matcher
                assert matcher is not None
                answers = tuple((found.verdict.value, found.serial) for found in matcher.decide_many(urls))
                if not seen or seen[-1] != answers:
                    seen.append(answers)

        async with running(deployment.follower()) as follower:
            await until(lambda: follower.matcher is not None)
            asking = asyncio.create_task(asyncio.to_thread(ask))
            try:
                for serial in range(2, swaps + 2):
                    await deployment.publish("block", page("always"), page(f"at{serial}"), *filler)
                    await until(lambda serial=serial: serials(follower) == {"block": serial})  # type: ignore[misc]
            finally:
                done.set()
                await asking
        allowed: list[tuple[tuple[str, int | None], ...]] = []
        for serial in range(1, swaps + 2):
            blocked = (page("always"), page(f"at{serial}"))
            allowed.append(tuple(("block", serial) if url in blocked else ("allow", None) for url in urls))
        positions = [allowed.index(answers) for answers in seen]
        assert positions == sorted(set(positions))
        assert len(positions) > swaps // 2

    async def test_the_event_loop_is_not_held_by_a_large_list(self, deployment: Deployment) -> None:
        """200 000 rules are fetched and swapped again and again: the best round must be good, the machine may be busy.

        A round takes some 100 ms, one to three of them on the loop.
        """
        versions = []
        for kind in (b"host", b"name"):
            parser = LineParser("domain")
            parser.feed(b"".join(b"%s%d.example\n" % (kind, number) for number in range(200_000)))
            versions.append(parser.finish())
        follower = deployment.follower()
        stalls = []
        for turn in range(40):
            rules = versions[turn % 2]
            await publish(deployment.store, KEYRING, "block", PublishOptions(), rules, reason="test", now=time.time())
            async with longest_stall() as stall:
                await follower.sync(deployment.store)
            stalls.append(stall[0])
            if turn % 4 == 3 and min(stalls) < 0.02:
                break
        assert serials(follower) == {"block": len(stalls)}
        assert verdict(follower, "http://name199999.example/") == "block"
        assert verdict(follower, "http://host199999.example/") == "allow"
        assert min(stalls) < 0.02

    async def test_status_follows_a_clock(self, deployment: Deployment) -> None:
        now = [1000.0]
        follower = deployment.follower(clock=lambda: now[0])
        now[0] = 1007.0
        assert follower.status.lag_seconds == 7
        await deployment.publish("block", page("one"))
        await follower.sync(deployment.store)
        assert (follower.status.lag_seconds, follower.status.last_sync) == (0, 1007.0)
        deployment.redis.command("FLUSHALL")
        now[0] = 1010.0
        await follower.sync(deployment.store)
        assert (follower.status.lag_seconds, follower.status.last_sync) == (3, 1007.0)


@contextlib.asynccontextmanager
async def longest_stall() -> AsyncIterator[list[float]]:
    """How long the event loop was held, at most, in seconds."""
    longest = [0.0]

    async def tick() -> None:
        while True:
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            longest[0] = max(longest[0], time.perf_counter() - due)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0)
    try:
        yield longest
        await asyncio.sleep(0.002)
    finally:
        ticker.cancel()
