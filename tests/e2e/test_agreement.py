"""Every gateway of one node is asked about the same 10 000 addresses: one verdict, one list, whoever asks.

The addresses are spelled in ways that a matcher must see through, most of them under listed hosts. What each gateway
says is compared with a matcher of the same rules in this process.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

import grpc
import pytest
from envoy.service.auth.v3 import external_auth_pb2 as theirs

from blocker import Matcher
from blocker.gateways.envoy import raw_check
from blocker.gateways.icap import reqmod
from blocker.gateways.spoe import hello, notify
from tests.e2e.node import Node
from tests.e2e.processes import program, until
from tests.gateways.icap_replies import replies
from tests.gateways.test_envoy import OPTIONS, told
from tests.gateways.test_envoy import http as envoy_question
from tests.gateways.test_spop_codec import frames
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

COUNT = 10_000
LINES = {
    "police": [
        "http://page.example/a/b.jpg", "http://page.example/view?id=7", "http://prefix.example/gallery/",
        "http://host.example", "http://*.whole.example", "*.everywhere.example/secret/", "http://192.0.2.10/x/",
        "http://[2001:db8::10]/", "http://xn--bcher-kva.example/lager/", "http://mixed.example/Case/Path/",
    ],
    "second": ["http://prefix.example/gallery/deep/", "http://other.example/"],
    "pardon": ["http://whole.example/appeal", "http://host.example/help/"],
}  # fmt: skip
HOSTS = (
    "page.example", "prefix.example", "host.example", "whole.example", "a.b.whole.example", "everywhere.example",
    "x.everywhere.example", "192.0.2.10", "0xc0.0.2.10", "3221225994", "[2001:db8::10]", "[2001:DB8:0::10]",
    "xn--bcher-kva.example", "b%C3%BCcher.example", "mixed.example", "other.example", "harmless.example", "example",
    "notwhole.example", "page.example.", "PAGE.example", "p%61ge.example",
)  # fmt: skip
PATHS = (
    "/", "/a/b.jpg", "/a//b.jpg", "/a/./b.jpg", "/x/../a/b.jpg", "/%61/b.jpg", "/a/b.jpg?x=1", "/a/b.jpgx",
    "/view?id=7", "/view?id=%37", "/view?id=8", "/view", "/gallery", "/gallery/", "/gallery/1", "/gallery2",
    "/gallery/deep/er",
    "/%67allery/%64eep/", "/secret", "/secret/1?q", "/x/y", "/lager/1", "/Case/Path/1", "/case/path/1", "/appeal",
    "/help/x", "/%2525/%00", "/?", "/a\\b.jpg", "/%2e%2e/gallery/", "/a%2Fb.jpg", "/gallery%2Fx", "/;a=b", "/a,b",
)  # fmt: skip


class Asked(NamedTuple):
    """One address, in the parts that proxies send."""

    scheme: str
    host: str
    target: str

    @property
    def url(self) -> str:
        """The whole of it."""
        return f"{self.scheme}://{self.host}{self.target}"


def addresses(seed: int) -> list[Asked]:
    """Reproducible ones."""
    chance = random.Random(seed)  # noqa: S311 - test data
    made = []
    for number in range(COUNT):
        host, target = chance.choice(HOSTS), chance.choice(PATHS)
        if chance.random() < 0.2:
            host = f"n{number}.example"
        if chance.random() < 0.1 and not host.startswith("["):
            host = host.swapcase()
        if chance.random() < 0.2:
            host += chance.choice((":80", ":443", ":8080"))
        if chance.random() < 0.1:
            target += f"{'&' if '?' in target else '?'}n={number}"
        made.append(Asked(chance.choice(("http", "https")), host, target))
    return made


Verdict = tuple[str, str]  # and the list; empty for none


async def exchange(port: int, asked: Sequence[bytes], end: bytes = b"") -> bytes:
    """All that comes back for requests on one connection, the last of which ends it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        for one in asked:
            writer.write(one)
            await writer.drain()
        writer.write(end)

    sending = asyncio.create_task(send())
    data = await reader.read()
    await sending
    writer.close()
    return data


