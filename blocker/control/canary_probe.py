"""Asks the control plane about a canary as a client does: over HTTP, at the address that it is bound to."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import httpx

from blocker.gateways.canaries import Answer, NoAnswer
from blocker.rules import Verdict
from blocker.sockets import reachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocker.control.server import ControlServer


class HttpProbe:
    """A `blocker.gateways.canaries.Probe` of `POST /v1/check`.

    A connection for each question, so that accepting one is tested too; and POST, since an address in a query string
    may end in a proxy's log.

    Args:
        server: Asked at the first address that it is bound to.
        policies: Names of the policies to ask for.
    """

    gateway = "control"

    def __init__(self, server: ControlServer, policies: Sequence[str]) -> None:
        self.policies: Sequence[str] = tuple(policies)
        self._server = server
        # httpx reads the system's authorities otherwise, which takes 20 ms; nothing here is spoken but plain HTTP.
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    async def ask(self, url: str, policy: str) -> Answer:
        """See `Probe`. Cost: about 2 ms of the event loop, in pieces; the time limit is the caller's."""
        if not self._server.addresses:
            raise NoAnswer("the control plane does not listen")
        try:
            # A proxy of the environment is not asked: it could not reach this machine, and would see the address.
            async with httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=None) as client:  # noqa: S113
                answer = await client.post(
                    f"http://{reachable(self._server.addresses[0])}/v1/check", json={"urls": [url], "policy": policy}
                )
            if answer.status_code != httpx.codes.OK:
                raise NoAnswer(f"the control plane answered with status {answer.status_code}")
            (result,) = answer.json()["results"]
            return Answer(Verdict(result["verdict"]), result["list"], tuple(result["shadow"]))
        except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
            raise NoAnswer(f"the control plane gave no verdict: {type(error).__name__}") from None
