"""Zones where others are too: on the dns gateway's own port, and on two primaries of a secondary, which are killed."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.tsigkeyring
import dns.xfr
import dns.zone
import pytest

from tests.e2e.processes import NodeProcess, until
from tests.e2e.resolvers import BLOCKED, SECRET, ZONE, Feeding, answer, asked_of, end, rcode, spawn_logged
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

KEYRING = dns.tsigkeyring.from_text({"resolver": SECRET})


class Secondary:
    """A BIND that takes the zone from any of its primaries, and lets itself be looked at."""

    def __init__(self, directory: Path, port: int, primaries: Sequence[int]) -> None:
        self.port = port
        directory.mkdir()
        asked = " ".join(f'127.0.0.1 port {one} key "resolver";' for one in primaries)
        (directory / "named.conf").write_text(
            f'key "resolver" {{ algorithm hmac-sha256; secret "{SECRET}"; }};\n'
            f'options {{ directory "{directory}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};'
            f' recursion no; pid-file "{directory}/pid"; session-keyfile "{directory}/session"; }};\ncontrols {{ }};\n'
            f'zone "{ZONE}" {{ type secondary; file "zone"; masterfile-format text; primaries {{ {asked} }};'
            ' allow-notify { key "resolver"; }; allow-transfer { localhost; };'
            " min-refresh-time 1; max-refresh-time 1; min-retry-time 1; max-retry-time 1; };\n",
            "utf-8",
        )
        self.process = spawn_logged(["named", "-g", "-c", "named.conf", "-n", "1"], directory)

    def serial(self) -> int:
        return serial_at(self.port, signed=False)

    def close(self) -> None:
        end(self.process)


def serial_at(port: int, *, signed: bool = True) -> int:
    """The serial that is served; 0: none, or nobody is there."""
    asked = dns.message.make_query(ZONE, "SOA")
    if signed:
        asked.use_tsig(KEYRING)
    try:
        told = asked_of(port, asked)
    except (OSError, dns.exception.DNSException):
        return 0
    return int(told.answer[0][0].serial) if told.answer else 0


def zone_at(port: int, *, signed: bool = True) -> tuple[int, set[str]]:
    """Serial and names of the zone, as a transfer has them."""
    found = dns.zone.Zone(ZONE)
    asked = dns.message.make_query(ZONE, "AXFR")
    if signed:
        asked.use_tsig(KEYRING)
    dns.query.inbound_xfr("127.0.0.1", found, asked, port=port, timeout=30)
    soa = found.get_rdataset("@", "SOA")
    assert soa is not None
    return soa[0].serial, {str(name) for name in found.nodes}


def figure(process: NodeProcess, name: str, labels: str) -> float:
    """A value of /metrics."""
    wanted = set(labels.split(","))
    for line in process.get("/metrics")[1].decode().splitlines():
        found = re.fullmatch(rf"{name}\{{(.*)\}} (\S+)", line)
        if found and set(found[1].split(",")) == wanted:
            return float(found[2])
    return 0.0


def sent(process: NodeProcess) -> float:
    """Bytes of transfers of a node, under way ones counted."""
    kinds = ("axfr", "ixfr")
    name = "blocker_zone_transfer_bytes_total"
    return sum(figure(process, name, f'zone="police",question="{kind}"') for kind in kinds)


@pytest.fixture
def gateway(tmp_path: Path, redis: RedisServer) -> Iterator[tuple[Feeding, int]]:
    port = free_port()
    (tmp_path / "node").mkdir()
    node = Feeding(
        tmp_path / "node", redis, free_port(), feeds__rpz__on_dns_gateway="true",
        gateways__dns__enabled="true", gateways__dns__port=str(port), gateways__dns__zone="bl.example",
        gateways__dns__upstreams='["127.0.0.1:1"]', gateways__dns__rate="0",
        gateways__dns__networks='["192.0.2.0/24"]',
    )  # fmt: skip
    node.names("http://first.example/")
    yield node, port
    node.process.stop()


def test_the_dns_gateway_answers_about_zones_to_who_may_have_them(gateway: tuple[Feeding, int], tmp_path: Path) -> None:
    node, port = gateway
    until(lambda: rcode(port, BLOCKED) == "NXDOMAIN")
    command = ["dig", "@127.0.0.1", "-p", str(port), "+time=5", "+tries=1", "+noall", "+answer", "+comments", ZONE]
    signed = ["-y", f"hmac-sha256:resolver:{SECRET}"]

    def dig(*words: str) -> str:
        return subprocess.run([*command, *words], capture_output=True, text=True, check=False).stdout

    until(lambda: "status: NOERROR" in dig("SOA", *signed))
    assert "\tSOA\t" in dig("SOA", *signed, "+tcp")
    assert "status: REFUSED" in dig("SOA")
    assert "Transfer failed" in dig("AXFR")
    assert zone_at(port) == zone_at(node.zone_port)
    # Everything else is as before.
    assert answer(port, f"{BLOCKED}.bl.example") == ("NOERROR", ["127.0.0.2"])
    assert rcode(port, BLOCKED) == "NXDOMAIN"
    asked = dns.message.make_query("elsewhere.test", "AXFR")
    assert dns.query.tcp(asked, "127.0.0.1", timeout=5, port=port).rcode() == dns.rcode.REFUSED
    told = dns.query.tcp(dns.message.make_query(BLOCKED, "A"), "127.0.0.1", timeout=5, port=port)
    assert told.rcode() == dns.rcode.NXDOMAIN

    # A connection whose first message comes byte by byte; then one that says nothing of a zone.
    for name, expected in ((ZONE, dns.rcode.REFUSED), (BLOCKED, dns.rcode.NXDOMAIN)):
        wire = dns.message.make_query(name, "SOA" if name == ZONE else "A").to_wire()
        with socket.create_connection(("127.0.0.1", port), timeout=10) as opened:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in len(wire).to_bytes(2, "big") + wire:
                opened.sendall(bytes([byte]))
            assert dns.query.receive_tcp(opened)[0].rcode() == expected

    # What is no name, or no message, is not waited for.
    for length, rest in ((18, b"\0\7\0\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1"), (0, b""), (11, bytes(11))):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as opened:
            opened.sendall(length.to_bytes(2, "big") + rest)
            assert opened.recv(100)[5:6] == (b"\x01" if length == 18 else b""), "FORMERR, or the end"

    secondary = Secondary(tmp_path / "bind", free_port(), [port])
    try:
        until(lambda: secondary.serial() != 0)
        node.names("http://second.example/")
        until(lambda: "second.example" in zone_at(secondary.port, signed=False)[1])
        assert zone_at(secondary.port, signed=False) == zone_at(node.zone_port)
    finally:
        secondary.close()
    differences = 'zone="police",question="ixfr",sent="difference",transport="clear"'
    assert figure(node.process, "blocker_zone_transfers_total", differences) >= 1
    log = node.process.log()
    assert not [name for name in (BLOCKED, "first.example", "filler7") if name in log]


def test_a_secondary_of_two_primaries_has_a_right_zone_whichever_is_killed(tmp_path: Path, redis: RedisServer) -> None:
    port = free_port()
    (tmp_path / "one").mkdir()
    one = Feeding(tmp_path / "one", redis, port)
    text = (one.directory / "blocker.toml").read_text("utf-8")
    text = text.replace(f'origin = "{ZONE}"', f'origin = "{ZONE}"\nrefresh = 1\nretry = 1')
    (one.directory / "blocker.toml").write_text(text, "utf-8")
    one.process.stop()
    one.process.start(ready=False)
    filler = [f"http://filler{at}.{'x' * 50}.example/" for at in range(2000)]
    one.push(*filler, "http://turn0.example/")
    other_port = free_port()
    second = tmp_path / "two"
    (second / "lists").mkdir(parents=True)
    (second / "blocker.toml").write_text(text.replace(f"port = {one.zone_port}", f"port = {other_port}", 1), "utf-8")
    shutil.copytree(one.directory / "var" / "keys", second / "var" / "keys")
    other = NodeProcess(
        second, redis_url=redis.url, deployment=one.deployment, gateways__check__port=str(free_port())
    ).start()
    nodes = {one.zone_port: one.process, other_port: other}
    secondary = Secondary(tmp_path / "bind", port, list(nodes))
    served: dict[int, set[str]] = {}

    def look(at: int, *, signed: bool = True) -> set[str]:
        """The names at a port; one serial has one content, whoever serves it."""
        serial, names = zone_at(at, signed=signed)
        assert served.setdefault(serial, names) == names
        return names

    def agree(*ports: int, after: int = 0) -> int:
        """Wait until the secondary and these primaries have the same later version, and compare it; its serial."""
        until(lambda: len(found := {secondary.serial(), *map(serial_at, ports)}) == 1 and min(found) > after, 150)
        names = look(port, signed=False)
        assert all(look(at) == names for at in ports)
        return serial_at(ports[0])

    try:
        serial = agree(*nodes)
        for turn in (1, 2):
            victim_port, victim = list(nodes.items())[turn % 2]
            (survivor_port,) = nodes.keys() - {victim_port}
            before = sent(victim)
            # Every other time some of the zone changes, so that a transfer takes its time.
            one.push(*(filler[len(filler) // 20 :] if turn % 2 else filler), f"http://turn{turn}.example/")
            with contextlib.suppress(AssertionError):  # the other one was asked
                until(lambda: sent(victim) > before, 1)  # noqa: B023
            victim.kill()
            serial = agree(survivor_port, after=serial)
            assert f"turn{turn}.example" in served[serial]
            victim.start()
            assert agree(*nodes, after=serial - 1) == serial, "what was killed goes on with what there is"
    finally:
        secondary.close()
        for process in nodes.values():
            process.__exit__(None, None, None)


def names_at(port: int) -> set[str]:
    """The names that a secondary has; none while it has no zone."""
    try:
        return zone_at(port, signed=False)[1]
    except (OSError, EOFError, dns.exception.DNSException):  # one that starts does not listen yet
        return set()


def test_a_secondary_takes_names_at_the_limit(tmp_path: Path, redis: RedisServer) -> None:
    # Of 255 bytes the zone's name takes 20; the exceptions lie below a wildcard, with room for one below them or not.
    hosts = [".".join([letter * rest, *["m" * 50] * 4, "wide.example"]) for letter, rest in (("a", 15), ("b", 17))]
    assert [len(host) for host in hosts] == [232, 234]
    port = free_port()
    (tmp_path / "node").mkdir()
    node = Feeding(tmp_path / "node", redis, port)
    secondary = Secondary(tmp_path / "bind", port, [node.zone_port])
    try:
        node.names("http://*.wide.example")
        until(lambda: "wide.example" in names_at(port))
        node.push_list("pardon", [f"http://{host}/" for host in hosts], "--action", "allow")
        until(lambda: {*hosts} <= names_at(port))
        node.names("http://*.wide.example", "http://later.example/")
        until(lambda: "later.example" in names_at(port))
        assert zone_at(port, signed=False) == zone_at(node.zone_port)
        assert f"*.{hosts[0]}" in names_at(port)
    finally:
        secondary.close()
        node.process.stop()
