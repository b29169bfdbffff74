"""Figures of the whole chain: from a list file to what a node enforces, through a Redis of its own.

Ingest runs in processes of its own, as it does in production, so that the follower's times are the follower's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blocker.errors import BlockerError
from blocker.follower import Follower
from blocker.snapshot import Snapshot
from blocker.store.embedded import EmbeddedRedis
from blocker.store.redis import Store
from blocker.store.sealing import Keyring

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

DELTA_RULES = 1000
DELTAS = 10
#: Period of the ticker that finds event-loop stalls, in seconds.
TICK_SECONDS = 0.0005
SOURCE = 'format = "url"\npath = "bench.txt"\nmax_bad_share = 1.0\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineFigures:
    """Figures of one list size.

    Attributes:
        enforced_seconds: List file to enforced, one node, embedded Redis.
        rules_per_second: The same as a rate.
        delta_median_ms: A change of 1 000 rules: commit to enforced, median.
        delta_worst_ms: The slowest of those made here.
        stall_ms: Longest time the node's event loop was held while the changes were enforced.
    """

    enforced_seconds: float
    rules_per_second: float
    delta_median_ms: float
    delta_worst_ms: float
    stall_ms: float


async def measure(lines: Sequence[str]) -> PipelineFigures:
    """Pull a list into an empty store, follow it, then change it again and again.

    Raises:
        BlockerError: A pull failed.
    """
    with tempfile.TemporaryDirectory(prefix="blocker-bench-") as name:
        directory = Path(name)
        embedded = EmbeddedRedis(directory)
        keyring = Keyring.load_or_create(directory / "keys", create=True)
        url = await embedded.ensure()
        try:
            async with await Store.open(url, "default", keyring=keyring) as store:
                return await _measure(store, url, keyring, directory, lines)
        finally:
            await embedded.stop()


async def _measure(store: Store, url: str, keyring: Keyring, directory: Path, lines: Sequence[str]) -> PipelineFigures:
    file = directory / "bench.txt"
    await asyncio.to_thread((directory / "bench.toml").write_text, SOURCE, "utf-8")
    await asyncio.to_thread(_write, file, lines, ())
    snapshot = Snapshot(directory / "snapshot", keyring.lookup)
    follower = Follower(lambda: Store.open(url, "default", keyring=keyring), snapshot, keyring.lookup)
    running = asyncio.create_task(follower.run())
    started = time.time()
    seconds = (await _pull(directory, follower, 1))[0] - started
    delays = []
    worst_stall = 0.0
    for number in range(DELTAS):
        changed = [f"http://delta{number}-{at}.example/page.html" for at in range(DELTA_RULES)]
        await asyncio.to_thread(_write, file, lines, changed)
        enforced, stall = await _pull(directory, follower, number + 2)
        worst_stall = max(worst_stall, stall)
        # A commit's id begins with the server's clock in milliseconds, which here is our own.
        committed = int((await store.last_commit()).partition("-")[0]) / 1000
        delays.append((enforced - committed) * 1000)
    await follower.stop()
    await running
    return PipelineFigures(
        enforced_seconds=seconds,
        rules_per_second=len(lines) / seconds,
        delta_median_ms=statistics.median(delays),
        delta_worst_ms=max(delays),
        stall_ms=worst_stall * 1000,
    )


def _write(file: Path, lines: Sequence[str], changed: Sequence[str]) -> None:
    """Piece by piece: one join of a million lines would hold every other thread for long."""
    with file.open("w", encoding="utf-8", errors="surrogateescape") as out:
        for line in (*lines, *changed):
            out.write(f"{line}\n")


async def _pull(directory: Path, follower: Follower, serial: int) -> tuple[float, float]:
    """One `blocker lists pull` in a process of its own.

    Returns:
        When the follower enforced what came of it, Unix seconds, and how long its event loop stood still at most.
    """
    program = (sys.executable, "-m", "blocker", "--data-dir", str(directory), "--lists-dir", str(directory))
    # The measurement must not depend on how this machine is configured.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BLOCKER_")}
    process = await asyncio.create_subprocess_exec(
        *program, "lists", "pull", "--json",
        cwd=directory, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    # From here on: starting a process takes its time as well, and no node does that.
    async with _stalls() as stalls:
        enforced = asyncio.create_task(_enforced(follower, serial))
        _out, errors = await process.communicate()
        if process.returncode == 0:
            await enforced
    if process.returncode:
        raise BlockerError(f"the pull that was to be measured failed: {errors.decode(errors='replace').strip()}")
    return await enforced, max(stalls)


async def _enforced(follower: Follower, serial: int) -> float:
    """When, in Unix seconds, the follower enforces a serial."""
    while follower.matcher is None or follower.matcher.table.lists[0][1] < serial:  # noqa: ASYNC110 - nothing signals it
        await asyncio.sleep(TICK_SECONDS)
    return time.time()


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
