"""A real dnsdist with the configurations of `deploy/dnsdist`, unchanged but for places, asked with dig."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import NodeProcess, spawn, until
from tests.e2e.test_dns import ZONE, Resolver
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEPLOY = Path(__file__).parents[2] / "deploy" / "dnsdist"
OPEN = 'addAction(AllRule(), PoolAction("unfiltered"))'
CLOSED = "addAction(AllRule(), RCodeAction(DNSRCode.SERVFAIL))"
LISTED = ("*.bad.customers.test", "http://pages.customers.test/listed")


class Dnsdist:
    """A dnsdist with a configuration in which some texts are others."""

    def __init__(self, directory: Path, name: str, changes: Mapping[str, str]) -> None:
        self.port = free_port()
        text = (DEPLOY / name).read_text("utf-8")
        for found, put in {
            "192.0.2.53:53": f"127.0.0.1:{self.port}",
            "a.root-servers.net.": "ns.customers.test.",
            **changes,
        }.items():
            assert found in text, f"{name} has no {found}"
            text = text.replace(found, put)
        (directory / name).write_text(text, "utf-8")
        self.log = directory / "dnsdist.log"
        with self.log.open("wb") as log:
            self.process = spawn(
                ["dnsdist", "--supervised", "--disable-syslog", "-C", name],
                cwd=directory, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(30)


def upstream_of(resolver: Resolver) -> str:
    """The Unbound behind."""
    return str(json.loads(resolver.node.environment["BLOCKER_GATEWAYS__DNS__UPSTREAMS"])[0])


class Balanced:
    """Two nodes of one deployment, and a dnsdist before them."""

    def __init__(self, directory: Path, redis: RedisServer, undecided: str) -> None:
        first, second = directory / "first", directory / "second"
        first.mkdir()
        self.resolver = Resolver(first, redis)
        (second / "lists").mkdir(parents=True)
        shutil.copytree(first / "var" / "keys", second / "var" / "keys")
        (second / "var").chmod(0o700)
        port = free_port()
        same = {
            name.removeprefix("BLOCKER_").lower(): value
            for name, value in self.resolver.node.environment.items()
            if name.startswith(("BLOCKER_DEPLOYMENT", "BLOCKER_REDIS_URL", "BLOCKER_GATEWAYS__DNS__"))
        }
        own = {"gateways__dns__port": str(port), "gateways__dns__tls_port": str(free_port()), "node": "second"}
        self.nodes = [self.resolver.node, NodeProcess(second, **{**same, **own}).start()]
        changes = {
            "192.0.2.11:5353": f"127.0.0.1:{self.resolver.port}", "192.0.2.12:5353": f"127.0.0.1:{port}",
            "192.0.2.153:53": upstream_of(self.resolver),
            "canary.example.bl.isp.example.": f"bad.customers.test.{ZONE}.",
            # Not a minute long: that it is well within one is looked at beside.
            "maxTTL = 30, maxNegativeTTL = 30": "maxTTL = 1, maxNegativeTTL = 1",
        }  # fmt: skip
        if undecided == "fail-closed":  # as the file says
            changes |= {f"-- {CLOSED}": CLOSED, OPEN: ""}
        self.dnsdist = Dnsdist(directory, "nodes.conf", changes)

    def dig(self, *words: str) -> str:
        """What dig says."""
        return self.resolver.dig(*words, port=self.dnsdist.port)

    def close(self) -> None:
        """End everything."""
        self.dnsdist.close()
        for node in self.nodes[1:]:
            if node.process is not None and node.process.poll() is None:
                node.kill()
        self.resolver.close()


@pytest.fixture
def balanced(tmp_path: Path, redis: RedisServer, request: pytest.FixtureRequest) -> Iterator[Balanced]:
    running = Balanced(tmp_path, redis, request.param)
    yield running
    running.close()


def resolves(said: str) -> bool:
    """Whether there is an address."""
    return "status: NOERROR" in said and "192.0.2." in said.partition("ANSWER SECTION")[2]


def blocks(said: str) -> bool:
    """Whether the name does not exist."""
    return "status: NXDOMAIN" in said


@pytest.mark.parametrize("balanced", ["fail-open", "fail-closed"], indirect=True)
def test_nodes_behind_it_take_each_others_part(balanced: Balanced, request: pytest.FixtureRequest) -> None:
    is_open = request.node.callspec.params["balanced"] == "fail-open"
    until(lambda: blocks(balanced.dig("bad.customers.test")))
    until(lambda: "EDE: 16 (Censored)" in balanced.dig("www.bad.customers.test"))
    assert blocks(balanced.dig("bad.customers.test", "+tcp"))
    assert resolves(balanced.dig("good.customers.test"))
    assert resolves(balanced.dig("pages.customers.test"))
    assert blocks(balanced.dig("none.customers.test"))
    balanced.resolver.push(*LISTED, "http://good.customers.test/")
    until(lambda: blocks(balanced.dig("good.customers.test")))
    balanced.resolver.command("lists", "rollback", "police", "1", "--reason", "appeal")
    until(lambda: resolves(balanced.dig("good.customers.test")))
    first, second = balanced.nodes
    first.kill()
    # What is under way to it is lost, for two seconds at most.
    until(lambda: all(blocks(balanced.dig(f"a{at}.bad.customers.test", "+timeout=1")) for at in range(8)))
    until(lambda: resolves(balanced.dig("good.customers.test")))  # as soon as it too has rolled back
    second.kill()
    if is_open:
        until(lambda: resolves(balanced.dig("bad.customers.test", "+timeout=1")))
    else:
        until(lambda: "status: SERVFAIL" in balanced.dig("good.customers.test", "+timeout=1"))
    second.start(ready=False)  # from its copy on disk
    until(lambda: blocks(balanced.dig("bad.customers.test", "+timeout=1")))
    until(lambda: resolves(balanced.dig("good.customers.test", "+timeout=1")))
    told = balanced.dnsdist.log.read_text("utf-8")
    assert not [name for name in ("good.customers", "www.bad") if name in told], (
        "nothing is logged of who asks for what"
    )


def test_what_a_node_said_is_not_repeated_for_a_minute() -> None:
    text = (DEPLOY / "nodes.conf").read_text("utf-8")
    kept = {name: int(value) for name, value in re.findall(r"(\w*TTL) = (\d+)", text)}
    assert {"maxTTL", "maxNegativeTTL", "temporaryFailureTTL", "staleTTL"} == kept.keys()
    assert max(kept.values()) <= 30
    assert "setStaleCacheEntriesTTL(0)" in text


class Alone:
    """A dnsdist that blocks by itself, before an Unbound."""

    def __init__(self, directory: Path, redis: RedisServer) -> None:
        self.directory = directory
        self.resolver = Resolver(directory, redis)
        (directory / "blocker.toml").write_text('[feeds.rpz.zones.police]\norigin = "police.rpz.example"\n', "utf-8")
        self.export()
        behind = upstream_of(self.resolver)
        changes = {"192.0.2.153:53": behind, "192.0.2.154:53": behind, "/var/lib/dnsdist": str(directory)}
        self.dnsdist = Dnsdist(directory, "names.conf", changes)

    def export(self) -> None:
        """Give it the list as it is now."""
        self.resolver.command("export", "rpz", "police", "--output", "zone")
        subprocess.run([DEPLOY / "zone-to-cdb", "zone", "."], cwd=self.directory, check=True)

    def dig(self, *words: str) -> str:
        """What dig says."""
        return self.resolver.dig(*words, port=self.dnsdist.port)

    def close(self) -> None:
        """End everything."""
        self.dnsdist.close()
        self.resolver.close()


@pytest.fixture
def alone(tmp_path: Path, redis: RedisServer) -> Iterator[Alone]:
    running = Alone(tmp_path, redis)
    yield running
    running.close()


def test_it_blocks_by_itself_what_the_zone_says(alone: Alone) -> None:
    until(lambda: resolves(alone.dig("good.customers.test")))
    for words in (("bad.customers.test",), ("BAD.customers.test", "AAAA"), ("a.b.bad.customers.test", "+tcp")):
        assert blocks(alone.dig(*words)), words
    assert resolves(alone.dig("pages.customers.test")), "one page is not the host"
    alone.resolver.push("*.customers.test", "http://unlisted.test/")
    (alone.directory / "pardon.txt").write_text(
        "http://*.good.customers.test\nhttp://pages.customers.test/x\n", "utf-8"
    )
    alone.resolver.command("lists", "push", "pardon", "pardon.txt", "--publish", "--action", "allow")
    alone.export()
    until(lambda: blocks(alone.dig("odd.customers.test")))
    assert resolves(alone.dig("good.customers.test")), "an exception"
    assert "status: NXDOMAIN" in (deeper := alone.dig("x.good.customers.test"))
    assert "customers.test." in deeper.partition("AUTHORITY SECTION")[2], "it is the resolver that says so"
    assert resolves(alone.dig("pages.customers.test")), "a page of it is an exception"
    assert blocks(alone.dig("unlisted.test"))
    alone.resolver.command("lists", "rollback", "police", "1", "--reason", "appeal")
    alone.export()
    until(lambda: not blocks(alone.dig("odd.customers.test")))
    assert blocks(alone.dig("bad.customers.test"))
    # While the node and its store are away, what was exported holds.
    alone.resolver.node.kill()
    assert blocks(alone.dig("bad.customers.test"))
    assert resolves(alone.dig("good.customers.test"))
    told = alone.dnsdist.log.read_text("utf-8")
    assert "customers.test" not in told


def test_what_is_no_zone_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "zone").write_text("@ IN SOA a. b. 1 60 30 2592000 60\nbad.example CNAME .\n*.only.example CNAME .\n")
    command = [str(DEPLOY / "zone-to-cdb"), "zone", "."]
    subprocess.run(command, cwd=tmp_path, check=True)
    before = {name: (tmp_path / name).read_bytes() for name in ("names.cdb", "wildcards.cdb")}
    found = subprocess.run(["cdb", "-d", "-m", "names.cdb"], cwd=tmp_path, capture_output=True, check=True).stdout
    assert set(found.split(b"\n")) == {b"bad.example block", b"only.example none", b""}
    for bad in ("", "<html>\nbad.example CNAME .\n"):
        (tmp_path / "zone").write_text(bad)
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode != 0
        assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert {path.name for path in tmp_path.iterdir()} == {"zone", *before}, "nothing is left lying about"
    assert (tmp_path / "names.cdb").stat().st_mode & 0o777 == 0o600
