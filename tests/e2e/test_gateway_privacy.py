"""Whoever asks a gateway for whatever, in good ways and bad, leaves nothing behind: no address, name, cookie or URL.

Marks stand for each of these, in every place where a client or a proxy may put them, errors included. Then logs of the
node, its workers and helpers, its metrics, its files, and Redis with its files are searched for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from typing import TYPE_CHECKING

import grpc
import pytest
from redis import Redis

from blocker.gateways.envoy import raw_check
from blocker.gateways.icap import reqmod
from blocker.gateways.spoe import frame, hello, notify
from tests.e2e.node import Node
from tests.e2e.processes import program, until
from tests.e2e.test_privacy import Marks, assert_no_marks, files_below
from tests.gateways.test_envoy import OPTIONS
from tests.gateways.test_envoy import http as envoy_question
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOO_LONG = 300_000


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), aof=True) as running:
        yield running


def identities(m: Marks) -> list[str]:
    """Header lines that say who asks."""
    return [
        f"Cookie: session={m.cookie}", f"Authorization: Bearer {m.authorization}", f"User-Agent: {m.agent}",
        f"X-Forwarded-For: {m.forwarded}", f"X-Client-IP: {m.forwarded}", f"X-Authenticated-User: {m.user}",
        f"X-{m.header}: {m.header}", f"Accept-Language: {m.header}", f"Referer: http://{m.host}.example/{m.path}",
    ]  # fmt: skip


def check_requests(m: Marks) -> Iterator[bytes]:
    """Of the check gateway, good and bad."""
    blocked, other = f"http://{m.host}.example/{m.path}?{m.query}=1#{m.fragment}", f"http://{m.user}@{m.host}.test/"
    own = identities(m)

    def request(target: str, *lines: str, method: str = "GET", end: str = "\r\n\r\n") -> bytes:
        return ("\r\n".join([f"{method} {target} HTTP/1.1", *lines, *own]) + end).encode("latin-1")

    for url in (blocked, other, f"http://[{m.garbage}", f"/{m.path}", f"http://{m.host}.example/{m.long * 4000}"):
        yield request("/nginx", "Host: x", f"X-Original-URL: {url}")
        yield request(f"/check?url={url}", "Host: x")
    yield request("/forward", "Host: x", f"X-Forwarded-Host: {m.host}.example", f"X-Forwarded-Uri: /{m.path}")
    yield request(f"/envoy/{m.path}?{m.query}", f"Host: {m.host}.example")
    yield request(f"{m.host}.example:443", method="CONNECT")
    yield request(f"/{m.route}?{m.query}", "Host: x", method=m.method.upper())
    yield request("/nginx", "Host: x", f"X-Original-URL: {blocked}", f"X-Original-URL: {other}")
    yield request("/nginx", "Host: x", f"X-Original-URL: {blocked}", f"Content-Length: {m.garbage}")
    yield request("/nginx", "Host: x", f"X-Original-URL: {blocked}", "Content-Length: 9", end=f"\r\n\r\n{m.body}"[:13])
    yield request(f"/nginx/{m.long * (TOO_LONG // 18)}", "Host: x")
    yield f"{m.garbage}\r\n\r\n".encode()
    yield f"\x16\x03\x01{m.garbage}".encode()
    yield request("/nginx", "Host: x", f"X-Original-URL: {blocked}")[:-2]  # never ends


def icap_requests(m: Marks) -> Iterator[bytes]:
    """Of the icap gateway, good and bad."""
    own = identities(m)
    inner = "\r\n".join(own)
    blocked = f"GET http://{m.host}.example/{m.path}?{m.query} HTTP/1.1\r\nHost: {m.host}.example\r\n{inner}\r\n\r\n"
    for request in (
        blocked,
        blocked.replace(m.path, f"other{m.path}"),
        f"CONNECT {m.host}.example:443 HTTP/1.1\r\n\r\n",
    ):
        yield reqmod(request.encode(), "Allow: 204", *own)
        yield reqmod(request.encode(), *own)
    yield reqmod(f"{m.garbage}\r\n\r\n".encode(), *own)
    yield reqmod(f"GET http://[{m.garbage} HTTP/1.1\r\n\r\n".encode(), "Allow: 204")
    body = f"{len(m.body):x}\r\n{m.body}\r\n0\r\nX-Trailer: {m.body}\r\n\r\n".encode()
    head = reqmod(blocked.replace("GET", "POST").encode(), *own).replace(b"null-body", b"req-body")
    yield head + body
    yield head + f"{m.garbage}\r\n".encode()
    yield head + body[:10]
    yield f"REQMOD icap://{m.host}/{m.path} ICAP/1.0\r\nHost: {m.host}\r\nEncapsulated: {m.garbage}=0\r\n\r\n".encode()
    yield f"{m.method.upper()} icap://{m.host}/{m.path} ICAP/1.0\r\nHost: {m.host}\r\n\r\n".encode()
    yield f"OPTIONS icap://{m.host}/{m.path} ICAP/1.0\r\nHost: {m.host}\r\n{inner}\r\n\r\n".encode()
    yield f"REQMOD icap://x/ ICAP/9.9\r\nX-{m.header}: {m.long * (TOO_LONG // 18)}\r\n\r\n".encode()
    yield m.garbage.encode() + b"\r\n\r\n"


def spoe_frames(m: Marks) -> Iterator[bytes]:
    """Of the spoe gateway, good and bad."""
    yield hello() + notify(f"http://{m.host}.example/{m.path}?{m.query}".encode()) + notify(m.garbage.encode())
    yield hello() + frame(3, m.garbage.encode() * 20)
    yield hello() + frame(99, m.garbage.encode()) + frame(2, m.garbage.encode())
    yield frame(1, m.garbage.encode())
    yield hello() + notify(f"http://{m.host}.example/{m.long * 400}".encode())[:-5]
    yield m.garbage.encode()


async def send(port: int, data: bytes) -> bytes:
    """One connection of its own; what comes back until it is quiet or ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    with contextlib.suppress(OSError):
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(20):
            answer = await reader.read()
    writer.close()
    return answer


