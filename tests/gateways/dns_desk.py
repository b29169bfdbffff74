"""A DNS service over an engine of the tests, asked with dnspython by datagram or over a connection."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Any

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from blocker._native import DnsService, DnsSession
from tests.gateways.test_http_codec import Desk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocker._native import DnsQuestion

ZONE = "bl.test"
LINK = "https://operator.example/blocked"
STRUCTURED_OPTION = 65_001
FULL = '{"c":["mailto:appeals@operator.example"],"j":"listed","o":"Operator","l":"en"}'
SHORT = '{"c":["mailto:appeals@operator.example"]}'
LOOPBACK = [(ipaddress.ip_address("127.0.0.0"), 8)]
NOW = 1000.0


class DnsDesk(Desk):
    """An engine with a DNS service; `blocked`, `page` and so on as `DnsService.filter` takes them."""

    def __init__(
        self,
        *,
        ready: bool = True,
        zone: str | None = ZONE,
        filters: bool = True,
        blocked: str = "nxdomain",
        page: Sequence[str] = (),
        inspect: Sequence[str] = (),
    ) -> None:
        super().__init__(ready=ready)
        self.dns_gate = self.engine.gate("dns", "default")
        self.service = DnsService(self.dns_gate, bytes(16))
        self.service.serve(zone, [], LINK, 30)
        if filters:
            reasons = [("", 15, FULL, SHORT), ("police", 16, FULL, SHORT)]
            at = [ipaddress.ip_address(address) for address in page]
            looked_at = [ipaddress.ip_address(address) for address in inspect]
            self.service.filter(blocked, at, looked_at, True, 30)
            self.service.explain(reasons, STRUCTURED_OPTION)
        self.service.admit(LOOPBACK, False, 0)
        self.service.keep_answers(2**20, 86_400, 0)
        self.now = NOW

    def over_stream(self, *messages: bytes) -> tuple[list[bytes], list[DnsQuestion]]:
        """Answers over one connection, and questions for others."""
        session = DnsSession(self.service, False)
        written, questions = session.feed(b"".join(map(framed, messages)), self.now)
        return unframed(written), questions

    def by_datagram(self, *messages: bytes) -> tuple[list[bytes], list[DnsQuestion]]:
        """Answers to datagrams of one client."""
        with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
            server.bind(("127.0.0.1", 0))
            client.connect(server.getsockname())
            for message in messages:
                client.send(message)
            questions = self.service.receive(server.fileno(), self.now)
            return received(client), questions

    def asked(self, name: str, kind: str = "A", **options: Any) -> dns.message.Message:  # noqa: ANN401 - dnspython's own
        """One answer, read by dnspython; by datagram unless `stream`."""
        stream = options.pop("stream", False)
        message = query(name, kind, **options)
        answers, _ = (self.over_stream if stream else self.by_datagram)(message.to_wire())
        (answer,) = answers
        found = dns.message.from_wire(answer, one_rr_per_rrset=False)
        assert message.is_response(found) or found.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP)
        return found


def query(
    name: str, kind: str = "A", *, edns: bool = True, flags: str = "RD", options: Sequence[dns.edns.Option] = (),
    payload: int = 1232, dnssec: bool = False, klass: str = "IN",
) -> dns.message.QueryMessage:  # fmt: skip
    """A query."""
    return dns.message.make_query(
        name, kind, klass, use_edns=0 if edns else -1, payload=payload if edns else None, options=list(options) or None,
        want_dnssec=dnssec, flags=dns.flags.from_text(flags),
    )  # fmt: skip


def framed(message: bytes) -> bytes:
    """A message with its length before it."""
    return len(message).to_bytes(2, "big") + message


def unframed(data: bytes) -> list[bytes]:
    """Messages without their lengths."""
    found = []
    while data:
        length = int.from_bytes(data[:2], "big")
        assert len(data) >= 2 + length
        found.append(data[2 : 2 + length])
        data = data[2 + length :]
    return found


def received(client: socket.socket) -> list[bytes]:
    """What has arrived; on loopback that is all that was sent."""
    client.setblocking(False)
    found = []
    while True:
        try:
            found.append(client.recv(65_535))
        except BlockingIOError:
            return found


def shown(message: dns.message.Message) -> tuple[str, list[str]]:
    """Code, and the answers' data."""
    records = [str(record) for rrset in message.answer for record in rrset]
    return dns.rcode.to_text(message.rcode()), records


def errors(message: dns.message.Message) -> list[tuple[int, str]]:
    """Extended DNS Errors: code and text."""
    return [(int(option.code), option.text or "") for option in message.extended_errors()]
