"""The dns gateway of a real node before a real Unbound, asked with dig and kdig as customers' machines would."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import NodeProcess, program, spawn, until
from tests.gateways.test_dns import certified
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ZONE = "bl.provider.test"
UNBOUND = """
server:
  interface: 127.0.0.1@{port}
  access-control: 127.0.0.0/8 allow
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "{directory}"
  pidfile: ""
  use-syslog: no
  module-config: "iterator"
  local-zone: "test." nodefault
  local-zone: "invalid." static
auth-zone:
  name: "customers.test"
  zonefile: "{directory}/zone"
  for-upstream: no
  for-downstream: yes
  fallback-enabled: no
"""
SIGNED = "A 13 3 300 20990101000000 20200101000000 1 customers.test. c2lnbmF0dXJl"
RECORDS = f"""
$ORIGIN customers.test.
@ 300 SOA ns hostmaster 1 3600 600 86400 60
@ 300 NS ns
ns 300 A 192.0.2.53
good 300 A 192.0.2.10
good 300 RRSIG {SIGNED}
bad 300 A 192.0.2.66
alias 300 CNAME deep.bad
deep.bad 300 A 192.0.2.66
pages 300 A 192.0.2.67
odd 300 TYPE65280 \\# 3 010203
"""


class Resolver:
    """A node with its Unbound, and customers."""

    def __init__(self, directory: Path, redis: RedisServer, *, workers: int = 0, patience: float = 8) -> None:
        self.directory, self.hour = directory, time.time() // 3600
        (directory / "lists").mkdir()
        self.port, self.tls_port, unbound = free_port(), free_port(), free_port()
        long = " ".join(f'"{at}{"x" * 240}"' for at in range(8))
        (directory / "zone").write_text(f"{RECORDS}long 300 TXT {long}\n", "utf-8")
        (directory / "unbound.conf").write_text(UNBOUND.format(port=unbound, directory=directory), "utf-8")
        self.certificate, key = certified(directory)
        self.unbound = spawn(["unbound", "-c", "unbound.conf"], cwd=directory, stderr=subprocess.DEVNULL)
        self.node = NodeProcess(
            directory, redis_url=redis.url, deployment=f"t{secrets.token_hex(8)}", log_level="debug",
            gateways__workers=str(workers), gateways__dns__port=str(self.port), gateways__dns__zone=ZONE,
            gateways__dns__tls_port=str(self.tls_port), gateways__dns__tls_certificate=str(self.certificate),
            gateways__dns__tls_key=str(key), gateways__dns__tls_name="resolver.example",
            gateways__dns__upstreams=json.dumps([f"127.0.0.1:{unbound}"]),
            gateways__dns__upstream_seconds=str(patience), gateways__dns__rate="0",
            gateways__dns__link="https://provider.example/why",
            gateways__dns__reasons='{"police": {"error": "censored"}}',
            canaries='{"police": {"blocked": ["http://bad.customers.test/"]}}', canary_seconds="1",
        ).start(ready=False)  # fmt: skip
        self.push("*.bad.customers.test", "http://pages.customers.test/listed")
        until(lambda: "status: NXDOMAIN" in self.dig("bad.customers.test"))
        until(lambda: "192.0.2.10" in self.dig("good.customers.test"))

    def dig(self, *words: str, port: int = 0) -> str:
        """What dig says; without an answer, nothing."""
        command = ["dig", "@127.0.0.1", "-p", str(port or self.port), "+tries=1", "+timeout=20", "+nocookie", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def kdig(self, *words: str, port: int = 0) -> str:
        """What kdig says."""
        command = ["kdig", "@127.0.0.1", "-p", str(port or self.port), "+retry=0", "+timeout=20", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def command(self, *words: str) -> dict[str, object]:
        """Run a command of the project."""
        done = subprocess.run(
            [*program(), *words, "--json"],
            env=self.node.environment, cwd=self.directory, capture_output=True, check=True,
        )  # fmt: skip
        told: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return told

    def push(self, *lines: str) -> None:
        """Make these lines the list."""
        (self.directory / "list.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        assert self.command("lists", "push", "police", "list.txt", "--publish")["status"] == "published"

    def metric(self, line: str) -> str | None:
        """A metric's value."""
        found = re.search(rf"^{re.escape(line)} (\S+)$", self.node.get("/metrics")[1].decode(), re.MULTILINE)
        return found[1] if found else None

    def close(self) -> None:
        """End everything."""
        if self.node.process is not None and self.node.process.poll() is None:
            self.node.kill()
        self.unbound.terminate()
        self.unbound.wait(30)


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> Iterator[Resolver]:
    with contextlib.closing(Resolver(tmp_path_factory.mktemp("resolver"), redis)) as made:
        yield made


