"""`kill -9` of Redis in the middle of uploads and commits, again and again."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

from blocker.errors import StoreUnavailable
from blocker.store.embedded import EmbeddedRedis
from blocker.store.redis import Store
from tests.store.publishing import read_whole, upload

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from blocker.store.manifest import Manifest

KILLS = 12
LISTS = ("one", "two")


class Node:
    """What a node that publishes and counts remembers over the deaths of its Redis."""

    def __init__(self) -> None:
        self.acknowledged = dict.fromkeys(LISTS, 0)
        self.pending: dict[str, Manifest] = {}  # commits of unknown outcome
        self.sequence = 0

    async def settle(self, store: Store) -> None:
        """Look for everything that was acknowledged, and repeat what was under way."""
        heads = await store.heads()
        for name in LISTS:
            serial = heads[name].serial if name in heads else 0
            assert self.acknowledged[name] <= serial <= self.acknowledged[name] + (name in self.pending)
            history = await store.history(name, 500)
            assert [manifest.serial for manifest in history] == [*range(serial, 0, -1)]
            for manifest in history:
                await read_whole(store, manifest)
            if name in self.pending:
                manifest = self.pending.pop(name)
                await store.commit(manifest, expected=manifest.serial - 1)
                assert (await store.heads())[name] == manifest.head
                self.acknowledged[name] = manifest.serial
        if self.sequence:
            await store.flush_hits("node", "boot", self.sequence, {"cell": self.sequence})
            assert await store.load_hits("node") == {"cell": sum(range(self.sequence + 1))}

    async def work(self, store: Store, step: Callable[[], None]) -> None:
        """Publish and count until Redis dies; `step` is called between any two requests."""
        parts = [*(self._publish(store, name, step) for name in LISTS), self._count(store, step)]
        outcomes = await asyncio.gather(*parts, return_exceptions=True)
        assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes), outcomes

    async def _publish(self, store: Store, name: str, step: Callable[[], None]) -> None:
        while True:
            serial = self.acknowledged[name] + 1
            step()
            manifest = await upload(store, name, serial, [secrets.token_bytes(100_000) for _ in range(3)])
            manifest = replace(manifest, reason=secrets.token_hex(8))
            step()
            self.pending[name] = manifest
            await store.commit(manifest, expected=serial - 1)
            del self.pending[name]
            self.acknowledged[name] = serial

    async def _count(self, store: Store, step: Callable[[], None]) -> None:
        while True:
            self.sequence += 1
            step()
            await store.flush_hits("node", "boot", self.sequence, {"cell": self.sequence})


def kill_at(pid: int, limit: int) -> Callable[[], None]:
    """A step function that kills a process at its `limit`th call."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == limit:
            os.kill(pid, signal.SIGKILL)

    return step


async def test_nothing_acknowledged_is_lost_by_kill_9(
    tmp_path: Path, binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each kill every acknowledged commit and count is there, and every manifest is whole."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "redis-server").symlink_to(binary)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    redis = EmbeddedRedis(tmp_path / "data")
    node = Node()
    try:
        for kill in range(KILLS):
            limit = random.Random(kill).randrange(3, 40)  # noqa: S311 - a test's dice
            async with await Store.open(await redis.ensure(), "test") as store:
                await node.settle(store)
                assert redis._process is not None
                await node.work(store, kill_at(redis._process.pid, limit))
        assert min(node.acknowledged.values()) > 0
    finally:
        await redis.stop()
