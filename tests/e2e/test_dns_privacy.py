"""Whoever asks the `dns` gateway for whatever, over UDP, TCP or TLS, in good ways and bad, leaves nothing behind.

Marks stand for the name asked for, the client's subnet and cookie, the name in its TLS hello, and whatever else it may
put in a message; its address is one that nobody else has. Nothing of all this is sent on but the name, and that only
where it is forwarded. Then logs, metrics, files and Redis are searched.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import secrets
import socket
import ssl
from typing import TYPE_CHECKING

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import pytest
from redis import Redis

from tests.e2e.node import Node
from tests.e2e.processes import until
from tests.e2e.resolvers import rcode
from tests.e2e.test_privacy import Marks, assert_no_marks, files_below
from tests.gateways.dns_upstream import Upstream, address, upstream
from tests.gateways.test_dns import certified
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ZONE = "bl.test"
CLIENT = "127.83.17.201"
# Longer than the upstream may take: what is never answered is an error by then.
SECONDS = 20.0


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), aof=True) as running:
        yield running


class Client:
    """What a client is known by, beside the marks."""

    def __init__(self) -> None:
        self.subnet = ipaddress.IPv6Address(bytes.fromhex("20010db8") + secrets.token_bytes(12))
        self.cookie = secrets.token_bytes(8)
        self.port = free_port()

    @property
    def traces(self) -> Sequence[bytes]:
        """All forms in which it could be written down."""
        texts = [CLIENT, str(self.subnet), self.subnet.exploded, self.subnet.packed.hex(), self.cookie.hex()]
        return [*map(str.encode, texts), socket.inet_aton(CLIENT) + b"\0", self.subnet.packed, self.cookie]


def messages(m: Marks, client: Client) -> list[bytes]:
    """Questions of every outcome, and what is none."""
    options = [
        dns.edns.ECSOption(str(client.subnet), 128), dns.edns.GenericOption(dns.edns.OptionType.COOKIE, client.cookie),
        dns.edns.GenericOption(dns.edns.OptionType.make(65_001), m.header.encode()),
    ]  # fmt: skip
    names = [
        f"{m.host}.blocked.example", f"{m.path}.page.example", f"{m.query}.harmless.example",
        f"{m.user}.silent.example",        f"{m.host}.blocked.example.{ZONE}", f"{m.fragment}.harmless.example.{ZONE}",
        f"a\\@{m.garbage}.example",
        f"{m.route}.failing.example",
    ]  # fmt: skip
    made = []
    for name in names:
        for kind in ("A", "TXT"):
            made.append(dns.message.make_query(name, kind))
            made.append(dns.message.make_query(name, kind, options=options))
    name = f"{m.parameter}.example"
    made += [dns.message.make_query(name, kind, options=options) for kind in ("ANY", "AXFR")]
    made += [dns.message.make_query(name, "TXT", "CH"), dns.message.make_query(name, "A", use_edns=7, options=options)]
    notify = dns.message.make_query(name, "SOA", options=options)
    notify.set_opcode(dns.opcode.NOTIFY)
    iterative = dns.message.make_query(name, "A", options=options)
    iterative.flags &= ~dns.flags.RD
    wires = [one.to_wire() for one in (*made, notify, iterative)]
    whole = wires[1]
    return [*wires, whole[:-3], whole + m.body.encode(), whole[:12] + m.garbage.encode(), m.garbage.encode() * 3]


def behave(one: Upstream, asked: dns.message.QueryMessage, stream: bool) -> Sequence[bytes]:
    """Silence, a failure, or an address, by the name."""
    name = asked.question[0].name.to_text().lower()
    if ".silent." in name:
        return []
    if ".failing." in name:
        return [b"\0\0"]
    return address(one, asked, stream)


async def by_datagrams(port: int, client: Client, asked: Sequence[bytes]) -> list[bytes]:
    """All at once from the client's own port; what comes back until it is quiet."""
    loop = asyncio.get_running_loop()
    found: list[bytes] = []
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        one.bind((CLIENT, client.port))
        one.connect(("127.0.0.1", port))
        for message in asked:
            await loop.sock_sendall(one, message)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECONDS):
                # What is no question gets no answer; every question does.
                while len(found) < len(asked) - 4:
                    found.append(await loop.sock_recv(one, 65_535))
    return found


