"""The `check` gateway: HTTP/1.1 sub-requests of nginx, Envoy, Traefik and Caddy, on TCP and a unix socket.

The protocol is `blocker/native/src/wire/http.rs`, which says what is asked where.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

from blocker._native import HttpSession
from blocker.gateways.canaries import Answer, NoAnswer
from blocker.gateways.listener import Listener
from blocker.gateways.probe import StreamProbe
from blocker.rules import Verdict

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from blocker.gateways.engine import StopPageBytes, VerdictEngine
    from blocker.sections import CheckSettings

NAME = "check"


def check_listener(engine: VerdictEngine, settings: CheckSettings, pages: Sequence[StopPageBytes]) -> Listener:
    """The gateway, not yet listening.

    Args:
        engine: Decides and counts.
        settings: Where it listens, its limits and its policy.
        pages: The stop page; see `VerdictEngine.gate`.

    Raises:
        UnknownPolicy: There is no such policy.
    """
    gate = engine.gate(NAME, settings.policy, pages)
    return Listener(NAME, settings, lambda _limits: HttpSession(gate), engine.tick, gate)


class CheckProbe(StreamProbe):
    """Asks as nginx does."""

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, url: str) -> Answer:
        """See `StreamProbe`."""
        # A header holds no line break; whatever else is in the address goes as it is.
        asked = quote_from_bytes(url.encode(), safe="/:?&=%#;,+@!$'()*~[]")
        writer.write(
            f"GET /nginx HTTP/1.1\r\nHost: probe\r\nX-Original-URL: {asked}\r\nConnection: close\r\n\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines if ": " in line)
        verdict = {"HTTP/1.1 204": Verdict.ALLOW, "HTTP/1.1 403": Verdict.BLOCK}.get(status[:12])
        if verdict is None:
            raise NoAnswer("the check gateway gave no verdict")
        return Answer(verdict, fields.get("X-Blocker-List"))
