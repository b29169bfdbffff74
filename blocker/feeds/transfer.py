"""The primary of the zones: a DNS message in, the messages of its answer out. It binds no socket.

    server.answers(name)                      whether a name is one of these zones, or in one
    async for message in server.respond(wire, tcp=True, peer=address): …

Answered are SOA and NS of a zone's own name, AXFR (RFC 5936) and IXFR (RFC 1995) over TCP, and only to who may have the
zone: by TSIG (RFC 8945) or, where a resolver knows none, by its network. An IXFR over UDP is answered with the SOA, so
that the secondary comes over TCP. What is in a zone can be had by transfer alone: every other question is refused.
Whoever asks learns nothing by an error but its code, and is not logged.

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
from dns.rdatatype import AXFR, IXFR, NS, OPT, SOA

from blocker._native import ZoneMessages
from blocker.feeds import signing
from blocker.feeds.glance import HEAD_BYTES, is_plain, question_of
from blocker.feeds.history import condensed
from blocker.feeds.signing import Keyring, Signer
from blocker.feeds.tally import Failure, Sent, Tally
from blocker.feeds.zone import is_newer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from blocker._native import Zone, ZoneDelta
    from blocker.feeds.history import History
    from blocker.feeds.tally import Contact
    from blocker.feeds.zone import Plan, Record, Version

# Bytes of one message over TCP: its length has 16 bits (RFC 1035 section 4.2.2).
MAX_MESSAGE = 65_535
# Messages made in one go in a thread: few hops, and 256 KiB waiting at most.
BATCH = 4
_QR = 0x8000
_OPCODE = 0x7800
# EDNS(0) without options: whoever sends one gets one (RFC 6891 section 6.1.1).
_OPT = struct.pack("!BHHIH", 0, 41, 1232, 0, 0)


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
class _Request:
    message: dns.message.Message
    asked: bytes
    name: dns.name.Name
    kind: int
    signer: Signer | None
    key: dns.name.Name | None
    peer: IPv4Address | IPv6Address | None


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

    def refused_connection(self) -> None:
        """Note one that was refused; which zone it was for nobody knows."""
        for served in self._zones.values():
            served.tally.failed[Failure.CONNECTIONS] += 1

    def answers(self, name: dns.name.Name) -> bool:
        """Whether a name is a zone's own or below it, so that nobody else is to be asked about it."""
        return any(name.is_subdomain(origin) for origin in self._zones)

    async def respond(
        self, wire: bytes, *, tcp: bool, peer: IPv4Address | IPv6Address | None
    ) -> AsyncGenerator[bytes, None]:
        """The messages that answer one, each made when it is asked for; none to what is no question."""
        if len(wire) < HEAD_BYTES or struct.unpack_from("!H", wire, 2)[0] & _QR:
            return
        try:
            answer = self._checked(wire, tcp=tcp, peer=peer)
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
            yield _refusal(request.message, request.asked, dns.rcode.SERVFAIL, request.signer)
            return
        try:
            async with contextlib.aclosing(self._transfer(request, served)) as messages:
                async for message in messages:
                    yield message
        finally:
            self._running.release()

    def _checked(
        self, wire: bytes, *, tcp: bool, peer: IPv4Address | IPv6Address | None
    ) -> bytes | tuple[_Request, Served]:
        """The request and its zone, or what is answered at once."""
        if struct.unpack_from("!H", wire, 2)[0] & _OPCODE != dns.opcode.to_flags(dns.opcode.QUERY):
            return _bare(wire, dns.rcode.NOTIMP)
        if not is_plain(wire):  # from anybody so far: what it could cost is bounded before it is parsed
            return _bare(wire, dns.rcode.FORMERR)
        message, asked = dns.message.from_wire(wire, keyring=False), question_of(wire)
        question = message.question[0]
        if message.edns > 0:  # told which version is known here (RFC 6891 section 6.1.3)
            return _refusal(message, asked, dns.rcode.BADVERS)
        served = self._zones.get(question.name) if question.rdclass == IN else None
        signer = None
        if message.tsig is not None:
            error = signing.check(wire, self._keys)
            if error:
                if served is not None:
                    served.tally.failed[Failure.SIGNATURE] += 1
                return self._bad_signature(message, asked, error)
            signer = Signer(self._keys[message.tsig.name], message.mac or b"")
        transfer = question.rdtype in (AXFR, IXFR)
        if served is None:
            return _refusal(message, asked, dns.rcode.NOTAUTH if transfer else dns.rcode.REFUSED, signer)
        key = None if message.tsig is None else message.tsig.name
        if not _may_have(served.plan, key, peer):
            served.tally.failed[Failure.ACCESS] += 1
            return _refusal(message, asked, dns.rcode.REFUSED, signer)
        if not (transfer or question.rdtype in (SOA, NS)):
            return _refusal(message, asked, dns.rcode.REFUSED, signer)
        if question.rdtype == AXFR and not tcp:
            return _refusal(message, asked, dns.rcode.FORMERR, signer)
        if served.version is None:
            served.tally.failed[Failure.UNREADY] += 1
            return _refusal(message, asked, dns.rcode.SERVFAIL, signer)
        return _Request(message, asked, question.name, question.rdtype, signer, key, peer), served

    def _bad_signature(self, message: dns.message.Message, asked: bytes, error: int) -> bytes:
        answer = _refusal(message, asked, dns.rcode.NOTAUTH)
        if error == dns.rcode.BADTIME and message.tsig is not None:  # signed, and says what time it is here
            now = int(time.time()).to_bytes(6, "big")
            return Signer(self._keys[message.tsig.name], message.mac or b"", error=error, other=now).sign(answer)
        return signing.unsigned_error(message, answer, error)

    async def _transfer(self, request: _Request, served: Served) -> AsyncGenerator[bytes, None]:
        version = served.version
        if version is None:
            return
        serial = _known(request)
        if request.kind == IXFR and serial is None:
            yield _refusal(request.message, request.asked, dns.rcode.FORMERR, request.signer)
            return
        # Looked up now, since a new version may take this one's place at any time.
        steps = () if serial is None else served.history.since(serial)
        what, parts = await asyncio.to_thread(_parts, version, serial, steps)
        flags = _QR | dns.flags.AA | (request.message.flags & dns.flags.RD)
        plan = version.plan  # what is served may be configured otherwise by now
        messages = ZoneMessages(request.message.id, flags, plan.wire_origin, request.kind, plan.records, parts)
        writer = _Writer(messages, request.signer, edns=request.message.edns >= 0)
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
                tally.sent[question, what] += 1
                if what is not Sent.CURRENT:
                    served.sent(request, version.serial)
            else:
                tally.failed[Failure.CUT] += 1


