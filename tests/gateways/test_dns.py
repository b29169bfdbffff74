"""The `dns` gateway over real sockets: datagrams, connections, TLS, its end, its canaries."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import dns.asyncquery
import dns.edns
import pytest

from blocker import Matcher
from blocker.errors import ServeError
from blocker.gateways.canaries import Canaries, NoAnswer, NotShown, Reason
from blocker.gateways.dns import DnsListener
from blocker.gateways.dns_probe import DnsProbe
from blocker.rules import Verdict
from blocker.sections import CanarySettings, DnsSettings
from blocker.settings import Settings
from tests.gateways.dns_desk import framed, query, shown
from tests.gateways.dns_running import ZONE, ask, running
from tests.gateways.dns_upstream import address, upstream
from tests.gateways.test_http_codec import Desk
from tests.ingest.checks import until

if TYPE_CHECKING:
    from pathlib import Path

HOST = "http://zzhostzz.example/"
PADDING = dns.edns.GenericOption(dns.edns.OptionType.PADDING, bytes(8))
PAGE = "http://zzpagezz.example/test/page.html"


async def test_datagrams_and_connections_get_the_same_answers() -> None:
    async with upstream(address) as other, running(other) as listener:
        for tcp in (False, True):
            assert shown(await ask(listener, "host.example", tcp=tcp)) == ("NXDOMAIN", [])
            assert shown(await ask(listener, f"listed.example.{ZONE}", tcp=tcp)) == ("NOERROR", ["127.0.0.3"])
            assert shown(await ask(listener, "harmless.example", tcp=tcp)) == ("NOERROR", ["192.0.2.33"])


async def test_many_datagrams_at_once_are_all_answered() -> None:
    async with running() as listener:
        with socket.socket(type=socket.SOCK_DGRAM) as one:
            one.connect(("127.0.0.1", listener.port))
            asked = [query(f"host.example.{ZONE}").to_wire() for _ in range(150)]
            for message in asked:
                one.send(message)
            loop = asyncio.get_running_loop()
            one.setblocking(False)
            answers = [await loop.sock_recv(one, 2000) for _ in asked]
        assert [answer[:2] for answer in answers] == [message[:2] for message in asked]
        assert all(answer[-4 - 11 :][:4] == b"\x7f\0\0\2" for answer in answers)


async def test_many_questions_of_one_connection_hold_nobody_up() -> None:
    async with upstream(address) as one, running(one) as listener:
        one.go.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        asked = [query(name).to_wire() for name in ("slow.example", "host.example", f"test.{ZONE}")]
        writer.write(b"".join(map(framed, asked)))
        first = [await _message(reader), await _message(reader)]
        assert [answer[:2] for answer in first] == [message[:2] for message in asked[1:]]
        one.go.set()
        assert (await _message(reader))[:2] == asked[0][:2]
        writer.close()
        await writer.wait_closed()


async def test_who_has_asked_all_still_gets_the_last_answers() -> None:
    async with upstream(address) as one, running(one) as listener:
        one.go.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        asked = [query(name).to_wire() for name in ("slow.example", "slower.example")]
        writer.write(b"".join(map(framed, asked)))
        writer.write_eof()
        await until(lambda: len(one.asked) == 2)
        one.go.set()
        assert {(await _message(reader))[:2] for _ in asked} == {message[:2] for message in asked}
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def _message(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))


async def test_at_the_end_what_waits_is_answered() -> None:
    async with upstream(address) as one:
        async with running(one, drain_seconds=5.0) as listener:
            one.go.clear()
            asking = [asyncio.create_task(ask(listener, "slow.example", tcp=tcp)) for tcp in (False, True)]
            await until(lambda: listener.forwarder.waiting == 2)
            stopping = asyncio.create_task(listener.stop())
            await asyncio.sleep(0)
            one.go.set()
            for found in await asyncio.gather(*asking):
                assert shown(found) == ("NOERROR", ["192.0.2.33"])
            await stopping
        async with running(one, drain_seconds=0.1, upstream_seconds=20) as listener:
            one.go.clear()
            asking = [asyncio.create_task(ask(listener, "slow.example", tcp=tcp)) for tcp in (False, True)]
            await until(lambda: listener.forwarder.waiting == 2)
            await listener.stop()
            assert shown(await asking[0]) == ("SERVFAIL", []), "who waits is told"
            with pytest.raises(EOFError):
                await asking[1]


async def test_strangers_have_their_connections_closed() -> None:
    async with running(networks=["192.0.2.0/24"]) as listener:
        assert shown(await ask(listener, f"test.{ZONE}")) == ("NOERROR", ["127.0.0.2"]), "this machine is no stranger"
        listener.service.admit([], False, 0)
        with pytest.raises((EOFError, OSError)):
            await ask(listener, f"test.{ZONE}", tcp=True)


async def test_over_tls(tmp_path: Path) -> None:
    certificate, key = certified(tmp_path)
    async with upstream(address) as one, running(one, tls_certificate=certificate, tls_key=key) as listener:
        context = ssl.create_default_context(cafile=str(certificate))
        port = int(listener.tls_addresses[0].rpartition(":")[2])
        for name, code in (("host.example", "NXDOMAIN"), ("harmless.example", "NOERROR")):
            found = await dns.asyncquery.tls(
                query(name), "127.0.0.1", port=port, ssl_context=context, server_hostname="resolver.example", timeout=10
            )
            assert shown(found)[0] == code
        for options, hidden in (([PADDING], True), ([], False)):
            for name in ("host.example", "harmless.example", f"none.{ZONE}"):
                asked = query(name, options=options)
                found = await dns.asyncquery.tls(
                    asked, "127.0.0.1", port=port, ssl_context=context, server_hostname="resolver.example", timeout=10
                )
                assert (len(found.wire or b"") == 468) == hidden, "blocked or not, it looks the same"
        assert len((await ask(listener, "host.example", tcp=True, options=[PADDING])).wire or b"") < 468
        with pytest.raises((EOFError, OSError)):
            await dns.asyncquery.tcp(query("host.example"), "127.0.0.1", port=port, timeout=10)
    with pytest.raises(ServeError, match="tls_certificate"):
        DnsListener(Desk().engine, DnsSettings(zone=ZONE, tls_certificate=key, tls_key=key))


def certified(directory: Path) -> tuple[Path, Path]:
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=resolver.example", "-addext", "subjectAltName=DNS:resolver.example", "-keyout", key, "-out",
         certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


async def test_a_certificate_that_cannot_be_used_leaves_the_old_one(tmp_path: Path) -> None:
    certificate, key = certified(tmp_path)
    (tmp_path / "new").mkdir()
    other, other_key = certified(tmp_path / "new")
    async with upstream(address) as one, running(one, tls_certificate=certificate, tls_key=key) as listener:

        async def shows(expected: Path) -> None:
            context = ssl.create_default_context(cafile=str(expected))
            host, _, port = listener.tls_addresses[0].rpartition(":")
            found = await dns.asyncquery.tls(
                query("harmless.example"), host, port=int(port), server_hostname="resolver.example", ssl_context=context
            )
            assert shown(found) == ("NOERROR", ["192.0.2.33"])

        await shows(certificate)
        # A renewal that is half done: the certificate is there, its key is not.
        half = listener.settings.model_copy(update={"tls_certificate": other, "blocked": "nodata"})
        with pytest.raises(ServeError, match="tls_certificate"):
            listener.prepare(half)
        await shows(certificate)
        assert shown(await ask(listener, "host.example")) == ("NXDOMAIN", []), "nothing of it is used"
        whole = half.model_copy(update={"tls_key": other_key})
        listener.prepare(whole)
        listener.configure(whole)
        await shows(other)


async def test_other_settings_are_used_without_a_restart() -> None:
    async with upstream(address) as one, running(one) as listener:
        assert shown(await ask(listener, "host.example")) == ("NXDOMAIN", [])
        changed = listener.settings.model_copy(update={"blocked": "nodata", "zone": "other.test"})
        listener.configure(changed)
        assert shown(await ask(listener, "host.example")) == ("NOERROR", [])
        assert shown(await ask(listener, "test.other.test")) == ("NOERROR", ["127.0.0.2"])
        listener.configure(changed.model_copy(update={"upstreams": ()}))
        assert shown(await ask(listener, "harmless.example")) == ("REFUSED", [])


async def test_an_address_in_use_names_the_setting() -> None:
    async with running() as listener:
        with pytest.raises(ServeError, match="BLOCKER_GATEWAYS__DNS__PORT"):
            async with running(port=listener.port):
                pass


async def test_answers_leave_from_the_address_that_was_asked() -> None:
    for host, addresses in (("0.0.0.0", ("127.0.0.1", "127.0.0.9")), ("::", ("::1",))):  # noqa: S104 - loopback asks
        async with running(host=host) as listener:
            for one in addresses:
                found = await dns.asyncquery.udp(query(f"test.{ZONE}"), one, port=listener.port, timeout=10)
                assert shown(found) == ("NOERROR", ["127.0.0.2"])


@pytest.mark.parametrize("more", [{}, {"inspect_addresses": ["192.0.2.9"]}, {"zone": None}])
async def test_canaries_are_asked_for_by_datagram(more: dict[str, Any]) -> None:
    async with upstream(address) as one, running(one, **more) as listener:
        probe = DnsProbe(listener)
        in_zone = more.get("zone", ZONE) is not None
        host = await probe.ask("http://host.example/", "default")
        assert host == (Verdict.BLOCK, "police" if in_zone else None, None)
        assert (await probe.ask("http://harmless.example/", "default")).verdict is Verdict.ALLOW
        if in_zone:
            assert (await probe.ask("http://listed.example/page", "default")).verdict is Verdict.INSPECT
            assert (await probe.ask("http://192.0.2.1/", "default")).verdict is Verdict.ALLOW
        else:
            for url in ("http://listed.example/page", "http://192.0.2.1/"):
                with pytest.raises(NotShown):
                    await probe.ask(url, "default")
        with pytest.raises(NoAnswer):
            await probe.ask("http://host.example/", "school")
    async with running(desk=Desk(ready=False)) as listener:
        with pytest.raises(NoAnswer):
            await DnsProbe(listener).ask("http://host.example/", "default")


async def test_garbage_over_a_connection_ends_it_and_no_other() -> None:
    async with running() as listener:
        _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        other_reader, other = await asyncio.open_connection("127.0.0.1", listener.port)
        other.write(framed(b"\0\0"))
        assert await other_reader.read() == b""
        assert shown(await ask(listener, f"test.{ZONE}", tcp=True))[0] == "NOERROR"
        for one in (writer, other):
            one.close()
            await one.wait_closed()


@pytest.mark.parametrize(
    ("lists", "more", "found"),
    [
        ({"police": [HOST, PAGE]}, {}, [None]),
        ({"police": [HOST, PAGE]}, {"zone": None, "inspect_addresses": ["192.0.2.9"]}, [None]),
        ({"police": [HOST]}, {"zone": None}, [None]),
        ({"police": ["http://other.example/"]}, {}, [Reason.NOT_BLOCKED]),
        ({"police": [f"{HOST}page", PAGE]}, {}, [Reason.NOT_BLOCKED]),
        ({"other": [HOST, PAGE]}, {}, [Reason.WRONG_LIST]),
        ({"police": [HOST, "http://zzpagezz.example/"]}, {}, [Reason.OVER_BLOCKED]),
        ({"police": [HOST, PAGE]}, {"upstreams": []}, [None]),
    ],
)
async def test_what_a_look_at_the_canaries_finds(
    lists: dict[str, list[str]], more: dict[str, Any], found: list[Reason | None]
) -> None:
    desk = Desk()
    desk.followed.matcher = Matcher.build(lists)
    desk.engine.swapped(desk.followed.matcher)
    chosen = CanarySettings(blocked=(HOST, PAGE))
    watched = Canaries(desk.engine, desk.followed, Settings(canaries={"police": chosen}), patience=60)
    async with upstream(address) as one, running(one, desk=desk, **more) as listener:
        watched.register(DnsProbe(listener))
        await watched.look()
        assert [state.reason for state in watched.states] == found
    desk.engine.meters.collect()
    assert desk.engine.meters["dns"].blocks == 0, "nobody but the canaries asked"


async def test_pages_are_not_expected_of_a_gateway_that_forwards_their_hosts() -> None:
    desk = Desk()
    chosen = CanarySettings(blocked=(PAGE,))
    watched = Canaries(desk.engine, desk.followed, Settings(canaries={"police": chosen}), patience=60)
    async with upstream(address) as one, running(one, desk=desk, zone=None) as listener:
        watched.register(DnsProbe(listener))
        await watched.look()
        assert watched.states == ()
