"""Every error is a problem document, and the shell lets nothing past it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from blocker.control.problems import Problem, problem_of
from blocker.control.shell import Shell
from blocker.errors import StoreError
from tests.control.conftest import MAX_BODY
from tests.control.support import problem, raw
from tests.hits.support import GOOD

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncIterator

    from starlette.types import Message, Receive, Scope, Send

    from tests.control.conftest import ControlNode

MARK = "zzmarkzz"
ROUTES = ["/", "/docs", "/openapi.json", "/healthz", "/readyz", "/metrics", "/v1/lists", "/v1/hosts/good.example",
          f"/v1/check?url={GOOD}"]  # fmt: skip


@pytest.mark.parametrize("path", ["/zzmarkzz", "/v1", "/v1/check/", "/healthz/", "/v1/hosts/", "/docs/x"])
async def test_no_such_route(node: ControlNode, path: str) -> None:
    answer = await node.client.get(path)
    assert MARK not in json.dumps(problem(answer, 404))
    assert "location" not in answer.headers


@pytest.mark.parametrize("path", ROUTES)
async def test_no_such_method(node: ControlNode, path: str) -> None:
    for method in ("DELETE", "PATCH", "ZZMARKZZ"):
        answer = await node.client.request(method, path)
        assert MARK not in json.dumps(problem(answer, 405)).lower()
        assert {"GET", "HEAD"} <= set(answer.headers["allow"].replace(" ", "").split(","))


@pytest.mark.parametrize("path", [*ROUTES, "/blocked", "/nothing", "/v1/check"])
async def test_head_is_get_without_its_body(node: ControlNode, path: str) -> None:
    head, get = await node.client.head(path), await node.client.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    for answer in (head, get):
        answer.headers.pop("date")
        answer.headers.pop("content-length", None) if path == "/metrics" else None
    assert dict(head.headers) == dict(get.headers)


@pytest.mark.parametrize("path", [*ROUTES, "/blocked", "/nothing", "/v1/check"])
async def test_every_answer_carries_the_security_headers(node: ControlNode, path: str) -> None:
    headers = (await node.client.get(path)).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "server" not in headers
    assert "set-cookie" not in headers


async def test_a_body_announced_as_too_large_is_refused_unread(node: ControlNode) -> None:
    head = b"POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\nexpect: 100-continue\r\n\r\n"
    for length in (MAX_BODY + 1, 10**15, 10**19):
        answer = await raw(node.server.port, head % length)
        assert answer.startswith(b"HTTP/1.1 413 "), "no 100 Continue before"
        assert b"connection: close" in answer
        assert b"application/problem+json" in answer


async def test_a_body_that_grows_too_large_is_refused(node: ControlNode) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY // 1024 + 2):
            yield MARK.encode() * 128

    document = problem(await node.client.post("/v1/check", content=endless()), 413)
    assert MARK not in json.dumps(document)
    assert str(MAX_BODY) in str(document["detail"])


async def test_the_largest_body_is_read(node: ControlNode) -> None:
    body = b'{"urls":[]}'.ljust(MAX_BODY)
    assert (await node.client.post("/v1/check", content=body)).status_code == 200
    problem(await node.client.post("/v1/check", content=body + b" "), 413)


async def test_a_fault_of_ours_is_500_and_logged_by_type_and_place_only(node: ControlNode, logged: io.StringIO) -> None:
    def broken(*_: object, **__: object) -> Any:  # noqa: ANN401
        local = MARK
        raise ValueError(local)

    node.engine.check = node.engine.check_host = node.engine.answer = broken  # type: ignore[method-assign]
    node.exporter.render = broken  # type: ignore[method-assign]
    urls = [f"/v1/check?url={MARK}", f"/v1/hosts/{MARK}", "/metrics"]
    for url in urls:
        assert MARK not in json.dumps(problem(await node.client.get(url), 500))
    problem(await node.client.post("/v1/check", json={"urls": [MARK]}), 500)
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    assert [line["exception"] for line in lines] == ["ValueError"] * 4
    assert all(line["at"][-1].startswith("control/test_errors.py:") for line in lines)
    assert MARK not in logged.getvalue()
    assert (await node.client.get("/healthz")).status_code == 200


async def test_an_answer_that_breaks_off_ends_the_connection_and_is_logged(
    node: ControlNode, logged: io.StringIO
) -> None:
    async def breaking(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError(MARK)

    node.app.app = breaking
    answer = await raw(node.server.port, b"GET /zzmarkzz HTTP/1.1\r\nhost: x\r\n\r\n")
    assert answer.endswith(b"half")
    assert "RuntimeError" in logged.getvalue()
    assert MARK not in logged.getvalue()


async def test_what_is_no_http_is_refused(node: ControlNode, logged: io.StringIO) -> None:
    for request in (b"zzmarkzz\r\n\r\n", b"GET /zzmarkzz HTTP/x\r\n\r\n", b"GET / HTTP/1.1\r\nzzmarkzz\r\n\r\n",
                    b"GET /" + b"zzmarkzz" * 2**16 + b" HTTP/1.1\r\n"):  # fmt: skip
        answer = await raw(node.server.port, request)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"zzmarkzz" not in answer
    assert MARK not in logged.getvalue()


async def test_the_shell_declines_what_is_no_request() -> None:
    async def unused(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise AssertionError

    shell = Shell(unused, direct={}, posted={}, max_body_bytes=1, max_push_bytes=1)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    for kind, messages in (
        ("websocket", ["websocket.connect"]), ("lifespan", ["lifespan.startup", "lifespan.shutdown"]),
    ):  # fmt: skip
        waiting = iter(messages)

        async def receive(waiting: Any = waiting) -> Message:  # noqa: ANN401
            return {"type": next(waiting)}

        await shell({"type": kind}, receive, send)
    assert [message["type"] for message in sent] == [
        "websocket.close", "lifespan.startup.complete", "lifespan.shutdown.complete",
    ]  # fmt: skip


def test_our_own_errors_that_are_no_answer_are_500() -> None:
    assert problem_of(StoreError("reached nothing")).status == 500
    assert problem_of(ValueError(MARK)).document()["detail"] != MARK
    known = Problem(418, "short", extra=1)
    assert problem_of(known) is known
    assert known.document() == {"type": "about:blank", "title": "Error", "status": 418, "detail": "short", "extra": 1}
