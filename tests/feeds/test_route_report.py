"""Which hosts a person should look at, as time goes by; the clock is the test's. And how `blocker routes` shows it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from blocker.feeds.resolve import Answer
from blocker.feeds.route_feed import RouteFeed
from blocker.feeds.route_report import report
from blocker.feeds.sightings import FAMILIES
from blocker.feeds.sorting import Sorted
from blocker.feeds.spared import Spared
from blocker.route_section import RouteSettings
from blocker.sections import GuardSettings
from blocker.store.sealing import Keyring
from tests.e2e.processes import environment, program

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from blocker.store.redis import Store

DAY = 86_400.0
POPULAR, NEIGHBOUR = "11.1.1.1", "11.1.1.9"


async def no_store() -> Store:
    raise AssertionError("nothing is read here")


class Reported:
    """A feed that hosts are said to be at, and its report."""

    def __init__(self, directory: Path, **settings: Any) -> None:  # noqa: ANN401 - any field's own type
        self.feed = RouteFeed(
            RouteSettings(enabled=True, resolvers=("127.0.0.1",), **settings), GuardSettings(), directory,
            Keyring(lookup=bytes(16), seal=bytes(32)), None, no_store,
        )  # fmt: skip
        self.feed.table.popular_known = True
        self.popular(0.0, POPULAR)

    def popular(self, now: float, *addresses: str) -> None:
        self.feed.table.popular_answered("p", map(ip_address, addresses), now, complete=FAMILIES)

    def says(self, host: str, now: float, *addresses: str) -> None:
        if host not in self.feed.names:
            self.feed.names[host] = host
            found = Sorted.of(bytes(16), self.feed.names, Spared(popular=frozenset({"popular.example"})))
            refused = {found.names[key]: reason for key, reason in found.refused.items()}
            self.feed.table.listed(self.feed.names, now, refused)
        self.feed.table.answered(host, map(ip_address, addresses), now, complete=FAMILIES)
        self.feed.table.step(now)

    async def looks(self, now: float) -> dict[tuple[str, str], tuple[float | None, int]]:
        """Since when, and the addresses, by host and why."""
        self.feed.table.step(now)
        found = (await report(self.feed, now))["hosts"]
        assert len({(one["host"], one["why"]) for one in found}) == len(found)
        return {(one["host"], one["why"]): (one["since"], one["addresses"]) for one in found}


@pytest.fixture
def reported(tmp_path: Path) -> Reported:
    return Reported(tmp_path, max_per_host=4)


async def test_a_host_is_dead_after_its_time_to_the_second_and_no_more_when_it_is_back(reported: Reported) -> None:
    reported.says("host", 0.0, "11.0.0.1")
    reported.says("never", 5.0)
    for now in (100.0, 200.0, 2 * DAY):
        reported.says("host", now)
    assert await reported.looks(5.0 + 3 * DAY - 1) == {}
    assert await reported.looks(5.0 + 3 * DAY) == {("never", "dead"): (5.0, 0)}
    assert await reported.looks(99.0 + 3 * DAY) == {("never", "dead"): (5.0, 0)}
    assert ("host", "dead") in await reported.looks(100.0 + 3 * DAY)
    reported.says("host", 100.0 + 4 * DAY, "11.0.0.1")
    assert ("host", "dead") not in await reported.looks(100.0 + 4 * DAY)


async def test_when_a_host_is_dead_is_as_configured(tmp_path: Path) -> None:
    reported = Reported(tmp_path, dead_after_seconds=0)
    reported.says("host", 7.0)
    assert await reported.looks(7.0) == {("host", "dead"): (7.0, 0)}


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (["11.0.0.1"], [POPULAR], "moved-address"),
        (["11.0.0.1"], ["11.0.0.1", POPULAR], "moved-address"),
        (["11.0.0.1"], [NEIGHBOUR], "moved-network"),
        (["2a00::1"], [NEIGHBOUR], "moved-network"),
        (["11.0.0.1"], [NEIGHBOUR, POPULAR], "moved-address"),
        (["11.0.0.1"], ["11.0.0.2"], None),
        ([POPULAR], [POPULAR], None),
        ([NEIGHBOUR], [NEIGHBOUR], None),
        ([NEIGHBOUR], ["11.1.1.10"], None),  # it moves about in a network where it always was
        ([POPULAR, "11.0.0.1"], [POPULAR], None),
        ([NEIGHBOUR], ["11.0.0.1"], None),
        ([], [POPULAR], None),
    ],
)
async def test_a_host_that_came_to_where_popular_ones_are_is_reported(
    reported: Reported, before: Sequence[str], after: Sequence[str], why: str | None
) -> None:
    reported.says("host", 100.0, *before)
    assert await reported.looks(199.0) == {}, "it was always there"
    reported.says("host", 200.0, *after)
    expected = {} if why is None else {("host", why): (200.0, len(after))}
    assert await reported.looks(200.0) == expected
    reported.says("host", 300.0, *after)
    assert await reported.looks(199.0 + DAY) == expected


async def test_a_host_whose_neighbour_becomes_popular_did_not_move(reported: Reported) -> None:
    reported.says("host", 0.0, "11.5.0.1")
    reported.popular(100.0, POPULAR, "11.5.0.1", "2a00:5::1")
    assert await reported.looks(100.0) == {}


async def test_ipv6_networks_are_as_large_as_others_accept_them(reported: Reported) -> None:
    reported.popular(0.0, POPULAR, "2a00:5::1")
    for host, address in (("near", "2a00:5:0:ffff::9"), ("far", "2a00:5:1::1")):
        reported.says(host, 0.0, "11.0.0.1")
        reported.says(host, 100.0, address)
    assert await reported.looks(100.0) == {("near", "moved-network"): (100.0, 1)}


async def test_popular_hosts_are_reported_as_such_and_not_as_moved(reported: Reported) -> None:
    for host in ("popular.example", "en.popular.example", "unpopular.example"):
        reported.says(host, 0.0, "11.0.0.1")
        reported.says(host, 100.0, POPULAR)
    assert await reported.looks(100.0) == {
        ("popular.example", "popular"): (None, 1), ("en.popular.example", "popular"): (None, 1),
        ("unpopular.example", "moved-address"): (100.0, 1),
    }  # fmt: skip


async def test_what_is_shown_as_popular_has_no_route_wherever_it_is(reported: Reported) -> None:
    reported.says("upload.popular.example", 0.0, "11.9.9.9")
    found = await report(reported.feed, 1.0)
    assert [(one["why"], one["addresses"]) for one in found["hosts"]] == [("popular", 1)]
    assert [(one["state"], one["reason"]) for one in found["addresses"]] == [("refused", "popular")]
    assert found["routes"] == 0


async def test_hosts_that_routes_do_not_hold_are_reported_whether_at_once_or_one_by_one(reported: Reported) -> None:
    reported.says("many", 0.0, *(f"11.6.0.{at}" for at in range(5)))
    reported.says("few", 0.0, *(f"11.7.0.{at}" for at in range(4)))
    for turn in range(5):
        reported.says("flux", turn * 60.0, f"11.8.0.{turn}")
        assert ("flux", "flux") not in await reported.looks(turn * 60.0) or turn == 4
    assert await reported.looks(240.0) == {("many", "many"): (None, 5), ("flux", "flux"): (None, 5)}
    for turn in range(5, 100):
        reported.says("flux", turn * 60.0, f"11.8.0.{turn}")
        assert ("flux", "flux") in await reported.looks(turn * 60.0)
    # It comes to rest: once it had but four in the last hold-down it is like any other.
    assert ("flux", "flux") in await reported.looks(96 * 60.0 - 1 + DAY)
    assert await reported.looks(96 * 60.0 + DAY) == {("many", "many"): (None, 5)}


async def test_a_port_that_is_not_redirected_is_told(reported: Reported) -> None:
    reported.says("host", 0.0, "11.0.0.1")
    for ports, told in ((set(), False), ({443, 80}, False), ({443, 8443}, True)):
        found = Answer(frozenset(), 60.0, FAMILIES, frozenset(ports))
        reported.feed._heard("host", found)
        assert (("host", "port") in await reported.looks(0.0)) is told
    reported.feed._heard("host", None)
    assert ("host", "port") in await reported.looks(0.0), "nobody said otherwise"


async def test_junk_makes_no_flux(reported: Reported) -> None:
    for turn in range(20):
        reported.says("host", turn * 60.0, "11.0.0.1", f"10.0.0.{turn}")
    assert await reported.looks(20 * 60.0) == {}


async def test_the_command_counts_all_and_shows_what_is_asked_for(reported: Reported, tmp_path: Path) -> None:
    for at in range(100):
        reported.says(f"host-{at}.example", 0.0, f"11.9.0.{at}")
    reported.says("thief.example", 0.0, "11.10.0.1")
    reported.says("thief.example", 100.0, POPULAR, "10.0.0.1", "127.0.0.1")
    for host in ("gone.example", "lost.example"):
        reported.says(host, 0.0)
    reported.feed.start()

    def command(*options: str) -> str:
        done = subprocess.run(
            [*program(), "routes", "--socket", str(reported.feed.socket.path), *options], cwd=tmp_path,
            env=environment(tmp_path), capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    try:
        whole = await asyncio.to_thread(command, "--hosts")
        refused = await asyncio.to_thread(command, "--state", "refused")
        moved = json.loads(await asyncio.to_thread(command, "--why", "moved-address", "--hosts", "--json"))
        both = json.loads(await asyncio.to_thread(command, "--why", "dead", "--state", "held", "--json"))
    finally:
        reported.feed.close()
    head = [
        "101 routes, not settled yet; feeds: none connected",
        "2 of 103 hosts without any route: 2 absent",
        "states: 100 announced, 3 refused, 1 held",
        "reasons: 2 special, 1 popular",
        "hosts: 2 dead, 1 moved-address",
    ]
    assert whole.splitlines()[:5] == head
    assert len(whole.splitlines()) == 5 + 1 + 104 + 1 + 3
    assert refused.splitlines()[:5] == whole.splitlines()[:5]
    assert sorted(line.split()[:3] for line in refused.splitlines()[5:]) == [
        ["10.0.0.1", "refused", "special"], [POPULAR, "refused", "popular"], ["127.0.0.1", "refused", "special"],
        ["address", "state", "reason"],
    ]  # fmt: skip
    assert "example" not in refused
    assert ([one["host"] for one in moved["hosts"]], moved["addresses"]) == (["thief.example"], [])
    assert moved["counts"]["states"] == {"announced": 100, "refused": 3, "held": 1}
    assert [one["address"] for one in both["addresses"]] == ["11.10.0.1"]
    assert [one["why"] for one in both["hosts"]] == ["dead", "dead"]
