"""Whether routers have what the node wants: real ExaBGP, and BIRDs that come, go and lack a family."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import until
from tests.feeds.knot import Knot
from tests.feeds.network import Bird, ExaBgp, RouteNode
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIRST, SECOND = "127.0.0.3", "127.0.0.4"
PAGE = "http://pages.example/listed/1.html"
BOTH = ("198.18.0.7", "2001:db8::7")


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), aof=True) as running:
        yield running


@pytest.fixture
def node(tmp_path: Path, redis: RedisServer) -> Iterator[RouteNode]:
    """With one route of each family."""
    with Knot(tmp_path) as knot:
        knot.serve(popular="198.51.100.1", www__popular="popular", pages=BOTH)
        made = RouteNode(tmp_path, redis, [knot.address])
        with made.process:
            made.push(PAGE)
            until(lambda: made.report()["routes"] == 2)
            yield made


def routers(node: RouteNode) -> dict[str, tuple[float, float]]:
    """Whether each router's session is up and how many routes it carries, by its address, from /metrics."""
    text = node.process.get("/metrics")[1].decode()
    ups, counts = (
        dict(re.findall(rf'(?m)^blocker_route_neighbor_{what}{{neighbor="([^"]+)"}} (\S+)$', text))
        for what in ("up", "routes")
    )
    return {name: (float(up), float(counts[name])) for name, up in ups.items()}


def test_a_router_that_goes_is_seen_and_gets_everything_when_it_is_back(tmp_path: Path, node: RouteNode) -> None:
    with Bird(tmp_path) as bird, ExaBgp(tmp_path, bird, node.socket) as exabgp:
        bird.becomes(*BOTH)
        until(lambda: routers(node) == {FIRST: (1, 2)})
        assert node.metric("blocker_route_sessions") == 1
        assert [state for state, _ in node.doctor()[f"router {FIRST}"]] == ["ok"]

        bird.stop()
        until(lambda: routers(node) == {FIRST: (0, 0)})
        assert node.metric("blocker_route_sessions") == 0
        assert node.metric("blocker_route_feed_routes") == 2, "ExaBGP has them all the same"
        assert [state for state, _ in node.doctor()[f"router {FIRST}"]] == ["fail"]

        bird.start()
        bird.becomes(*BOTH)
        until(lambda: routers(node) == {FIRST: (1, 2)})

        bird.control("disable", "blocker")
        until(lambda: routers(node) == {FIRST: (0, 0)})
        bird.control("enable", "blocker")
        until(lambda: routers(node) == {FIRST: (1, 2)})
        bird.becomes(*BOTH)

        # A feed that starts anew hears of no session that came up before.
        node.kill_feed(exabgp)
        until(lambda: routers(node) == {FIRST: (1, 2)})
        assert bird.received() == (2, 0), "nothing was told twice"


def test_a_router_that_is_configured_later_gets_everything(tmp_path: Path, node: RouteNode) -> None:
    with (
        Bird(tmp_path) as first, Bird(tmp_path, address=SECOND) as second,
        ExaBgp(tmp_path, first, node.socket) as exabgp,
    ):  # fmt: skip
        first.becomes(*BOTH)
        exabgp.configure(first, second)
        exabgp.reload()
        second.becomes(*BOTH)
        first.becomes(*BOTH)
        until(lambda: routers(node) == {FIRST: (1, 2), SECOND: (1, 2)})
        assert node.metric("blocker_route_sessions") == 2
        node.push("http://198.18.0.9/x")
        for one in (first, second):
            one.becomes("198.18.0.9")

        exabgp.configure(second)
        exabgp.reload()
        first.becomes()
        # Its going is told, its absence from the configuration seen at the next look, which another's coming brings.
        until(lambda: routers(node).get(FIRST, (0, 0)) == (0, 0))
        second.control("restart", "blocker")
        until(lambda: routers(node) == {SECOND: (1, 1)})


def test_a_family_that_is_missing_at_either_end_shows(tmp_path: Path, node: RouteNode) -> None:
    with (
        Bird(tmp_path) as first, Bird(tmp_path, address=SECOND, families=("ipv4",)) as second,
        ExaBgp(tmp_path, first, node.socket) as exabgp,
    ):  # fmt: skip
        first.becomes(*BOTH)
        exabgp.configure(first, second)
        exabgp.reload()
        second.becomes("198.18.0.7")
        until(lambda: routers(node) == {FIRST: (1, 2), SECOND: (1, 1)})
        found = node.doctor()
        assert [state for state, _ in found[f"router {FIRST}"]] == ["ok"]
        ((state, said),) = found[f"router {SECOND}"]
        assert (state, "1 of 2 routes" in said) == ("fail", True)

        # And where ExaBGP has none: it acknowledges such a route too, and drops it.
        exabgp.stop()
        exabgp.configure(first, without="ipv6 unicast")
        exabgp.start()
        first.becomes("198.18.0.7")
        until(lambda: routers(node) == {FIRST: (1, 1)})
        assert node.metric("blocker_route_feed_routes") == 2
        assert node.metric("blocker_route_feed_errors") == 0


def test_a_neighbor_that_is_not_the_feed_s_carries_nothing(tmp_path: Path, node: RouteNode) -> None:
    with Bird(tmp_path) as bird, ExaBgp(tmp_path, bird, node.socket) as exabgp:
        exabgp.stop()
        exabgp.configure(bird, without="processes")
        exabgp.start()
        until(lambda: node.metric("blocker_route_feeds") == 1)
        until(lambda: node.metric("blocker_route_feed_errors") == 2)
        until(lambda: routers(node) == {FIRST: (1, 0)})
        assert node.metric("blocker_route_feed_routes") == 0
        exabgp.configure(bird)
        exabgp.reload()
        # ExaBGP takes over a neighbor's `api` when its session begins anew, and says that it did.
        bird.control("restart", "blocker")
        bird.becomes(*BOTH)
        until(lambda: routers(node) == {FIRST: (1, 2)})
