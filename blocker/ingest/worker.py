"""The ingest worker: looks at every source again and again, each on its own, until it is told to stop.

One source's failure delays nobody else, and a failed look is repeated after a wait that doubles, with jitter. Source
files are read again every few seconds: a changed one is looked at at once; one that vanished or broke is looked at no
more, and its list stays as it is. Once an hour what no list needs any more is dropped from the store. Rules whose last
day is over leave their lists within a minute of the UTC day's begin, whether the list has a source or not.

`stop` lets each source end the step it is in: a download is given up, a publish is ended, and no command to Redis is
ever cut off. A kill at any point is as harmless, see publish.py and update.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from blocker.errors import BlockerError, SourceError, StoreUnavailable
from blocker.ingest.expiry import Expiry
from blocker.ingest.source import Source, load_sources
from blocker.ingest.submit import Desk
from blocker.ingest.update import PullResult, Stopped, pull

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date
    from pathlib import Path

    from blocker.sections import GuardSettings
    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring

_log = structlog.get_logger("blocker.ingest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """How fast the worker does what sources do not say, in seconds.

    Attributes:
        reload: Between two looks at the source files: what a person who saved one is willing to wait.
        first_retry: After a first failed or refused look. Doubles each time, up to the source's own interval.
        first_store_retry: After Redis could not be used; short, since a restart takes seconds and costs nobody else.
            Not after a download, which would be made again each time: then it is `first_retry`.
        most_store_retry: What `first_store_retry` doubles up to.
        collect: Between two collections of orphans.
        grace: Age from which an orphan is one: longer than any upload takes.
        expire: Between two looks for expired rules: two may fail within the minute in which they must be gone.
    """

    reload: float = 5.0
    first_retry: float = 10.0
    first_store_retry: float = 1.0
    most_store_retry: float = 30.0
    collect: float = 3600.0
    grace: float = 3600.0
    expire: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHealth:
    """How a source is doing.

    Attributes:
        list: The list.
        last: Result of the last look that reached an end; None before.
        last_at: When that was, unix seconds.
        checked_at: When a look last succeeded, unix seconds, as far as this process knows; None before.
        failures: Looks without success since then.
        detail: Why the last one had none; empty after a success. Never an entry or an address.
        next_at: When the next look is due, unix seconds; None during a look.
        stale_after_seconds: Age of `checked_at` from which the list is stale.
    """

    list: str
    stale_after_seconds: float
    last: PullResult | None = None
    last_at: float | None = None
    checked_at: float | None = None
    failures: int = 0
    detail: str = ""
    next_at: float | None = None


class IngestWorker:
    """Runs the sources of a directory.

    Args:
        directory: Of the source files.
        store: Where lists are published; stays open when the worker ends.
        keyring: With the seal key.
        keep_serials: Manifests kept per list.
        pacing: See there.
        clock: Unix time in seconds.
        chance: What jitter is drawn from.
        guards: What looks at each update; None: none.
    """

    def __init__(
        self,
        directory: Path,
        store: Store,
        keyring: Keyring,
        *,
        keep_serials: int = 100,
        pacing: Pacing = Pacing(),
        clock: Callable[[], float] = time.time,
        chance: random.Random | None = None,
        guards: GuardSettings | None = None,
    ) -> None:
        self._directory = directory
        self.desk = None if guards is None else Desk.configured(store, keyring, guards, directory)
        self.store = store
        self.keyring = keyring
        self._keep_serials = keep_serials
        self.pacing = pacing
        self.clock = clock
        self.chance = chance or random.SystemRandom()
        self._stopping = asyncio.Event()
        self._runners: dict[str, _Runner] = {}
        self._errors: tuple[str, ...] = ()
        self._expiry = Expiry(store, keyring)

    def configure(self, guards: GuardSettings, keep_serials: int) -> None:
        """Take over another configuration, from the next look at a source on."""
        self.desk = Desk.configured(self.store, self.keyring, guards, self._directory)
        self._keep_serials = keep_serials

    async def run(self) -> None:
        """Work until `stop`. Raises nothing that passes by itself or concerns one source; see `health`."""
        upkeep = [asyncio.create_task(work) for work in (self._collect(), self._expire())]
        try:
            while not self._stopping.is_set():
                await self._reload()
                await _wait(self._stopping, self.pacing.reload)
        finally:
            self.stop()
            await asyncio.gather(*upkeep, *(runner.task for runner in self._runners.values()))

    def stop(self) -> None:
        """Ask `run` to end; it returns once every source has ended its step."""
        self._stopping.set()
        for runner in self._runners.values():
            runner.stop()

    def health(self) -> tuple[SourceHealth, ...]:
        """How each source that is run is doing, by name."""
        return tuple(self._runners[name].health for name in sorted(self._runners))

    @property
    def source_errors(self) -> tuple[str, ...]:
        """What is wrong with source files now; each names its file."""
        return self._errors

    @property
    def next_expiries(self) -> dict[str, date]:
        """List → the UTC day on which its next rules end; see `Expiry.next_days`."""
        return self._expiry.next_days

    async def _reload(self) -> None:
        try:
            sources, errors = await asyncio.to_thread(load_sources, self._directory)
        except SourceError as error:
            # The directory itself is away, on a network file system perhaps: whatever ran goes on.
            self._tell_errors((str(error),))
            return
        self._tell_errors(tuple(map(str, errors)))
        found = {source.name: source for source in sources}
        for name in self._runners.keys() - found.keys():
            _log.warning("source is gone or broken; its list stays as it is", list=name)
            runner = self._runners.pop(name)
            runner.stop()
            await asyncio.wait((runner.task,))
        for name, source in found.items():
            if name not in self._runners:
                self._runners[name] = _Runner(self, source)
            elif self._runners[name].source != source:
                self._runners[name].change(source)

    def _tell_errors(self, errors: tuple[str, ...]) -> None:
        for error in errors:
            if error not in self._errors:
                _log.error("source cannot be used", reason=error)
        self._errors = errors

    async def _collect(self) -> None:
        while not self._stopping.is_set():
            delay = self.pacing.collect
            try:
                done = await self.store.collect_orphans(
                    grace_seconds=self.pacing.grace, keep_serials=self._keep_serials
                )
            except StoreUnavailable:
                delay = min(delay, self.pacing.most_store_retry)
            except BlockerError as error:
                _log.warning("orphans cannot be collected", reason=str(error))
            else:
                if done.blobs or done.manifests:
                    _log.info("orphans collected", blobs=done.blobs, manifests=done.manifests, bytes=done.bytes)
            await _wait(self._stopping, delay)

    async def _expire(self) -> None:
        while not self._stopping.is_set():
            await self._expiry.sweep(self.clock())
            await _wait(self._stopping, self.pacing.expire)


class _Runner:
    """One source on its way."""

    def __init__(self, worker: IngestWorker, source: Source) -> None:
        self.source = source
        self.health = SourceHealth(list=source.name, stale_after_seconds=source.stale_after_seconds)
        self._worker = worker
        self._stopping = asyncio.Event()
        self._wake = asyncio.Event()  # the source changed, or the end
        self.task = asyncio.create_task(self._run(), name=f"ingest {source.name}")

    def change(self, source: Source) -> None:
        """Go on with another description, and look at once."""
        self.source = source
        self.health = replace(self.health, stale_after_seconds=source.stale_after_seconds)
        self._wake.set()

    def stop(self) -> None:
        """End after the present step."""
        self._stopping.set()
        self._wake.set()

    async def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            self.health = replace(self.health, next_at=None)
            delay = await self._look()
            self.health = replace(self.health, next_at=self._worker.clock() + delay)
            if not self._stopping.is_set():
                await _wait(self._wake, delay)

    async def _look(self) -> float:
        """Look once; seconds until the next look."""
        worker, source = self._worker, self.source
        asked = False

        def progress(_phase: str, _done: int, _total: int | None) -> None:
            nonlocal asked
            asked = source.url is not None

        try:
            result = await pull(
                source, worker.store, worker.keyring, progress, clock=worker.clock, stopping=self._stopping,
                desk=worker.desk,
            )  # fmt: skip
        except Stopped:
            return 0
        except StoreUnavailable as error:
            self._missed(str(error))
            if not asked:
                return self._retry(worker.pacing.first_store_retry, worker.pacing.most_store_retry)
        except BlockerError as error:
            self._missed(str(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours in one list must not end the others
            _log.error("look failed unexpectedly", list=source.name, exc_info=error)
            self._missed(f"unexpected {type(error).__name__}")
        else:
            self._note(result)
            if result.good or result.status == "waiting":
                return source.interval_seconds + worker.chance.uniform(0, source.jitter_seconds)
        return self._retry(worker.pacing.first_retry, source.interval_seconds)

    def _note(self, result: PullResult) -> None:
        now = self._worker.clock()
        self.health = replace(self.health, last=result, last_at=now)
        if not result.good:
            self._missed(result.detail)
            return
        self.health = replace(self.health, checked_at=now, failures=0, detail="")
        if result.status == "published":
            _log.info(
                "list published", list=result.list, serial=result.serial, added=result.added, removed=result.removed,
                bad=result.bad, seconds=round(result.seconds, 3),
            )  # fmt: skip

    def _missed(self, detail: str) -> None:
        # A long outage would otherwise repeat one line for days.
        if detail != self.health.detail:
            _log.warning("list not updated", list=self.source.name, reason=detail)
        self.health = replace(self.health, failures=self.health.failures + 1, detail=detail)

    def _retry(self, first: float, most: float) -> float:
        return retry_delay(self.health.failures, first=first, most=most, chance=self._worker.chance)


def retry_delay(failures: int, *, first: float, most: float, chance: random.Random) -> float:
    """Seconds to wait after so many failures in a row: doubles, up to `most`; half of it is chance.

    The chance keeps many workers from coming back at once.
    """
    doublings = min(failures - 1, 60)  # so that the power stays a float
    return min(first * 2.0**doublings, most) * chance.uniform(0.5, 1)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, or so long."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
