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
    from pathlib import Path

    import pytest

    from blocker.store.manifest import Manifest

KILLS = 12
LISTS = ("one", "two")


async def test_nothing_acknowledged_is_lost_by_kill_9(
    tmp_path: Path, binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each kill: every acknowledged commit and count is there, and every kept manifest is whole."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "redis-server").symlink_to(binary)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    redis = EmbeddedRedis(tmp_path / "data")
    acknowledged = dict.fromkeys(LISTS, 0)
    pending: dict[str, Manifest] = {}
    sequence = 0
    try:
        for kill in range(KILLS):
            url = await redis.ensure()
            dice = random.Random(kill)  # noqa: S311 - a test's dice
            async with await Store.open(url, "test") as store:
                heads = await store.heads()
                for name in LISTS:
                    found = heads[name].serial if name in heads else 0
                    # One commit may have been under way: done and not acknowledged.
                    assert acknowledged[name] <= found <= acknowledged[name] + (name in pending)
                    for manifest in await store.history(name, 500):
                        await read_whole(store, manifest)
                    if name in pending:
                        manifest = pending.pop(name)
                        await store.commit(manifest, expected=manifest.serial - 1)
                        acknowledged[name] = manifest.serial
                        assert (await store.heads())[name] == manifest.head
                # The flush that was under way is repeated unchanged, and counts once.
                if sequence:
                    await store.flush_hits("node", "boot", sequence, {"cell": sequence})
                    assert await store.load_hits("node") == {"cell": sum(range(sequence + 1))}

                running = redis._process
                assert running is not None
                steps = 0
                limit = dice.randrange(3, 40)

                def step(limit: int = limit, pid: int = running.pid) -> None:
                    nonlocal steps
                    steps += 1
                    if steps == limit:
                        os.kill(pid, signal.SIGKILL)

                async def publisher(name: str, store: Store = store) -> None:
                    while True:
                        serial = acknowledged[name] + 1
                        blobs = [secrets.token_bytes(100_000) for _ in range(3)]
                        step()
                        manifest = replace(await upload(store, name, serial, blobs), reason=secrets.token_hex(8))
                        step()
                        pending[name] = manifest
                        await store.commit(manifest, expected=serial - 1)
                        acknowledged[name] = serial
                        del pending[name]
                        step()

                async def counter(store: Store = store) -> None:
                    nonlocal sequence
                    while True:
                        sequence += 1
                        step()
                        await store.flush_hits("node", "boot", sequence, {"cell": sequence})

                outcomes = await asyncio.gather(*map(publisher, LISTS), counter(), return_exceptions=True)
                assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes), outcomes
        assert min(acknowledged.values()) > 0
    finally:
        await redis.stop()
