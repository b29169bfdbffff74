"""What one client, or somebody who is none, can take from all others: connections, handshakes, places to wait."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING

import dns.message

from blocker.gateways.shares import Shares
from tests.gateways.dns_desk import framed, query, shown
from tests.gateways.dns_running import ask, running
from tests.gateways.dns_upstream import Upstream, address, upstream
from tests.gateways.test_dns import certified
from tests.ingest.checks import until

if TYPE_CHECKING:
    from pathlib import Path

    from dns.message import QueryMessage

    from blocker.gateways.dns import DnsListener

ANSWER = ("NOERROR", ["192.0.2.33"])
RATE = 1_000_000  # with a rate there are shares
OTHER = "127.0.1.1"  # another /24 than the rest of loopback that is used here
Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def slow_or_quick(one: Upstream, asked: QueryMessage, stream: bool) -> list[bytes]:
    slow = asked.question[0].name.to_text().lower().startswith("slow")
    return [] if slow else address(one, asked, stream)


async def came(port: int, source: str) -> Peer:
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))


async def said(reader: asyncio.StreamReader) -> tuple[str, list[str]]:
    length = int.from_bytes(await reader.readexactly(2), "big")
    return shown(dns.message.from_wire(await reader.readexactly(length)))


def tls_port(listener: DnsListener) -> int:
    return int(listener.tls_addresses[0].rpartition(":")[2])


async def test_one_client_cannot_take_all_places_to_wait() -> None:
    async with (
        upstream(slow_or_quick) as one,
        running(one, rate=RATE, max_waiting=80, upstream_seconds=20) as listener,
    ):
        reader, writer = await came(listener.port, OTHER)
        writer.write(b"".join(framed(query(f"slow{number}.example").to_wire()) for number in range(60)))
        for _ in range(50):
            assert await said(reader) == ("SERVFAIL", []), "over its share"
        assert listener.forwarder.waiting == 10
        for number in range(20):
            assert shown(await ask(listener, f"quick{number}.example")) == ANSWER
        writer.close()


async def test_what_is_asked_already_can_be_waited_for_though_all_places_are_taken() -> None:
    async with upstream(address) as one, running(one, max_waiting=2) as listener:
        one.go.clear()
        asking = [asyncio.create_task(ask(listener, f"{number}.example")) for number in (0, 1, 0, 1, 0)]
        await until(lambda: listener.forwarder.waiting == 5)
        assert shown(await ask(listener, "another.example")) == ("SERVFAIL", [])
        one.go.set()
        assert [shown(answer) for answer in await asyncio.gather(*asking)] == [ANSWER] * 5
        assert listener.forwarder.waiting == 0


async def test_one_client_cannot_take_all_connections() -> None:
    async with upstream(address) as one, running(one, rate=RATE, max_connections=16) as listener:
        peers = [await came(listener.port, OTHER) for _ in range(2)]
        reader, writer = await came(listener.port, OTHER)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        assert listener.refused == 1
        writer.close()
        assert shown(await ask(listener, "one.example", tcp=True)) == ANSWER
        peers[0][1].close()
        await until(lambda: listener.taken == 1)
        reader, writer = await came(listener.port, OTHER)
        writer.write(framed(query("two.example").to_wire()))
        assert await said(reader) == ANSWER
        for _, one_writer in [*peers, (reader, writer)]:
            one_writer.close()
        await until(lambda: (listener.taken, len(listener._places)) == (0, 0))


async def test_without_a_rate_there_are_no_shares() -> None:
    async with upstream(address) as one, running(one, rate=0, max_connections=16) as listener:
        peers = [await came(listener.port, OTHER) for _ in range(16)]
        for number, (reader, writer) in enumerate(peers):
            writer.write(framed(query(f"{number}.example").to_wire()))
            assert await said(reader) == ANSWER
        for _, writer in peers:
            writer.close()


async def test_handshakes_that_are_not_finished_take_places_and_end(tmp_path: Path) -> None:
    certificate, key = certified(tmp_path)
    trusting = ssl.create_default_context(cafile=str(certificate))
    trusting.check_hostname = False
    async with (
        upstream(address) as one,
        running(
            one, rate=RATE, max_connections=16, request_seconds=5.0, tls_certificate=certificate, tls_key=key
        ) as listener,
    ):
        peers = [await came(tls_port(listener), OTHER) for _ in range(30)]
        await until(lambda: listener.refused == 28)
        assert listener.taken <= 2
        reader, writer = await asyncio.open_connection("127.0.0.1", tls_port(listener), ssl=trusting)
        writer.write(framed(query("one.example").to_wire()))
        assert await said(reader) == ANSWER, "others notice nothing"
        writer.close()
        await until(lambda: (listener.taken, len(listener._places)) == (0, 0))
        for _, each in peers:
            each.close()


async def test_strangers_get_no_handshake(tmp_path: Path) -> None:
    certificate, key = certified(tmp_path)
    async with running(tls_certificate=certificate, tls_key=key) as listener:
        listener.service.admit([], False, 0)
        for port in (tls_port(listener), listener.port):
            reader, writer = await came(port, OTHER)
            writer.write(b"\x16\x03\x01")
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
        assert (listener.taken, listener.refused) == (0, 0)


def test_a_part_has_its_share_and_gives_it_back() -> None:
    shares = Shares()
    assert all(shares.take(1) for _ in range(100)), "no bound"
    for _ in range(100):
        shares.give_back(1)
    shares.most = 2
    assert [shares.take(part) for part in (1, 1, 1, 2, None, None, None)] == [True, True, False, True, True, True, True]
    shares.give_back(1)
    shares.give_back(None)
    assert (shares.take(1), shares.take(1), len(shares)) == (True, False, 2)
