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
from typing import TYPE_CHECKING, Protocol, cast

import structlog

from blocker.errors import ServeError
from blocker.sockets import BACKLOG, bind, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from blocker._native import Gate
    from blocker.sections import StreamSettings

# How often limits of time are looked at, in seconds.
SWEEP_SECONDS = 0.5
# What is answered of one peer before it is the others' turn, in bytes: a fifth of a millisecond. One that asks as fast
# as it can fills reads of 256 KiB, and uvloop takes up to 32 of them before it looks at anybody else.
TURN_BYTES = 16 * 1024
# What may wait to be read by a peer, in bytes, before nothing more is read from it.
WRITE_HIGH_BYTES = 256 * 1024

log = structlog.get_logger(__name__)


class Session(Protocol):
    """One connection's codec; see `blocker/native/src/wire/mod.rs`."""

    def feed(self, data: bytes, /) -> bytes:
        """What is to be written after these bytes were read."""

    def drain(self) -> None:
        """Make the next answer the last."""

    @property
    def closing(self) -> bool:
        """Whether the connection ends once all is written."""

    @property
    def unfinished(self) -> bool:
        """Whether a request has begun and is not answered."""


class Connection(Protocol):
    """What a session sees of its connection."""

    def answered(self, data: bytes, /) -> None:
        """Write what had to be waited for."""

    def close(self) -> None:
        """Close once all is written."""

    def hand_over(self) -> tuple[asyncio.Transport, bytes]:
        """Leave the connection to somebody else: its transport, and what was read and not fed yet."""


class WaitingSession(Session, Protocol):
    """A session that writes later what it cannot answer at once."""

    def attach(self, connection: Connection, peer: object, encrypted: bool, /) -> None:
        """Learn where to write, and to whom: an address as sockets have them, to be kept nowhere."""


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
        self.refused = 0  # connections over the limit
        self.cut = 0  # connections that took too long, or did not read
        self.limits = settings
        self.session = session
        self.tick = tick
        self.gate = gate
        self.now = 0.0
        self.connections: set[_Connection] = set()
        self.ended = asyncio.Event()  # a connection
        self._servers: list[asyncio.Server] = []
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

    def _connection(self) -> _Connection:
        return _Connection(self)

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


class _Connection(asyncio.Protocol):
    __slots__ = ("_at", "_began", "_feed", "_listener", "_paused", "_quiet", "_read", "_session", "_transport", "_turn")

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._session = listener.session(listener.limits)
        self._feed = self._session.feed
        self._transport: asyncio.Transport | None = None
        self._began: float | None = None  # when the request that is not answered began
        self._paused: float | None = None  # since when the peer does not read
        self._quiet = listener.now
        self._read = b""  # what was read and is answered in turns; nothing more is read until it is done
        self._at = 0
        self._turn: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream, listener = cast("asyncio.Transport", transport), self._listener
        if len(listener.connections) >= listener.limits.max_connections:
            listener.refused += 1
            stream.abort()
            return
        self._transport = stream
        listener.connections.add(self)
        stream.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        attach = getattr(self._session, "attach", None)
        if attach is not None:
            attach(self, stream.get_extra_info("peername"), stream.get_extra_info("ssl_object") is not None)

    def data_received(self, data: bytes) -> None:
        if len(data) <= TURN_BYTES:
            self._answer(data)
            return
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._read, self._at = self._read[self._at :] + data, 0
            self._take_turn()

    def _take_turn(self) -> None:
        """Answer a piece of what was read; the others come before the next."""
        self._turn = None
        if self._transport is None or self._transport.is_closing() or self._paused is not None:
            return
        piece = self._read[self._at : self._at + TURN_BYTES]
        self._at += TURN_BYTES
        self._answer(piece)
        self._go_on()

    def _go_on(self) -> None:
        if self._transport is None or self._transport.is_closing() or self._paused is not None:
            return
        if self._at < len(self._read):
            if self._turn is None:
                self._turn = asyncio.get_running_loop().call_soon(self._take_turn)
        else:
            self._read = b""
            self._transport.resume_reading()

    def _answer(self, data: bytes) -> None:
        transport, listener = self._transport, self._listener
        if transport is None or transport.is_closing():
            return
        listener.tick()
        self._write(transport, self._feed(data))

    def answered(self, data: bytes) -> None:
        """Write what a session had to wait for."""
        if self._transport is not None and not self._transport.is_closing():
            self._write(self._transport, data)

    def _write(self, transport: asyncio.Transport, answer: bytes) -> None:
        session, listener = self._session, self._listener
        self._quiet = listener.now
        if answer:
            transport.write(answer)
        if session.closing:
            transport.close()
        elif not session.unfinished:
            self._began = None
        elif self._began is None or answer:
            self._began = listener.now

    def eof_received(self) -> bool:
        transport = self._transport
        if transport is None or not hasattr(self._session, "attach") or transport.get_extra_info("ssl_object"):
            return False  # what was answered is still written
        # A peer that has asked all it wants may wait for the last answers (RFC 7766, section 6.2.3).
        self._session.drain()
        return not self._session.closing

    def pause_writing(self) -> None:
        self._paused = self._listener.now
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = None
        self._go_on()

    def connection_lost(self, _error: Exception | None) -> None:
        self._listener.connections.discard(self)
        self._listener.ended.set()

    def check(self) -> None:
        """Cut the connection off if it is over a limit of time."""
        listener, limits = self._listener, self._listener.limits
        slow = self._began is not None and listener.now - self._began > limits.request_seconds
        deaf = self._paused is not None and listener.now - self._paused > limits.request_seconds
        if slow or deaf:
            listener.cut += 1
            self._abort()
        elif listener.now - self._quiet > limits.idle_seconds:
            self.close()

    def hand_over(self) -> tuple[asyncio.Transport, bytes]:
        """See `Connection`."""
        transport = self._transport
        if transport is None:
            raise RuntimeError("there is no connection yet")
        rest, self._read, self._transport = self._read[self._at :], b"", None
        self._listener.connections.discard(self)
        self._listener.ended.set()
        transport.resume_reading()
        return transport, rest

    def drain(self) -> None:
        """Make the next answer the last."""
        self._session.drain()

    def close(self) -> None:
        """Close once all is written; a peer that does not read is cut off."""
        if self._transport is not None:
            if self._transport.is_closing() or self._paused is not None:
                self._abort()
            else:
                self._transport.close()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
