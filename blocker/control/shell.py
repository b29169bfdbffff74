"""The outermost layer of the control plane, plain ASGI: nothing gets past it, neither an exception nor a large body.

In order: it answers the direct routes (those that are asked often) without the framework; it refuses a body over the
limit before reading it, and stops reading one that grows past it; it serves HEAD wherever GET is served; it sets the
security headers; and whatever goes wrong inside becomes a problem document, and a log line that names the exception's
type and code positions and nothing of the request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blocker.control.problems import problem_of, too_large
from blocker.control.reply import SECURITY_HEADERS, RawHeaders, Reply
from blocker.log import describe

# Answers a request at once, or leaves it to others.
Direct = Callable[[Scope], Reply | None]
# Answers a POST with its body.
Posted = Callable[[Scope, bytes], Awaitable[Reply]]

log = structlog.get_logger(__name__)

_SERVER_FAULT = 500


class Shell:
    """The ASGI application that the server runs.

    Args:
        app: Everything that is not direct.
        direct: Path → its direct answer.
        posted: Path → its direct answer to a POST.
        max_body_bytes: Largest request body; larger is answered 413.
        max_push_bytes: The same for a list that is pushed, which is read as it arrives and never kept whole.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        direct: Mapping[str, Direct],
        posted: Mapping[str, Posted],
        max_body_bytes: int,
        max_push_bytes: int,
    ) -> None:
        self.app = app
        self._direct = dict(direct)
        self._posted = dict(posted)
        self._max_body_bytes = max_body_bytes
        self._max_push_bytes = max_push_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; raises nothing but cancellation."""
        if scope["type"] != "http":
            await _decline(scope, receive, send)
            return
        head = scope["method"] == "HEAD"
        direct = self._direct.get(scope["path"])
        if direct is not None:
            try:
                reply = direct(scope)
            except Exception as error:  # noqa: BLE001 - the last place where it can be caught without its values
                reply = _told(error)
            if reply is not None:
                await reply.send(send, head=head)
                return
        posted = self._posted.get(scope["path"]) if scope["method"] == "POST" else None
        if posted is not None:
            await self._answer(posted, scope, receive, send)
        else:
            await self._through_app(scope, receive, send, head=head)

    async def _answer(self, posted: Posted, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await _Receiving(receive, self._max_body_bytes).whole(scope["headers"])
            if body is None:
                return
            reply = await posted(scope, body)
        except Exception as error:  # noqa: BLE001 - as above
            reply = _told(error)
        await reply.send(send)

    async def _through_app(self, scope: Scope, receive: Receive, send: Send, *, head: bool) -> None:
        sending = _Sending(send, head=head)
        pushed = scope["method"] == "PUT" and scope["path"].endswith("/draft")
        receiving = _Receiving(receive, self._max_push_bytes if pushed else self._max_body_bytes)
        if head:
            scope = {**scope, "method": "GET"}
        try:
            receiving.refuse_announced(scope["headers"])
            await self.app(scope, receiving, sending)
        except Exception as error:  # noqa: BLE001 - as above
            reply = _told(error)
            if not sending.started:
                await reply.send(send, head=head)


def _told(error: Exception) -> Reply:
    """What the client is told; what only we are told is logged here."""
    problem = problem_of(error)
    if problem.status == _SERVER_FAULT:
        log.error("a request failed", **describe(error))
    return problem.reply()


class _Receiving:
    """The request's body, up to a limit."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._seen = 0

    def refuse_announced(self, headers: RawHeaders) -> None:
        """Refuse by the announced length, before any of the body is read."""
        for name, value in headers:
            if name == b"content-length" and (not value.isdigit() or int(value) > self._limit):
                raise too_large(self._limit)

    async def whole(self, headers: RawHeaders) -> bytes | None:
        """All of it; None if the client went away before its end."""
        self.refuse_announced(headers)
        pieces: list[bytes] = []
        more = True
        while more:
            message = await self()
            if message["type"] != "http.request":
                return None
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        return b"".join(pieces)

    async def __call__(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self._seen > self._limit:
            raise too_large(self._limit)
        return message


class _Sending:
    """The framework's response, with the headers of all; without a body in answer to a HEAD."""

    def __init__(self, send: Send, *, head: bool) -> None:
        self.started = False
        self._send = send
        self._head = head

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = list(message.get("headers", ()))
            names = {name.lower() for name, _ in headers}
            headers += (header for header in SECURITY_HEADERS if header[0] not in names)
            message = {**message, "headers": headers}
        elif self._head and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)


async def _decline(scope: Scope, receive: Receive, send: Send) -> None:
    """No WebSockets, and nothing to start or end with the server's lifespan."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
        return
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
