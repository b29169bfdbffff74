"""Names that are not anybody's to ask others about, services of inspected hosts, and several addresses to listen on."""

from __future__ import annotations

import dns.asyncquery
import pytest

from blocker.errors import ServeError
from blocker.gateways.dns import DnsListener
from blocker.sections import DnsSettings
from blocker.sockets import bind
from tests.gateways.dns_desk import errors, query, shown
from tests.gateways.dns_running import ask, running
from tests.gateways.dns_upstream import address, upstream
from tests.gateways.test_http_codec import Desk

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
