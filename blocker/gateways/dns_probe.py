"""Asks the `dns` gateway about a canary, by a datagram as most clients do."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from blocker._native import canonicalize
from blocker.gateways.canaries import Answer, NoAnswer, NotShown
from blocker.rules import Verdict
from blocker.sockets import reachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocker.gateways.dns import DnsListener

_A, _TXT, _OPT = 1, 16, 41
_NOERROR, _SERVFAIL, _NXDOMAIN, _REFUSED = 0, 2, 3, 5
# Extended DNS Errors of a name that is blocked; of an address that is not its own; of a node without lists.
_BLOCKED = frozenset((15, 16, 17))
_FORGED, _NOT_READY = 4, 14
# The addresses that the zone has.
_LISTED = {b"\x7f\0\0\2": Verdict.BLOCK, b"\x7f\0\0\3": Verdict.INSPECT}
# So much of nothing is in a query that the longest TXT record's answer is not twice as long.
_PADDING_BYTES = 300


class _Said(NamedTuple):
    """What an answer says."""

    rcode: int
    records: Sequence[bytes]  # data
    errors: frozenset[int]


class DnsProbe:
    """A `blocker.gateways.canaries.Probe` of the `dns` gateway.

    Names are asked for as clients do, where it filters; else in its zone, which is asked for the list in any case. A
    page is one whose host is to be looked at.

    Args:
        listener: Asked at the first address that it is bound to.
    """

    gateway = "dns"

    def __init__(self, listener: DnsListener) -> None:
        self._listener = listener

    @property
    def policies(self) -> Sequence[str]:
        """See `Probe`."""
        return (self._listener.limits.policy,)

    async def ask(self, url: str, policy: str) -> Answer:
        """See `Probe`; the time limit is the caller's."""
        if policy not in self.policies or not self._listener.addresses:
            raise NoAnswer("the dns gateway does not listen")
        settings = self._listener.settings
        parts = urlsplit(canonicalize(url))
        host = parts.hostname or ""
        address = _address(host)
        page = parts.path not in ("", "/") or bool(parts.query)
        in_zone = f"{_reversed(address) if address else host}.{settings.zone}"
        if settings.upstreams and address is None:
            if page and not settings.inspect_addresses and settings.zone is None:
                raise NotShown("names whose pages are listed are forwarded")
            if not page or settings.inspect_addresses:
                answer = _filtered(await self._query(host, _A))
                if answer is not Verdict.BLOCK or settings.zone is None:
                    return Answer(answer)
        if settings.zone is None:
            raise NotShown("addresses have no names")
        said = await self._query(in_zone, _A)
        if said.rcode not in (_NOERROR, _NXDOMAIN):
            raise NoAnswer("the dns gateway gave no verdict")
        verdict = _LISTED.get(said.records[0], Verdict.ALLOW) if said.records else Verdict.ALLOW
        if verdict is not Verdict.BLOCK:
            return Answer(verdict)
        text = b"".join(record[1:] for record in (await self._query(in_zone, _TXT)).records).decode("latin-1")
        _, _, rest = text.partition("Blocked by list ")
        return Answer(verdict, rest.partition(";")[0] or None)

    async def _query(self, name: str, kind: int) -> _Said:
        asked = query(name, kind)
        host, _, port = reachable(self._listener.addresses[0]).rpartition(":")
        host = host.strip("[]")
        loop = asyncio.get_running_loop()
        heard: asyncio.Future[bytes] = loop.create_future()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as one:
            one.connect((host, int(port)))
            one.send(asked)

            def readable() -> None:
                try:
                    message = one.recv(65_535)
                except OSError as error:
                    if not heard.done():
                        heard.set_exception(NoAnswer(f"the dns gateway is away: {type(error).__name__}"))
                    return
                if message[:2] == asked[:2] and not heard.done():
                    heard.set_result(message)

            loop.add_reader(one.fileno(), readable)
            try:
                return _read(await heard, asked)
            except (IndexError, ValueError):
                raise NoAnswer("the dns gateway's answer is none") from None
            finally:
                loop.remove_reader(one.fileno())


def query(name: str, kind: int) -> bytes:
    """A query with recursion desired, EDNS, and padding (RFC 7830)."""
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".") if label]
    question = b"".join(bytes([len(label)]) + label for label in labels) + b"\0" + kind.to_bytes(2, "big") + b"\0\1"
    padding = b"\0\x0c" + _PADDING_BYTES.to_bytes(2, "big") + bytes(_PADDING_BYTES)
    opt = b"\0" + _OPT.to_bytes(2, "big") + b"\x04\xd0" + bytes(4) + len(padding).to_bytes(2, "big") + padding
    return secrets.token_bytes(2) + b"\1\0\0\1\0\0\0\0\0\1" + question + opt


def _filtered(said: _Said) -> Verdict:
    if said.errors & _BLOCKED:
        return Verdict.BLOCK
    if said.rcode == _REFUSED or (said.rcode == _SERVFAIL and _NOT_READY in said.errors):
        raise NoAnswer("the dns gateway gave no verdict")
    # Whatever else another resolver says, or does not say.
    return Verdict.INSPECT if _FORGED in said.errors else Verdict.ALLOW


def _read(message: bytes, asked: bytes) -> _Said:
    """Reads what the gateway writes, and what it hands on as far as that goes."""
    at = len(asked) - _PADDING_BYTES - 15
    counts = [int.from_bytes(message[4 + 2 * number : 6 + 2 * number], "big") for number in range(4)]
    records, errors = [], set()
    for number in range(sum(counts[1:])):
        while message[at] and message[at] < 0xC0:
            at += 1 + message[at]
        at += 2 if message[at] else 1
        kind, length = int.from_bytes(message[at : at + 2], "big"), int.from_bytes(message[at + 8 : at + 10], "big")
        data = message[at + 10 : at + 10 + length]
        at += 10 + length
        if number < counts[1]:
            records.append(data)
        while kind == _OPT and data:
            size = int.from_bytes(data[2:4], "big")
            if data[:2] == b"\0\x0f":
                errors.add(int.from_bytes(data[4:6], "big"))
            data = data[4 + size :]
    return _Said(message[3] & 0xF, records, frozenset(errors))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _reversed(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """RFC 5782, section 2: without what reverse zones end in."""
    return address.reverse_pointer.rpartition(".")[0].rpartition(".")[0]
