"""A store, a follower of it, and what tests do to both."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blocker._native import LineParser
from blocker.follower import Follower
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import publish
from blocker.snapshot import Snapshot
from blocker.store.redis import Store
from blocker.store.sealing import Keyring
from tests.loop_time import loop_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from blocker.store.manifest import Manifest
    from tests.redis_server import RedisServer

KEYRING = Keyring(lookup=b"0123456789abcdef", seal=bytes(range(32)))
OTHER_KEYS = Keyring(lookup=b"another key 4567", seal=KEYRING.seal)
DEPLOYMENT = "test"
# A loaded machine may need seconds; only what is broken needs this long.
DEADLINE = 30.0
# A stop lets go of whatever it waits for. It takes a few milliseconds; a read that blocks takes two seconds.
STOP_SECONDS = 1.0
# Longer than any test: only a wake-up can be the reason for what happens sooner.
NEVER = 300.0


class Deployment:
    """A store, and what a test does to it."""

    def __init__(self, redis: RedisServer, store: Store, directory: Path) -> None:
        self.redis = redis
        self.store = store
        self.directory = directory

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot(self.directory, KEYRING.lookup)

    def follower(self, **options: Any) -> Follower:  # noqa: ANN401 - any option's own type
        chosen: dict[str, Any] = {"poll_seconds": NEVER, **options}
        return Follower(self.connect, self.snapshot, KEYRING.lookup, **chosen)

    async def connect(self) -> Store:
        return await Store.open(self.redis.url, DEPLOYMENT, keyring=KEYRING)

    async def publish(self, name: str, *lines: str, **options: Any) -> int:  # noqa: ANN401 - as above
        rules = LineParser("url")
        rules.feed("".join(f"{line}\n" for line in lines).encode())
        done = await publish(
            self.store, KEYRING, name, PublishOptions(**options), rules.finish(), reason="test", now=time.time()
        )
        return done.serial

    async def commit(self, manifest: Manifest, **fields: Any) -> Manifest:  # noqa: ANN401 - as above
        """Commit a manifest as the next serial of its list, with some fields of one's own."""
        head = (await self.store.heads())[manifest.list]
        fields = {"epoch": await self.store.epoch(), "serial": head.serial + 1, **fields}
        changed = replace(manifest, **fields)
        await self.store.commit(changed, expected=head.serial)
        return changed

    async def retire(self, name: str) -> None:
        await self.commit(await self.store.manifest(name), retired=True, entries=0, layers=())

    def key(self, rest: str) -> str:
        return f"{{blocker:{DEPLOYMENT}}}:{rest}"


@contextlib.asynccontextmanager
async def running(follower: Follower) -> AsyncIterator[Follower]:
    """A follower that runs, and is stopped quickly."""
    task = asyncio.create_task(follower.run())
    try:
        yield follower
    finally:
        async with loop_time() as spent:
            await follower.stop()
            await task
    assert spent.seconds < STOP_SECONDS


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        await asyncio.sleep(0.005)


def serials(follower: Follower) -> dict[str, int]:
    if follower.matcher is None:
        return {}
    return {name: serial for name, serial, _allow, _metadata in follower.matcher.table.lists}


def verdict(follower: Follower, url: str) -> str:
    assert follower.matcher is not None
    return follower.matcher.decide(url).verdict.value


def page(name: str) -> str:
    return f"http://{name}.example/page"
