"""Names that are not anybody's to ask others about, services of inspected hosts, and several addresses to listen on."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import dns.asyncquery
import pytest
from pydantic import ValidationError

from blocker.errors import ServeError
from blocker.gateways.dns import DnsListener
from blocker.sections import DnsSettings
from blocker.sockets import bind
from tests.gateways.dns_desk import errors, query, shown
from tests.gateways.dns_running import ZONE, ask, running
from tests.gateways.dns_upstream import address, upstream
from tests.gateways.test_dns import certified
from tests.gateways.test_http_codec import Desk

if TYPE_CHECKING:
    from pathlib import Path

NONE: list[str] = []


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("localhost", "A", ("NOERROR", ["127.0.0.1"])),
        ("anything.LOCALHOST", "AAAA", ("NOERROR", ["::1"])),
        ("localhost", "MX", ("NOERROR", NONE)),
        ("_dns.resolver.arpa", "SVCB", ("NOERROR", NONE)),
        ("hidden.onion", "A", ("NXDOMAIN", NONE)),
        ("printer.local", "A", ("NXDOMAIN", NONE)),
        ("any.invalid", "A", ("NXDOMAIN", NONE)),
        ("use-application-dns.net", "A", ("NXDOMAIN", NONE)),
        ("mask.icloud.com", "AAAA", ("NXDOMAIN", NONE)),
        ("33.2.0.192.in-addr.arpa", "A", ("NOERROR", ["192.0.2.33"])),
        ("icloud.com", "A", ("NOERROR", ["192.0.2.33"])),
    ],
)
async def test_names_that_nobody_else_is_asked_about(name: str, kind: str, expected: tuple[str, list[str]]) -> None:
    withheld = ["use-application-dns.net", "mask.icloud.com"]
    async with upstream(address) as one, running(one, withheld=withheld) as listener:
        found = await ask(listener, name, kind)
        assert shown(found) == expected
        forwarded = expected[1] == ["192.0.2.33"]
        assert bool(one.asked) == forwarded
        assert bool(found.authority) == (expected[1] == NONE), "so that it can be kept (RFC 2308)"
        listener.configure(listener.settings.model_copy(update={"withheld": ()}))
        before = len(one.asked)
        await ask(listener, "mask.icloud.com")
        assert len(one.asked) == before + 1


async def discovered(listener: DnsListener, name: str = "_dns.resolver.arpa", kind: str = "SVCB") -> list[str]:
    found = await ask(listener, name, kind)
    assert (shown(found)[0], errors(found)) == ("NOERROR", [])
    assert bool(found.answer) != bool(found.authority)
    return [str(one) for rrset in found.answer for one in rrset]


async def test_clients_that_look_for_an_encrypted_resolver_find_this_one(tmp_path: Path) -> None:
    certificate, key = certified(tmp_path)
    tls: dict[str, Any] = {"tls_certificate": certificate, "tls_key": key}
    async with upstream(address) as one, running(one, tls_name="Resolver.example.", **tls) as listener:
        port = int(listener.tls_addresses[0].rpartition(":")[2])
        # At the port, by the name, over DNS over TLS alone (RFC 9461): nothing to be asked of others first.
        there = [f'1 resolver.example. alpn="dot" port="{port}"']
        assert await discovered(listener) == await discovered(listener, "_DNS.resolver.ARPA") == there
        assert await discovered(listener, "_dns.Resolver.example") == there
        assert await discovered(listener, kind="A") == await discovered(listener, "resolver.arpa") == NONE
        assert one.asked == []
        context = ssl.create_default_context(cafile=str(certificate))
        found = await dns.asyncquery.tls(
            query("host.example"), "127.0.0.1", port=port, server_hostname="resolver.example", ssl_context=context
        )
        assert shown(found) == ("NXDOMAIN", NONE)
        # Another port may lead there; the one that all know need not be said.
        settings = listener.settings
        for told, said in ((853, ""), (8530, ' port="8530"')):
            listener.configure(settings.model_copy(update={"tls_told_port": told}))
            assert await discovered(listener) == [f'1 resolver.example. alpn="dot"{said}']
        listener.configure(settings.model_copy(update={"tls_name": None}))
        assert await discovered(listener) == NONE
    async with upstream(address) as one, running(one, **tls) as listener:
        assert await discovered(listener) == NONE
        assert shown(await ask(listener, "_dns.resolver.example", "SVCB"))[0] == "NOERROR"
        assert len(one.asked) == 1, "nobody's special name"


async def test_a_resolver_without_tls_is_none_whatever_it_is_called(tmp_path: Path) -> None:
    async with upstream(address) as one, running(one) as listener:
        listener.configure(listener.settings.model_copy(update={"tls_name": "resolver.example"}))
        assert await discovered(listener) == NONE
    certificate, key = certified(tmp_path)
    for missing in ({"tls_certificate": None, "tls_key": None}, {"upstreams": (), "zone": ZONE}):
        given = {"tls_certificate": certificate, "tls_key": key, "upstreams": ("192.0.2.53",), **missing}
        with pytest.raises(ValidationError, match="tls_name needs tls_certificate, tls_key and upstreams"):
            DnsSettings.model_validate({**given, "tls_name": "resolver.example"})


async def test_services_of_a_host_are_decided_as_the_host() -> None:
    async with upstream(address) as one, running(one, inspect_addresses=["192.0.2.80"]) as listener:
        for name in ("listed.example", "_8443._https.listed.example"):
            for kind in ("HTTPS", "SVCB"):
                assert shown(await ask(listener, name, kind)) == ("NOERROR", NONE)
        for name in ("host.example", "_8443._https.host.example"):
            found = await ask(listener, name, "HTTPS")
            assert (shown(found), errors(found)) == (("NXDOMAIN", NONE), [(15, "")])
        assert one.asked == []
        await ask(listener, "_8443._https.harmless.example", "HTTPS")
        assert len(one.asked) == 1


async def test_both_families_are_served() -> None:
    listener = DnsListener(Desk().engine, DnsSettings(host="127.0.0.1, ::1", port=0, zone="bl.test"))
    await listener.start()
    try:
        port = listener.port
        assert listener.addresses == [f"127.0.0.1:{port}", f"[::1]:{port}"]
        for where in ("127.0.0.1", "::1"):
            for way in (dns.asyncquery.udp, dns.asyncquery.tcp):
                found = await way(query("test.bl.test"), where, port=port, timeout=10)
                assert shown(found) == ("NOERROR", ["127.0.0.2"])
    finally:
        await listener.stop()


def test_a_comma_too_many_does_not_listen_everywhere() -> None:
    for host in ("127.0.0.1,", ",", " "):
        with pytest.raises(ServeError, match="no address for the host ''"):
            bind(host, 0, "X")
