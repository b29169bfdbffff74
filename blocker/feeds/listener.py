"""TCP and UDP for the zone server, where no DNS gateway listens for it.

What a peer can do to others is bounded: connections in number, a request and a message in time, a silent connection in
time. A transfer is made as fast as it is read. Nothing of a peer is logged, its address least of all.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, cast

import structlog

from blocker.errors import ServeError
from blocker.sockets import BACKLOG, bind, shown

if TYPE_CHECKING:
    from blocker.feed_section import RpzSettings
    from blocker.feeds.transfer import ZoneServer

# Datagrams under way at once; more are dropped, as UDP may.
MAX_DATAGRAMS = 256
# What may wait to be read by a peer, in bytes, before the next message is made.
WRITE_HIGH_BYTES = 256 * 1024
SETTING = "BLOCKER_FEEDS__RPZ__PORT"

log = structlog.get_logger(__name__)


class ZoneListener:
    """The sockets of the zones.

    Args:
        server: Who answers.
        settings: Where it listens, and the limits.
    """

    def __init__(self, server: ZoneServer, settings: RpzSettings) -> None:
        self.server = server
        self.limits = settings
        self.addresses: list[str] = []
        self._servers: list[asyncio.Server] = []
        self._datagrams: list[asyncio.DatagramTransport] = []
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    async def start(self) -> None:
        """Listen.

        Raises:
            ServeError: An address cannot be had.
        """
        loop = asyncio.get_running_loop()
        sockets = bind(self.limits.host, self.limits.port, SETTING)
        self.addresses = [shown(*one.getsockname()[:2]) for one in sockets]
        try:
            datagrams = [_beside(one) for one in sockets]
        except OSError:
            for one in sockets:
                one.close()
            raise ServeError(
                f"address {self.addresses[0]} cannot be had for UDP; set {SETTING} or stop the other program"
            ) from None
        for one in sockets:
            self._servers.append(await asyncio.start_server(self._connected, sock=one, backlog=BACKLOG))
        for one in datagrams:
            transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self.server), sock=one)
            self._datagrams.append(transport)

    async def stop(self) -> None:
        """Listen no more and cut off what is under way: a secondary comes again by itself; may be called twice."""
        for server in self._servers:
            server.close()
        for transport in self._datagrams:
            transport.close()
        self._servers.clear()
        self._datagrams.clear()
        running = list(self._connections)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= self.limits.max_connections:
            writer.transport.abort()
            return
        self._connections.add(task)
        writer.transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        try:
            await self._serve(reader, writer, _peer(writer.get_extra_info("peername")))
            writer.close()
        except (OSError, EOFError, TimeoutError):  # went away, cut, too slow
            writer.transport.abort()
        except asyncio.CancelledError:  # at a stop
            writer.transport.abort()
        except Exception as error:  # one connection's fault must not be another's
            log.exception("a transfer failed unexpectedly", exc_info=error)
            writer.transport.abort()
        finally:
            self._connections.discard(task)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: IPv4Address | IPv6Address | None
    ) -> None:
        limits = self.limits
        while True:
            try:
                async with asyncio.timeout(limits.idle_seconds):
                    length = await reader.readexactly(2)
            except asyncio.IncompleteReadError:
                return
            async with asyncio.timeout(limits.request_seconds):
                message = await reader.readexactly(int.from_bytes(length, "big"))
            async with contextlib.aclosing(self.server.respond(message, tcp=True, peer=peer)) as answer:
                async for one in answer:
                    writer.write(len(one).to_bytes(2, "big") + one)
                    async with asyncio.timeout(limits.request_seconds):
                        await writer.drain()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: ZoneServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None
        self._running: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if len(self._running) < MAX_DATAGRAMS:
            task = asyncio.create_task(self._answer(data, address))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _answer(self, data: bytes, address: tuple[str, int]) -> None:
        async with contextlib.aclosing(self._server.respond(data, tcp=False, peer=_peer(address))) as answer:
            async for one in answer:
                if self._transport is not None and not self._transport.is_closing():
                    self._transport.sendto(one, address)


def _beside(stream: socket.socket) -> socket.socket:
    """A UDP socket at the address of a TCP one."""
    opened = socket.socket(stream.family, socket.SOCK_DGRAM)
    try:
        if stream.family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(stream.getsockname())
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened


def _peer(address: object) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(str(cast("tuple[str, int]", address)[0]).partition("%")[0])
    except (ValueError, TypeError, IndexError):
        return None
