"""What a feed tells of itself: metrics with closed labels, and the report that people read."""

from __future__ import annotations

import asyncio
import contextlib
import re
import stat
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from blocker.errors import KeyMaterialError, ServeError
from blocker.feeds.route_feed import RouteFeed
from blocker.feeds.route_hosts import name_id
from blocker.feeds.route_report import count_moved, count_uncovered, report
from blocker.feeds.route_socket import ask_report
from blocker.feeds.routes import Reason
from blocker.feeds.sightings import FAMILIES
from blocker.gateways.channel import Channel, connect
from blocker.route_section import RouteSettings
from blocker.sections import GuardSettings
from blocker.store.sealing import Keyring

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from blocker.store.redis import Store

KEYRING = Keyring(lookup=bytes(16), seal=bytes(32))
#: Metric → labels and their values.
CONTRACT: dict[str, dict[str, set[str]]] = {
    "blocker_routes": {"family": {"ipv4", "ipv6"}},
    "blocker_routes_refused": {"reason": set(Reason)},
    "blocker_route_changes_total": {"change": {"announce", "withdraw"}},
    "blocker_route_hosts": {},
    "blocker_route_hosts_dead": {},
    "blocker_route_hosts_uncovered": {"reason": {"unknown", "absent", *Reason}},
    "blocker_route_hosts_moved": {"why": {"moved-address", "moved-network"}},
    "blocker_route_lookups_total": {"resolver": {"127.0.0.1"}, "result": {"answered", "absent", "failed"}},
    "blocker_route_popular_known": {},
    "blocker_route_stopped": {},
    "blocker_route_filter_up": {},
    "blocker_route_retreating": {},
    "blocker_route_feeds": {},
    "blocker_route_feed_routes": {},
    "blocker_route_feed_errors": {},
    "blocker_route_sessions": {},
    "blocker_route_neighbor_up": {"neighbor": {"192.0.2.1", "2001:db8::1"}},
    "blocker_route_neighbor_routes": {"neighbor": {"192.0.2.1", "2001:db8::1"}},
}
DAY = 86_400.0


async def no_store() -> Store:
    raise AssertionError("nothing is read here")


@pytest.fixture
def feed(tmp_path: Path) -> RouteFeed:
    settings = RouteSettings(
        enabled=True, resolvers=("127.0.0.1",), max_per_host=2, next_hop6="2a00::80",
        filter_probes=("tcp://127.0.0.1:9",),
    )  # fmt: skip
    made = RouteFeed(settings, GuardSettings(), tmp_path, KEYRING, None, no_store)
    made.names = {key(name): name for name in ("pages", "dead", "moved", "near", "crowd", "en.popular.example")}
    table = made.table
    table.popular_known = True
    table.listed(made.names, 0.0, {key("en.popular.example"): Reason.POPULAR})
    table.popular_answered("p", [ip_address("11.1.1.1")], 0.0, complete=FAMILIES)
    for name, first, second in (
        ("pages", ["11.0.0.1", "2a00::1", "10.0.0.1"], ["2a00::1", "10.0.0.1"]),
        ("dead", ["11.0.0.2"], []),
        ("moved", ["11.0.0.3"], ["11.1.1.1"]),
        ("near", ["11.0.0.4"], ["11.1.1.9"]),
        ("crowd", [f"11.3.0.{at}" for at in range(9)], [f"11.3.0.{at}" for at in range(9)]),
        ("en.popular.example", ["11.1.1.1"], ["11.1.1.1"]),
    ):
        table.answered(key(name), map(ip_address, first), 0.0, complete=FAMILIES)
        table.answered(key(name), map(ip_address, second), 100.0, complete=FAMILIES)
    made._tell(table.step(100.0))
    return made


def test_a_node_without_the_seal_key_cannot_read_what_it_would_route(tmp_path: Path) -> None:
    with pytest.raises(KeyMaterialError, match="no seal key"):
        RouteFeed(RouteSettings(), GuardSettings(), tmp_path, Keyring(lookup=bytes(16)), None, no_store)


def key(name: str) -> str:
    return name_id(KEYRING.lookup, name)


def test_labels_are_closed_and_every_metric_is_described(feed: RouteFeed) -> None:
    registry = CollectorRegistry()
    registry.register(feed.counts)
    text = generate_latest(registry).decode()
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = found.setdefault(name, {})
        for sample in family.samples:
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    assert found.keys() == CONTRACT.keys()
    for name, labels in found.items():
        assert all(values <= CONTRACT[name][label] for label, values in labels.items()), name
    assert not re.search(r"example|11\.|2a00", text)
    assert 'blocker_routes{family="ipv4"} 7.0' in text
    assert 'blocker_routes{family="ipv6"} 1.0' in text
    assert 'blocker_routes_refused{reason="special"} 1.0' in text
    assert 'blocker_routes_refused{reason="popular"} 2.0' in text
    assert 'blocker_routes_refused{reason="host-limit"} 6.0' in text
    assert 'blocker_route_changes_total{change="announce"} 8.0' in text
    assert "blocker_route_hosts 6.0" in text


