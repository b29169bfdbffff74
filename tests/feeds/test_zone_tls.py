"""Transfers over TLS: who gets one, with what, and what those can take from others who finish no handshake."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import struct
import time
from typing import TYPE_CHECKING, Any

import dns.asyncquery
import dns.edns
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.zone
import pytest

from blocker.errors import ServeError
from blocker.feed_section import RpzSettings
from blocker.feeds.listener import ZoneListener
from blocker.feeds.tally import Failure, Sent, Transport
from tests.certificates import NAME, Authority, Pair
from tests.feeds.support import ORIGIN, Primary, plan, query, records, version
from tests.feeds.test_listener import HOST, LONG, framed, narrow, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

NAMES = [f"http://name{at}.example/" for at in range(3000)]
KEEPALIVE = dns.edns.GenericOption(dns.edns.OptionType.make(11), b"")
PADDING = dns.edns.GenericOption(dns.edns.OptionType.make(12), b"")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def shown(authority: Authority) -> Pair:
    return authority.sign()


def trusting(authority: Authority, *, alpn: Sequence[str] = ("dot",), showing: Pair | None = None) -> ssl.SSLContext:
    """What a secondary goes by."""
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if alpn:
        context.set_alpn_protocols([*alpn])
    if showing is not None:
        context.load_cert_chain(showing.certificate, showing.key)
    return context


def primary(its: Pair, lines: Sequence[str] = ("http://b.example/",), **settings: Any) -> Primary:  # noqa: ANN401
    only = settings.pop("tls_only", False)
    made = Primary(
        plan(tls_only=only), **{"tls_port": 0, "tls_certificate": its.certificate, "tls_key": its.key, **settings}
    )
    made.publish(version(made.served.plan, 7, lines))
    return made


def tls_port(its: Primary) -> int:
    return int(its.listener.tls_addresses[0].rpartition(":")[2])


@contextlib.asynccontextmanager
async def connected(
    its: Primary, context: ssl.SSLContext, **options: Any  # noqa: ANN401 - asyncio's own
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:  # fmt: skip
    if "sock" not in options:
        options |= {"host": HOST, "port": tls_port(its)}
    reader, writer = await asyncio.open_connection(ssl=context, server_hostname=NAME, limit=1 << 20, **options)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def message(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack("!H", await reader.readexactly(2))
    return await reader.readexactly(length)


async def asked(its: Primary, context: ssl.SSLContext, what: dns.message.Message) -> list[bytes]:
    """The messages of an answer over TLS, to the end of a transfer."""
    before = its.sent()
    async with connected(its, context) as (reader, writer):
        writer.write(framed(what))
        found, ends = list[bytes](), 0
        while ends < (2 if what.question[0].rdtype == dns.rdatatype.AXFR else 1):
            found.append(await message(reader))
            told = dns.message.from_wire(found[-1], keyring=False, xfr=True, one_rr_per_rrset=True)
            ends += 2 if told.rcode() else [rrset.rdtype for rrset in told.answer].count(dns.rdatatype.SOA)
        if len(found) > 1 or (ends == 2 and not told.rcode()):
            await until(lambda: its.sent() > before)  # it is counted when the last message has left
        return found


async def gets_nothing(its: Primary, context: ssl.SSLContext) -> None:
    """Neither a byte of an answer, nor a place that is kept."""
    before = its.served.tally.failed[Failure.HANDSHAKE]
    with pytest.raises((OSError, EOFError)):
        await asked(its, context, query("AXFR"))
    await until(lambda: its.served.tally.failed[Failure.HANDSHAKE] == before + 1)
    assert its.sent() == 0
    assert its.listener.connections == 0


async def test_a_zone_comes_over_tls_and_where_it_must_over_nothing_else(authority: Authority, shown: Pair) -> None:
    its = primary(shown, NAMES, tls_only=True)
    async with its.listening() as port:
        wanted = query("AXFR")
        assert len(records(await asked(its, trusting(authority), wanted), wanted)) == 3003
        assert its.served.tally.sent == {("axfr", Sent.WHOLE, Transport.TLS): 1}
        for kind, tcp in (("AXFR", True), ("IXFR", True), ("IXFR", False)):
            ask = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
            wanted = query(kind, use_edns=0)
            told = await ask(wanted, HOST, timeout=10, port=port)
            assert told.rcode() == dns.rcode.REFUSED
            assert not told.answer
            # Why, where that amplifies nothing.
            assert [option.to_text() for option in told.options] == (["EDE 18 (Prohibited)"] if tcp else [])
        assert its.served.tally.failed == {Failure.CLEAR: 3}
        # What a resolver looks for before it comes: in clear text, also where it comes for the zone.
        for at, ask in ((port, dns.asyncquery.udp), (port, dns.asyncquery.tcp), (tls_port(its), dns.asyncquery.udp)):
            assert (await ask(query("SOA"), HOST, timeout=10, port=at)).answer[0][0].serial == 7


async def test_without_tls_only_a_zone_goes_over_both_and_is_counted_so(authority: Authority, shown: Pair) -> None:
    its = primary(shown)
    async with its.listening() as port:
        await dns.asyncquery.inbound_xfr(HOST, dns.zone.Zone(ORIGIN), query("AXFR"), port=port, timeout=20)
        await until(lambda: its.sent() == 1)
        await asked(its, trusting(authority), query("AXFR"))
        assert its.served.tally.sent == {("axfr", Sent.WHOLE, one): 1 for one in Transport}


async def test_older_tls_and_other_protocols_are_refused(authority: Authority, shown: Pair) -> None:
    its = primary(shown)
    async with its.listening():
        older = trusting(authority)
        older.maximum_version = ssl.TLSVersion.TLSv1_2
        for context in (older, trusting(authority, alpn=()), trusting(authority, alpn=("h2", "http/1.1"))):
            await gets_nothing(its, context)
        its.listener.configure(its.settings.model_copy(update={"tls_alpn": False}))
        wanted = query("AXFR")
        assert records(await asked(its, trusting(authority, alpn=()), wanted), wanted)
        assert (await asked(its, trusting(authority), query("SOA")))[0]
        with pytest.raises((OSError, EOFError)):  # clear text at that port
            await dns.asyncquery.tcp(query("SOA"), HOST, timeout=10, port=tls_port(its))


async def test_who_shows_no_certificate_of_the_authority_gets_nothing(
    authority: Authority, shown: Pair, tmp_path: Path
) -> None:
    its = primary(shown, tls_client_ca=authority.certificate)
    stranger = Authority(tmp_path / "other").sign("resolver.isp.example")
    resolver = authority.sign("resolver.isp.example", file="resolver")
    async with its.listening():
        await gets_nothing(its, trusting(authority))
        await gets_nothing(its, trusting(authority, showing=stranger))
        context = trusting(authority, showing=resolver)
        for _ in range(2):
            async with connected(its, context) as (reader, writer):
                writer.write(framed(query("SOA")))
                await message(reader)
                assert not writer.get_extra_info("ssl_object").session_reused, "it is looked at each time"
        assert its.served.tally.failed[Failure.HANDSHAKE] == 2


async def test_a_right_certificate_is_no_right_to_a_zone(authority: Authority, shown: Pair) -> None:
    its = primary(shown, tls_client_ca=authority.certificate)
    context = trusting(authority, showing=shown)
    async with its.listening():
        for wanted, error in (
            (query("AXFR", key=None, use_edns=0), "EDE 18 (Prohibited)"),
            (query("A", use_edns=0), "EDE 21 (Not Supported)"),
        ):
            (wire,) = await asked(its, context, wanted)
            told = dns.message.from_wire(wire, keyring=False)
            assert told.rcode() == dns.rcode.REFUSED
            assert [option.to_text() for option in told.options] == [error]


async def test_who_asks_for_it_has_lengths_hidden_and_is_told_how_long_a_connection_stays(
    authority: Authority, shown: Pair
) -> None:
    its = primary(shown, LONG[:3000], idle_seconds=12.5)
    async with its.listening() as port:
        for kind in ("AXFR", "SOA", "A"):
            wanted = query(kind, use_edns=0, options=[PADDING, KEEPALIVE])
            wires = await asked(its, trusting(authority), wanted)
            assert len(wires) > 5 or kind != "AXFR"
            assert {len(wire) % 468 for wire in wires} == {0}
            for wire in wires:  # each has an OPT
                told = dns.message.from_wire(wire, keyring=False)
                assert {int(option.otype) for option in told.options} >= {11, 12}
                (stays,) = (option for option in told.options if int(option.otype) == 11)
                assert stays.to_wire() == (125).to_bytes(2, "big")
            if kind == "AXFR":
                assert len(records(wires, wanted)) == 6003
        wanted = query("AXFR", use_edns=0, options=[PADDING])
        plain = await its.ask(wanted)
        assert not any(dns.message.from_wire(wire, keyring=False).options for wire in plain), "only over TLS"
        told = await dns.asyncquery.udp(query("SOA", options=[PADDING, KEEPALIVE]), HOST, timeout=10, port=port)
        assert told.options == ()
        for wire in await asked(its, trusting(authority), query("SOA")):
            assert dns.message.from_wire(wire, keyring=False).edns < 0, "who sends none gets none"


async def test_slow_handshakes_end_and_shut_out_nobody(authority: Authority, shown: Pair) -> None:
    its = primary(shown, max_connections=20, request_seconds=6)
    async with its.listening() as port:
        silent = [await asyncio.open_connection(HOST, tls_port(its)) for _ in range(20)]
        await until(lambda: its.served.tally.failed[Failure.CONNECTIONS] == 15)
        assert its.listener.connections == 5
        async with connected(its, trusting(authority), local_addr=("127.0.0.2", 0)) as (reader, writer):
            writer.write(framed(query("SOA")))
            await message(reader)
        await dns.asyncquery.tcp(query("SOA"), HOST, timeout=10, port=port, source="127.0.0.3")
        await until(lambda: its.listener.connections == 0)
        assert its.served.tally.failed == {Failure.CONNECTIONS: 15, Failure.HANDSHAKE: 5}
        assert not its.listener._places, "nothing of a peer is kept"
        for _, writer in silent:
            writer.close()


async def test_who_does_not_read_is_cut_off(authority: Authority, shown: Pair) -> None:
    its = primary(shown, LONG, request_seconds=3)
    async with its.listening():
        async with connected(its, trusting(authority), sock=await narrow(tls_port(its))) as (reader, writer):
            writer.write(framed(query("AXFR")))
            await reader.readexactly(100)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await until(lambda: not its.listener.connections)
        assert its.sent() == 0
        assert its.served.tally.failed[Failure.CUT] == 1
        # Nor does one keep its place that says nothing to the end of TLS.
        async with connected(its, trusting(authority)) as (_, writer):
            writer.write(framed(query("AXFR", key=None)))
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await until(lambda: its.served.tally.failed[Failure.ACCESS] == 1)
            await until(lambda: not its.listener.connections)


async def test_a_certificate_that_cannot_be_used_leaves_the_old_one(
    authority: Authority, shown: Pair, tmp_path: Path
) -> None:
    its = primary(shown)
    other = Authority(tmp_path / "other")
    renewed = other.sign(days=60)
    settings = its.settings
    async with its.listening(), connected(its, trusting(authority)) as (reader, writer):
        for wrong, name in (
            ({"tls_certificate": renewed.certificate}, "tls_certificate"),
            ({"tls_key": tmp_path / "none.key"}, "tls_certificate"),
            ({"tls_client_ca": renewed.key}, "tls_client_ca"),
        ):
            with pytest.raises(ServeError, match=name):
                its.listener.prepare(settings.model_copy(update=wrong))
            assert await asked(its, trusting(authority), query("SOA"))
        before = its.listener.expires
        whole = settings.model_copy(update={"tls_certificate": renewed.certificate, "tls_key": renewed.key})
        its.listener.prepare(whole)
        its.listener.configure(whole)
        assert await asked(its, trusting(other), query("SOA"))
        with pytest.raises(ssl.SSLCertVerificationError):
            await asked(its, trusting(authority), query("SOA"))
        assert before is not None
        assert its.listener.expires is not None
        assert 29 * 86_400 < its.listener.expires - before < 31 * 86_400
        assert abs(before - time.time() - 30 * 86_400) < 3600
        writer.write(framed(query("SOA")))  # a connection from before goes on
        await message(reader)


async def test_a_key_with_a_password_is_refused_and_asks_nobody(shown: Pair, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    locked = tmp_path / "locked.key"
    key = load_pem_private_key(shown.key.read_bytes(), None)
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(os.urandom(8))))
    with pytest.raises(ServeError, match=r"^feeds\.rpz: tls_certificate and tls_key"):
        primary(Pair(shown.certificate, locked))


async def test_ports_that_are_taken_are_told_and_nothing_stays_open(shown: Pair) -> None:
    its, other = primary(shown), primary(shown)
    async with its.listening():
        both = {"tls_port": tls_port(its), "tls_certificate": shown.certificate, "tls_key": shown.key}
        listener = ZoneListener(other.server, RpzSettings(port=0, **both))
        with pytest.raises(ServeError, match="TLS_PORT"):
            await listener.start()
        assert listener.addresses == []
        await listener.stop()
