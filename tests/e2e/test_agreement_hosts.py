"""Who sees only names is told the same by every gateway: the names of the addresses of `test_agreement`, as resolvers,
their zone, and proxies that have only a name ask, beside `decide_host` of a matcher of the same rules in this process.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from typing import TYPE_CHECKING
from urllib.parse import quote

import dns.message
import pytest

from blocker import Matcher
from tests.e2e.node import Node
from tests.e2e.processes import until
from tests.e2e.resolvers import Origin, answer
from tests.e2e.test_agreement import LINES, addresses
from tests.gateways.test_dns import certified
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ZONE = "bl.test"
FILTER = "192.0.2.80"  # where the zone of names with listed pages leads to
IN_ZONE = {"127.0.0.2": "block", "127.0.0.3": "inspect"}
# Questions under way at once: what the resolver behind can surely take.
AT_ONCE = 100
WAYS = ("udp", "tcp", "tls")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    running = Origin(tmp_path_factory.mktemp("origin") / "named")
    yield running
    running.close()


def names(seed: int) -> list[str]:
    """Hosts of the addresses as DNS can carry them: no address, nothing escaped; each spelling once."""
    carried = [one.host for one in addresses(seed) if "%" not in one.host and "[" not in one.host]
    hosts = [host.rpartition(":")[0] or host for host in carried]
    return list(dict.fromkeys(host for host in hosts if not host[:1].isdigit()))


class Datagrams(asyncio.DatagramProtocol):
    """What comes back, by the number of its question."""

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[bytes]] = {}

    def datagram_received(self, data: bytes, _peer: object) -> None:
        self.waiting.pop(int.from_bytes(data[:2], "big")).set_result(data)


async def by_datagrams(port: int, asked: Sequence[bytes]) -> list[bytes]:
    loop = asyncio.get_running_loop()
    transport, datagrams = await loop.create_datagram_endpoint(Datagrams, remote_addr=("127.0.0.1", port))
    try:
        for one in asked:
            datagrams.waiting[int.from_bytes(one[:2], "big")] = loop.create_future()
        waiting = list(datagrams.waiting.values())
        for one in asked:
            transport.sendto(one)
        return await asyncio.gather(*waiting)
    finally:
        transport.close()


async def by_stream(port: int, asked: Sequence[bytes], tls: ssl.SSLContext | None) -> list[bytes]:
    """Pipelined on one connection; the answers come in any order."""
    server_name = "resolver.example" if tls else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=server_name)
    try:
        writer.write(b"".join(len(one).to_bytes(2, "big") + one for one in asked))
        found = {}
        for _ in asked:
            message = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            found[message[:2]] = message
        return [found[one[:2]] for one in asked]
    finally:
        writer.close()


class Asker:
    """Clients of the `dns` gateway."""

    def __init__(self, port: int, tls_port: int, certificate: Path) -> None:
        self._port, self._tls_port = port, tls_port
        self._tls = ssl.create_default_context(cafile=certificate)

    async def ask(self, way: str, asked: Sequence[str], kind: str = "A") -> list[tuple[str, list[str]]]:
        """RCODE and data of each."""
        found = []
        for at in range(0, len(asked), AT_ONCE):
            made = [
                dns.message.make_query(name, kind, id=number) for number, name in enumerate(asked[at : at + AT_ONCE])
            ]
            messages = [one.to_wire() for one in made]
            if way == "udp":
                answers = await by_datagrams(self._port, messages)
            elif way == "tcp":
                answers = await by_stream(self._port, messages, None)
            else:
                answers = await by_stream(self._tls_port, messages, self._tls)
            found += [dns.message.from_wire(one) for one in answers]
        return [(one.rcode().name, [str(data) for rrset in one.answer for data in rrset]) for one in found]


def in_zone(said: tuple[str, list[str]]) -> str:
    rcode, data = said
    assert (rcode == "NOERROR") is bool(data)
    return IN_ZONE[data[0]] if data else {"NXDOMAIN": "allow"}[rcode]


def resolved(said: tuple[str, list[str]]) -> str:
    rcode, data = said
    if rcode == "NXDOMAIN":
        return "block"
    assert rcode == "NOERROR"
    return "inspect" if data == [FILTER] else "allow"


@pytest.mark.parametrize("workers", ["0", "2"])
def test_all_that_see_names_say_the_same(tmp_path: Path, redis: RedisServer, origin: Origin, workers: str) -> None:
    port, tls_port = free_port(), free_port()
    certificate, key = certified(tmp_path)
    node = Node(
        tmp_path, redis, gateways__workers=workers, gateways__dns__port=str(port), gateways__dns__zone=ZONE,
        gateways__dns__upstreams=json.dumps([f"127.0.0.1:{origin.port}"]), gateways__dns__rate="0",
        gateways__dns__inspect_addresses=json.dumps([FILTER]), gateways__dns__upstream_seconds="30",
        gateways__dns__tls_port=str(tls_port), gateways__dns__tls_certificate=str(certificate),
        gateways__dns__tls_key=str(key),
    )  # fmt: skip
    for name, lines in LINES.items():
        node.push_list(name, lines, *(["--action", "allow"] if name == "pardon" else []))
    # The last list holds everywhere: a pardoned page makes its host one to look at.
    until(lambda: [answer(port, f"host.example.{ZONE}") for _ in range(20)] == [("NOERROR", ["127.0.0.3"])] * 20)
    matcher = Matcher.build(LINES, allow=("pardon",))
    asked = names(int(os.environ.get("AGREEMENT_SEED", "1")))
    decided = [matcher.decide_host(name) for name in asked]
    expected = [one.verdict.value for one in decided]
    assert set(expected) == {"allow", "inspect", "block"}
    asker = Asker(port, tls_port, certificate)

    async def ask() -> dict[str, list[str]]:
        zone = [f"{name.removesuffix('.')}.{ZONE}" for name in asked]
        found = {f"zone, {way}": list(map(in_zone, await asker.ask(way, zone))) for way in WAYS}
        found |= {f"resolver, {way}": list(map(resolved, await asker.ask(way, asked))) for way in WAYS}
        blocked = [one for one, verdict in zip(zone, expected, strict=True) if verdict == "block"]
        texts = [data[0] for _, data in await asker.ask("tcp", blocked, "TXT")]
        lists = [one.list for one in decided if one.verdict.value == "block"]
        assert texts == [f'"Blocked by list {name}"' for name in lists]
        return found

    found = asyncio.run(ask())
    connection = node.process.connection()
    control = []
    for name in asked:
        connection.request("GET", f"/v1/hosts/{quote(name)}")
        control.append(json.loads(connection.getresponse().read())["verdict"])
    connection.close()
    found["control"] = control
    for way, verdicts in found.items():
        wrong = [(one, was, must) for one, was, must in zip(asked, verdicts, expected, strict=True) if was != must]
        assert wrong[:5] == [], way
    assert node.process.stop() == 0
