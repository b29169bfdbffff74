"""One peer of a stream gateway: bytes between its socket and its codec, in turns with all others, within its limits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

from blocker.tls_server import Guest

if TYPE_CHECKING:
    from blocker.gateways.listener import Listener

# What is answered of one peer before it is the others' turn, in bytes: a fifth of a millisecond. One that asks as fast
# as it can fills reads of 256 KiB, and uvloop takes up to 32 of them before it looks at anybody else.
TURN_BYTES = 16 * 1024
# What may wait to be read by a peer, in bytes, before nothing more is read from it.
WRITE_HIGH_BYTES = 256 * 1024


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


class StreamConnection(asyncio.Protocol, Guest):
    """See the module.

    Args:
        listener: Its gateway.
        place: What `Listener.enter` gave, if that was asked already.

    Attributes:
        connected: Whether it has, or had, a peer; its place is then its own to leave.
    """

    __slots__ = (
        "_at", "_began", "_feed", "_listener", "_paused", "_place", "_quiet", "_read", "_session", "_transport",
        "_turn", "connected",
    )  # fmt: skip

    def __init__(self, listener: Listener, place: int | None = None) -> None:
        self.connected = False
        self._place = place
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

    # asyncio's own methods are described there.
    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        stream, listener = cast("asyncio.Transport", transport), self._listener
        peer = stream.get_extra_info("peername")
        if self._place is None:
            self._place = listener.enter(peer)
        if self._place is None:
            stream.abort()
            return
        self._transport, self.connected = stream, True
        listener.connections.add(self)
        stream.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        attach = getattr(self._session, "attach", None)
        if attach is not None:
            attach(self, peer, stream.get_extra_info("ssl_object") is not None)

    def data_received(self, data: bytes) -> None:  # noqa: D102
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

    def eof_received(self) -> bool:  # noqa: D102
        transport = self._transport
        if transport is None or not hasattr(self._session, "attach") or transport.get_extra_info("ssl_object"):
            return False  # what was answered is still written
        # A peer that has asked all it wants may wait for the last answers (RFC 7766, section 6.2.3).
        self._session.drain()
        return not self._session.closing

    def pause_writing(self) -> None:  # noqa: D102
        self._paused = self._listener.now
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:  # noqa: D102
        self._paused = None
        self._go_on()

    def connection_lost(self, _error: Exception | None) -> None:  # noqa: D102
        self._leave()

    def _leave(self) -> None:
        listener, place = self._listener, self._place
        self._place = None
        listener.connections.discard(self)
        listener.ended.set()
        if place is not None:
            listener.leave(place)

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
        self._leave()
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
