"""Zone transfers over TLS: real resolvers through a relay that sees what a network does, and clients with less."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING

import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.tsigkeyring
import pytest

from tests.certificates import NAME, Authority
from tests.e2e.processes import program, until
from tests.e2e.relay import Relay
from tests.e2e.resolvers import BLOCKED, INSPECT, SECRET, ZONE, Bind, Feeding, Origin, Resolver, Unbound, rcode
from tests.e2e.test_zones_together import figure
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

KEYRING = dns.tsigkeyring.from_text({"resolver": SECRET})
# An address of this machine that nothing else uses: whoever asks from it leaves it nowhere.
CLIENT = "127.83.91.9"
# Labels of names that are listed, as they are on the wire.
LISTED = [b"listed", b"first", b"second", b"filler7", b"page"]


@pytest.fixture
def node(tmp_path: Path, redis: RedisServer, request: pytest.FixtureRequest) -> Iterator[Feeding]:
    """A node that is told this of TLS, and not to tell anybody of versions: its secondaries look by themselves."""
    (tmp_path / "node").mkdir()
    running = Feeding(
        tmp_path / "node", redis, free_port(), signed=request.param != Unbound.tls, tls=request.param, notify=False,
        zone="refresh = 1\n            retry = 1",
    )  # fmt: skip
    running.names("http://first.example/", "http://page.example/listed/")
    until(lambda: figure(running.process, "blocker_zone_serial", 'zone="police"') > 0)
    yield running
    running.process.__exit__(None, None, None)


def failed(node: Feeding, reason: str) -> float:
    return figure(node.process, "blocker_zone_failures_total", f'zone="police",reason="{reason}"')


def transferred(node: Feeding, transport: str, sent: str = "whole") -> float:
    question = "ixfr" if sent == "difference" else "axfr"
    labels = f'zone="police",question="{question}",sent="{sent}",transport="{transport}"'
    return figure(node.process, "blocker_zone_transfers_total", labels)


def dig(port: int, zone: str, *words: str) -> str:
    command = ["dig", "@127.0.0.1", "-p", str(port), "-b", CLIENT, "-y", f"hmac-sha256:resolver:{SECRET}", "+time=5",
               "+tries=1", zone, *words]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


class QuickBind(Bind):
    """BIND that looks each second."""

    def changes(self, node: Feeding, origin: Origin) -> Iterable[tuple[str, str]]:
        times = (("min-refresh-time 60", "min-refresh-time 1"), ("min-retry-time 30", "min-retry-time 1"))
        return (*times, *super().changes(node, origin))


class BindWithoutCertificate(QuickBind):
    """BIND that shows nothing of its own."""

    def changes(self, node: Feeding, origin: Origin) -> Iterable[tuple[str, str]]:
        shown = (("    cert-file", "    // cert-file"), ("    key-file", "    // key-file"))
        return (*super().changes(node, origin), *shown)


class BindOfAnotherName(QuickBind):
    """BIND that looks for somebody else, whom the same authority might have signed."""

    def changes(self, node: Feeding, origin: Origin) -> Iterable[tuple[str, str]]:
        return (*super().changes(node, origin), (f'remote-hostname "{NAME}"', 'remote-hostname "other.isp.example"'))


class UnboundOfAnotherName(Unbound):
    """Unbound that looks for somebody else, too."""

    def changes(self, node: Feeding, origin: Origin) -> Iterable[tuple[str, str]]:
        return (*super().changes(node, origin), (f"#{NAME}", "#other.isp.example"))


@pytest.mark.parametrize(("node", "kind"), [(Bind.tls, QuickBind), (Unbound.tls, Unbound)], indirect=["node"])
def test_who_reads_the_network_between_sees_no_listed_name(
    node: Feeding, kind: type[Resolver], origin: Origin, tmp_path: Path
) -> None:
    with Relay(node.tls_port) as relay, Relay(node.zone_port) as clear:
        node.tls_port = relay.port
        resolver = kind(tmp_path / "resolver", node, free_port(), origin)
        port = resolver.port
        try:
            resolver.until(lambda: rcode(port, "first.example") == "NXDOMAIN")
            node.names("http://second.example/")
            resolver.until(lambda: rcode(port, "second.example") == "NXDOMAIN")
            resolver.until(lambda: rcode(port, "first.example") == "NOERROR")
            node.roll_back()
            resolver.until(lambda: rcode(port, "second.example") == "NOERROR")
            resolver.until(lambda: rcode(port, "first.example") == "NXDOMAIN")
            assert rcode(port, BLOCKED) == "NXDOMAIN"
        finally:
            resolver.close()
        assert transferred(node, "tls") == 1
        assert transferred(node, "tls", "difference") >= 2
        assert len(relay.stream) > 5000
        assert not [name for name in LISTED if name in relay.stream]
        # Unbound looks for the serial by UDP, BIND asks over TLS at once.
        asked = {dns.message.from_wire(one, keyring=False).question[0].rdtype for one in relay.datagrams}
        assert asked == (set() if kind is QuickBind else {dns.rdatatype.SOA})
        # What may go in clear text can be read there, and what may not does not come.
        assert "page.example" in dig(clear.port, INSPECT, "AXFR")
        assert b"page" in clear.stream
        assert "Transfer failed" in dig(clear.port, ZONE, "AXFR")
        assert b"listed" not in clear.stream
    assert transferred(node, "clear") == 0
    assert failed(node, "clear") == 1
    log = node.process.log()
    assert not [name for name in (*map(bytes.decode, LISTED), CLIENT, "resolver.isp") if f"{name}." in log]


@pytest.mark.parametrize(
    ("node", "kind"),
    [(Bind.tls, BindWithoutCertificate), (Bind.tls, BindOfAnotherName), (Unbound.tls, UnboundOfAnotherName)],
    indirect=["node"],
)
def test_without_the_right_certificate_at_both_ends_nothing_is_transferred(
    node: Feeding, kind: type[Resolver], origin: Origin, tmp_path: Path
) -> None:
    with Relay(node.tls_port) as relay:
        node.tls_port = relay.port
        resolver = kind(tmp_path / "resolver", node, free_port(), origin)
        try:
            resolver.until(lambda: failed(node, "handshake") >= 1)
            resolver.until(lambda: rcode(resolver.port, "first.example") == "NOERROR")
        finally:
            resolver.close()
        assert transferred(node, "tls") == transferred(node, "clear") == 0
        assert not [name for name in LISTED if name in relay.stream]


@pytest.mark.parametrize("node", [""], indirect=True)
def test_kdig_takes_it_and_what_is_less_than_dns_over_tls_1_3_gets_nothing(node: Feeding, tmp_path: Path) -> None:
    trusted = ["+tls", f"+tls-ca={node.authority.certificate}", f"+tls-hostname={NAME}"]
    command = ["kdig", "@127.0.0.1", "-p", str(node.tls_port), "-b", CLIENT]
    key = f"hmac-sha256:resolver:{SECRET}"

    def kdig(*words: str) -> str:
        return subprocess.run([*command, "-y", key, *words], capture_output=True, text=True, check=False).stdout

    names = {f"filler{at}.example" for at in range(200)} | {BLOCKED, f"*.{BLOCKED}", "first.example"}
    whole = kdig(*trusted, ZONE, "AXFR")
    assert {line.split()[0].removesuffix(f".{ZONE}.") for line in whole.splitlines() if "\tCNAME\t" in line} == names
    serial = kdig(*trusted, ZONE, "SOA", "+short").split()[2]
    node.names("http://second.example/")
    until(lambda: kdig(*trusted, ZONE, "SOA", "+short").split()[2] > serial)
    assert kdig(*trusted, ZONE, f"IXFR={serial}").count("\tSOA\t") == 4
    stranger = Authority(tmp_path / "stranger")
    for which, wrong in ((1, f"+tls-ca={stranger.certificate}"), (2, "+tls-hostname=other.isp.example")):
        assert "CNAME" not in kdig(*trusted[:which], wrong, *trusted[which + 1 :], ZONE, "AXFR")
    assert "CNAME" not in kdig("+tcp", ZONE, "AXFR")
    before = failed(node, "handshake")
    for words in (["-tls1_2", "-alpn", "dot"], ["-alpn", "h2"], []):
        told = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{node.tls_port}", "-quiet", *words],
            input=query("AXFR"), capture_output=True, timeout=20, check=False,
        ).stdout  # fmt: skip
        assert told == b""
    until(lambda: failed(node, "handshake") == before + 3)
    log = node.process.log()
    assert not [one for one in (CLIENT, BLOCKED, "first.example", "filler7", "stranger") if one in log]


def query(kind: str, zone: str = ZONE) -> bytes:
    """A signed request as it is on a connection."""
    asked = dns.message.make_query(zone, kind)
    asked.use_tsig(KEYRING)
    wire = asked.to_wire()
    return len(wire).to_bytes(2, "big") + wire


def shows(node: Feeding, authority: Authority) -> bool:
    """Whether a new connection is shown a certificate of this authority."""
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.set_alpn_protocols(["dot"])
    asked = dns.message.make_query(ZONE, "SOA")
    asked.use_tsig(KEYRING)
    try:
        told = dns.query.tls(
            asked, "127.0.0.1", port=node.tls_port, ssl_context=context, server_hostname=NAME, timeout=10
        )
    except ssl.SSLCertVerificationError:
        return False
    return told.rcode() == dns.rcode.NOERROR


def reload(node: Feeding, text: str, until_told: str = "configuration read anew") -> str:
    """What is logged of another configuration."""
    before = len(node.process.log())
    (node.directory / "blocker.toml").write_text(text, "utf-8")
    assert node.process.process is not None
    node.process.process.send_signal(signal.SIGHUP)
    until(lambda: until_told in node.process.log()[before:])
    return node.process.log()[before:]


@pytest.mark.parametrize("node", [None], indirect=True)
def test_where_tls_comes_with_the_next_start_zones_go_as_before_until_then(node: Feeding) -> None:
    shown, right = node.authority.sign(), (node.directory / "blocker.toml").read_text("utf-8")
    tls = f'tls_port = {node.tls_port}\ntls_certificate = "{shown.certificate}"\ntls_key = "{shown.key}"\n'
    said = reload(
        node,
        right.replace("[feeds.rpz.keys", f"{tls}[feeds.rpz.keys", 1).replace(ZONE, f'{ZONE}"\ntls_only = true #"', 1),
    )
    assert "feeds.rpz.tls_certificate" in said
    assert "CNAME" in dig(node.zone_port, ZONE, "AXFR")
    node.process.stop()
    node.process.start(ready=False)
    until(lambda: figure(node.process, "blocker_zone_serial", 'zone="police"') > 0)

    def listens() -> bool:  # the serial is told of before the port is listened on
        with contextlib.suppress(ConnectionRefusedError):
            return shows(node, node.authority)
        return False

    until(listens)
    assert "Transfer failed" in dig(node.zone_port, ZONE, "AXFR")


@pytest.mark.parametrize("node", [""], indirect=True)
def test_a_new_certificate_is_shown_at_sighup_and_one_that_cannot_be_changes_nothing(
    node: Feeding, tmp_path: Path
) -> None:
    file, other = node.directory / "blocker.toml", Authority(tmp_path / "other")
    renewed, right = other.sign(days=3), file.read_text("utf-8")

    old = [f'"{node.authority.certificate.with_name(f"{NAME}.{end}")}"' for end in ("pem", "key")]
    assert shows(node, node.authority)
    # A renewal that is half done; nothing else of the file is used either.
    half = right.replace(old[0], f'"{renewed.certificate}"')
    said = reload(node, half.replace(ZONE, f"other.{ZONE}"), "not used")
    assert "feeds.rpz: tls_certificate and tls_key cannot be used" in said
    assert shows(node, node.authority)
    reload(node, half.replace(old[1], f'"{renewed.key}"'))
    assert shows(node, other)
    assert not shows(node, node.authority)
    assert [state for state, _ in doctor(node)["zones' certificate"]] == ["warn"], "it ends in three days"
    # Without TLS there would have to be a socket less, which waits for the next start.
    without = right.replace("tls_certificate", "# tls_certificate").replace("tls_key", "# tls_key")
    assert "feeds.rpz.tls_certificate" in reload(node, without.replace("tls_only = true", ""))
    assert shows(node, other)
    # The files are replaced, and nobody has told the node.
    file.write_text(right, "utf-8")
    assert [state for state, _ in doctor(node)["zones' certificate"]] == ["ok", "warn"]


def doctor(node: Feeding) -> dict[str, list[tuple[str, str]]]:
    done = subprocess.run(
        [*program(), "doctor", "--json"], env=node.process.environment, cwd=node.directory, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    found: dict[str, list[tuple[str, str]]] = {}
    for row in json.loads(done.stdout):
        found.setdefault(row["what"], []).append((row["state"], row["detail"]))
    return found


@pytest.mark.parametrize("node", [""], indirect=True)
def test_handshakes_that_come_to_nothing_shut_out_nobody(node: Feeding) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(100):  # more than there are places
            stack.enter_context(
                socket.create_connection(("127.0.0.1", node.tls_port), timeout=10, source_address=(CLIENT, 0))
            )
        until(lambda: failed(node, "connections") == 100 - 64 // 4)
        assert shows(node, node.authority)
    until(lambda: failed(node, "handshake") == 64 // 4)


@pytest.mark.parametrize("asked", [False, True], ids=["no certificate", "a certificate"])
def test_over_the_dns_gateway_a_zone_goes_only_as_it_would_over_its_own_port(
    redis: RedisServer, tmp_path: Path, asked: bool
) -> None:
    gateway = Authority(tmp_path / "gateway").sign(NAME)
    over_tls, clear = free_port(), free_port()
    (tmp_path / "node").mkdir()
    node = Feeding(
        tmp_path / "node", redis, free_port(), tls=Bind.tls if asked else "", notify=False,
        feeds__rpz__on_dns_gateway="true", gateways__dns__enabled="true", gateways__dns__port=str(clear),
        gateways__dns__zone="bl.example", gateways__dns__tls_port=str(over_tls), gateways__dns__rate="0",
        gateways__dns__tls_certificate=str(gateway.certificate), gateways__dns__tls_key=str(gateway.key),
    )  # fmt: skip
    try:
        node.names("http://first.example/")
        until(lambda: figure(node.process, "blocker_zone_serial", 'zone="police"') > 0)

        def code(kind: str, *, alpn: bool = True, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> dns.rcode.Rcode:
            context = ssl.create_default_context(cafile=str(tmp_path / "gateway" / "ca.pem"))
            context.maximum_version = newest
            if alpn:
                context.set_alpn_protocols(["dot"])
            with (
                socket.create_connection(("127.0.0.1", over_tls), timeout=10) as opened,
                context.wrap_socket(opened, server_hostname=NAME) as wrapped,
            ):
                wrapped.sendall(query(kind))
                with wrapped.makefile("rb") as reading:
                    length = int.from_bytes(reading.read(2), "big")
                    return dns.message.from_wire(reading.read(length), keyring=False, xfr=True).rcode()

        old = ssl.TLSVersion.TLSv1_2
        assert code("SOA") == code("SOA", alpn=False, newest=old) == dns.rcode.NOERROR
        # Its clients are asked for no certificate, so none of them is one that has shown it.
        assert code("AXFR") == (dns.rcode.REFUSED if asked else dns.rcode.NOERROR)
        assert code("AXFR", alpn=False) == code("AXFR", newest=old) == dns.rcode.REFUSED
        assert "Transfer failed" in dig(clear, ZONE, "AXFR")
        assert failed(node, "clear") == (4 if asked else 3)
        until(lambda: transferred(node, "tls") == (0 if asked else 1))
    finally:
        node.process.__exit__(None, None, None)
