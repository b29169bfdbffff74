"""The sockets: cut connections, slow readers, too many of them, and what is left of them afterwards."""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

import dns.asyncquery
import dns.message
import dns.rcode
import dns.zone
import pytest

from blocker.feeds.listener import _site
from blocker.feeds.tally import Failure
from tests.e2e import processes
from tests.feeds.support import ORIGIN, Primary, plan, query, version

if TYPE_CHECKING:
    from collections.abc import Callable

LONG = [f"http://*.{'x' * 60}.{'y' * 50}{at}.example" for at in range(40_000)]
HOST = "127.0.0.1"


def primary(lines: list[str] | None = None, **settings: object) -> Primary:
    made = Primary(plan(), **settings)
    made.publish(version(made.served.plan, 7, ["http://b.example/"] if lines is None else lines))
    return made


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(HOST, port, limit=1024)


async def narrow(port: int) -> socket.socket:
    """A connection whose system takes next to nothing that is not read; by itself it takes megabytes, bit by bit."""
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    opened.setblocking(False)
    await asyncio.get_running_loop().sock_connect(opened, (HOST, port))
    return opened


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(processes.until, condition)


def framed(message: dns.message.Message) -> bytes:
    wire = message.to_wire()
    return struct.pack("!H", len(wire)) + wire


async def rcode(port: int, *, tcp: bool) -> int:
    ask = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return int((await ask(query("SOA"), HOST, timeout=10, port=port)).rcode())


async def test_another_library_takes_the_zone() -> None:
    its = primary([f"http://name{at}.example/" for at in range(3000)])
    async with its.listening() as port:
        zone = dns.zone.Zone(ORIGIN)
        asked = query("AXFR")
        await dns.asyncquery.inbound_xfr(HOST, zone, asked, port=port, timeout=20)
        assert len(zone.nodes) == 3001
        assert await rcode(port, tcp=False) == 0
        await until(lambda: its.sent() == 1)


async def test_questions_in_a_row_and_in_pieces_on_one_connection() -> None:
    its = primary()
    async with its.listening() as port:
        reader, writer = await connect(port)
        asked = framed(query("SOA")) + framed(query("SOA"))
        for byte in asked:
            writer.write(bytes([byte]))
            await writer.drain()
        for _ in range(2):
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            dns.message.from_wire(await reader.readexactly(length), keyring=False)
        writer.close()


async def test_a_cut_transfer_leaves_nothing_behind() -> None:
    its = primary(LONG[:10_000], max_transfers=1)
    async with its.listening() as port:
        for _ in range(3):
            reader, writer = await connect(port)
            writer.write(framed(query("AXFR")))
            await reader.readexactly(1000)
            writer.transport.abort()
        zone = dns.zone.Zone(ORIGIN)
        await dns.asyncquery.inbound_xfr(HOST, zone, query("AXFR"), port=port, timeout=60)
        assert len(zone.nodes) == 20_001
        await until(lambda: its.sent() == 1)


async def test_who_does_not_read_is_cut_off_and_disturbs_nobody() -> None:
    its = primary(LONG, request_seconds=3)
    async with its.listening() as port:
        reader, writer = await asyncio.open_connection(sock=await narrow(port), limit=1024)
        writer.write(framed(query("AXFR")))
        await reader.readexactly(100)
        assert await rcode(port, tcp=True) == 0
        await until(lambda: not its.listener.connections)
        assert its.sent() == 0
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(50_000_000)
        writer.transport.abort()


async def test_transfers_over_the_limit_wait_and_are_told() -> None:
    its = primary(LONG, max_transfers=1, request_seconds=0.5)
    async with its.listening() as port:
        its.listener.limits = its.settings.model_copy(update={"request_seconds": 30.0})
        reader, writer = await connect(port)
        writer.write(framed(query("AXFR")))
        await reader.readexactly(100)  # and no more
        second, other = await connect(port)
        other.write(framed(query("AXFR")))
        (length,) = struct.unpack("!H", await second.readexactly(2))
        told = dns.message.from_wire(await second.readexactly(length), keyring=False)
        assert told.rcode() == dns.rcode.SERVFAIL
        writer.transport.abort()
        other.write(framed(query("AXFR")))
        (length,) = struct.unpack("!H", await second.readexactly(2))
        assert dns.message.from_wire(await second.readexactly(length), keyring=False).rcode() == 0
        other.transport.abort()


async def test_silent_and_too_many_connections_are_closed() -> None:
    its = primary(idle_seconds=3, max_connections=2)
    async with its.listening() as port:
        open_ = [await connect(port) for _ in range(2)]
        await until(lambda: its.listener.connections == 2)
        reader, writer = await connect(port)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        writer.close()
        for reader, writer in open_:
            assert await reader.read() == b""
            writer.close()
        assert await rcode(port, tcp=True) == 0


async def test_strangers_are_answered_and_disconnected() -> None:
    its = primary()
    async with its.listening() as port:
        for asked in (query("AXFR", key=None), query("AXFR", "other.test."), query("SOA", key="other")):
            reader, writer = await connect(port)
            writer.write(framed(asked))
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            assert dns.message.from_wire(await reader.readexactly(length), keyring=False).rcode() != 0
            assert await reader.read() == b""
            writer.close()
        await until(lambda: not its.listener.connections)


async def test_one_address_cannot_shut_out_the_others() -> None:
    its = primary(max_connections=20)
    async with its.listening() as port:
        held = [await connect(port) for _ in range(20)]  # silent ones, of which a quarter stays
        await until(lambda: its.served.tally.failed[Failure.CONNECTIONS] == 15)
        assert its.listener.connections == 5
        for other in ("127.0.0.2", "127.0.0.3"):
            told = await dns.asyncquery.tcp(query("SOA"), HOST, timeout=10, port=port, source=other)
            assert told.rcode() == 0
        assert its.served.tally.failed == {Failure.CONNECTIONS: 15}
        for _, writer in held:
            writer.close()
        await until(lambda: not its.listener.connections)
        assert await rcode(port, tcp=True) == 0


def test_whose_an_address_is() -> None:
    one, same, other = (ip_address(f"2001:db8:0:{at}") for at in ("1::1", "1:ffff::2", "2::1"))
    assert _site(one) == _site(same) != _site(other)
    assert _site(ip_address("192.0.2.1")) != _site(ip_address("192.0.2.2"))


@pytest.mark.parametrize(("host", "asked"), [("0.0.0.0", ["127.0.0.1", "127.0.0.5"]), ("::", ["::1"])])  # noqa: S104
async def test_who_listens_everywhere_answers_from_where_it_was_asked(host: str, asked: list[str]) -> None:
    its = primary(host=host)
    async with its.listening() as port:
        for address in asked:
            for ask in (dns.asyncquery.udp, dns.asyncquery.tcp):  # raises where another address answers
                told = await ask(query("SOA"), address, timeout=10, port=port)
                assert told.answer[0][0].serial == 7


async def test_junk_over_udp_and_tcp_leaves_it_answering() -> None:
    its = primary()
    async with its.listening() as port:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=(HOST, port)
        )
        for junk in (b"", b"\0", b"\xff" * 600, query("AXFR").to_wire()[:20]):
            transport.sendto(junk)
            _, writer = await connect(port)
            writer.write(struct.pack("!H", len(junk)) + junk)
            writer.close()
        transport.close()
        assert await rcode(port, tcp=False) == 0
        assert await rcode(port, tcp=True) == 0
