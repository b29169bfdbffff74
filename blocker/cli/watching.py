"""What a node measures of itself beside its decisions: its load, and the state of its lists. Only wiring."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from blocker.control.list_watch import LOOK_SECONDS, ListWatch
from blocker.gateways.load import Load, LoadFamilies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from blocker.cli.node import Node

# Between two looks however often lists change.
_PAUSE_SECONDS = 1.0


class Watching:
    """Adds a node's load and the state of its lists to its metrics, and keeps both up to date.

    Args:
        node: The node, made but for this.
        limits: List → the age in seconds from which on it is stale; used if the node does not ingest.
    """

    def __init__(self, node: Node, limits: Callable[[], Mapping[str, float]]) -> None:
        self._node = node
        self._limits = limits
        self._swapped = asyncio.Event()
        self._load = Load(node.streams)
        self._lists = ListWatch(
            node.store.opened, self._enforced, self._known_limits,
            lambda: None if node.worker is None else node.worker.next_expiries,
            lambda: None if node.worker is None else node.worker.source_errors,
            time.time,
        )  # fmt: skip
        node.exporter.add(LoadFamilies(self._load, node.host, self._workers, node.context.settings.gateways.workers))
        node.exporter.add(self._lists)
        node.follower.on_swap(lambda _matcher: self._swapped.set())

    async def run(self) -> None:
        """Look again and again, and at once when a list has changed, until it is cancelled."""
        watching = asyncio.create_task(self._load.watch())
        try:
            while True:
                self._swapped.clear()
                await self._lists.look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._swapped.wait()
                await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            watching.cancel()

    def _enforced(self) -> Iterable[str]:
        matcher = self._node.follower.matcher
        return [name for name, *_ in matcher.table.lists] if matcher else ()

    def _known_limits(self) -> Mapping[str, float]:
        if self._node.worker is None:
            return self._limits()
        return {health.list: health.stale_after_seconds for health in self._node.worker.health()}

    def _workers(self) -> Mapping[int, int]:
        return self._node.workers.numbered if self._node.workers else {}