class _Writer:
    """Makes the messages of a transfer; for a thread."""

    def __init__(self, messages: ZoneMessages, signer: Signer | None, *, edns: bool) -> None:
        self._messages, self._signer, self._edns = messages, signer, edns
        self._limit = MAX_MESSAGE - len(_OPT) - (signer.reserve if signer else 0)

    def batch(self) -> list[bytes]:
        made: list[bytes] = []
        while len(made) < BATCH and (message := self._messages.next(self._limit)) is not None:
            if self._edns:
                message, self._edns = signing.append(message, _OPT), False
            made.append(message if self._signer is None else self._signer.sign(message, more=True))
        return made


def _known(request: _Request) -> int | None:
    """The version that the secondary has; None: it says none, or asks for the whole zone."""
    if request.kind == AXFR:
        return None
    known = [data for rrset in request.message.authority if rrset.rdtype == SOA for data in rrset]
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
    message, version = request.message, served.version
    answer = dns.message.Message(message.id)
    answer.flags = dns.flags.QR | dns.flags.AA | (message.flags & dns.flags.RD)
    answer.question = list(message.question)
    if message.edns >= 0:
        answer.use_edns(0, 0, 1232)
    if version is not None:
        plan = version.plan
        data = plan.ns if request.kind == NS else plan.soa(version.serial)
        answer.answer.append(dns.rrset.from_rdata(request.name, plan.settings.ttl, data))
    wire = answer.to_wire()
    return wire if request.signer is None else request.signer.sign(wire)


def _refusal(message: dns.message.Message, asked: bytes, code: int, signer: Signer | None = None) -> bytes:
    """An answer that has nothing but the question and a code."""
    opt = b"" if message.edns < 0 else struct.pack("!BHHIH", 0, OPT, 1232, code >> 4 << 24, 0)
    flags = _QR | (message.flags & dns.flags.RD) | (code & 0xF)
    wire = struct.pack("!6H", message.id, flags, 1, 0, 0, bool(opt)) + asked + opt
    return wire if signer is None else signer.sign(wire)


def _bare(wire: bytes, code: int) -> bytes:
    """An answer to what could not be read: nothing but its head."""
    flags = struct.unpack_from("!H", wire, 2)[0]
    return wire[:2] + struct.pack("!5H", _QR | (flags & (_OPCODE | dns.flags.RD)) | code, 0, 0, 0, 0)
