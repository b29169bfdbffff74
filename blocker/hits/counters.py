"""Counts hits on the event loop and brings them to the store, each exactly once.

The path of a hit: `count` adds it to the native matrix of the current window (O(1), no allocation); at the end of the
window and before each flush the matrix is drained into *pending* cells; a flush cuts a *batch* from these and hands it
to the store under this boot's next sequence number. While the outcome of a batch is unknown, the same batch is offered
again under the same number, which the store applies once; new hits gather in pending meanwhile. What is stored goes
into the `Ledger`, from which the exporter reads what is released.

What is lost: at a kill, the hits of the last `flush_seconds` at most, be they counted here or in another process; at a
graceful stop none, unless the store is away. With the store away, pending cells wait in memory: one for each list that
hits and each hour, about 150 bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from typing import TYPE_CHECKING, Protocol

import structlog

from blocker._native import HitMatrix
from blocker.errors import StoreError
from blocker.hits.calendar import Cell, Window, still_to_come, window_of
from blocker.hits.fleet import StoredHits, load_ledger
from blocker.hits.release import DEFAULT_BIN, Ledger, Series
from blocker.log import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import tzinfo

    from blocker._native import Decision

# A flush begins when this share of flush_seconds has passed since the last one began; the rest is for the store.
_FLUSH_SHARE = 0.8
# What another process hands over waits no longer than this for the next flush, in seconds: it has waited there already.
_SOON_SECONDS = 0.1
# Cells in one batch: one small script run in Redis, which serves nobody else meanwhile.
_BATCH_CELLS = 512
# How long a graceful stop waits for the last flush, in seconds.
_LAST_FLUSH_SECONDS = 5.0

log = structlog.get_logger(__name__)

# List, whether it is in shadow mode, how many.
NativeHit = tuple[str, bool, int]


class HitStore(StoredHits, Protocol):
    """What the counter needs of the store."""

    async def flush_hits(self, node: str, boot: str, sequence: int, cells: Mapping[str, int]) -> object:
        """Add the cells once for each (boot, sequence), however often it is called.

        Raises:
            StoreError: The outcome is unknown.
        """


class HitCounter:
    """The hits of one node. One event loop uses it; no method but `run` and `flush` waits.

    Args:
        store: Where counts are kept.
        node: The node's stable name; two running processes must not share it.
        zone: Whose wall clock names the hours.
        bin: Released cells are rounded up to a multiple of this.
        flush_seconds: How many seconds of hits a kill may lose.
        clock: Unix seconds now.
        boot: Name of this start of the process, never used before; drawn at random by default.
    """

    def __init__(
        self,
        store: HitStore,
        *,
        node: str,
        zone: tzinfo,
        bin: int = DEFAULT_BIN,  # noqa: A002 - the setting's own name
        flush_seconds: float = 1.0,
        clock: Callable[[], float] = time.time,
        boot: str | None = None,
    ) -> None:
        self.bin = bin
        # How long the cells of an hour wait for counts of other processes after its end.
        self.settle_seconds = 0.0
        self._store = store
        self._node = node
        self._zone = zone
        self._period = flush_seconds * _FLUSH_SHARE
        self._clock = clock
        self._boot = boot or secrets.token_hex(8)
        self._sequence = 0
        self._batch: Counter[Cell] = Counter()  # offered to the store under _sequence
        self._pending: Counter[Cell] = Counter()
        self._ledger: Ledger | None = None  # None until what is stored is known
        self._at_border: list[Callable[[], object]] = []
        self._taken: list[Callable[[], Iterable[NativeHit]]] = []
        self._task: asyncio.Task[bool] | None = None
        self._stopping = asyncio.Event()
        self._wake = asyncio.Event()
        self._store_away = False
        self._waiting_hours = 0
        self._matrix = HitMatrix()
        self._add = self._matrix.count
        self._window = self._open_window(clock())

    def count(self, decision: Decision) -> None:
        """Count a block, and each shadow list that would have blocked; any other decision counts nothing.

        Cost: under 0.2 µs, but for the first of a window.
        """
        now = self._clock()
        if not self._add(decision, now):
            self._roll(now)
            self._add(decision, now)

    def tick(self) -> None:
        """Notice that an hour has ended, if it has; `count`, `flush` and the exporter do this by themselves."""
        self._tick(self._clock())

    def on_border(self, callback: Callable[[], object]) -> None:
        """Have `callback` called when a window has ended, before the first hit of the next one is counted."""
        self._at_border.append(callback)

    def attach(self, take: Callable[[], Iterable[NativeHit]]) -> None:
        """Count what native code counts too; `take` hands out what was counted since it was last called.

        Whoever counts there calls `tick` first, so that no hit falls into the hour after its own.
        """
        self._taken.append(take)

    def credit(self, hits: Iterable[NativeHit]) -> None:
        """Count hits of the present window that were counted elsewhere."""
        for name, shadow, count in hits:
            self._pending[self._window.cell(name, shadow=shadow)] += count

    def credit_cells(self, cells: Mapping[Cell, int]) -> None:
        """Count hits that another process counted, each in its own cell, and have them stored soon."""
        self._pending.update(cells)
        self._wake.set()

    @property
    def released(self) -> Mapping[Series, tuple[int, ...]] | None:
        """What may be seen (`Ledger.released`), or None while the stored counts are not known.

        None and not zeros: a counter that starts at 0 and then jumps to what is stored would look like new hits.
        """
        return None if self._ledger is None else self._ledger.released

    @property
    def waiting_hours(self) -> int:
        """Hours that are over and whose hits the store has not taken, as of the last flush.

        Only these: what waits of the present hour would tell when the first hit was.
        """
        return self._waiting_hours

    async def flush(self) -> bool:
        """Bring everything counted so far to the store, and release what may be released.

        Flushes run one after the other. Cancelling the caller does not cancel the flush: a command cut off on a shared
        connection could leave its reply to the next one.

        Returns:
            Whether all of it is stored. If not, nothing is lost and the next flush tries again.
        """
        self._task = asyncio.create_task(self._flush_after(self._task))
        return await asyncio.shield(self._task)

    async def run(self) -> None:
        """Flush again and again until `stop`, then (also when cancelled) one last time."""
        loop = asyncio.get_running_loop()
        try:
            while not self._stopping.is_set():
                began = loop.time()
                await self.flush()
                await _pause(self._stopping, began + _SOON_SECONDS - loop.time())
                await _pause(self._wake, began + self._period - loop.time())
                self._wake.clear()
        finally:
            await self._flush_last()

    def stop(self) -> None:
        """End `run` after a last flush; returns at once."""
        self._stopping.set()
        self._wake.set()

    def _tick(self, now: float) -> None:
        if not self._window.start <= now < self._window.end:
            self._roll(now)

    def _open_window(self, now: float) -> Window:
        window = window_of(now, self._zone)
        self._matrix.window(window.start, window.end, window.weekday, window.hour)
        return window

    def _roll(self, now: float) -> None:
        self._drain()
        self._window = self._open_window(now)
        for callback in self._at_border:
            callback()

    def _drain(self) -> None:
        for name, shadow, _weekday, _hour, hits in self._matrix.drain():
            self._pending[self._window.cell(name, shadow=shadow)] += hits
        for take in self._taken:
            self.credit(take())

    async def _flush_last(self) -> None:
        stored = False
        try:
            async with asyncio.timeout(_LAST_FLUSH_SECONDS):
                stored = await self.flush()
        except TimeoutError:
            pass
        if not stored:
            log.warning("the store is away at the stop; hits that were not flushed are lost")

    async def _flush_after(self, earlier: asyncio.Task[bool] | None) -> bool:
        if earlier is not None:
            await asyncio.wait([earlier])
        try:
            await self._flush_now()
            self._waiting_hours = 0
        except StoreError as error:
            if not self._store_away:
                log.warning("hits wait in memory until the store is back", **describe(error))
            self._store_away = True
            self._waiting_hours = self._hours_over()
            return False
        except Exception as error:  # noqa: BLE001 - counting goes on whatever the store's client does
            told = describe(error)
            log.error("a flush of hits failed in an unforeseen way; it is tried again", **told)  # noqa: TRY400 - no values
            self._waiting_hours = self._hours_over()
            return False
        if self._store_away:
            log.info("hits are flushed to the store again")
        self._store_away = False
        return True

    async def _flush_now(self) -> None:
        self.tick()
        if self._ledger is None:
            # Nothing of this run is among it, as nothing is flushed before.
            self._ledger = await load_ledger(self._store, self._node, self.bin)
        self._drain()
        while self._batch or self._pending:
            if not self._batch:
                self._cut_batch()
            cells = {cell.field: hits for cell, hits in self._batch.items()}
            await self._store.flush_hits(self._node, self._boot, self._sequence, cells)
            self._ledger.add(self._batch.items())
            self._batch = Counter()
        self._release(self._ledger)

    def _cut_batch(self) -> None:
        for cell in list(self._pending)[:_BATCH_CELLS]:
            self._batch[cell] = self._pending.pop(cell)
        self._sequence += 1

    def _hours_over(self) -> int:
        slots = {cell.slot for cell in (*self._pending, *self._batch)} - {self._window.slot}
        if not slots:
            return 0
        current, to_come = still_to_come(self._clock(), self._zone)
        return sum(slot < current and slot not in to_come for slot in slots)

    def _release(self, ledger: Ledger) -> None:
        now = self._clock()
        self._tick(now)  # from here on, what the matrix holds belongs to an hour that is not over
        if all(slot == self._window.slot for slot in ledger.open_slots):
            return
        if now < self._window.start + self.settle_seconds:
            return
        current, to_come = still_to_come(now, self._zone)
        held = {cell.slot for cell in self._pending}
        ledger.release(lambda slot: slot < current and slot not in to_come, held)


async def _pause(event: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until the event."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(seconds, 0)):
            await event.wait()
