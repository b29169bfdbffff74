"""The `check` gateway: HTTP/1.1 sub-requests of nginx, Envoy, Traefik and Caddy, on TCP and a unix socket.

The protocol is `blocker/native/src/wire/http.rs`, which says what is asked where.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

from blocker._native import HttpSession
from blocker.gateways.canaries import Answer, NoAnswer
from blocker.gateways.listener import Listener
from blocker.rules import Verdict
from blocker.sockets import reachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocker.gateways.engine import StopPageBytes, VerdictEngine
    from blocker.sections import CheckSettings

NAME = "check"
# More than any answer to a probe.
_ANSWER_BYTES = 4096


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
    return Listener(NAME, settings, lambda: HttpSession(gate), engine.tick)


class CheckProbe:
    """A `blocker.gateways.canaries.Probe` that asks as nginx does, over a connection of its own.

    Args:
        listener: Asked at the first address that it is bound to.
    """

    gateway = NAME

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.policies = (listener.limits.policy,)

    async def ask(self, url: str, policy: str) -> Answer:
        """See `Probe`; the time limit is the caller's."""
        if policy not in self.policies or not self._listener.addresses:
            raise NoAnswer("the check gateway does not listen")
        host, _, port = reachable(self._listener.addresses[0]).rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            # A header holds no line break; whatever else is in the address goes as it is.
            asked = quote_from_bytes(url.encode(), safe="/:?&=%#;,+@!$'()*~[]")
            writer.write(
                f"GET /nginx HTTP/1.1\r\nHost: probe\r\nX-Original-URL: {asked}\r\nConnection: close\r\n\r\n".encode()
            )
            head = (await reader.read(_ANSWER_BYTES)).decode("latin-1")
        finally:
            writer.close()
        status, *lines = head.split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines if ": " in line)
        verdict = {"HTTP/1.1 204": Verdict.ALLOW, "HTTP/1.1 403": Verdict.BLOCK}.get(status[:12])
        if verdict is None:
            raise NoAnswer("the check gateway gave no verdict")
        return Answer(verdict, fields.get("X-Blocker-List"))