async def test_what_feeds_say_of_routers_is_told_by_the_worst_of_them(feed: RouteFeed) -> None:
    feed.start()
    try:
        told: list[dict[str, Any]] = [
            {"192.0.2.1": [True, 8], "2001:db8::1": [False, 0]},
            {"192.0.2.1": [True, 7], "pages.example": [True, 8], "192.0.2.9": "x"},
        ]
        with contextlib.ExitStack() as stack:
            for neighbors in told:
                peer = Channel(connect(feed.socket.path), lambda *_: None, lambda: None)
                stack.callback(peer.close)
                peer.send({"hello": "bgp"})
                peer.send({"told": 8, "errors": 0, "neighbors": neighbors})
            for _ in range(3000):
                if sum(len(one.neighbors) for one in feed.socket.feeds) == 3:
                    break
                await asyncio.sleep(0.01)
            registry = CollectorRegistry()
            registry.register(feed.counts)
            text = generate_latest(registry).decode()
    finally:
        feed.close()
    assert re.findall(r"(?m)^blocker_route_(?:sessions|neighbor)\S* .*$", text) == [
        "blocker_route_sessions 2.0",
        'blocker_route_neighbor_up{neighbor="192.0.2.1"} 1.0',
        'blocker_route_neighbor_up{neighbor="2001:db8::1"} 0.0',
        'blocker_route_neighbor_routes{neighbor="192.0.2.1"} 7.0',
        'blocker_route_neighbor_routes{neighbor="2001:db8::1"} 0.0',
    ]


async def test_the_report_says_of_each_address_why(feed: RouteFeed) -> None:
    found = await report(feed, 100.0 + 3 * DAY)
    addresses: dict[tuple[str, str], dict[str, Any]] = {
        (one["host"], one["address"]): one for one in found["addresses"]
    }
    assert addresses["pages", "2a00::1"]["state"] == "announced"
    assert addresses["pages", "2a00::1"]["since"] == 100.0
    assert addresses["pages", "2a00::1"]["until"] is None
    held = addresses["pages", "11.0.0.1"]
    assert (held["state"], held["until"]) == ("held", 100.0 + DAY)
    assert (addresses["pages", "10.0.0.1"]["state"], addresses["pages", "10.0.0.1"]["reason"]) == ("refused", "special")
    assert addresses["moved", "11.1.1.1"]["reason"] == "popular"
    looks = {(one["host"], one["why"]) for one in found["hosts"]}
    assert looks == {
        ("dead", "dead"), ("moved", "moved-address"), ("near", "moved-network"), ("crowd", "many"),
        ("en.popular.example", "popular"),
    }  # fmt: skip
    early = await report(feed, 99.0 + 3 * DAY)
    assert "dead" not in {one["why"] for one in early["hosts"]}


async def test_hosts_without_any_route_are_counted_by_what_speaks_against_them(feed: RouteFeed) -> None:
    assert await count_uncovered(feed) == {"popular": 1}
    table = feed.table
    feed.names |= {key(name): name for name in ("inner", "nowhere", "unheard", "late", "own")}
    table.listed(feed.names, 200.0)
    table.answered(key("inner"), map(ip_address, ["10.0.0.1", "10.0.0.2", "11.1.1.1"]), 200.0, complete=FAMILIES)
    table.answered(key("nowhere"), [], 200.0, complete=FAMILIES)
    table.answered(key("late"), [ip_address("11.0.0.9")], 200.0, complete=FAMILIES)
    table.halted = Reason.STOPPED
    table.step(200.0)
    assert await count_uncovered(feed) == {"popular": 1, "special": 1, "absent": 1, "unknown": 2}
    assert await count_moved(feed) == {"moved-address": 1, "moved-network": 1}


async def test_names_that_are_not_known_yet_are_shown_as_their_ids(feed: RouteFeed) -> None:
    feed.names = {}
    found = await report(feed, 0.0)
    assert {len(one["host"]) for one in found["addresses"]} == {32}


async def test_the_socket_shows_the_report_to_the_node_s_own_user_and_is_closed_to_others(
    feed: RouteFeed, tmp_path: Path
) -> None:
    with pytest.raises(ServeError, match="no node with routes answers"):
        await ask_report(tmp_path / "routes.sock")
    feed.start()
    try:
        assert stat.S_IMODE(feed.socket.path.stat().st_mode) == 0o600
        found = await ask_report(feed.socket.path)
        assert found["routes"] == 8
        assert {one["host"] for one in found["hosts"]} >= {"moved", "crowd"}
        assert found["feeds"] == [], "who asks is no feed"
    finally:
        feed.close()
    assert not feed.socket.path.exists()
