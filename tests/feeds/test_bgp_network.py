"""The whole way, with real programs: a list is pushed, Knot is asked, ExaBGP speaks, and BIRD has the routes."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import program, until
from tests.feeds.knot import Knot
from tests.feeds.network import NEXT_HOP6, Bird, ExaBgp, RouteNode
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), aof=True) as running:
        yield running


class World:
    """All of them."""

    def __init__(self, directory: Path, redis: RedisServer, **options: Any) -> None:  # noqa: ANN401 - settings
        self.knot = Knot(directory)
        self.knot.serve(popular=["198.51.100.1", "2001:db8:1::1"], www__popular="popular")
        self.bird = Bird(directory)
        self.node = RouteNode(directory, redis, [self.knot.address], **options)
        self.exabgp = ExaBgp(directory, self.bird, self.node.socket)

    def close(self) -> None:
        for one in (self.exabgp, self.bird, self.knot):
            one.stop()
        self.node.process.__exit__(None, None, None)


@pytest.fixture
def world(tmp_path: Path, redis: RedisServer, request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(tmp_path, redis, **getattr(request, "param", {}))
    yield made
    made.close()


PAGE = "http://pages.example/listed/1.html"


def test_routes_appear_are_held_and_vanish_with_the_list(world: World) -> None:
    knot, bird, node = world.knot, world.bird, world.node
    knot.serve(pages=["198.18.0.7", "2001:db8::7"], alias="other", other="198.18.0.8", whole="198.18.0.9")
    node.push(
        PAGE, "http://alias.example/a/", "http://whole.example", "http://198.18.0.10/x", "http://nowhere.example/x"
    )
    bird.becomes("198.18.0.7", "2001:db8::7", "198.18.0.8", "198.18.0.10")
    shown = bird.show("master4")
    assert shown.count("BGP.community: (65001,451) (65535,65281)") == 3
    assert "(65535,666)" not in shown
    assert f"BGP.next_hop: {NEXT_HOP6}" in bird.show("master6")
    until(lambda: node.metric("blocker_route_feed_routes") == 4)
    assert node.metric("blocker_routes", family="ipv4") == 3
    assert node.metric("blocker_route_feed_errors") == 0

    knot.serve(pages=["198.18.0.17"])
    bird.becomes("198.18.0.7", "2001:db8::7", "198.18.0.17", "198.18.0.8", "198.18.0.10")
    assert node.why()["198.18.0.7"] == ("held", None)
    report: Any = node.command("routes")
    assert "host" not in report["addresses"][0]
    report = node.command("routes", "--hosts")
    assert {one["host"] for one in report["addresses"]} >= {"pages.example", "alias.example"}

    node.push("http://alias.example/a/")
    bird.becomes("198.18.0.8")
    pool = ["198.18.0.11", "HTTPS 1 . port=8443 ipv4hint=198.18.0.12"]
    knot.serve(other=["198.18.0.8", "HTTPS 0 pool"], pool=pool)
    bird.becomes("198.18.0.8", "198.18.0.11", "198.18.0.12")
    until(lambda: [one["why"] for one in node.report()["hosts"]] == ["port"])
    node.push("http://unrelated.test/a/")
    bird.becomes()
    for log in (node.process.log(), world.exabgp.log()):
        for secret in ("pages.example", "alias.example", "nowhere", "198.18.0", "2001:db8::7"):
            assert secret not in log
    until(lambda: (said := node.report())["settled"] and [one["told"] for one in said["feeds"]] == [0])
    shown = subprocess.run(
        [*program(), "routes"],
        env=node.process.environment,
        cwd=node.directory,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.startswith("0 routes, settled; feeds: 0 told, 0 refused\n")
    assert "unrelated" not in shown
    node.process.stop()
    state = (node.directory / "var" / "routes.state").read_bytes()
    assert b"example" not in state


@pytest.mark.parametrize(
    "world",
    [
        {
            "own": ["198.18.1.0/24"],
            "max_per_host": 4,
            "next_hop": "198.18.255.80",
            "never_networks": [],
            "never_names": [],
        }
    ],
    indirect=True,
)
def test_what_must_not_be_routed_is_not(world: World) -> None:
    knot, bird, node = world.knot, world.bird, world.node
    knot.serve(
        good="198.18.0.1",
        private=["10.0.0.1", "127.0.0.1", "198.18.0.2"],
        own=["198.18.1.5", "198.18.0.3"],
        circle=["198.18.255.80", NEXT_HOP6, "198.41.0.4", "1.1.1.1"],
        stolen=["198.51.100.1", "2001:db8:1::1"],
        upload__popular=["198.18.0.50", "2001:db8::50"],
        thief="198.18.0.50",
        crowd=[f"198.18.{2 + at // 250}.{1 + at % 250}" for at in range(500)],
    )
    names = ("good", "private", "own", "circle", "stolen", "crowd", "upload.popular", "thief")
    node.push(*(f"http://{name}.example/x/" for name in names))
    crowd = {f"198.18.2.{at}" for at in range(1, 5)}
    bird.becomes("198.18.0.1", "198.18.0.2", "198.18.0.3", *crowd)
    until(lambda: node.metric("blocker_routes_refused", reason="popular") == 5 and "198.18.255.80" in node.why())
    why = node.why()
    assert why["10.0.0.1"] == why["127.0.0.1"] == ("refused", "special")
    assert why["198.18.1.5"] == ("refused", "own")
    assert why["198.18.255.80"] == why[NEXT_HOP6] == ("refused", "own"), "the filter itself"
    assert why["198.41.0.4"] == why["1.1.1.1"] == ("refused", "infrastructure")
    assert why["198.51.100.1"] == why["2001:db8:1::1"] == ("refused", "popular")
    assert why["198.18.2.5"] == ("refused", "host-limit")
    assert [one["addresses"] for one in node.report()["hosts"] if one["why"] == "many"] == [500]
    # One page under a popular domain (Wikipedia, 2008): at an address that the domain itself does not have.
    assert why["198.18.0.50"] == why["2001:db8::50"] == ("refused", "popular")
    assert node.metric("blocker_routes_refused", reason="popular") == 5

    # What is never to be routed leaves at SIGHUP: an address, and a name with all its addresses, for others too.
    knot.serve(bank=["198.18.0.60", "198.18.0.61"], robber="198.18.0.60")
    node.push(*(f"http://{name}.example/x/" for name in (*names, "bank", "robber")))
    bird.becomes("198.18.0.1", "198.18.0.2", "198.18.0.3", "198.18.0.60", "198.18.0.61", *crowd)
    node.rewrite("never_networks", ["198.18.0.2/32"])
    node.rewrite("never_names", ["bank.example"])
    node.process.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    bird.becomes("198.18.0.1", "198.18.0.3", *crowd)
    why = node.why()
    assert why["198.18.0.2"] == why["198.18.0.61"] == ("refused", "never")
    assert why["198.18.0.60"] in {("refused", "never"), ("refused", "popular")}

    # It changes with every look: its places are taken, and the others keep their routes.
    for turn in range(5):
        knot.serve(crowd=f"198.18.9.{turn}", good="198.18.0.1")
        until(node.knows(f"198.18.9.{turn}"))
    assert bird.routes() == {"198.18.0.1", "198.18.0.3", *crowd}


@pytest.mark.parametrize("world", [{"max_per_host": 8}], indirect=True)
def test_sky_2013_a_listed_site_that_points_at_a_third_party_blocks_nobody(world: World) -> None:
    """August 2013: a listed site set its DNS to a news site's addresses, and then to very many: Sky's customers lost
    the news site, and the feed broke."""
    knot, bird, node = world.knot, world.bird, world.node
    knot.serve(torrents=["198.18.0.7"])
    node.push("http://torrents.example/listed/", "http://other.example/x")
    bird.becomes("198.18.0.7")
    knot.serve(torrents=["198.51.100.1"])
    until(lambda: node.why().get("198.51.100.1") == ("refused", "popular"))
    assert bird.routes() == {"198.18.0.7"}, "where it was stays, where it points does not come"
    moved = [one for one in node.report("--hosts")["hosts"] if one["why"] == "moved-address"]
    assert [one["host"] for one in moved] == ["torrents.example"]
    # Its neighbour in the third party's network is routed, and reported.
    knot.serve(torrents=["198.51.100.77"])
    bird.becomes("198.18.0.7", "198.51.100.77")
    # And then a great many, again and again.
    for turn in range(3):
        knot.serve(torrents=[f"198.19.{turn}.{at}" for at in range(1, 251)])
        until(node.knows(f"198.19.{turn}."))
    until(lambda: len(bird.routes()) == 8)
    knot.serve(other="198.18.0.99")
    until(lambda: "198.18.0.99" in bird.routes())
    assert "198.51.100.1" not in bird.routes()
    assert len(bird.routes()) == 9


def test_a_restart_of_the_node_moves_no_route(world: World) -> None:
    knot, bird, node = world.knot, world.bird, world.node
    knot.serve(pages=["198.18.0.7"])
    node.push(PAGE)
    bird.becomes("198.18.0.7")
    knot.serve(pages=["198.18.0.8"])
    bird.becomes("198.18.0.7", "198.18.0.8")
    node.process.stop()
    assert bird.routes() == {"198.18.0.7", "198.18.0.8"}, "a node that is stopped keeps its routes, by default"
    knot.stop()  # so that nothing can be learnt anew
    node.process.start()
    until(lambda: node.metric("blocker_route_feeds") == 1)
    until(lambda: node.metric("blocker_route_feed_routes") == 2)
    until(lambda: node.why() == {"198.18.0.7": ("held", None), "198.18.0.8": ("announced", None)})
    assert node.metric("blocker_route_changes_total", change="withdraw") == 0
    node.process.kill()
    assert bird.routes() == {"198.18.0.7", "198.18.0.8"}
    (node.directory / "var" / "routes.state").unlink()
    node.process.start()
    until(lambda: node.metric("blocker_route_feeds") == 1)
    assert node.report()["settled"] is False
    assert bird.routes() == {"198.18.0.7", "198.18.0.8"}, "a node that knows nothing yet withdraws nothing"
    knot.start()
    bird.becomes("198.18.0.8")
    assert node.report()["settled"] is True


def test_exabgp_and_the_feed_that_are_killed_get_everything_anew(world: World) -> None:
    knot, bird, node, exabgp = world.knot, world.bird, world.node, world.exabgp
    knot.serve(pages=["198.18.0.7"], more="198.18.0.9")
    node.push(PAGE, "http://more.example/x")
    bird.becomes("198.18.0.7", "198.18.0.9")
    until(lambda: node.metric("blocker_route_feed_routes") == 2)
    until(lambda: ("ok", True) in [(state, "has 2 of 2 routes" in said) for state, said in node.doctor()["ExaBGP"]])
    assert [state for state, _ in node.doctor()["routes"]] == ["ok"]
    changes = node.metric("blocker_route_changes_total", change="announce")
    exabgp.kill()
    bird.becomes()
    until(lambda: node.metric("blocker_route_feeds") == 0)
    assert node.doctor()["ExaBGP"][0][0] == "fail"
    exabgp.start()
    bird.becomes("198.18.0.7", "198.18.0.9")
    until(lambda: node.metric("blocker_route_feed_routes") == 2)
    assert node.metric("blocker_route_feed_errors") == 0
    assert node.metric("blocker_route_changes_total", change="announce") == changes, "the node announced nothing anew"

    # The feed alone dies while a route goes: ExaBGP still has it and starts the feed anew, which takes it back.
    feed = exabgp.feed()
    os.kill(feed, signal.SIGSTOP)
    node.push(PAGE)
    until(lambda: node.metric("blocker_routes", family="ipv4") == 1)
    # And while the next hop changes: what ExaBGP has still leads to the old filter.
    node.rewrite("next_hop", "198.18.255.81")
    node.process.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    until(lambda: "configuration read anew" in node.process.log())
    os.kill(feed, signal.SIGKILL)
    bird.becomes("198.18.0.7")
    until(lambda: "BGP.next_hop: 198.18.255.81" in bird.show("master4"))


def test_no_route_is_on_the_wire_twice_whoever_is_killed(world: World) -> None:
    """BIRD counts what it receives. A route of a marker comes after all that came before it: no waiting for nothing."""
    knot, bird, node, exabgp = world.knot, world.bird, world.node, world.exabgp
    sites = {f"site{at}": [f"198.18.1.{at}", f"2001:db8::1:{at}"] for at in range(20)}
    knot.serve(**sites)
    pages = [f"http://{name}.example/x/" for name in sites]
    wanted = {address for addresses in sites.values() for address in addresses}
    node.push(*pages)
    bird.becomes(*wanted)
    until(lambda: node.report()["settled"])
    markers = itertools.count(1)

    def marked() -> tuple[int, int]:
        """What BIRD has received until the route of a marker."""
        marker = next(markers)
        knot.serve(**{f"marker{marker}": f"198.18.2.{marker}"})
        pages.append(f"http://marker{marker}.example/x/")
        wanted.add(f"198.18.2.{marker}")
        node.push(*pages)
        bird.becomes(*wanted)
        return bird.received()

    assert marked() == (41, 0)

    node.kill_feed(exabgp)
    assert marked() == (42, 0), "the feed anew"

    node.process.kill()
    node.process.start()
    until(lambda: node.metric("blocker_route_feeds") == 1)
    assert marked() == (43, 0), "the node that was killed"

    node.process.stop()
    node.process.start()
    until(lambda: node.metric("blocker_route_feeds") == 1)
    assert marked() == (44, 0), "the node that was stopped"

    for end in (exabgp.kill, exabgp.stop):
        end()
        bird.becomes()
        exabgp.start()
        bird.becomes(*wanted)
        assert marked() == (len(wanted), 0), "ExaBGP anew: each route once"

    os.kill(exabgp.feed(), signal.SIGKILL)
    node.process.kill()
    node.process.start()
    until(lambda: node.metric("blocker_route_feeds") == 1)
    assert marked() == (len(wanted), 0), "both"
    assert node.metric("blocker_route_feed_errors") == 0


@pytest.mark.parametrize("world", [{"when_stopped": "withdraw"}], indirect=True)
def test_a_node_can_take_its_routes_along_when_it_is_stopped(world: World) -> None:
    world.knot.serve(pages=["198.18.0.7"])
    world.node.push(PAGE)
    world.bird.becomes("198.18.0.7")
    world.node.process.stop()
    world.bird.becomes()
    world.node.process.start()
    world.bird.becomes("198.18.0.7")


@pytest.mark.parametrize(
    "world", [{"form": "flow", "communities": ["65001:451"], "https_records": False}], indirect=True
)
def test_flow_rules_redirect_some_ports_only(world: World) -> None:
    world.knot.serve(pages=["198.18.0.7", "2001:db8::7", "HTTPS 1 . ipv4hint=198.18.0.8"])
    world.node.push(PAGE)
    until(lambda: "198.18.0.7/32" in world.bird.flows() and "2001:db8::7/128" in world.bird.flows())
    flows = world.bird.flows()
    assert "proto 6,17; dport 80,443;" in flows
    assert "next header 6,17; dport 80,443;" in flows
    # RFC 8955 section 7.4: 0x8008, the AS and the number of the route target.
    assert flows.count("BGP.ext_community: (generic, 0x8008fde9, 0x1c3)") == 2
    assert flows.count("BGP.community: (65001,451) (65535,65281)") == 2
    assert world.bird.routes() == set()
    # The other form: what was there goes, what comes is a route; and a look at HTTPS records besides.
    world.node.rewrite("form", "route")
    world.node.rewrite("https_records", True)
    world.node.process.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    world.bird.becomes("198.18.0.7", "2001:db8::7", "198.18.0.8")
    until(lambda: "/32" not in world.bird.flows())
    world.node.push("http://unrelated.test/a/")
    world.bird.becomes()