def answers(said: str) -> Sequence[str]:
    """Lines of dig's answer section."""
    section = said.partition(";; ANSWER SECTION:\n")[2].partition("\n\n")[0]
    return [" ".join(line.split()) for line in section.splitlines()]


def test_dig_gets_what_unbound_says(resolver: Resolver) -> None:
    said = resolver.dig("GOOD.customers.test", "+dnssec")
    assert [line.split(" ", 4)[3] for line in answers(said)] == ["A", "RRSIG"]
    assert "; EDNS: version: 0, flags: do; udp: 1232" in said
    assert "GOOD.customers.test." in said
    assert ";; Warning" not in said
    assert len(answers(resolver.dig("good.customers.test", "+noedns"))) == 1
    assert "TYPE65280 \\# 3 010203" in answers(resolver.dig("odd.customers.test", "TYPE65280"))[0]
    assert "status: NXDOMAIN" in (none := resolver.dig("none.customers.test"))
    assert "SOA" in none
    long = resolver.dig("long.customers.test", "TXT")
    assert ";; Truncated, retrying in TCP mode." in long
    assert len(answers(long)) == 1


def test_dig_gets_what_the_list_says(resolver: Resolver) -> None:
    for words in ((), ("+tcp",), ("AAAA",), ("HTTPS",), ("NS",)):
        said = resolver.dig("Bad.customers.test", *words)
        assert "status: NXDOMAIN" in said
        assert "; EDE: 16 (Censored)" in said
        assert "AUTHORITY: 1" in said
    alias = resolver.dig("alias.customers.test")
    assert ("status: NXDOMAIN" in alias, "; EDE: 16 (Censored)" in alias) == (True, True), "it leads over a listed name"
    assert "192.0.2.67" in resolver.dig("pages.customers.test"), "one page is not the host"
    for name, address in (("bad.customers.test", 2), ("www.bad.customers.test", 2), ("pages.customers.test", 3)):
        assert answers(resolver.dig(f"{name}.{ZONE}"))[0].endswith(f" 30 IN A 127.0.0.{address}")
    said = resolver.dig(f"bad.customers.test.{ZONE}", "TXT")
    assert '"Blocked by list police; see https://provider.example/why"' in answers(said)[0]
    assert "status: NXDOMAIN" in resolver.dig(f"good.customers.test.{ZONE}")


def test_a_client_that_knows_an_address_alone_finds_the_way_over_tls(resolver: Resolver) -> None:
    (line,) = answers(resolver.dig("_dns.resolver.arpa", "SVCB"))
    found = re.fullmatch(r'_dns\.resolver\.arpa\. 30 IN SVCB 1 (\S+)\. alpn="dot" port=(\d+)', line)
    assert found, line
    over_tls = (f"+tls-ca={resolver.certificate}", f"+tls-hostname={found[1]}")
    assert "EDE: 16 (Censored)" in resolver.kdig("bad.customers.test", "+edns", *over_tls, port=int(found[2]))


def test_kdig_over_udp_tcp_and_tls(resolver: Resolver) -> None:
    over_tls = (f"+tls-ca={resolver.certificate}", "+tls-hostname=resolver.example")
    for words, port in (((), 0), (("+tcp",), 0), (over_tls, resolver.tls_port)):
        said = resolver.kdig("good.customers.test", *words, port=port)
        assert "192.0.2.10" in said, said
        said = resolver.kdig("bad.customers.test", "+edns", *words, port=port)
        assert "NXDOMAIN" in said
        assert "EDE: 16 (Censored)" in said
    said = resolver.kdig("good.customers.test", "bad.customers.test", "pages.customers.test", "+tcp", "+keepopen")
    assert said.count("status: NOERROR") == 2


def test_what_nobody_may_ask(resolver: Resolver) -> None:
    assert "; Transfer failed." in resolver.dig(ZONE, "AXFR")
    assert "status: BADVERS" in resolver.dig("good.customers.test", "+edns=7", "+noednsneg")
    assert "status: NOTIMP" in resolver.dig("good.customers.test", "+opcode=notify")
    assert "status: REFUSED" in resolver.dig("version.bind", "CH", "TXT")
    assert "status: REFUSED" in resolver.dig("good.customers.test", "+norecurse")
    assert answers(resolver.dig("good.customers.test", "ANY", "+notcp"))[0].endswith(' HINFO "RFC8482" ""')


