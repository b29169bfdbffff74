"""A configuration read anew while zones go out over the dns gateway's port: what changes, what does not and is told."""

from __future__ import annotations

import base64
import signal
import socket
from typing import TYPE_CHECKING

import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.tsigkeyring
import pytest

from tests.e2e.processes import until
from tests.e2e.resolvers import BLOCKED, SECRET, ZONE, Feeding, rcode
from tests.e2e.test_zones_together import figure
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OLD = dns.tsigkeyring.from_text({"resolver": SECRET})
OTHER = base64.b64encode(b"another secret, of 32 bytes, too").decode()
NEW = dns.tsigkeyring.from_text({"resolver": OTHER})
LATER = "later.rpz.example"
# More than the buffers of both ends hold, so that a transfer that nobody reads is under way.
NAMES = [f"http://*.{'x' * 60}.{'y' * 50}{at}.example" for at in range(40_000)]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


class Gateway(Feeding):
    """A node with a zone and a dns gateway, which answers about it if it is told to."""

    def __init__(self, directory: Path, redis: RedisServer, *, joined: bool) -> None:
        self.dns_port = free_port()
        super().__init__(
            directory, redis, free_port(), gateways__dns__port=str(self.dns_port), gateways__dns__enabled="true",
            gateways__dns__zone="bl.example", gateways__dns__rate="0", gateways__dns__idle_seconds="600",
            feeds__rpz__request_seconds="600", feeds__rpz__idle_seconds="600",
        )  # fmt: skip
        self.process.stop()
        self.change(lambda text: text.replace("enabled = true", f"enabled = true\non_dns_gateway = {joined}".lower()))
        self.process.start(ready=False)

    def change(self, edit: Callable[[str], str]) -> None:
        file = self.directory / "blocker.toml"
        before = file.read_text("utf-8")
        assert edit(before) != before
        file.write_text(edit(before), "utf-8")

    def reload(self, edit: Callable[[str], str]) -> str:
        """What is logged until the changed configuration is used."""
        before = len(self.process.log())
        self.change(edit)
        assert self.process.process is not None
        self.process.process.send_signal(signal.SIGHUP)
        until(lambda: "configuration read anew" in self.process.log()[before:])
        return self.process.log()[before:]

    def told(self, port: int, zone: str, keyring: object, kind: str = "SOA") -> str:
        """The code of the answer about a zone, and that of its signature, if that says one."""
        asked = dns.message.make_query(zone, kind)
        if keyring is not None:
            asked.use_tsig(keyring, algorithm="hmac-sha256")
        try:
            told = dns.query.tcp(asked, "127.0.0.1", timeout=10, port=port)
        except dns.tsig.PeerError as error:
            return type(error).__name__
        except OSError:
            return ""  # it does not listen yet
        return dns.rcode.to_text(told.rcode())