async def by_stream(port: int, data: bytes, tls: ssl.SSLContext | None = None, name: str = "") -> bytes:
    """A connection of the client's; what comes back until it is quiet or ends."""
    found = b""
    with contextlib.suppress(OSError, TimeoutError, ssl.SSLError):
        async with asyncio.timeout(SECONDS):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=tls, server_hostname=name or None, local_addr=(CLIENT, 0)
            )
            try:
                writer.write(data)
                if tls is None:
                    writer.write_eof()
                while part := await reader.read(65_536):
                    found += part
            finally:
                writer.transport.abort()
                writer.close()
    return found


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


@pytest.mark.parametrize("workers", ["0", "1"])
def test_nothing_of_a_query_is_left_or_sent_on(tmp_path: Path, redis: RedisServer, workers: str) -> None:
    m, client = Marks(), Client()
    port, tls_port = free_port(), free_port()
    certificate, key = certified(tmp_path)
    trusting = ssl.create_default_context(cafile=certificate)
    trusting.check_hostname = False
    distrusting = ssl.create_default_context()

    async def everything() -> tuple[Node, list[bytes], Upstream]:
        async with upstream(behave) as other:
            # In this thread, with which the node would end; nothing is asked of the other meanwhile.
            node = Node(
                tmp_path, redis, gateways__workers=workers, gateways__dns__port=str(port),
                gateways__dns__zone=ZONE, gateways__dns__upstreams=json.dumps([f"127.0.0.1:{other.port}"]),
                gateways__dns__upstream_seconds="1", gateways__dns__rate="0", gateways__dns__request_seconds="2",
                gateways__dns__idle_seconds="2", gateways__dns__inspect_addresses='["192.0.2.80"]',
                gateways__dns__tls_port=str(tls_port), gateways__dns__tls_certificate=str(certificate),
                gateways__dns__tls_key=str(key),
            )  # fmt: skip
            lines = (f"http://*.{m.host}.blocked.example", f"http://{m.path}.page.example/listed/")
            node.push(*lines)
            (tmp_path / "police.txt").unlink()
            listed = f"{m.host}.blocked.example"
            until(lambda: [rcode(port, listed) for _ in range(10)] == ["NXDOMAIN"] * 10)
            asked = messages(m, client)
            found = await by_datagrams(port, client, asked)
            garbage = m.garbage.encode() * 40
            streams = [by_stream(port, framed(one)) for one in asked]
            streams += [by_stream(port, framed(asked[1])[:-5]), by_stream(port, garbage), by_stream(tls_port, garbage)]
            tls_name = f"{m.agent}.example"
            streams += [by_stream(tls_port, framed(one), trusting, tls_name) for one in asked]
            streams += [by_stream(tls_port, framed(asked[0]), distrusting, tls_name)]
            return node, [*found, *await asyncio.gather(*streams)], other

    node, answers, other = asyncio.run(everything())
    told = [dns.message.from_wire(one, ignore_trailing=True) for one in answers[: len(messages(m, client)) - 4]]
    codes = {one.rcode().name for one in told}
    assert {"NOERROR", "NXDOMAIN", "SERVFAIL", "NOTIMP", "REFUSED", "BADVERS"} <= codes, codes
    assert sum(m.host.encode() in answer for answer in answers) > 10, "what is answered repeats the question"
    # On to others go the names that nothing is said of, and nothing else of who asked.
    assert other.asked
    for asked in (*other.asked, *other.asked_over_tcp):
        assert (asked.edns, asked.options) == (0, ())
        assert m.found_in(asked.to_wire()) <= {"path", "query", "user", "route", "garbage", "parameter"}
        assert not [trace for trace in client.traces if trace in asked.to_wire()]
    assert not [source for source in other.sources if source[0] == CLIENT or source[1] == client.port]
    metrics = node.process.get("/metrics")[1] + node.process.get("/readyz")[1]
    assert node.process.stop() == 0
    log = node.process.log().encode()
    assert b"Traceback" not in log
    kept = {"metrics": [metrics], "log": [log], "files of the node": list(files_below(tmp_path / "var"))}
    with Redis.from_url(redis.url) as connection:
        keys = list(connection.scan_iter(count=1000))
        kept["Redis"] = [*keys, *(connection.dump(key) or b"" for key in keys)]
        connection.save()
    kept["Redis' files"] = list(files_below(redis.directory))
    for where, found in kept.items():
        assert_no_marks(m, where, *found)
        assert not [trace for trace in client.traces for data in found if trace in data], where
    assert f":{client.port}".encode() not in metrics + log