def test_a_list_changes_and_changes_back_without_a_restart(resolver: Resolver) -> None:
    before = resolver.node.pid
    assert "192.0.2.10" in resolver.dig("good.customers.test")
    resolver.push("*.bad.customers.test", "http://pages.customers.test/listed", "http://good.customers.test/")
    until(lambda: "status: NXDOMAIN" in resolver.dig("good.customers.test"))
    resolver.command("lists", "rollback", "police", "1", "--reason", "appeal")
    until(lambda: "192.0.2.10" in resolver.dig("good.customers.test"))
    assert "status: NXDOMAIN" in resolver.dig("bad.customers.test")
    assert resolver.node.pid == before


def test_settings_change_at_sighup(resolver: Resolver) -> None:
    changed = resolver.directory / "blocker.toml"
    changed.write_text('[gateways.dns]\nblocked = "nodata"\nttl = 47\n', "utf-8")
    os.kill(resolver.node.pid, signal.SIGHUP)
    until(lambda: "status: NOERROR" in resolver.dig("bad.customers.test"))
    said = resolver.dig("bad.customers.test")
    assert "; EDE: 16 (Censored)" in said
    assert re.search(r"\s47\s+IN\s+SOA", said)
    changed.unlink()
    os.kill(resolver.node.pid, signal.SIGHUP)
    until(lambda: "status: NXDOMAIN" in resolver.dig("bad.customers.test"))


def test_it_is_watched_and_counted_like_every_gateway(resolver: Resolver) -> None:
    until(lambda: resolver.metric('blocker_canary_ok{list="police",gateway="dns"}') == "1.0")
    before = float(resolver.metric('blocker_decisions_total{gateway="dns",verdict="allow"}') or 0)
    resolver.dig("good.customers.test")
    assert float(resolver.metric('blocker_decisions_total{gateway="dns",verdict="allow"}') or 0) > before
    blocked = resolver.metric('blocker_decisions_total{gateway="dns",verdict="block"}')
    if time.time() // 3600 == resolver.hour:
        assert blocked == "0.0", "its hour is not over"


def test_nothing_of_who_asks_for_what_is_left_anywhere(tmp_path: Path, redis: RedisServer) -> None:
    mark = f"zq{secrets.token_hex(6)}"
    with contextlib.closing(Resolver(tmp_path, redis, patience=1.5)) as resolver:
        resolver.push("*.bad.customers.test", f"http://{mark}.blocked.test/")
        until(lambda: "NXDOMAIN" in resolver.dig(f"{mark}.blocked.test"))
        resolver.unbound.send_signal(signal.SIGSTOP)
        unanswered = resolver.dig(f"{mark}.unanswered.test", "+timeout=8")
        assert "EDE: 23 (Network Error)" in unanswered
        resolver.unbound.send_signal(signal.SIGCONT)
        for name in (f"{mark}.customers.test", f"{mark}.blocked.test", f"{mark}.{ZONE}", f"a\\@{mark}.test"):
            for words in ((), ("+tcp",), ("+subnet=203.0.113.77/32",), ("+cookie=6d61726b6d61726b",), ("+edns=3",)):
                assert resolver.dig(name, *words)
        subprocess.run(["bash", "-c", f"printf {mark}{mark}{mark} > /dev/udp/127.0.0.1/{resolver.port}"], check=True)
        metrics = resolver.node.get("/metrics")[1]
        assert resolver.node.stop() == 0
        found = [metrics, resolver.node.log().encode(), redis.command("KEYS", "*")]
        found += [path.read_bytes() for path in (tmp_path / "var").rglob("*") if path.is_file()]
        for secret in (mark, "203.0.113.77", "6d61726b6d61726b", "markmark"):
            assert not any(secret.encode() in data for data in found), secret
        assert b"Traceback" not in found[1]
    redis.command("SAVE")
    assert not any(mark.encode() in path.read_bytes() for path in redis.directory.rglob("*") if path.is_file())


def test_workers_serve_it_too_and_one_that_is_killed_is_replaced(tmp_path: Path, redis: RedisServer) -> None:
    with contextlib.closing(Resolver(tmp_path, redis, workers=2)) as resolver:
        # One that has not got the list yet may answer some of the first.
        until(lambda: all("192.0.2.10" in resolver.dig("good.customers.test") for _ in range(20)))
        until(lambda: all("NXDOMAIN" in resolver.dig("bad.customers.test", "+tcp") for _ in range(20)))
        found = subprocess.run(
            ["pgrep", "-P", str(resolver.node.pid), "-f", "blocker.cli.worker"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        pids = found.stdout.split()
        assert len(pids) == 2
        subprocess.run(["kill", "-KILL", pids[0]], check=True)
        until(lambda: all("192.0.2.10" in resolver.dig("good.customers.test", "+timeout=1") for _ in range(20)))
        assert resolver.node.stop() == 0
