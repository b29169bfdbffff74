"""TCP and UDP for the zone server, on its own port and on that of the `dns` gateway.

What a peer can do to others is bounded: connections in number, in all and of one address, a request and a message in
time, a silent connection in time. Who may have no zone is answered once, and disconnected. A transfer is made as fast
as it is read. Nothing of a peer is logged, its address least of all.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from functools import partial
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, cast

import dns.rcode
import structlog

from blocker._native import DnsDatagrams
from blocker.errors import ServeError
from blocker.feeds.glance import HEAD_BYTES
from blocker.sockets import BACKLOG, answer_from_asked, bind, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocker._native import DnsDatagram
    from blocker.feed_section import RpzSettings
    from blocker.feeds.transfer import ZoneServer

# Datagrams under way at once; more are dropped, as UDP may.
MAX_DATAGRAMS = 256
# Datagrams in a second that the gateway hands over; more are dropped. Checking a signature takes longer than answering
# a client, and any address may be forged; some hundreds of secondaries ask less.
MAX_HANDED_PER_SECOND = 200
# What may wait to be read by a peer, in bytes, before the next message is made.
WRITE_HIGH_BYTES = 256 * 1024
# Connections of one address: a share of all, so that nobody shuts out the others; a server that takes several zones at
# once has as many.
SHARE = 4
LEAST_SHARE = 4
# Bits of an IPv6 address that say whose it is: the rest is its owner's to choose.
_SITE_BITS = 64
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
        self._datagrams: list[socket.socket] = []
        self._batch = DnsDatagrams()
        self._connections: dict[asyncio.Task[None], IPv4Address | IPv6Network | None] = {}  # and of whom each is
        self._answering: set[asyncio.Task[None]] = set()
        self._handed = (0, 0)  # a second of the loop's clock, and how many datagrams were handed over in it

    @property
    def origins(self) -> list[bytes]:
        """The zones' names on the wire."""
        return self.server.origins

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
        self._datagrams = datagrams
        for one in datagrams:
            answer_from_asked(one)
            loop.add_reader(one.fileno(), self._receive, one)

    async def stop(self) -> None:
        """Listen no more and cut off what is under way: a secondary comes again by itself; may be called twice."""
        for server in self._servers:
            server.close()
        for one in self._datagrams:
            asyncio.get_running_loop().remove_reader(one.fileno())
            one.close()
        self._servers.clear()
        self._datagrams.clear()
        running = [*self._connections, *self._answering]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _receive(self, one: socket.socket) -> None:
        for datagram in self._batch.receive(one.fileno()):
            self.datagram(datagram.message, datagram.address, partial(_send, one, datagram), handed=False)

    def datagram(
        self, message: bytes, peer: IPv4Address | IPv6Address | None, send: Callable[[bytes], None], *,
        handed: bool = True,
    ) -> None:  # fmt: skip
        """Answer one, also of another socket.

        Args:
            message: What was sent.
            peer: By whom.
            send: Sends the answer.
            handed: Whether it came to somebody else, who has others to answer too.
        """
        second, count = self._handed
        if handed:
            now = int(asyncio.get_running_loop().time())
            count = count + 1 if second == now else 1
            self._handed = (now, count)
        if len(self._answering) < MAX_DATAGRAMS and not (handed and count > MAX_HANDED_PER_SECOND):
            task = asyncio.create_task(self._answer(message, peer, send))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(
        self, message: bytes, peer: IPv4Address | IPv6Address | None, send: Callable[[bytes], None]
    ) -> None:
        async with contextlib.aclosing(self.server.respond(message, tcp=False, peer=peer)) as answer:
            async for one in answer:
                send(one)

    def connection(self, transport: asyncio.Transport, data: bytes) -> None:
        """Take over a connection of another socket, of which this was read."""
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader, self._connected)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(data)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task, peer = asyncio.current_task(), _peer(writer.get_extra_info("peername"))
        of = _site(peer)
        if task is None or not self._has_room(of):
            self.server.refused_connection()
            writer.transport.abort()
            return
        self._connections[task] = of
        writer.transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        try:
            await self._serve(reader, writer, peer)
            writer.close()
        except (OSError, EOFError, TimeoutError):  # went away, cut, too slow
            writer.transport.abort()
        except asyncio.CancelledError:  # at a stop
            writer.transport.abort()
        except Exception as error:  # one connection's fault must not be another's
            log.exception("a transfer failed unexpectedly", exc_info=error)
            writer.transport.abort()
        finally:
            del self._connections[task]

    def _has_room(self, of: IPv4Address | IPv6Network | None) -> bool:
        most, there = self.limits.max_connections, [*self._connections.values()]
        return len(there) < most and there.count(of) < max(LEAST_SHARE, most // SHARE)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: IPv4Address | IPv6Address | None
    ) -> None:
        limits = self.limits
        while True:
            try:
                async with asyncio.timeout(limits.idle_seconds):
                    length = int.from_bytes(await reader.readexactly(2), "big")
            except asyncio.IncompleteReadError:
                return
            if length < HEAD_BYTES:  # who sends less than a head does not speak DNS
                return
            async with asyncio.timeout(limits.request_seconds):
                message = await reader.readexactly(length)
            good = True
            async with contextlib.aclosing(self.server.respond(message, tcp=True, peer=peer)) as answer:
                async for one in answer:
                    writer.write(len(one).to_bytes(2, "big") + one)
                    async with asyncio.timeout(limits.request_seconds):
                        await writer.drain()
                    good = _is_good(one)
            if not good:
                return


def _send(one: socket.socket, datagram: DnsDatagram, message: bytes) -> None:
    if one.fileno() >= 0:  # it was not stopped meanwhile
        datagram.answer(one.fileno(), message)


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


def _is_good(answer: bytes) -> bool:
    """Whether an answer is one to a secondary that may have the zone: it gets records, or is told to come again."""
    return answer[6:8] != b"\0\0" or answer[3] & 0xF == dns.rcode.SERVFAIL


def _site(peer: IPv4Address | IPv6Address | None) -> IPv4Address | IPv6Network | None:
    """Whose an address is, as far as it shows."""
    return IPv6Network((peer, _SITE_BITS), strict=False) if isinstance(peer, IPv6Address) else peer


def _peer(address: object) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(str(cast("tuple[str, int]", address)[0]).partition("%")[0])
    except (ValueError, TypeError, IndexError):
        return None