@pytest.fixture
def node(tmp_path: Path, redis: RedisServer, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    running = Gateway(tmp_path, redis, joined=request.param)
    yield running
    running.process.__exit__(None, None, None)


def transfer(opened: socket.socket) -> tuple[dns.message.Message, bytes]:
    """Asks for the zone, and reads the beginning of it alone."""
    asked = dns.message.make_query(ZONE, "AXFR")
    asked.use_tsig(OLD, algorithm="hmac-sha256")
    wire = asked.to_wire()
    opened.sendall(len(wire).to_bytes(2, "big") + wire)
    return asked, opened.recv(1000)


def rest_of(opened: socket.socket, asked: dns.message.Message, data: bytes) -> int:
    """How many records there are, each message's signature checked, until the second SOA."""
    records, context = 0, None
    soas = 0
    while soas < 2:
        while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
            read = opened.recv(1 << 20)
            assert read, "cut"
            data += read
        end = 2 + int.from_bytes(data[:2], "big")
        found = dns.message.from_wire(
            data[2:end], keyring=asked.keyring, request_mac=asked.mac, xfr=True, tsig_ctx=context, multi=True,
            one_rr_per_rrset=True,
        )  # fmt: skip
        assert found.had_tsig
        context, data = found.tsig_ctx, data[end:]
        records += len(found.answer)
        soas += sum(rrset.rdtype == dns.rdatatype.SOA for rrset in found.answer)
    return records


@pytest.mark.parametrize("node", [True], indirect=True)
def test_a_transfer_goes_on_while_keys_zones_and_settings_change(node: Gateway) -> None:
    node.push(*NAMES, f"http://{BLOCKED}/")
    until(lambda: node.told(node.dns_port, ZONE, OLD) == "NOERROR", 60)
    with socket.socket() as opened, socket.socket() as idle:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for one in (opened, idle):
            one.settimeout(20)
            one.connect(("127.0.0.1", node.dns_port))
        asked, beginning = transfer(opened)
        later = f'\n[feeds.rpz.zones.later]\norigin = "{LATER}"\nkeys = ["resolver"]\naction = "nodata"\n'
        said = node.reload(
            lambda text: text.replace(SECRET, OTHER).replace("on_dns_gateway = true", "on_dns_gateway = false") + later
        )
        assert "these settings change with the next start only" in said
        assert "feeds.rpz.on_dns_gateway" in said
        # Keys change at once, for both ports, and the new zone is there as soon as it is made.
        for port in (node.dns_port, node.zone_port):
            assert node.told(port, ZONE, OLD) == "PeerBadSignature"
            assert node.told(port, ZONE, NEW) == "NOERROR"
            until(lambda: node.told(port, LATER, NEW) == "NOERROR")  # noqa: B023
        # The gateway decides as before, and what was under way ends as it began.
        whole = 'zone="police",question="axfr",sent="whole",transport="clear"'
        assert figure(node.process, "blocker_zone_transfers_total", whole) == 0, "it is under way"
        until(lambda: rcode(node.dns_port, f"{BLOCKED}.bl.example") == "NOERROR")
        assert rest_of(opened, asked, beginning) == 3 + 2 * len(NAMES) + 1
        # On both old connections the next question is one of now.
        for one in (opened, idle):
            wire = dns.message.make_query(ZONE, "SOA")
            wire.use_tsig(NEW, algorithm="hmac-sha256")
            dns.query.send_tcp(one, wire)
            told = dns.query.receive_tcp(one, keyring=wire.keyring, request_mac=wire.mac)[0]
            assert told.rcode() == dns.rcode.NOERROR
        # A zone that is no more is nobody's, and the gateway's own answer is given again.
        said = node.reload(lambda text: text.replace(later, ""))
        assert node.told(node.zone_port, LATER, NEW, "AXFR") == "NOTAUTH"
        assert node.told(node.dns_port, LATER, None, "AXFR") == "REFUSED"
        assert node.told(node.dns_port, LATER, None, "SOA") == "REFUSED"
        assert node.told(node.dns_port, ZONE, NEW) == "NOERROR"
    assert not [name for name in (BLOCKED, SECRET, OTHER, "yyy") if name in node.process.log()]


@pytest.mark.parametrize("node", [True], indirect=True)
def test_a_key_that_cannot_be_used_changes_no_zone(node: Gateway) -> None:
    node.names("http://first.example/")
    until(lambda: node.told(node.dns_port, ZONE, OLD) == "NOERROR")
    before = len(node.process.log())
    assert node.process.process is not None
    node.change(lambda text: text.replace(SECRET, "c2hvcnQ=").replace(ZONE, LATER))
    node.process.process.send_signal(signal.SIGHUP)
    until(lambda: "feeds.rpz.keys.resolver" in node.process.log()[before:])
    assert "c2hvcnQ" not in node.process.log()
    for port in (node.dns_port, node.zone_port):
        assert node.told(port, ZONE, OLD) == "NOERROR"
    node.reload(lambda text: text.replace("c2hvcnQ=", OTHER).replace(LATER, ZONE))
    assert node.told(node.dns_port, ZONE, NEW) == "NOERROR"


@pytest.mark.parametrize("node", [False], indirect=True)
def test_what_is_off_at_the_start_stays_off_and_is_told(node: Gateway) -> None:
    node.names("http://first.example/")
    until(lambda: node.told(node.zone_port, ZONE, OLD) == "NOERROR")
    assert node.told(node.dns_port, ZONE, None, "AXFR") == "REFUSED"
    said = node.reload(lambda text: text.replace("on_dns_gateway = false", "on_dns_gateway = true"))
    assert "feeds.rpz.on_dns_gateway" in said
    assert node.told(node.dns_port, ZONE, None, "AXFR") == "REFUSED"
    node.process.stop()
    node.process.start(ready=False)
    until(lambda: node.told(node.dns_port, ZONE, OLD) == "NOERROR")
