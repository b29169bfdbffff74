"""The primary of the zones: a DNS message in, the messages of its answer out. It binds no socket.

    server.answers(name)                      whether a name is one of these zones, or in one
    async for message in server.respond(wire, tcp=True, tls=True, peer=address): …

Answered are SOA and NS of a zone's own name, AXFR (RFC 5936) and IXFR (RFC 1995) over TCP, and only to who may have the
zone: by TSIG (RFC 8945) or, where a resolver knows none, by its network. An IXFR over UDP is answered with the SOA, so
that the secondary comes over TCP. What is in a zone can be had by transfer alone: every other question is refused.
A zone that is `tls_only` is transferred over TLS alone (RFC 9103), while its SOA is told over everything: it says
nothing of what is in the zone, and resolvers look for it by UDP. Whoever asks learns nothing by an error but its code,
and over a connection which kind of refusal it is (RFC 8914). Nobody is logged.

Over UDP every refusal is under twice its query, and so is all that is signed. An unsigned SOA is up to four times as
long (some 90 bytes) and goes to addresses of the zone's `networks` alone: secondaries that know no TSIG come for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rrset
from dns.rdataclass import IN
from dns.rdatatype import AXFR, IXFR, NS, SOA

from blocker._native import ZoneMessages
from blocker.feeds import signing
from blocker.feeds.edns import NOT_SUPPORTED, PROHIBITED, Edns
from blocker.feeds.glance import HEAD_BYTES, is_plain, question_of
from blocker.feeds.history import condensed
from blocker.feeds.signing import Keyring, Signer
from blocker.feeds.tally import Failure, Sent, Tally, Transport
from blocker.feeds.zone import is_newer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from blocker._native import Zone, ZoneDelta
    from blocker.feeds.history import History
    from blocker.feeds.tally import Contact
    from blocker.feeds.zone import Plan, Record, Version

# Bytes of a transfer's message, of 65 535 that it could have: a name can be pointed to in the first 16 KiB alone (RFC
# 1035 section 4.1.4), so that longer ones are a third longer in all, and take a secondary more time to read.
MESSAGE_BYTES = 16_384
# Messages made in one go in a thread: few hops, and 256 KiB waiting at most.
BATCH = 16
_QR = 0x8000
_OPCODE = 0x7800


@dataclass(slots=True)
class Served:
    """A zone that is served.

    Attributes:
        plan: What it is, and who may have it.
        history: What changed lately.
        version: The present one; None until the first.
        tally: What happened to it.
    """

    plan: Plan
    history: History
    version: Version | None = None
    tally: Tally = field(default_factory=Tally)

    def publish(self, version: Version, delta: ZoneDelta | None) -> None:
        """Put a version in place, in one step with what changed since the last."""
        if self.version is not None:
            if delta is not None:
                self.history.add(self.version, version, delta)
            self.tally.superseded(self.version.serial)
        self.version = version

    def seen(self, request: _Request) -> None:
        """Note that a secondary has asked."""
        if self.version is not None:
            for contact in self._met(request):
                contact.ask(self.version.serial, _known(request), transfer=request.kind in (AXFR, IXFR))

    def sent(self, request: _Request, serial: int) -> None:
        """Note that a version was written to its end."""
        for contact in self._met(request):
            contact.was_sent(serial)

    def _met(self, request: _Request) -> Iterator[Contact]:
        return self.tally.met(self.plan.settings.secondaries, request.peer, request.key)


@dataclass(frozen=True, slots=True)
class _Way:
    """How something came."""

    tcp: bool
    tls: bool
    peer: IPv4Address | IPv6Address | None
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was asked, by whomever."""

    message: dns.message.Message
    question: bytes
    edns: Edns
    signer: Signer | None = None

    def refuse(self, code: int, error: int | None = None) -> bytes:
        """An answer that has nothing but the question and a code, and why, if that is told."""
        flags = _QR | (self.message.flags & dns.flags.RD) | (code & 0xF)
        wire = struct.pack("!6H", self.message.id, flags, 1, 0, 0, 0) + self.question
        return self.signed(wire, code, error)

    def signed(self, wire: bytes, code: int = 0, error: int | None = None) -> bytes:
        """An answer of one message with its OPT and signature."""
        signer = self.signer
        wire = self.edns.append(wire, after=signer.reserve if signer else 0, code=code, error=error)
        return wire if signer is None else signer.sign(wire)


@dataclass(frozen=True, slots=True)
class _Request:
    """What somebody asks who may have the zone."""

    asked: _Asked
    name: dns.name.Name
    kind: int
    key: dns.name.Name | None
    peer: IPv4Address | IPv6Address | None
    transport: Transport