def http_replies(data: bytes) -> list[Verdict]:
    """Verdicts of pipelined answers of the check gateway."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        fields = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in head.decode().split("\r\n")[1:])
        }
        data = data[int(fields.get("content-length", 0)) :]
        found.append((fields["x-blocker-verdict"], fields.get("x-blocker-list", "")))
    return found


def request(target: str, *fields: str) -> bytes:
    return ("\r\n".join([f"GET {target} HTTP/1.1", *fields]) + "\r\n\r\n").encode("latin-1")


async def by_check(port: int, way: str, asked: Sequence[Asked]) -> list[Verdict]:
    """Through the check gateway, as one of its clients."""
    requests = {
        "nginx": lambda one: request("/nginx", "Host: x", f"X-Original-URL: {one.url}"),
        "forward": lambda one: request(
            "/forward", "Host: x", f"X-Forwarded-Proto: {one.scheme}", f"X-Forwarded-Host: {one.host}",
            f"X-Forwarded-Uri: {one.target}",
        ),
        "envoy": lambda one: request(f"/envoy{one.target}", f"Host: {one.host}"),
        "curl": lambda one: request(f"/check?url={quote(one.url, safe='')}", "Host: x"),
    }  # fmt: skip
    sent = [requests[way](one) for one in asked]
    # The last one again, to end the connection.
    last = sent[-1].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    return http_replies(await exchange(port, sent, last))[:-1]


async def by_icap(port: int, asked: Sequence[Asked]) -> list[Verdict]:
    """Through the icap gateway, absolute and origin form in turns."""
    sent = []
    for number, one in enumerate(asked):
        line = f"GET {one.url} HTTP/1.1" if number % 2 else f"GET {one.target} HTTP/1.1\r\nHost: {one.host}"
        sent.append(reqmod(f"{line}\r\n\r\n".encode(), "Allow: 204"))
    data = await exchange(
        port, sent, reqmod(b"GET http://end.example/ HTTP/1.1\r\n\r\n", "Allow: 204", "Connection: close")
    )
    return [(one.fields["x-blocker-verdict"], one.fields.get("x-blocker-list", "")) for one in replies(data)][:-1]


async def by_spoe(port: int, asked: Sequence[Asked]) -> list[Verdict]:
    """Through the spoe gateway, pipelined."""
    disconnect = b"\0\0\0\7\2\0\0\0\1\0\0"
    data = await exchange(port, [hello(), *(notify(one.url.encode()) for one in asked)], disconnect)
    return [(str(said["verdict"]), str(said.get("list", ""))) for kind, _, _, said in frames(data) if kind == 103]


async def by_envoy(port: int, asked: Sequence[Asked]) -> list[Verdict]:
    """Through the envoy gateway."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
        call, gate = raw_check(channel), asyncio.Semaphore(100)

        async def one(question: bytes) -> bytes:
            async with gate:
                return await call(question)

        answers = await asyncio.gather(*(one(envoy_question(each.host, each.target)) for each in asked))
    found = []
    for answer in answers:
        code, _, said = told(theirs.CheckResponse.FromString(answer))
        assert (said["verdict"] == "block") is (code != 0)
        found.append((str(said["verdict"]), str(said.get("list", ""))))
    return found


def by_helper(node: Node, asked: Sequence[Asked]) -> list[Verdict]:
    """Through Squid's helper, with Squid's escaping."""
    lines = "".join(
        f"{number} {quote(one.url, safe='!$&()*+,-./:;=?@_')} -\n" for number, one in enumerate(asked)
    ).encode()  # fmt: skip
    command = [*program(), "squid-helper", "--socket", str(node.directory / "var" / "node.sock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as helper:
        assert helper.stdin is not None
        assert helper.stdout is not None
        first = b""
        while b"blocker_verdict_=allow" not in first:  # until it has met its node
            helper.stdin.write(b"0 http://harmless.example/ -\n")
            helper.stdin.flush()
            first = helper.stdout.readline()
        output, _ = helper.communicate(lines, timeout=60)
    found = []
    for number, line in enumerate(output.decode().splitlines()):
        channel, word, *pairs = line.split(" ")
        said = dict(pair.split("=") for pair in pairs)
        assert channel == str(number)
        assert (word == "OK") is (said["blocker_verdict_"] == "block")
        found.append((said["blocker_verdict_"], said.get("blocker_list_", "")))
    return found


def by_http(node: Node, asked: Sequence[Asked]) -> list[Verdict]:
    """Through the control plane, all at once."""
    results = node.process.check_many([one.url for one in asked])
    return [(one["verdict"], one["list"] or "") for one in results]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_all_gateways_say_the_same(tmp_path: Path, redis: RedisServer, workers: str) -> None:
    ports = {name: free_port() for name in ("icap", "spoe", "envoy")}
    settings = {f"gateways__{name}__port": str(port) for name, port in ports.items()}
    node = Node(tmp_path, redis, gateways__envoy__enabled="true", gateways__workers=workers, **settings)
    for name, lines in LINES.items():
        allow = ["--action", "allow"] if name == "pardon" else []
        node.push_list(name, lines, *allow)
    until(lambda: [node.ask("http://other.example/x") for _ in range(20)] == ["block"] * 20)
    until(lambda: [node.ask("http://whole.example/appeal") for _ in range(20)] == ["allow"] * 20)
    matcher = Matcher.build(LINES, allow=("pardon",))
    asked = addresses(int(os.environ.get("AGREEMENT_SEED", "1")))
    expected = [(one.verdict.value, one.list or "") for one in matcher.decide_many([each.url for each in asked])]
    assert {verdict for verdict, _ in expected} == {"allow", "block"}
    assert sum(verdict == "block" for verdict, _ in expected) > COUNT / 10

    async def ask() -> dict[str, list[Verdict]]:
        ways: dict[str, Callable[[Sequence[Asked]], Awaitable[list[Verdict]]]] = {
            way: partial(by_check, node.port, way) for way in ("nginx", "forward", "envoy", "curl")
        }
        ways["icap"] = partial(by_icap, ports["icap"])
        ways["spoe"] = partial(by_spoe, ports["spoe"])
        ways["gRPC"] = partial(by_envoy, ports["envoy"])
        # A connection for some hundreds of them: with workers, others answer others.
        parts = [asked[at : at + 250] for at in range(0, COUNT, 250)]
        return {name: [one for part in parts for one in await way(part)] for name, way in ways.items()}

    found = asyncio.run(ask())
    found["squid-helper"] = by_helper(node, asked)
    found["control"] = by_http(node, asked)
    for way, verdicts in found.items():
        wrong = [(one.url, was, must) for one, was, must in zip(asked, verdicts, expected, strict=True) if was != must]
        assert wrong[:5] == [], way
    assert node.process.stop() == 0
