"""The `icap` gateway: request modification for Squid and other proxies (RFC 3507).

The protocol is `blocker/native/src/wire/icap.rs`, which says what is asked and answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

from blocker._native import IcapSession
from blocker.gateways.canaries import Answer, NoAnswer
from blocker.gateways.listener import Listener
from blocker.gateways.probe import StreamProbe
from blocker.rules import Verdict

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from blocker.gateways.engine import StopPageBytes, VerdictEngine
    from blocker.sections import IcapSettings

NAME = "icap"


def icap_listener(engine: VerdictEngine, settings: IcapSettings, pages: Sequence[StopPageBytes]) -> Listener:
    """The gateway, not yet listening.

    Args:
        engine: Decides and counts.
        settings: Where it listens, its limits and its policy.
        pages: The stop page; see `VerdictEngine.gate`.

    Raises:
        UnknownPolicy: There is no such policy.
    """
    gate = engine.gate(NAME, settings.policy, pages)
    return Listener(NAME, settings, lambda limits: IcapSession(gate, limits.max_connections), engine.tick, gate)


class IcapProbe(StreamProbe):
    """Asks as Squid does, with an empty preview."""

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, url: str) -> Answer:
        """See `StreamProbe`."""
        # A head holds no line break; whatever else is in the address goes as it is.
        asked = quote_from_bytes(url.encode(), safe="/:?&=%#;,+@!$'()*~[]")
        writer.write(reqmod(f"GET {asked} HTTP/1.1\r\n\r\n".encode(), "Allow: 204", "Connection: close"))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines if ": " in line)
        verdict = {
            ("ICAP/1.0 204", "allow"): Verdict.ALLOW,
            ("ICAP/1.0 200", "block"): Verdict.BLOCK,
        }.get((status[:12], fields.get("X-Blocker-Verdict", "")))
        if verdict is None:
            raise NoAnswer("the icap gateway gave no verdict")
        return Answer(verdict, fields.get("X-Blocker-List"))


def reqmod(request: bytes, *fields: str) -> bytes:
    """A question about a request without a body; `request` is its head with the empty line."""
    lines = ["REQMOD icap://blocker/reqmod ICAP/1.0", "Host: blocker", *fields]
    return "\r\n".join([*lines, f"Encapsulated: req-hdr=0, null-body={len(request)}", "", ""]).encode() + request
