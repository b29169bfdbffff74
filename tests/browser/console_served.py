"""A console with a bad day's worth of lists, in a thread of its own, for a real browser."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tests.control.console_scene import Scene, console_scene

if TYPE_CHECKING:
    from collections.abc import Coroutine

_T = TypeVar("_T")


class ServedConsole:
    """A running console; `run` does something in its loop."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(60)

    @property
    def address(self) -> str:
        """Where it is."""
        return self.scene.address

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """The result of something done in its loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def stop(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(60)

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        with tempfile.TemporaryDirectory() as directory:
            async with console_scene(Path(directory)) as self.scene:
                await self.scene.fill()
                self._ready.set()
                await self._stopping.wait()


__all__ = ["Scene", "ServedConsole"]