class ZoneServer:
    """Answers for all zones. Belongs to one event loop.

    Args:
        max_transfers: At once.
        patience: Seconds that a further one waits before it is told SERVFAIL.
    """

    def __init__(self, max_transfers: int, patience: float) -> None:
        self._zones: dict[dns.name.Name, Served] = {}
        self._keys: Keyring = {}
        self._running = asyncio.Semaphore(max_transfers)
        self._patience = patience

    def configure(self, zones: Iterable[Served], keys: Keyring) -> None:
        """Serve these zones from now on; transfers under way end with what they began with."""
        self._zones, self._keys = {zone.plan.origin: zone for zone in zones}, keys
        for served in self._zones.values():
            served.tally.expect(served.plan.settings.secondaries)

    @property
    def origins(self) -> list[bytes]:
        """The zones' names on the wire."""
        return [served.plan.wire_origin for served in self._zones.values()]

    def refused_connection(self, why: Failure = Failure.CONNECTIONS) -> None:
        """Note one of which nothing came; which zone it was for nobody knows."""
        for served in self._zones.values():
            served.tally.failed[why] += 1

    def answers(self, name: dns.name.Name) -> bool:
        """Whether a name is a zone's own or below it, so that nobody else is to be asked about it."""
        return any(name.is_subdomain(origin) for origin in self._zones)

    async def respond(
        self,
        wire: bytes,
        *,
        tcp: bool,
        peer: IPv4Address | IPv6Address | None,
        tls: bool = False,
        idle_seconds: float = 0.0,
    ) -> AsyncGenerator[bytes, None]:
        """The messages that answer one, each made when it is asked for; none to what is no question.

        Args:
            wire: The message.
            tcp: Whether it came over a connection.
            peer: Whose it is.
            tls: Whether the connection is encrypted as a transfer's should be.
            idle_seconds: How long the connection stays while it is silent, for who asks; 0: that is not told.
        """
        if len(wire) < HEAD_BYTES or struct.unpack_from("!H", wire, 2)[0] & _QR:
            return
        try:
            answer = self._checked(wire, _Way(tcp, tls, peer, idle_seconds))
        except Exception:  # noqa: BLE001 - a peer's bytes: whatever they break, the answer is the same
            yield _bare(wire, dns.rcode.FORMERR)
            return
        if isinstance(answer, bytes):
            yield answer
            return
        request, served = answer
        served.seen(request)
        if request.kind in (SOA, NS) or not tcp:
            yield _top(request, served)
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._running.acquire()
        except TimeoutError:
            served.tally.failed[Failure.BUSY] += 1
            yield request.asked.refuse(dns.rcode.SERVFAIL)
            return
        try:
            async with contextlib.aclosing(self._transfer(request, served)) as messages:
                async for message in messages:
                    yield message
        finally:
            self._running.release()

    def _checked(self, wire: bytes, way: _Way) -> bytes | tuple[_Request, Served]:
        """The request and its zone, or what is answered at once."""
        if struct.unpack_from("!H", wire, 2)[0] & _OPCODE != dns.opcode.to_flags(dns.opcode.QUERY):
            return _bare(wire, dns.rcode.NOTIMP)
        if not is_plain(wire):  # from anybody so far: what it could cost is bounded before it is parsed
            return _bare(wire, dns.rcode.FORMERR)
        message = dns.message.from_wire(wire, keyring=False)
        edns = Edns.of(message, tcp=way.tcp, tls=way.tls, idle_seconds=way.idle_seconds)
        asked = _Asked(message, question_of(wire), edns)
        question = message.question[0]
        if message.edns > 0:  # told which version is known here (RFC 6891 section 6.1.3)
            return asked.refuse(dns.rcode.BADVERS)
        served = self._zones.get(question.name) if question.rdclass == IN else None
        if message.tsig is not None:
            error = signing.check(wire, self._keys)
            if error:
                if served is not None:
                    served.tally.failed[Failure.SIGNATURE] += 1
                return self._bad_signature(asked, error)
            asked = replace(asked, signer=Signer(self._keys[message.tsig.name], message.mac or b""))
        transfer = question.rdtype in (AXFR, IXFR)
        if served is None:
            return asked.refuse(dns.rcode.NOTAUTH if transfer else dns.rcode.REFUSED)
        key = None if message.tsig is None else message.tsig.name
        if not _may_have(served.plan, key, way.peer):
            served.tally.failed[Failure.ACCESS] += 1
            return asked.refuse(dns.rcode.REFUSED, PROHIBITED)
        if not (transfer or question.rdtype in (SOA, NS)):
            # Over TLS this is what resolvers find that try whether they could ask here (RFC 9103 section 7.8).
            return asked.refuse(dns.rcode.REFUSED, NOT_SUPPORTED if way.tls else None)
        if transfer and served.plan.settings.tls_only and not way.tls:
            served.tally.failed[Failure.CLEAR] += 1
            return asked.refuse(dns.rcode.REFUSED, PROHIBITED)
        if question.rdtype == AXFR and not way.tcp:
            return asked.refuse(dns.rcode.FORMERR)
        if served.version is None:
            served.tally.failed[Failure.UNREADY] += 1
            return asked.refuse(dns.rcode.SERVFAIL)
        transport = Transport.TLS if way.tls else Transport.CLEAR
        return _Request(asked, question.name, question.rdtype, key, way.peer, transport), served

    def _bad_signature(self, asked: _Asked, error: int) -> bytes:
        message = asked.message
        if error == dns.rcode.BADTIME and message.tsig is not None:  # signed, and says what time it is here
            now = int(time.time()).to_bytes(6, "big")
            signer = Signer(self._keys[message.tsig.name], message.mac or b"", error=error, other=now)
            return replace(asked, signer=signer).refuse(dns.rcode.NOTAUTH)
        return signing.unsigned_error(message, asked.refuse(dns.rcode.NOTAUTH), error)

    async def _transfer(self, request: _Request, served: Served) -> AsyncGenerator[bytes, None]:
        version = served.version
        if version is None:
            return
        serial = _known(request)
        if request.kind == IXFR and serial is None:
            yield request.asked.refuse(dns.rcode.FORMERR)
            return
        # Looked up now, since a new version may take this one's place at any time.
        steps = () if serial is None else served.history.since(serial)
        what, parts = await asyncio.to_thread(_parts, version, serial, steps)
        asked = request.asked.message
        flags = _QR | dns.flags.AA | (asked.flags & dns.flags.RD)
        plan = version.plan  # what is served may be configured otherwise by now
        messages = ZoneMessages(asked.id, flags, plan.wire_origin, request.kind, plan.records, parts)
        writer = _Writer(messages, request.asked)
        tally, question = served.tally, "axfr" if request.kind == AXFR else "ixfr"
        ended = False
        try:
            while batch := await asyncio.to_thread(writer.batch):
                for message in batch:
                    tally.bytes[question] += len(message)
                    yield message
            ended = True
        finally:
            if ended:
                tally.sent[question, what, request.transport] += 1
                if what is not Sent.CURRENT:
                    served.sent(request, version.serial)
            else:
                tally.failed[Failure.CUT] += 1


