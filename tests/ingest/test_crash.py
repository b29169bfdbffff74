"""Death at any moment, of the process that pulls or of Redis: the store shows the old list or the new one, whole."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blocker.errors import StoreUnavailable
from blocker.ingest.source import Source, load_source
from blocker.ingest.update import pull
from tests.ingest.checks import assert_whole, rules_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring
    from tests.redis_server import RedisServer

KILLS = 40
REDIS_KILLS = 12
ROOT = Path(__file__).parents[2]


def variants() -> list[str]:
    """Lists that follow each other by a small change (a layer) or by a large one (a base)."""
    first = [f"http://site{number % 90}.example/{number}" for number in range(20_000)]
    second = [f"http://site{number % 90}.example/{number}" for number in range(15_000, 35_000)]
    return ["\n".join(lines) for lines in (first, first[50:], second, [*second, "http://new.example/"])]


class Swapped:
    """A source whose file is swapped for another variant, never for the one it holds."""

    def __init__(self, directory: Path, chance: random.Random) -> None:
        self.toml = directory / "swapped.toml"
        self.toml.write_text('format = "url"\npath = "list.txt"\n', encoding="utf-8")
        self.texts = variants()
        self.digests = [rules_of([text]).digest() for text in self.texts]
        self.now = -1
        self._file = directory / "list.txt"
        self._chance = chance

    def swap(self) -> None:
        """Put another variant in place, as lists/README.md says it should be done."""
        self.now = self._chance.choice([index for index in range(len(self.texts)) if index != self.now])
        aside = self._file.with_suffix(".new")
        aside.write_text(self.texts[self.now], encoding="utf-8")
        aside.rename(self._file)

    def source(self) -> Source:
        """The source."""
        return load_source(self.toml)


class Puller:
    """The process of pull_child.py."""

    def __init__(self, url: str, toml: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.ingest.pull_child", url, str(toml)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip

    def run(self, kill_after: float | None = None) -> int:
        """Pull once, and kill the pull after so many seconds; its exit status."""
        child = self._ask("start")
        if kill_after is not None:
            time.sleep(kill_after)  # the moment of the kill; nothing is waited for
            os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(self._ask("end"))

    def close(self) -> None:
        """End it."""
        self._process.communicate()

    def _ask(self, what: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@pytest.fixture
def swapped(tmp_path: Path) -> Swapped:
    made = Swapped(tmp_path, random.Random(2024))  # noqa: S311 - a test's own
    made.swap()
    return made


@pytest.fixture
def puller(redis: RedisServer, swapped: Swapped) -> Iterator[Puller]:
    process = Puller(redis.url, swapped.toml)
    yield process
    process.close()


async def check(store: Store, keyring: Keyring, swapped: Swapped) -> tuple[int, int]:
    """The head's serial and which variant it holds; fails unless it holds one, whole."""
    rules = await assert_whole(store, keyring, "swapped")
    return (await store.manifest("swapped")).serial, swapped.digests.index(rules.digest())


async def test_a_killed_pull_leaves_the_old_list_or_the_new_one(
    redis: RedisServer, store: Store, keyring: Keyring, swapped: Swapped, puller: Puller
) -> None:
    chance = random.Random(2025)  # noqa: S311 - a test's own
    for _ in range(2):  # the first one also starts the process
        swapped.swap()
        started = time.monotonic()
        assert await asyncio.to_thread(puller.run) == 0
        longest = time.monotonic() - started
    serial, held = await check(store, keyring, swapped)
    clients = redis.command("CLIENT", "LIST").count(b"\n")
    killed = kept = changed = 0
    while killed < KILLS:
        before = held
        swapped.swap()
        status = await asyncio.to_thread(puller.run, chance.uniform(0, longest))
        assert status in (0, -signal.SIGKILL)
        # A machine's speed changes: most kills should meet a pull, and some its very end.
        longest *= 0.8 if status == 0 else 1.05
        # What the dead process had sent already may still be on its way through Redis.
        await until(lambda: redis.command("CLIENT", "LIST").count(b"\n") <= clients)
        later, held = await check(store, keyring, swapped)
        assert serial <= later <= serial + 1
        assert held in ((swapped.now,) if status == 0 else (before, swapped.now))
        serial = later
        killed += status == -signal.SIGKILL
        kept += held == before
        changed += held == swapped.now
    assert kept
    assert changed
    await store.collect_orphans(grace_seconds=0, keep_serials=2)
    assert await check(store, keyring, swapped) == (serial, held)
    swapped.swap()
    assert await asyncio.to_thread(puller.run) == 0
    assert await check(store, keyring, swapped) == (serial + (held != swapped.now), swapped.now)


async def test_a_redis_killed_during_a_pull_is_recovered_from(
    redis: RedisServer, store: Store, keyring: Keyring, swapped: Swapped
) -> None:
    chance = random.Random(2026)  # noqa: S311 - a test's own
    started = time.monotonic()
    assert (await pull(swapped.source(), store, keyring)).status == "published"
    longest = time.monotonic() - started
    serial, held = await check(store, keyring, swapped)
    failed = 0
    while failed < REDIS_KILLS:
        before = held
        swapped.swap()
        work = asyncio.create_task(pull(swapped.source(), store, keyring))
        await asyncio.wait((work,), timeout=chance.uniform(0, longest))
        await redis.akill()
        await asyncio.wait((work,))
        await redis.astart()
        error = work.exception()
        assert error is None or isinstance(error, StoreUnavailable)
        failed += error is not None
        longest *= 0.8 if error is None else 1.05
        later, held = await check(store, keyring, swapped)
        assert serial <= later <= serial + 1
        assert held in (before, swapped.now)
        assert (await pull(swapped.source(), store, keyring)).good
        serial, held = await check(store, keyring, swapped)
        assert held == swapped.now
