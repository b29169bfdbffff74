"""TCP, UDP and TLS for the zone server, on its own ports and on those of the `dns` gateway.

What a peer can do to others is bounded: connections in number, in all and of one address, from before a handshake until
nothing is left of them; a handshake, a request and a message in time, a silent connection in time. Who may have no zone
is answered once, and disconnected. A transfer is made as fast as it is read. Nothing of a peer is logged, its address
least of all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, cast

import dns.rcode
import structlog

from blocker._native import DnsDatagrams
from blocker.errors import ServeError
from blocker.feeds.glance import HEAD_BYTES
from blocker.feeds.tally import Failure
from blocker.feeds.transport_security import ZoneGuest, credentials, is_protected
from blocker.sockets import BACKLOG, answer_from_asked, bind_both, close_both, shown
from blocker.tls_server import TlsServer

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from blocker._native import DnsDatagram
    from blocker.feed_section import RpzSettings
    from blocker.feeds.transfer import ZoneServer
    from blocker.feeds.transport_security import Credentials

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
TLS_SETTING = "BLOCKER_FEEDS__RPZ__TLS_PORT"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Place:
    """One of the places of connections, and whose it is; not known: None."""

    of: IPv4Address | IPv6Network | None


class ZoneListener:
    """The sockets of the zones.

    Args:
        server: Who answers.
        settings: Where it listens, and the limits.

    Raises:
        ServeError: The certificate cannot be used.
    """

    def __init__(self, server: ZoneServer, settings: RpzSettings) -> None:
        self.server = server
        self.limits = settings
        self.addresses: list[str] = []
        self.tls_addresses: list[str] = []  # once started
        self._servers: list[asyncio.Server | TlsServer[_Place]] = []
        self._datagrams: list[socket.socket] = []
        self._batch = DnsDatagrams()
        self._connections: set[asyncio.Task[None]] = set()
        self._places = Counter[IPv4Address | IPv6Network | None]()  # of connections and handshakes, by whose they are
        self._shown: Credentials | None = None
        self._ready: Credentials | None = None  # of the next `configure`
        self._answering: set[asyncio.Task[None]] = set()
        self._handed = (0, 0)  # a second of the loop's clock, and how many datagrams were handed over in it
        self.prepare(settings)
        self.configure(settings)

    @property
    def origins(self) -> list[bytes]:
        """The zones' names on the wire."""
        return self.server.origins

    @property
    def connections(self) -> int:
        """How many there are, with handshakes."""
        return self._places.total()

    @property
    def expires(self) -> float | None:
        """When the certificate ends, in Unix seconds; None: there is none."""
        return None if self._shown is None else self._shown.expires

    def prepare(self, settings: RpzSettings) -> None:
        """Read what `configure` with these needs, so that it cannot fail then.

        Raises:
            ServeError: The certificate cannot be used; nothing has changed.
        """
        self._ready = credentials(settings)

    def configure(self, settings: RpzSettings) -> None:
        """Take over other limits at once, and for new connections the certificate that was prepared."""
        self.limits = settings
        if settings.tls_certificate is not None:
            self._shown = self._ready or self._shown

    async def start(self) -> None:
        """Listen.

        Raises:
            ServeError: An address cannot be had.
        """
        limits = self.limits
        clear = bind_both(limits.host, limits.port, SETTING)
        try:
            over_tls = [] if self._shown is None else bind_both(limits.host, limits.tls_port, TLS_SETTING)
        except ServeError:
            close_both(clear)
            raise
        self.addresses = [shown(*one.getsockname()[:2]) for one, _ in clear]
        self.tls_addresses = [shown(*one.getsockname()[:2]) for one, _ in over_tls]
        for one, _ in clear:
            self._servers.append(await asyncio.start_server(self._connected, sock=one, backlog=BACKLOG))
        for one, _ in over_tls:
            self._servers.append(TlsServer(
                one, enter=self._enter, leave=self._failed, protocol=partial(ZoneGuest, self._encrypted),
                context=self._context, handshake_seconds=lambda: self.limits.request_seconds,
            ))  # fmt: skip
        for _, beside in clear + over_tls:
            self._datagrams.append(beside)
            answer_from_asked(beside)
            asyncio.get_running_loop().add_reader(beside.fileno(), self._receive, beside)

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
        place = self._enter(writer.get_extra_info("peername"))
        if place is None:
            writer.transport.abort()
        else:
            await self._hold(place, reader, writer)

    async def _encrypted(self, place: _Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not is_protected(writer.get_extra_info("ssl_object"), self.limits):  # it does not say that it speaks DNS
            self._failed(place)
            writer.transport.abort()
        else:
            await self._hold(place, reader, writer)

    async def _hold(self, place: _Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection until nothing is left of it: a peer that does not read keeps its place so long."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._connections.add(task)
        writer.transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        try:
            await self._serve(reader, writer)
            writer.close()
            async with asyncio.timeout(self.limits.request_seconds):
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError):  # went away, cut, too slow
            writer.transport.abort()
        except asyncio.CancelledError:  # at a stop
            writer.transport.abort()
        except Exception as error:  # one connection's fault must not be another's
            log.exception("a transfer failed unexpectedly", exc_info=error)
            writer.transport.abort()
        finally:
            self._connections.discard(task)
            self._leave(place)

    def _enter(self, peer: object) -> _Place | None:
        """Take a place for a connection, to be given back to `_leave`; None: there is none for it."""
        place, most = _Place(_site(_peer(peer))), self.limits.max_connections
        if self.connections >= most or self._places[place.of] >= max(LEAST_SHARE, most // SHARE):
            self.server.refused_connection()
            return None
        self._places[place.of] += 1
        return place

    def _leave(self, place: _Place) -> None:
        self._places[place.of] -= 1
        if not self._places[place.of]:
            del self._places[place.of]  # nothing of a peer is kept

    def _failed(self, place: _Place) -> None:
        """Give up one whose handshake came to nothing."""
        self._leave(place)
        self.server.refused_connection(Failure.HANDSHAKE)

    def _context(self) -> ssl.SSLContext:
        if self._shown is None:
            raise ServeError("feeds.rpz: there is no certificate")
        return self._shown.context

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer, link = _peer(writer.get_extra_info("peername")), writer.get_extra_info("ssl_object")
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
            tls = is_protected(link, self.limits)
            responding = self.server.respond(message, tcp=True, tls=tls, peer=peer, idle_seconds=limits.idle_seconds)
            async with contextlib.aclosing(responding) as answer:
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