class _Writer:
    """Makes the messages of a transfer; for a thread."""

    def __init__(self, messages: ZoneMessages, asked: _Asked) -> None:
        self._messages, self._signer, self._edns = messages, asked.signer, asked.edns
        self._reserve = asked.signer.reserve if asked.signer else 0
        self._limit = min(asked.edns.limit(self._reserve), MESSAGE_BYTES - self._reserve)

    def batch(self) -> list[bytes]:
        made: list[bytes] = []
        while len(made) < BATCH and (message := self._messages.next(self._limit)) is not None:
            message = self._edns.append(message, after=self._reserve)  # each has one (RFC 9103 section 6.3.4)
            made.append(message if self._signer is None else self._signer.sign(message, more=True))
        return made


def _known(request: _Request) -> int | None:
    """The version that the secondary has; None: it says none, or asks for the whole zone."""
    if request.kind == AXFR:
        return None
    known = [data for rrset in request.asked.message.authority if rrset.rdtype == SOA for data in rrset]
    return known[0].serial if len(known) == 1 else None


def _parts(version: Version, known: int | None, steps: Sequence[ZoneDelta]) -> tuple[Sent, Sequence[Record | Zone]]:
    """What is sent to who has a version."""
    if known is not None and not is_newer(version.serial, known):
        return Sent.CURRENT, [version.soa]
    if known is None or not steps:
        return Sent.WHOLE, version.whole()
    delta = condensed(steps)
    older = replace(version, serial=known)
    return Sent.DIFFERENCE, [version.soa, older.soa, delta.removed, version.soa, delta.added, version.soa]


def _may_have(plan: Plan, key: dns.name.Name | None, peer: IPv4Address | IPv6Address | None) -> bool:
    if key is not None:
        return any(dns.name.from_text(name) == key for name in plan.settings.keys)
    return peer is not None and any(peer in network for network in plan.settings.networks)


def _top(request: _Request, served: Served) -> bytes:
    """The SOA or NS of a zone."""
    message, version = request.asked.message, served.version
    answer = dns.message.Message(message.id)
    answer.flags = dns.flags.QR | dns.flags.AA | (message.flags & dns.flags.RD)
    answer.question = list(message.question)
    if version is not None:
        plan = version.plan
        data = plan.ns if request.kind == NS else plan.soa(version.serial)
        answer.answer.append(dns.rrset.from_rdata(request.name, plan.settings.ttl, data))
    return request.asked.signed(answer.to_wire())


def _bare(wire: bytes, code: int) -> bytes:
    """An answer to what could not be read: nothing but its head."""
    flags = struct.unpack_from("!H", wire, 2)[0]
    return wire[:2] + struct.pack("!5H", _QR | (flags & (_OPCODE | dns.flags.RD)) | code, 0, 0, 0, 0)