async def ask_envoy(port: int, m: Marks) -> None:
    """Good and bad questions over gRPC."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
        call = raw_check(channel)
        metadata = (("cookie", m.cookie), ("user-agent", m.agent), (f"x-{m.header}", m.forwarded))
        headers = {"cookie": m.cookie, "x_forwarded_for": m.forwarded, "authorization": m.authorization}
        for message in (
            envoy_question(f"{m.host}.example", f"/{m.path}?{m.query}", **headers),
            envoy_question(f"{m.host} {m.garbage}", f"/{m.path}", **headers),
            envoy_question(f"{m.host}.example", m.garbage, **headers),
            envoy_question(f"{m.host}.example:443", "", "CONNECT", **headers),
            m.garbage.encode() * 10,
            envoy_question(f"{m.host}.example", f"/{m.long * (TOO_LONG // 18)}"),
        ):
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call(message, metadata=metadata)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_nothing_of_a_request_is_left(tmp_path: Path, redis: RedisServer, workers: str) -> None:
    m = Marks()
    ports = {name: free_port() for name in ("icap", "spoe", "envoy")}
    settings = {f"gateways__{name}__port": str(port) for name, port in ports.items()}
    patience = {f"gateways__{name}__request_seconds": "1" for name in ("check", "icap", "spoe")}
    node = Node(
        tmp_path, redis, gateways__envoy__enabled="true", gateways__workers=workers, **settings, **patience
    )  # fmt: skip
    # Listed, so that requests are blocked and counted too; the list itself is sealed, and its text not kept.
    node.push(f"http://{m.host}.example/{m.path}", "http://listed.example/gallery/")
    (tmp_path / "police.txt").unlink()
    until(lambda: [node.ask() for _ in range(20)] == ["block"] * 20)

    async def everything() -> list[bytes]:
        sent = [(node.port, list(check_requests(m))), (ports["icap"], list(icap_requests(m)))]
        sent.append((ports["spoe"], list(spoe_frames(m))))
        answers = await asyncio.gather(*(send(port, data) for port, many in sent for data in many))
        await ask_envoy(ports["envoy"], m)
        return list(answers)

    answers = asyncio.run(everything())
    assert sum(b"451 Unavailable" in answer for answer in answers) >= 3, "what is listed was blocked"
    echoes = [answer for answer in answers if b"req-hdr=0" in answer]
    assert {"path", "cookie", "user"} <= set[str]().union(*map(m.found_in, echoes)), "the search finds what is there"
    # Only what hands a request back, as it came, may hold anything of it.
    assert_no_marks(m, "answers", *(answer for answer in answers if answer not in echoes))
    lines = f"1 http://{m.host}.example/{m.path} {m.forwarded} {m.user}\n2 {m.garbage} {m.cookie}\n{m.long * 20_000}\n"
    command = [*program(), "squid-helper", "--socket", str(tmp_path / "var" / "node.sock")]

    def helper_blocks() -> bool:  # once it meets its node within its first seconds
        helper = subprocess.run(command, input=lines.encode(), capture_output=True, timeout=60, check=True)
        assert_no_marks(m, "helper", helper.stdout, helper.stderr)
        return helper.stdout.startswith(b"1 OK blocker_verdict_=block")

    until(helper_blocks)
    bad = subprocess.run(
        [*command, "--policy", m.policy], input=lines.encode(), capture_output=True, timeout=60, check=False
    )
    assert bad.returncode == 1
    assert_no_marks(m, "helper's error", bad.stderr)
    assert_no_marks(m, "metrics", node.process.get("/metrics")[1], node.process.get("/readyz")[1])
    assert node.process.stop() == 0
    log = node.process.log().encode()
    assert b"Traceback" not in log
    assert_no_marks(m, "log", log)
    assert_no_marks(m, "files of the node", *files_below(tmp_path / "var"))
    with Redis.from_url(redis.url) as client:
        for key in client.scan_iter(count=1000):
            assert_no_marks(m, "Redis", key, client.dump(key) or b"")
        client.save()
    assert_no_marks(m, "Redis' files", *files_below(redis.directory))
