"""Time as an event loop sees it: what a machine busy with other things takes from the whole process is not counted."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TICK_SECONDS = 0.01


class LoopTime:
    """How much there was; never more than by the clock, and little less where nothing holds the loop."""

    def __init__(self) -> None:
        self.seconds = 0.0

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.seconds += TICK_SECONDS


@contextlib.asynccontextmanager
async def loop_time() -> AsyncIterator[LoopTime]:
    """Measure the time of the block."""
    spent = LoopTime()
    ticking = asyncio.create_task(spent._tick())
    try:
        yield spent
    finally:
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
