"""Real resolvers take the zone of a real node, each with its configuration of `deploy`, unchanged but for places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.resolvers import (
    BLOCKED,
    Bind,
    BindAlone,
    BindWithInspection,
    Feeding,
    Knot,
    Origin,
    PowerDns,
    Resolver,
    Unbound,
    answer,
    rcode,
)
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Chain:
    """A node and the resolver that follows it."""

    def __init__(self, directory: Path, redis: RedisServer, origin: Origin, kind: type[Resolver]) -> None:
        port = free_port()
        (directory / "node").mkdir()
        self.node = Feeding(
            directory / "node", redis, port, signed=kind.signed, zone=kind.zone, notify=kind.notified, tls=kind.tls
        )
        try:
            self.node.names("http://first.example/")
            # A short name: PowerDNS has a unix socket in it, whose path may have 107 bytes.
            self.resolver = kind(directory / "r", self.node, port, origin)
        except BaseException:  # nobody else knows of the node yet
            self.node.process.stop()
            raise

    def close(self) -> None:
        self.resolver.close()
        self.node.process.stop()


@pytest.fixture
def chain(tmp_path: Path, redis: RedisServer, origin: Origin, request: pytest.FixtureRequest) -> Iterator[Chain]:
    running = Chain(tmp_path, redis, origin, request.param)
    yield running
    running.close()


@pytest.mark.parametrize("chain", [Bind, BindAlone, Unbound, PowerDns, Knot], indirect=True)
def test_updates_come_as_differences_and_a_rollback_is_one(chain: Chain) -> None:
    port = chain.resolver.port
    chain.resolver.until(lambda: rcode(port, BLOCKED) == "NXDOMAIN")
    assert rcode(port, f"a.b.{BLOCKED}") == "NXDOMAIN"
    assert rcode(port, "first.example") == "NXDOMAIN"
    leads_there = "NXDOMAIN" if chain.resolver.decides_aliases else "NOERROR"
    assert rcode(port, "alias.example") == leads_there, "an alias of a listed name"
    assert answer(port, "a.first.example") == ("NOERROR", ["192.0.2.1"]), "a rule of a host is of that alone"
    assert answer(port, f"not{BLOCKED}") == ("NOERROR", ["192.0.2.1"])
    chain.node.names("http://second.example/")
    chain.resolver.until(lambda: rcode(port, "second.example") == "NXDOMAIN")
    chain.resolver.until(lambda: rcode(port, "first.example") == "NOERROR")
    chain.node.roll_back()
    chain.resolver.until(lambda: rcode(port, "second.example") == "NOERROR")
    chain.resolver.until(lambda: rcode(port, "first.example") == "NXDOMAIN")
    assert rcode(port, BLOCKED) == "NXDOMAIN"
    chain.resolver.check()
    log = chain.node.process.log()
    assert not [name for name in (BLOCKED, "first.example", "filler7") if name in log], "no entry is logged"


@pytest.mark.parametrize("chain", [BindWithInspection], indirect=True)
def test_hosts_with_listed_pages_go_to_the_url_filter(chain: Chain) -> None:
    port = chain.resolver.port
    chain.node.names("http://page.example/listed/", "http://*.wide.example/listed/", "http://whole.wide.example/")
    chain.resolver.until(lambda: answer(port, "page.example") == ("NOERROR", ["192.0.2.80"]))
    chain.resolver.until(lambda: answer(port, "whole.wide.example") == ("NXDOMAIN", []))
    assert answer(port, "any.wide.example") == ("NOERROR", ["192.0.2.80"])
    assert answer(port, "a.page.example") == ("NOERROR", ["192.0.2.1"])
    assert answer(port, f"a.{BLOCKED}") == ("NXDOMAIN", [])
    # Response policy zones say all of a name or nothing: an inspected host has no mail, which is why resolvers of mail
    # servers must not have this zone.
    for kind, data in (("MX", "10 mail.example."), ("TXT", '"v=spf1 mx"'), ("CAA", '0 issue "ca.example"')):
        assert answer(port, "other.example", kind) == ("NOERROR", [data])
        assert answer(port, "page.example", kind) == ("NOERROR", [])
        assert answer(port, "any.wide.example", kind) == ("NOERROR", [])
