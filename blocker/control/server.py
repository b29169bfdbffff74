"""Serves the control plane: binds its address itself, and runs uvicorn inside the loop that is already there."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from blocker.errors import ServeError
from blocker.sockets import BACKLOG, bind, shown

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

    from starlette.types import ASGIApp

# How long a stop waits for requests under way, in seconds; a batch takes milliseconds.
_GRACE_SECONDS = 5
# Idle keep-alive, in seconds: longer than a proxy's own, which is often 60.
_KEEP_ALIVE_SECONDS = 75
# Largest request head: an URL of 64 KiB with every byte percent-encoded, and room for headers.
_HEAD_BYTES = 256 * 1024


class ControlServer:
    """One listening control plane.

    Args:
        app: The ASGI application.
        host: See `bind`.
        port: See `bind`.
        setting: See `bind`.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, *, setting: str = "BLOCKER_HTTP__PORT") -> None:
        self._app = app
        self._host = host
        self._port = port
        self._setting = setting
        self._server: _Uvicorn | None = None
        self._task: asyncio.Task[None] | None = None
        self.addresses: list[str] = []  # "127.0.0.1:8080", once started

    @property
    def port(self) -> int:
        """The bound port, once started."""
        return self._port

    async def start(self, bound: Sequence[socket.socket] = ()) -> None:
        """Bind and accept connections; returns when they are accepted.

        Args:
            bound: What somebody has bound already at this address.

        Raises:
            ServeError: The address cannot be had.
        """
        sockets = list(bound) or bind(self._host, self._port, self._setting)
        self._port = sockets[0].getsockname()[1]
        self.addresses = [shown(*opened.getsockname()[:2]) for opened in sockets]
        self._server = _Uvicorn(_config(self._app))
        self._task = asyncio.create_task(self._server.serve(sockets), name="control-server")
        started = asyncio.create_task(self._server.accepting.wait())
        await asyncio.wait({self._task, started}, return_when=asyncio.FIRST_COMPLETED)
        if not self._server.started:
            started.cancel()
            await self._task
            raise ServeError(f"the HTTP server on {', '.join(self.addresses)} ended at its start")

    async def stop(self) -> None:
        """Accept nothing more, answer what is under way, close; may be called twice."""
        if self._server is not None:
            self._server.should_exit = True
        await self.wait()

    async def wait(self) -> None:
        """Return when the server has ended.

        Raises:
            ServeError: It ended by itself.
        """
        if self._task is not None:
            await asyncio.shield(self._task)
            if self._server is not None and not self._server.should_exit:
                raise ServeError("the HTTP server ended by itself")


class _Uvicorn(uvicorn.Server):
    """uvicorn that leaves signals to the program and says when it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.accepting.set()


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        # Nobody's address is wanted, so none is taken from X-Forwarded-For either.
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        h11_max_incomplete_event_size=_HEAD_BYTES,
        workers=1,
    )
