"""Stream gateways: binds sockets, feeds codecs, and holds every peer to its limits. It knows no protocol.

What a peer can do to others is bounded: connections in number, a request that has begun in time, what is written and
not read in bytes, a silent connection in time. Nothing of a peer is logged, its address least of all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from typing import TYPE_CHECKING

import structlog

from blocker.errors import ServeError
from blocker.gateways.connection import StreamConnection
from blocker.sockets import BACKLOG, bind, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from blocker._native import Gate
    from blocker.gateways.connection import Session, WaitingSession
    from blocker.sections import StreamSettings
    from blocker.tls_server import TlsServer

# How often limits of time are looked at, in seconds.
SWEEP_SECONDS = 0.5
log = structlog.get_logger(__name__)


class Listener:
    """One gateway's sockets and connections.

    Args:
        name: The gateway, for the log and for errors.
        settings: Where it listens, and the limits.
        session: Makes a connection's codec, from the present limits.
        tick: Called before each feed; see `VerdictEngine.tick`.
        gate: What the codecs decide with.
    """

    def __init__(
        self,
        name: str,
        settings: StreamSettings,
        session: Callable[[StreamSettings], Session | WaitingSession],
        tick: Callable[[], object],
        gate: Gate,
    ) -> None:
        self.name = name
        self.addresses: list[str] = []  # "127.0.0.1:8081", once started
        self.taken = 0  # places: of connections, and of those that are about to be some
        self.refused = 0  # connections over a limit
        self.cut = 0  # connections that took too long, or did not read
        self.limits = settings
        self.session = session
        self.tick = tick
        self.gate = gate
        self.now = 0.0
        self.connections: set[StreamConnection] = set()
        self.ended = asyncio.Event()  # a connection
        self._servers: list[asyncio.Server | TlsServer[int]] = []
        self._sweeper: asyncio.Task[None] | None = None
        self._unix: tuple[Path, int] | None = None

    @property
    def port(self) -> int:
        """The bound TCP port, once started."""
        return int(self.addresses[0].rpartition(":")[2])

    def open(self, workers: int = 0) -> list[list[socket.socket]]:
        """Bind, without accepting.

        Args:
            workers: Processes that are to accept; 0: this one.

        Returns:
            For each process its sockets; those of unix addresses are shared.

        Raises:
            ServeError: An address or the unix socket cannot be had.
        """
        settings, opened = self.limits, list[list[socket.socket]]()
        variable = f"BLOCKER_GATEWAYS__{self.name.upper().replace('-', '_')}__PORT"
        try:
            first = bind(settings.host, settings.port, variable)
            self.addresses = [shown(*one.getsockname()[:2]) for one in first]
            if workers:
                # The first ones were to find out whether the addresses are free, which sharing ones do not tell.
                port = self.port
                for one in first:
                    one.close()
                opened = [bind(settings.host, port, variable, reuse_port=True) for _ in range(workers)]
            else:
                opened = [first]
            if settings.unix is not None:
                shared = self._bind_unix(settings.unix)
                for sockets in opened:
                    sockets.append(shared)
        except ServeError:
            close_all(opened)
            raise
        return opened

    async def start(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Accept.

        Args:
            sockets: What `open` gave, here or in the process that started this one; None: open them now.

        Raises:
            ServeError: An address or the unix socket cannot be had.
        """
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        if sockets is None:
            [sockets] = self.open()
        for one in sockets:
            make = loop.create_unix_server if one.family == socket.AF_UNIX else loop.create_server
            self._servers.append(await make(self._connection, sock=one, backlog=BACKLOG))
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Accept nothing more, answer what is under way, close; may be called twice.

        A peer with a lasting connection is told with its next answer that it was the last one. One that asks nothing
        for `drain_seconds` is closed.
        """
        for _ in range(2):  # those who wait are accepted: a socket that closes resets them
            await asyncio.sleep(0)
        for server in self._servers:
            server.close()
        self._servers.clear()
        self.remove_unix()
        for connection in list(self.connections):
            connection.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.drain_seconds):
                while self.connections:
                    self.ended.clear()
                    await self.ended.wait()
        for connection in list(self.connections):
            connection.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
            self._sweeper = None

    def configure(self, settings: StreamSettings) -> None:
        """Take over other limits, for connections that are open too."""
        self.limits = settings

    def enter(self, peer: object) -> int | None:  # noqa: ARG002 - one is like the other here
        """Take a place for a connection: a number to be given back to `leave`; None, and it is refused: there is none.

        Args:
            peer: An address as sockets have them, to be kept nowhere.
        """
        if self.taken >= self.limits.max_connections:
            self.refused += 1
            return None
        self.taken += 1
        return 0

    def leave(self, place: int) -> None:  # noqa: ARG002 - one is like the other here
        """Give back a place."""
        self.taken -= 1

    def prepare(self, settings: StreamSettings) -> None:
        """Read what `configure` with these needs, so that it cannot fail then.

        Raises:
            ServeError: It cannot be read.
        """

    def _connection(self) -> StreamConnection:
        return StreamConnection(self)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.now = loop.time()
            for connection in list(self.connections):
                connection.check()

    def _bind_unix(self, path: Path) -> socket.socket:
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISSOCK(path.stat().st_mode) and not _answers(path):
                    path.unlink()  # of a process that was killed
            opened.bind(str(path))
            path.chmod(self.limits.unix_mode)
            self._unix = (path, path.stat().st_ino)
            opened.listen(BACKLOG)
            opened.setblocking(False)
        except OSError as error:
            opened.close()
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
            raise ServeError(f"gateway {self.name}: the unix socket {path} cannot be listened on: {reason}") from None
        return opened

    def remove_unix(self) -> None:
        """Remove the unix socket that `open` made; may be called twice."""
        if self._unix is None:
            return
        path, inode = self._unix
        with contextlib.suppress(OSError):
            if path.stat().st_ino == inode:  # and not of who came after us
                path.unlink()
        self._unix = None


def close_all(opened: Iterable[Iterable[socket.socket]]) -> None:
    """Close what `Listener.open` gave."""
    for sockets in opened:
        for one in sockets:
            one.close()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True
