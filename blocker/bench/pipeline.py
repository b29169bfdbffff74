"""Figures of the whole chain: from a list file to what a node enforces, through a Redis of its own."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blocker.follower import Follower
from blocker.ingest.source import Source
from blocker.ingest.update import pull
from blocker.snapshot import Snapshot
from blocker.store.embedded import EmbeddedRedis
from blocker.store.redis import Store
from blocker.store.sealing import Keyring

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from blocker.store.manifest import Manifest

LIST = "bench"
DELTA_RULES = 1000
DELTAS = 20
#: Period of the ticker that finds event-loop stalls, in seconds.
TICK_SECONDS = 0.0005


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineFigures:
    """Figures of one list size.

    Attributes:
        enforced_seconds: List file to enforced, one node, embedded Redis.
        rules_per_second: The same as a rate.
        delta_median_ms: A change of 1 000 rules: commit to enforced, median.
        delta_p99_ms: The same, 99th percentile (the worst of the few made here).
        stall_ms: Longest time the event loop was held while the deltas were enforced.
    """

    enforced_seconds: float
    rules_per_second: float
    delta_median_ms: float
    delta_p99_ms: float
    stall_ms: float


class _TimedStore(Store):
    """Remembers when a commit was acknowledged."""

    committed = 0.0

    async def commit(self, manifest: Manifest, *, expected: int) -> None:
        """As in Store."""
        await super().commit(manifest, expected=expected)
        self.committed = time.perf_counter()


async def measure(lines: Sequence[str]) -> PipelineFigures:
    """Pull a list into an empty store, follow it, then change it again and again."""
    with tempfile.TemporaryDirectory(prefix="blocker-bench-") as name:
        directory = Path(name)
        embedded = EmbeddedRedis(directory)
        keyring = Keyring.load_or_create(directory / "keys", create=True)
        url = await embedded.ensure()
        try:
            async with await _TimedStore.open(url, "bench", keyring=keyring) as store:
                return await _measure(store, url, keyring, directory, lines)
        finally:
            await embedded.stop()


async def _measure(
    store: _TimedStore, url: str, keyring: Keyring, directory: Path, lines: Sequence[str]
) -> PipelineFigures:
    file = directory / "list.txt"
    await asyncio.to_thread(file.write_text, "\n".join(lines), "utf-8", "surrogateescape")
    source = Source.model_validate({"name": LIST, "format": "url", "path": file, "max_bad_share": 1.0})
    follower = Follower(
        lambda: Store.open(url, "bench", keyring=keyring),
        Snapshot(directory / "snapshot", keyring.lookup),
        keyring.lookup,
    )
    running = asyncio.create_task(follower.run())
    started = time.perf_counter()
    result = await pull(source, store, keyring)
    await _enforced(follower, result.serial or 0)
    seconds = time.perf_counter() - started
    delays = []
    async with _stalls() as stalls:
        for number in range(DELTAS):
            changed = [f"http://delta{number}-{at}.example/page.html" for at in range(DELTA_RULES)]
            await asyncio.to_thread(file.write_text, "\n".join([*lines, *changed]), "utf-8", "surrogateescape")
            result = await pull(source, store, keyring)
            delays.append((await _enforced(follower, result.serial or 0) - store.committed) * 1000)
    await follower.stop()
    await running
    delays.sort()
    return PipelineFigures(
        enforced_seconds=seconds,
        rules_per_second=len(lines) / seconds,
        delta_median_ms=statistics.median(delays),
        delta_p99_ms=delays[-1],
        stall_ms=max(stalls) * 1000,
    )


async def _enforced(follower: Follower, serial: int) -> float:
    """When the follower enforces a serial."""
    while follower.matcher is None or follower.matcher.table.lists[0][1] < serial:
        await asyncio.sleep(TICK_SECONDS)
    return time.perf_counter()


@contextlib.asynccontextmanager
async def _stalls() -> AsyncIterator[list[float]]:
    """How late a ticker was, in seconds, tick by tick."""
    late = [0.0]

    async def tick() -> None:
        while True:
            due = time.perf_counter() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            late.append(max(0.0, time.perf_counter() - due))

    ticker = asyncio.create_task(tick())
    try:
        yield late
    finally:
        ticker.cancel()
