"""Says in the store, again and again, that this node lives and how it is in step, for the console of any node."""

from __future__ import annotations

import asyncio
import contextlib
import time
from importlib.metadata import version
from typing import TYPE_CHECKING

from blocker.errors import BlockerError
from blocker.store.beat import Beat

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from blocker.gateways.canaries import CanaryState
    from blocker.gateways.engine import Follower
    from blocker.store.redis import Store

# Silence from which on a node counts as gone: three beats, and the time that a slow store may take.
SILENT_SECONDS = 60.0
# What a stop gives to the last word.
LAST_SECONDS = 1.0


class Heartbeat:
    """The heartbeat of one node.

    Args:
        store: Opens the store, or raises StoreUnavailable.
        node: The node's name.
        follower: Says how it is in step.
        canaries: The last looks at canaries.
        clock: Unix seconds now.
    """

    #: Between two heartbeats: one small write, and a dead node is seen within a minute.
    seconds = 15.0

    def __init__(
        self,
        store: Callable[[], Awaitable[Store]],
        node: str,
        follower: Follower,
        canaries: Callable[[], Iterable[CanaryState]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._node = node
        self._follower = follower
        self._canaries = canaries
        self._started = clock()
        self._version = version("blocker")

    async def beat(self) -> bool:
        """Say it once; whether the store heard it. That the store is away is for the follower to tell."""
        matcher = self._follower.matcher
        said = Beat(
            node=self._node,
            version=self._version,
            started=self._started,
            serials={name: serial for name, serial, *_ in matcher.table.lists} if matcher else {},
            lag_seconds=round(self._follower.status.lag_seconds, 1),
            canaries_failed=sum(canary.reason is not None for canary in self._canaries()),
        )
        try:
            await (await self._store()).beat(said)
        except BlockerError:
            return False
        return True

    async def end(self) -> None:
        """Say that the node ends by intention: nobody need miss it. A store that says nothing is not waited for."""
        with contextlib.suppress(BlockerError, TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                await (await self._store()).beat_ended(self._node)
