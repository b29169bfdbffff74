"""What a node measures of itself beside its decisions: its load, its upstreams, the state of its lists. Only wiring."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from blocker.control.list_watch import LOOK_SECONDS, ListWatch
from blocker.gateways.dns_metrics import DnsFamilies
from blocker.gateways.load import Load
from blocker.gateways.load_metrics import LoadFamilies
from blocker.gateways.upstream_watch import UpstreamWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from blocker.cli.front import Front
    from blocker.cli.late_store import LateStore
    from blocker.hits.exporter import Exporter
    from blocker.ingest.worker import IngestWorker

# Between two looks however often lists change.
_PAUSE_SECONDS = 1.0


class Watching:
    """Adds a node's load, its upstreams and the state of its lists to its metrics, and keeps them up to date.

    Args:
        front: What answers.
        store: The node's store.
        exporter: The metrics.
        worker: The ingest worker, if this node has one by now.
        limits: List → the age in seconds from which on it is stale; used if the node does not ingest.
    """

    def __init__(
        self, front: Front, store: LateStore, exporter: Exporter, worker: Callable[[], IngestWorker | None],
        limits: Callable[[], Mapping[str, float]],
    ) -> None:  # fmt: skip
        self._front, self._worker, self._limits = front, worker, limits
        self._swapped = asyncio.Event()
        self._load = Load(front.streams)
        self._lists = ListWatch(
            store.opened, self._enforced, self._known_limits,
            lambda: None if (running := worker()) is None else running.next_expiries,
            lambda: None if (running := worker()) is None else running.source_errors,
            time.time,
        )  # fmt: skip
        exporter.add(LoadFamilies(self._load, front.host, self._workers, front.wanted_workers))
        exporter.add(self._lists)
        self._upstreams: UpstreamWatch | None = None
        if (listener := front.streams.dns) is not None:
            self._upstreams = UpstreamWatch(lambda: listener.settings)
            exporter.add(DnsFamilies(listener, front.host, self._upstreams, workers=front.wanted_workers > 0))
        front.follower.on_swap(lambda _matcher: self._swapped.set())

    async def run(self) -> None:
        """Look again and again, and at once when a list has changed, until it is cancelled."""
        watching = [asyncio.create_task(self._load.watch())]
        if self._upstreams is not None:
            watching.append(asyncio.create_task(self._upstreams.run()))
        try:
            while True:
                self._swapped.clear()
                await self._lists.look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._swapped.wait()
                await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            for one in watching:
                one.cancel()

    def _enforced(self) -> Iterable[str]:
        matcher = self._front.follower.matcher
        return [name for name, *_ in matcher.table.lists] if matcher else ()

    def _known_limits(self) -> Mapping[str, float]:
        worker = self._worker()
        if worker is None:
            return self._limits()
        return {health.list: health.stale_after_seconds for health in worker.health()}

    def _workers(self) -> Mapping[int, int]:
        return self._front.workers.numbered if self._front.workers else {}
