"""The `dns` gateway: a zone that says what the lists say, and a filtering resolver, over UDP, TCP and TLS.

The protocol is `blocker/native/src/wire/dns/`, which says what is asked and answered. Datagrams are taken from the
socket, answered and sent many at once, with no Python between; connections are those of `listener`. What no list has a
word on is asked of other resolvers, see `forwarder`. Nothing is kept, counted or logged of who asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import secrets
import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

from blocker._native import DnsService
from blocker.errors import ServeError
from blocker.gateways.connection import StreamConnection
from blocker.gateways.dns_stream import StreamSession, address_of
from blocker.gateways.forwarder import Forwarder
from blocker.gateways.listener import Listener, close_all
from blocker.gateways.shares import Shares
from blocker.sockets import answer_from_asked, bind, shown
from blocker.tls_server import TlsServer, server_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from blocker._native import DnsDatagram, DnsFound, DnsQuestion
    from blocker.gateways.dns_load import Fate
    from blocker.gateways.engine import VerdictEngine
    from blocker.sections import DnsReasonSettings, DnsSettings, StreamSettings

NAME = "dns"
# RFC 8914, sections 4.16 to 4.18.
_ERRORS = {"blocked": 15, "censored": 16, "filtered": 17}
# Network Operator Policy, of draft-ietf-dnsop-structured-dns-error; it goes with `blocked` alone.
_SUB_ERROR = 5
# Datagrams that wait to be read, in bytes: a fifth of a second at 100 000 a second. The system may allow less.
_QUEUE_BYTES = 4 * 2**20
# Tries to find a port that is free for UDP as it is for TCP.
_TRIES = 20


class Primary(Protocol):
    """Who answers about zones of his own, over sockets of this gateway."""

    @property
    def origins(self) -> Sequence[bytes]:
        """Their names on the wire."""

    def datagram(
        self, message: bytes, peer: IPv4Address | IPv6Address | None, send: Callable[[bytes], None], /
    ) -> None:
        """Answer one."""

    def connection(self, transport: asyncio.Transport, data: bytes, /) -> None:
        """Take over a connection, of which this was read."""


class DnsListener(Listener):
    """The gateway, not yet listening.

    Args:
        engine: Decides and counts.
        settings: Where it listens, its limits and what it answers.

    Raises:
        UnknownPolicy: There is no such policy.
    """

    def __init__(self, engine: VerdictEngine, settings: DnsSettings) -> None:
        gate = engine.gate(NAME, settings.policy)
        self.service = DnsService(gate, secrets.token_bytes(16))
        self.forwarder = Forwarder(self.service, settings)
        super().__init__(NAME, settings, lambda _limits: StreamSession(self), engine.tick, gate)
        self.tls_addresses: list[str] = []  # once started
        self._datagrams: list[socket.socket] = []
        self._waiting = 0  # datagrams whose answer is under way
        self._tls_port: int | None = None  # once started with TLS
        self._tls: ssl.SSLContext | None = None
        self._ready_tls: ssl.SSLContext | None = None  # of the next `configure`
        self._places = Shares()
        self.zones: Primary | None = None
        self.prepare(settings)
        self._set_up(settings)

    @property
    def settings(self) -> DnsSettings:
        """The present ones."""
        return cast("DnsSettings", self.limits)

    def open(self, workers: int = 0) -> list[list[socket.socket]]:
        """See `Listener`: TCP, the unix socket, then UDP, then TLS."""
        for _ in range(_TRIES):
            opened = super().open(workers)
            try:
                self._open_more(opened, reuse_port=bool(workers))
            except ServeError:
                close_all(opened)
                self.remove_unix()
                if self.settings.port:
                    raise
            else:
                return opened
        raise ServeError("gateway dns: no port is free for UDP and TCP")

    def _open_more(self, opened: list[list[socket.socket]], *, reuse_port: bool) -> None:
        settings, tls_port = self.settings, self.settings.tls_port
        self.tls_addresses = []
        for sockets in opened:
            sockets += bind(
                settings.host, self.port, "BLOCKER_GATEWAYS__DNS__PORT", reuse_port=reuse_port, kind=socket.SOCK_DGRAM
            )
            if settings.tls_certificate is not None:
                found = bind(settings.host, tls_port, "BLOCKER_GATEWAYS__DNS__TLS_PORT", reuse_port=reuse_port)
                tls_port = found[0].getsockname()[1]
                self.tls_addresses = [shown(*one.getsockname()[:2]) for one in found]
                sockets += found

    async def start(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """See `Listener`.

        Raises:
            ServeError: An address cannot be had, or the certificate cannot be read.
        """
        loop = asyncio.get_running_loop()
        if sockets is None:
            [sockets] = self.open()
        port = sockets[0].getsockname()[1]
        inet = [one for one in sockets if one.family != socket.AF_UNIX and one.type == socket.SOCK_STREAM]
        over_tls = [one for one in inet if one.getsockname()[1] != port]
        self._tls_port = over_tls[0].getsockname()[1] if over_tls else None
        self._designate(self.settings)
        self._datagrams = [one for one in sockets if one.type == socket.SOCK_DGRAM]
        self._admit(str(one.getsockname()[0]) for one in self._datagrams)
        await super().start([one for one in sockets if one not in over_tls and one not in self._datagrams])
        for one in over_tls:
            self._servers.append(TlsServer(
                one, enter=self.enter, leave=self.leave, protocol=partial(StreamConnection, self),
                context=self._context, handshake_seconds=lambda: self.limits.request_seconds,
            ))  # fmt: skip
        for one in self._datagrams:
            _prepare(one)
            loop.add_reader(one.fileno(), self._receive, one)

    async def stop(self) -> None:
        """See `Listener`; datagrams that have arrived are answered too, those that wait for others within the drain."""
        loop = asyncio.get_running_loop()
        for one in self._datagrams:
            loop.remove_reader(one.fileno())
            self._receive(one)
        await super().stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.drain_seconds):
                while self._waiting:
                    self.ended.clear()
                    await self.ended.wait()
        await self.forwarder.stop()
        for one in self._datagrams:
            one.close()
        self._datagrams.clear()

    def prepare(self, settings: StreamSettings) -> None:
        """See `Listener`: the certificate."""
        chosen = cast("DnsSettings", settings)
        if chosen.tls_certificate is not None and chosen.tls_key is not None:
            # Clients may be old ones (RFC 7858); what is about zones is held to more by who answers it.
            self._ready_tls = server_context(
                chosen.tls_certificate, chosen.tls_key, of="gateway dns", minimum=ssl.TLSVersion.TLSv1_2
            )

    def configure(self, settings: StreamSettings) -> None:
        """See `Listener`; what is answered from now on, and for new connections the certificate that was prepared."""
        super().configure(settings)
        self._set_up(self.settings)
        self._admit(str(one.getsockname()[0]) for one in self._datagrams)

    def hand_over(self, zones: Primary) -> None:
        """Leave what is asked about zones to their server, whoever asks: it knows who may have them."""
        self.zones = zones
        self.service.hand_over(zones.origins)

    def _set_up(self, settings: DnsSettings) -> None:
        service = self.service
        service.serve(settings.zone, settings.zone_servers, settings.link or "", settings.ttl)
        reasons = [(name, *_reason(reason)) for name, reason in [("", settings.reason), *settings.reasons.items()]]
        service.filter(
            settings.blocked if settings.upstreams else None, settings.stop_addresses, settings.inspect_addresses,
            settings.aliases, settings.ttl,
        )  # fmt: skip
        service.explain(reasons, settings.structured_option)
        service.withhold(settings.withheld)
        service.keep_answers(settings.cache_bytes, settings.max_ttl, settings.stale_seconds)
        self._designate(settings)
        self.forwarder.configure(settings)
        self._places.most = settings.share_of(settings.max_connections)
        self._tls = self._ready_tls or self._tls

    def _designate(self, settings: DnsSettings) -> None:
        """Tell clients that look for an encrypted resolver where this one is, if it is one."""
        name = settings.tls_name if self._tls_port is not None else None
        self.service.designate(name, settings.tls_told_port or self._tls_port or 0)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            raise ServeError("gateway dns: there is no certificate")
        return self._tls

    def enter(self, peer: object) -> int | None:
        """See `Listener`: in the networks, unless there are zones, which others may have too; and within a share."""
        address = address_of(peer)
        if address is None:
            return super().enter(peer)
        if self.zones is None and not self.service.knows(address):
            return None
        part = self.service.part(address)
        if not self._places.take(part):
            self.refused += 1
            return None
        if super().enter(peer) is None:
            self._places.give_back(part)
            return None
        return part

    def leave(self, place: int) -> None:
        """See `Listener`."""
        super().leave(place)
        self._places.give_back(place or None)

    def _admit(self, own: Iterable[str]) -> None:
        """Answer the configured networks and this machine, whose canaries are asked for from its own addresses."""
        networks = [(one.network_address, one.prefixlen) for one in self.settings.networks]
        mine = [ipaddress.ip_address(address.partition("%")[0]) for address in own]
        networks += [(address, address.max_prefixlen) for address in mine if not address.is_unspecified]
        networks += [(ipaddress.ip_address("127.0.0.0"), 8), (ipaddress.ip_address("::1"), 128)]
        self.service.admit(networks, self.settings.refuse, self.settings.rate)

    def _receive(self, one: socket.socket) -> None:
        self.tick()
        now = asyncio.get_running_loop().time()
        for question in self.service.receive(one.fileno(), now):
            self._waiting += 1
            self.forwarder.ask(question, question.part, partial(self._send, one, question))
        if self.zones is not None:
            for datagram in self.service.take_datagrams():
                self.zones.datagram(datagram.message, datagram.address, partial(_answer, one, datagram))

    def _send(self, one: socket.socket, question: DnsQuestion, found: DnsFound | None) -> Fate | None:
        self._waiting -= 1
        self.ended.set()
        if one.fileno() < 0:
            return None
        return self.service.send(one.fileno(), question, found, asyncio.get_running_loop().time())


def _answer(one: socket.socket, datagram: DnsDatagram, message: bytes) -> None:
    if one.fileno() >= 0:
        datagram.answer(one.fileno(), message)


def _prepare(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE_BYTES)
    answer_from_asked(one)


def _reason(settings: DnsReasonSettings) -> tuple[int, str, str]:
    """The error, the structured text, and the same without what is for people."""
    short: dict[str, object] = {}
    if settings.contact:
        short["c"] = list(settings.contact)
    if settings.error == "blocked":
        short["s"] = _SUB_ERROR
    said = {"j": settings.text, "o": settings.organization}
    full = {**short, **{name: text for name, text in said.items() if text}}
    if full != short:
        full["l"] = settings.language
    return _ERRORS[settings.error], _compact(full), _compact(short)


def _compact(fields: dict[str, object]) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")) if fields else ""
