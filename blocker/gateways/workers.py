"""Worker processes of the stream gateways: started, watched, started again, and ended, by the node.

The node binds the sockets and keeps them open, so that connections which arrive while a worker is being started again
wait in its queue instead of being refused. A worker ends by itself when its node has gone, however that came about: its
standard input ends, and the kernel sends it SIGTERM (PR_SET_PDEATHSIG), which reaches one that is still starting too.
Ports of a dead node are thus free for the next one at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from typing import TYPE_CHECKING

import structlog

from blocker.errors import ServeError
from blocker.gateways.listener import close_all

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from pathlib import Path

    from blocker.gateways.listener import Listener

log = structlog.get_logger(__name__)

# Between the end of a worker and its next start, in seconds: soon at first, then rarely.
_FIRST_RETRY_SECONDS = 0.05
_LAST_RETRY_SECONDS = 5.0
# A worker that ran for so long has not failed at its start.
_STEADY_SECONDS = 10.0
# Beyond the drain a worker gets so long to hand over what it counted and end.
_MARGIN_SECONDS = 6.0


class Workers:
    """The workers of one node.

    Args:
        count: How many.
        listeners: The gateways; opened here, never started.
        path: Where workers meet the node; see `host`.
        options: What else is said to `blocker worker`.
    """

    def __init__(self, count: int, listeners: Sequence[Listener], path: Path, options: Sequence[str] = ()) -> None:
        self._count = count
        self._listeners = listeners
        self._path = path
        self._options = options
        self._sockets: list[dict[str, list[socket.socket]]] = []
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    @property
    def pids(self) -> list[int]:
        """Those that run."""
        return list(self.numbered.values())

    @property
    def numbered(self) -> dict[int, int]:
        """Number → process id of those that run, by number."""
        return {number: process.pid for number, process in sorted(self._processes.items())}

    async def start(self) -> None:
        """Bind, and start all.

        Raises:
            ServeError: An address cannot be had.
        """
        opened: dict[str, list[list[socket.socket]]] = {}
        try:
            for listener in self._listeners:
                opened[listener.name] = listener.open(self._count)
        except ServeError:
            close_all(sockets for of_one in opened.values() for sockets in of_one)
            for listener in self._listeners:
                listener.remove_unix()
            raise
        self._sockets = [{name: sockets[number] for name, sockets in opened.items()} for number in range(self._count)]
        self._tasks = [asyncio.create_task(self._keep(number)) for number in range(self._count)]

    async def stop(self) -> None:
        """Have all answer what is under way and end; may be called twice."""
        self._stopping.set()
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        patience = max((one.limits.drain_seconds for one in self._listeners), default=0.0) + _MARGIN_SECONDS
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=patience)
            for process in self._processes.values():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            if late:
                log.error("workers did not end in time and were killed", workers=len(late))
                await asyncio.wait(late)
        self._tasks.clear()
        close_all(sockets for named in self._sockets for sockets in named.values())
        self._sockets.clear()
        for listener in self._listeners:
            listener.remove_unix()

    async def _keep(self, number: int) -> None:
        retry, loop = _FIRST_RETRY_SECONDS, asyncio.get_running_loop()
        while not self._stopping.is_set():
            started = loop.time()
            process = self._processes[number] = await self._spawn(number)
            if self._stopping.is_set():
                process.terminate()
            code = await process.wait()
            del self._processes[number]
            if self._stopping.is_set():
                return
            log.error("a worker ended and is started again", code=code)
            retry = _FIRST_RETRY_SECONDS if loop.time() - started > _STEADY_SECONDS else retry
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(retry):
                    await self._stopping.wait()
            retry = min(retry * 2, _LAST_RETRY_SECONDS)

    async def _spawn(self, number: int) -> asyncio.subprocess.Process:
        named = self._sockets[number]
        words = [
            word
            for name, sockets in named.items()
            for word in ("--listen", f"{name}={','.join(str(one.fileno()) for one in sockets)}")
        ]
        setpriv = shutil.which("setpriv")
        guard = [setpriv, "--pdeathsig", "TERM"] if setpriv else []
        return await asyncio.create_subprocess_exec(
            *guard, sys.executable, "-m", "blocker.cli.worker", str(self._path), *words, *self._options,
            stdin=asyncio.subprocess.PIPE,
            pass_fds=[one.fileno() for sockets in named.values() for one in sockets],
        )  # fmt: skip
