"""The routers' own configurations: what `deploy/frr` makes of Blocker's routes, and what FRR and BIRD refuse of others.
The rest of the way to BIRD is in `test_bgp_network`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import until
from tests.feeds.knot import Knot
from tests.feeds.network import NEXT_HOP6, Bird, ExaBgp, Frr, RouteNode
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Routers refuse a next hop of loopback.
NEXT_HOP = "198.18.255.80"
OURS = "community [ 65001:451 65535:65281 ]"
#: Good in all but one respect each.
REFUSED = (
    f"198.18.9.0/24 next-hop {NEXT_HOP} {OURS}",
    f"198.18.9.2/31 next-hop {NEXT_HOP} {OURS}",
    f"0.0.0.0/0 next-hop {NEXT_HOP} {OURS}",
    f"198.18.9.4/32 next-hop {NEXT_HOP}",
    f"198.18.9.5/32 next-hop {NEXT_HOP} community [ 65001:451 ]",
    f"198.18.9.6/32 next-hop {NEXT_HOP} community [ 65535:65281 ]",
    f"198.18.9.7/32 next-hop {NEXT_HOP} community [ 65001:452 65535:65281 ]",
    f"2001:db8:9::/64 next-hop {NEXT_HOP6} {OURS}",
    f"::/0 next-hop {NEXT_HOP6} {OURS}",
    f"2001:db8:9::4/128 next-hop {NEXT_HOP6} community [ 65001:7 65535:65281 ]",
)
TAKEN = (f"198.18.9.1/32 next-hop {NEXT_HOP} {OURS}", f"2001:db8:9::1/128 next-hop {NEXT_HOP6} {OURS}")
ROUTERS = pytest.mark.parametrize("router", [Bird, Frr])


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), aof=True) as running:
        yield running


def static(*routes: str) -> str:
    return "static {\n" + "".join(f"        route {one};\n" for one in routes) + "    }"


def test_frr_takes_routes_of_both_families_and_lets_them_go(tmp_path: Path, redis: RedisServer) -> None:
    with Knot(tmp_path) as knot, Frr(tmp_path) as frr:
        knot.serve(
            popular="198.51.100.1", www__popular="popular", pages=["198.18.0.7", "2001:db8::7"], more="198.18.0.8"
        )
        node = RouteNode(tmp_path, redis, [knot.address], next_hop=NEXT_HOP)
        with node.process, ExaBgp(tmp_path, frr, node.socket) as exabgp:
            node.push("http://pages.example/listed/", "http://more.example/x")
            frr.becomes("198.18.0.7", "2001:db8::7", "198.18.0.8")
            for family, prefix, hop in (("ipv4", "198.18.0.7/32", NEXT_HOP), ("ipv6", "2001:db8::7/128", NEXT_HOP6)):
                (path,) = frr.show(f"{family} unicast {prefix}")["paths"]
                assert path["community"]["string"] == "65001:451 no-export"
                assert path["nexthops"][0]["ip"] == hop
                assert path["origin"] == "IGP"
                assert path["valid"]
            node.push("http://more.example/x")
            frr.becomes("198.18.0.8")
            exabgp.kill()
            frr.becomes()
            exabgp.start()
            frr.becomes("198.18.0.8")
            node.push("http://unrelated.test/x")
            frr.becomes()


def test_without_a_next_hop_for_ipv6_a_host_that_has_it_takes_no_ipv4_route_down(
    tmp_path: Path, redis: RedisServer
) -> None:
    """FRR ends the session over a next hop that is none, again and again; the IPv4 routes would go with it."""
    with Knot(tmp_path) as knot, Frr(tmp_path) as frr:
        knot.serve(
            popular="198.51.100.1", www__popular="popular", pages=["198.18.0.7", "2001:db8::7"], six="2001:db8::8"
        )
        node = RouteNode(tmp_path, redis, [knot.address], next_hop=NEXT_HOP, next_hop6=None)
        with node.process, ExaBgp(tmp_path, frr, node.socket):
            node.push("http://pages.example/listed/", "http://six.example/x")
            frr.becomes("198.18.0.7")
            until(lambda: node.why().get("2001:db8::8") == ("refused", "no-next-hop"))
            until(lambda: node.metric("blocker_routes_refused", reason="no-next-hop") == 2)
            assert node.why()["2001:db8::7"] == ("refused", "no-next-hop")
            assert any("set routes.next_hop6" in said for state, said in node.doctor()["routes"] if state == "warn")
            # A route that comes later shows that the session is the same.
            knot.serve(six=["2001:db8::8", "198.18.0.8"])
            frr.becomes("198.18.0.7", "198.18.0.8")
            (session,) = frr.show("neighbors").values()
            assert (session["connectionsEstablished"], session["connectionsDropped"]) == (1, 0)
            assert "martian" not in frr.log()


@ROUTERS
def test_a_router_refuses_whatever_is_no_single_address_with_our_communities(
    tmp_path: Path, router: Callable[[Path], Bird | Frr]
) -> None:
    with router(tmp_path) as running, ExaBgp(tmp_path, running, tmp_path / "none", static(*REFUSED, *TAKEN)):
        taken = {route.split()[0] for route in TAKEN}
        until(lambda: came(running) == len(REFUSED) + len(TAKEN) and taken <= running.prefixes())
        assert running.prefixes() == taken


def test_bird_takes_no_more_routes_than_its_limit_and_keeps_what_it_has(tmp_path: Path) -> None:
    many = [f"198.18.9.{at}/32 next-hop {NEXT_HOP} {OURS}" for at in range(8)]
    with Bird(tmp_path, 5) as bird, ExaBgp(tmp_path, bird, tmp_path / "none", static(*many)):
        until(lambda: came(bird) == 8)
        assert len(bird.prefixes()) == 5


def test_frr_warns_of_more_routes_than_its_limit_and_loses_none(tmp_path: Path) -> None:
    many = [f"198.18.9.{at}/32 next-hop {NEXT_HOP} {OURS}" for at in range(8)]
    with Frr(tmp_path, 5) as frr, ExaBgp(tmp_path, frr, tmp_path / "none", static(*many)):
        until(lambda: len(frr.prefixes()) == 8)
        until(lambda: "MAXPFXEXCEED" in frr.log())
        assert len(frr.prefixes()) == 8


def came(router: Bird | Frr) -> int:
    """Routes that came, whatever became of them."""
    return router.received()[0] if isinstance(router, Bird) else len(router.received())
