"""Which names are spared: popular ones and all under them, less what is exempt; and who speaks for their addresses."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from blocker.feeds.route_feed import RouteFeed
from blocker.feeds.route_hosts import ids_of
from blocker.feeds.routes import Reason
from blocker.feeds.sorting import Sorted
from blocker.feeds.spared import Gate, Spared
from blocker.route_section import RouteSettings
from blocker.sections import GuardSettings
from blocker.store.sealing import Keyring
from tests.feeds.test_failing_names import Source
from tests.feeds.test_route_report import no_store
from tests.follower.support import until
from tests.gateways.dns_upstream import upstream

if TYPE_CHECKING:
    from pathlib import Path

SPARED = Spared(
    popular=frozenset({"popular.example", "blogspot.com", "amazonaws.com", "duckdns.org", "news.example"}),
    exempt=frozenset({"duckdns.org", "archive.news.example"}),
    never=frozenset({"bank.example", "court.archive.news.example", "home.duckdns.org"}),
)


@pytest.mark.parametrize(
    ("name", "popular", "own"),
    [
        ("popular.example", True, True),
        ("www.popular.example", True, True),
        ("a.b.popular.example", True, True),
        ("unpopular.example", False, False),
        ("example", False, False),
        ("popular.example.test", False, False),
        ("news.example", True, True),
        ("live.news.example", True, True),
        # Exempt: the nearest name counts.
        ("archive.news.example", False, None),
        ("old.archive.news.example", False, None),
        # Under these anybody may have a name and say where it is.
        ("blogspot.com", True, True),
        ("site.blogspot.com", True, False),
        ("www.site.blogspot.com", True, False),
        ("s3.amazonaws.com", True, True),
        ("bucket.s3.amazonaws.com", True, False),
        ("site.duckdns.org", False, None),
        ("192.0.2.1", False, False),
        ("[2001:db8::1]", False, False),
    ],
)
def test_which_names_are_spared(name: str, popular: bool, own: bool | None) -> None:
    assert SPARED.reason(name) is (Reason.POPULAR if popular else None)
    if own is not None:
        assert SPARED.speaks_for_itself(name) is own


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("bank.example", True),
        ("a.www.bank.example", True),
        ("court.archive.news.example", True),
        ("home.duckdns.org", True),
        ("x.home.duckdns.org", True),
    ],
)
def test_what_is_never_to_be_routed_is_not_though_it_is_exempt(name: str, own: bool) -> None:
    assert SPARED.reason(name) is Reason.NEVER
    assert SPARED.speaks_for_itself(name) is own


def test_names_are_sorted() -> None:
    names = [
        "popular.example",
        "site.blogspot.com",
        "other.example",
        "en.popular.example",
        "192.0.2.1",
        "[2001:db8::1]",
    ]
    key = bytes(16)
    found = Sorted.of(key, names, SPARED)
    assert found.names == ids_of(key, names)
    assert sorted(found.asked.values()) == sorted(names[:4])
    assert {found.names[one] for one in found.refused} == {names[0], names[1], names[3]}
    assert set(found.refused.values()) == {Reason.POPULAR}
    assert sorted(found.looked_up.values()) == ["en.popular.example", "popular.example"]
    assert {found.names[one]: str(address) for one, address in found.literal.items()} == {
        "192.0.2.1": "192.0.2.1", "[2001:db8::1]": "2001:db8::1",
    }  # fmt: skip


def is_open(gate: Gate) -> bool:
    return gate.open


def test_the_gate_opens_when_enough_is_known_and_closes_when_more_is_to_be() -> None:
    assert not is_open(Gate()), "nobody has said which names there are"
    gate = Gate()
    gate.want([], [], [])
    assert is_open(gate)
    popular = [str(at) for at in range(20)]
    gate.want(popular, ["listed"], ["0", "1"])
    for at in range(2, 18):
        gate.heard(str(at), answered=True)
        gate.heard("19", answered=False)
    assert not is_open(gate), "a listed one that is spared was not tried"
    gate.heard("listed", answered=False)
    assert is_open(gate), "nine of ten, and all others tried"
    gate.want([*popular, "20"], [], popular[:18])
    assert not is_open(gate)
    gate.heard("20", answered=True)
    assert is_open(gate)
    gate.want(popular, ["listed"], [*popular, "listed"])
    assert is_open(gate)


async def test_what_becomes_popular_is_looked_up_before_anything_new_is_announced(tmp_path: Path) -> None:
    """At SIGHUP there are more popular names, and a listed site is at the address of one."""
    source, path = Source(), tmp_path / "popular.txt"
    source.site(["11.0.0.1"], [])
    for name in ("popular.example", "www.popular.example"):
        source.says[name, "A"], source.says[name, "AAAA"] = ["11.1.1.1"], []
    path.write_text("popular.example\n", "utf-8")
    async with upstream(source.behave) as running:
        settings = RouteSettings(
            enabled=True, resolvers=(f"127.0.0.1:{running.port}",), lookup_tries=1, min_ttl_seconds=1, max_ttl_seconds=1
        )
        guards = GuardSettings(popular_domains=path)
        feed = RouteFeed(settings, guards, tmp_path, Keyring(lookup=bytes(16), seal=bytes(32)), None, no_store)
        run = asyncio.create_task(feed.run())
        await until(lambda: feed.table.popular_known)
        await feed._list(frozenset({"listed.example"}))
        await until(lambda: ip_address("11.0.0.1") in feed.table.announced)

        path.write_text("popular.example\nnew.example\n", "utf-8")
        feed.configure(settings, guards, None)
        await until(lambda: not feed.table.popular_known)
        source.site(["11.0.0.2"], [])
        (key,) = feed.names
        await until(lambda: ip_address("11.0.0.2") in feed.table.names[key].at)
        feed._tell(feed.table.step(feed.now()))
        assert feed.table.reason(ip_address("11.0.0.2"), key) is Reason.POPULAR_UNKNOWN
        assert set(map(str, feed.table.announced)) == {"11.0.0.1"}, "what is there stays"
        for name in ("new.example", "www.new.example"):
            source.says[name, "A"], source.says[name, "AAAA"] = ["11.0.0.2"], []
        await until(lambda: feed.table.popular_known)
        feed._tell(feed.table.step(feed.now()))
        assert feed.table.reason(ip_address("11.0.0.2"), key) is Reason.POPULAR
        source.site(["11.0.0.3"], [])
        await until(lambda: ip_address("11.0.0.3") in feed.table.announced)
        await feed.stop()
        await run


async def test_nothing_is_announced_while_the_popular_names_cannot_be_read(tmp_path: Path) -> None:
    guards = GuardSettings(popular_domains=tmp_path / "popular.txt")
    settings = RouteSettings(enabled=True, resolvers=("127.0.0.1:9",))
    feed = RouteFeed(settings, guards, tmp_path, Keyring(lookup=bytes(16), seal=bytes(32)), None, no_store)
    run = asyncio.create_task(feed.run())
    await until(lambda: not feed._popular_changed)
    await feed._list(["11.0.0.1"])
    feed._popular.pass_gate()
    assert not feed.table.step(feed.now()).announce
    feed.configure(settings, GuardSettings(), None)  # without popular names
    await until(lambda: ip_address("11.0.0.1") in feed.table.announced)
    await feed.stop()
    await run
