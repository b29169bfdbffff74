"""What Envoy's external authorization asks, and what it is answered; no sockets.

An HTTP filter asks about a request: the address is `host` and `path`, which Envoy fills in from the request that it is
going to pass on. Nothing else says where that goes: no header is read for it, since a client may send any, and the
scheme plays no part in rules. `CONNECT`, which has no path, asks about its host. A network filter asks about a TLS
hello: the address is its name (SNI), which is decided as a host; a hello without one is decided as what is no URL.

| verdict | status | besides |
|---|---|---|
| allow, inspect | 0 OK | `x-blocker-verdict` for the request that is passed on, in place of one that the client sent |
| block | 7 PERMISSION_DENIED | HTTP 451, the stop page, `x-blocker-verdict`, `x-blocker-list` |
| none: the host or the path is ambiguous | 7 PERMISSION_DENIED | HTTP 400 |

The metadata of each verdict, `verdict` and `list`, is there for Envoy's routes and not for the origin. What is
ambiguous is denied and no error: Envoy can be told to let through what ended in an error, and a client must not be able
to choose that.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from blocker.errors import ServeError
from blocker.gateways._envoy.ext_authz_pb2 import (
    CheckRequest,
    CheckResponse,
    DeniedHttpResponse,
    HeaderValue,
    HeaderValueOption,
    HttpStatus,
    OkHttpResponse,
    Status,
)
from blocker.rules import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocker._native import Decision
    from blocker.gateways._envoy.ext_authz_pb2 import HttpRequest
    from blocker.gateways.engine import StopPageBytes, VerdictEngine

NAME = "envoy"
OK, PERMISSION_DENIED = 0, 7  # google.rpc.Code
_UNAVAILABLE_FOR_LEGAL_REASONS = 451
_BAD_REQUEST = 400
# HeaderValueOption.HeaderAppendAction: what is said here replaces what was there.
_OVERWRITE_IF_EXISTS_OR_ADD = 2
# What makes a host end where its reader likes, or was never one: a proxy and an origin may not agree on it.
_AMBIGUOUS = re.compile(rb"[\x00-\x20/?#\\\x7f]")
# A port is no part of what is decided for a host.
_PORT = re.compile(rb":[0-9]*$")
# Envoy computes these by itself.
_OWN_HEADERS = frozenset({"content-length", "connection"})


class Malformed(ServeError):  # noqa: N818 - the peer's fault
    """What was asked is no CheckRequest."""


class EnvoyChecks:
    """Answers one gateway's checks. Cost: about 15 µs, most of it for reading the message.

    Args:
        engine: Decides and counts.
        policy: Name of a configured policy.
        pages: The stop page; see `VerdictEngine.gate`.

    Raises:
        UnknownPolicy: There is no such policy.
    """

    def __init__(self, engine: VerdictEngine, policy: str, pages: Sequence[StopPageBytes]) -> None:
        self._engine = engine
        self._policy = self._chosen = policy
        self._gate = engine.gate(NAME, policy, pages)
        # Answers by verdict, list and head of the page: as many as there are lists and languages.
        self._made: dict[tuple[Verdict, str | None, bytes], bytes] = {}
        self._refusal = _denied(_BAD_REQUEST, [], "").SerializeToString()

    def configure(self, policy: str, pages: Sequence[StopPageBytes]) -> None:
        """Decide by another policy, from when the matcher has it, and show other pages."""
        self._chosen = policy
        self._engine.configure(self._gate, policy, pages)
        self._made.clear()

    def answer(self, message: bytes) -> bytes:
        """The CheckResponse for a CheckRequest.

        Raises:
            Malformed: The message is none.
            NotReady: There is no matcher yet.
        """
        try:
            asked = CheckRequest.FromString(message).attributes
        except DecodeError:
            raise Malformed("no CheckRequest") from None
        self._engine.tick()
        if self._chosen != self._policy and self._chosen in self._engine.matcher().policies:
            self._policy = self._chosen
        if not asked.request.HasField("http"):
            return self._decided(self._engine.check_host(asked.tls_session.sni, self._policy, NAME), b"")
        http = asked.request.http
        if not http.host or _AMBIGUOUS.search(http.host):
            return self._refusal
        if http.method == b"CONNECT" and not http.path:
            decision = self._engine.check_host(_PORT.sub(b"", http.host), self._policy, NAME)
        else:
            path = b"/" if http.path in (b"", b"*") else http.path  # `OPTIONS *` is about the whole server
            if not path.startswith(b"/"):
                return self._refusal
            decision = self._engine.check(b"http://" + http.host + path, self._policy, NAME)
        return self._decided(decision, _accepted(http))

    def _decided(self, decision: Decision, accepted: bytes) -> bytes:
        verdict, name = decision.verdict, decision.list
        head, body = b"", b""
        if verdict is Verdict.BLOCK:
            head, body = self._gate.page(name or "", accepted)
        made = self._made.get((verdict, name, head))
        if made is None:
            made = self._made[verdict, name, head] = _response(verdict, name, head, body).SerializeToString()
        return made


def _accepted(http: HttpRequest) -> bytes:
    """Accept-Language; RFC 9110, section 5.3: lines of one name are one list."""
    return b",".join(header.value for header in http.headers if header.key == b"accept-language")


def _response(verdict: Verdict, name: str | None, head: bytes, body: bytes) -> CheckResponse:
    said = [("x-blocker-verdict", verdict.value)]
    if verdict is Verdict.BLOCK:
        if name is not None:
            said.append(("x-blocker-list", name))
        lines = (line.partition(": ") for line in head.decode("latin-1").split("\r\n") if line)
        said += [(key, value) for key, _, value in lines if key.lower() not in _OWN_HEADERS]
        response = _denied(_UNAVAILABLE_FOR_LEGAL_REASONS, said, body.decode())
    else:
        response = CheckResponse(status=Status(code=OK), ok_response=OkHttpResponse(headers=_options(said)))
    response.dynamic_metadata.update({"verdict": verdict.value, **({} if name is None else {"list": name})})
    return response


def _denied(status: int, said: list[tuple[str, str]], body: str) -> CheckResponse:
    denied = DeniedHttpResponse(status=HttpStatus(code=status), headers=_options(said), body=body)
    return CheckResponse(status=Status(code=PERMISSION_DENIED), denied_response=denied)


def _options(said: list[tuple[str, str]]) -> list[HeaderValueOption]:
    return [
        HeaderValueOption(header=HeaderValue(key=key, value=value), append_action=_OVERWRITE_IF_EXISTS_OR_ADD)
        for key, value in said
    ]
