"""How busy a process is: its connections and its event loop. `load_metrics.py` says how that is told."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blocker.gateways.listener import Listener

# A step in which is told what single requests could move.
LAG_STEP_SECONDS = 0.005
# Between two looks at the clock: ten a second cost nothing, and a stall is found whole if it lasts longer.
_TICK_SECONDS = 0.1
# The worst of each piece of so many seconds is kept; a minute is longer than anybody waits between two scrapes.
_PIECE_SECONDS = 10.0
_PIECES = 7


class Connections(NamedTuple):
    """A gateway's connections in one process: open now, how many may be, refused and cut since the last report."""

    open: int
    limit: int
    refused: int
    cut: int


class Load:
    """What one process says of its gateways and its event loop.

    Args:
        listeners: Its gateways.
    """

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self._listeners = tuple(listeners)
        self._told: Counter[tuple[str, str]] = Counter()
        self._worst: deque[float] = deque([0.0], maxlen=_PIECES)

    @property
    def lag_seconds(self) -> float:
        """How late the event loop was at most within the last minute, in steps of `LAG_STEP_SECONDS`."""
        return math.ceil(max(self._worst) / LAG_STEP_SECONDS) * LAG_STEP_SECONDS

    def take(self) -> dict[str, Connections]:
        """Connections by gateway; what was refused and cut is handed out once."""
        return {
            one.name: Connections(
                len(one.connections), one.limits.max_connections, self._new(one.name, "refused", one.refused),
                self._new(one.name, "cut", one.cut),
            )
            for one in self._listeners
        }  # fmt: skip

    async def watch(self) -> None:
        """Find out how late the event loop is, until it is cancelled."""
        loop = asyncio.get_running_loop()
        piece_ends = loop.time() + _PIECE_SECONDS
        while True:
            due = loop.time() + _TICK_SECONDS
            await asyncio.sleep(_TICK_SECONDS)
            now = loop.time()
            self._worst[-1] = max(self._worst[-1], now - due)
            if now >= piece_ends:
                self._worst.append(0.0)
                piece_ends = now + _PIECE_SECONDS

    def _new(self, gateway: str, what: str, count: int) -> int:
        new = count - self._told[gateway, what]
        self._told[gateway, what] = count
        return new
