"""What a feed keeps on disk: it comes back as it was, shows nothing to a thief, and what is not it is refused."""

from __future__ import annotations

import asyncio
import secrets
import stat
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from blocker.errors import FormatError, KeyMaterialError
from blocker.feeds import route_state
from blocker.feeds.route_feed import RouteFeed
from blocker.feeds.route_hosts import name_id
from blocker.feeds.route_state import StateFile
from blocker.feeds.routes import Limits, RouteTable
from blocker.feeds.sightings import FAMILIES
from blocker.route_section import RouteSettings
from blocker.sections import GuardSettings
from blocker.store.sealing import Keyring, Sealer
from tests.feeds.test_failing_names import LISTED, OTHER, Source
from tests.feeds.test_route_report import no_store
from tests.follower.support import until
from tests.gateways.dns_upstream import upstream

if TYPE_CHECKING:
    from pathlib import Path

SEALER = Sealer(bytes(32))
ADDRESSES = [ip_address(text) for text in ("11.0.0.1", "11.0.0.2", "2a00::7")]


def filled() -> RouteTable:
    table = RouteTable(Limits())
    table.popular_known = True
    table.listed(["a", "b"], 1.0)
    table.answered("a", ADDRESSES, 1.0, complete=FAMILIES)
    table.answered("b", [], 2.0, complete=FAMILIES)
    table.popular_answered("p", [ip_address("11.9.9.9")], 1.5, complete=FAMILIES)
    table.step(3.0)
    table.answered("a", ADDRESSES[:1], 4.0, complete=FAMILIES)
    table.step(4.0)
    return table


def files(directory: Path) -> list[Path]:
    return [*directory.iterdir()]


async def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    path, table = tmp_path / "routes.state", filled()
    assert route_state.load(path, SEALER, 5.0) is None
    failed = {"a": [("192.0.2.53", 6, 60.5), ("192.0.2.53", 4, 0.0)], "b": []}
    await StateFile(path, SEALER, table).save(failed.items(), 5.0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert files(tmp_path) == [path], "nothing half written is left"
    again = RouteTable(Limits())
    loaded = route_state.load(path, SEALER, 5.0)
    assert loaded is not None
    state, failing = loaded
    assert failing == {"a": {("192.0.2.53", 6): -60.5, ("192.0.2.53", 4): 0.0}, "b": {}}
    again.restore(*state)
    assert (again.names, again.popular, again.announced) == (table.names, table.popular, table.announced)


def test_a_state_of_version_1_is_read(tmp_path: Path) -> None:
    path = tmp_path / "routes.state"
    text = b'["blocker-routes",1]\n["name","a",null,1,[["11.0.0.1",1.0,null]]]\n["route","11.0.0.1",2.0]\n["end",3]'
    path.write_bytes(SEALER.seal(text, context=b"blocker route state"))
    loaded = route_state.load(path, SEALER, 5.0)
    assert loaded is not None
    (names, popular, announced), failing = loaded
    assert [*names] == ["a"]
    assert announced == {ADDRESSES[0]: 2.0}
    assert not popular
    assert not failing


@pytest.mark.parametrize(
    ("went", "counted"),
    [(60.0, 60.0), (3600.0, 3600.0), (30 * 86_400.0, 3600.0), (40 * 365 * 86_400.0, 3600.0), (-86_400.0, 0.0)],
)
async def test_hold_downs_go_on_after_a_restart_however_wrong_the_clock(
    tmp_path: Path, went: float, counted: float
) -> None:
    """Of the time between, an hour counts at the most: whether it is true nobody knows."""
    path, hold_down = tmp_path / "routes.state", 86_400.0
    table = filled()  # an address has left at 4
    await StateFile(path, SEALER, table).save((), 10.0)
    loaded = route_state.load(path, SEALER, 10.0 + went)
    assert loaded is not None
    again = RouteTable(Limits(hold_down=hold_down))
    again.restore(*loaded[0])
    again.listed(["a", "b"], 10.0 + went)
    ends = 10.0 + went - (10.0 + counted) + 4.0 + hold_down
    assert not again.step(10.0 + went)
    assert not again.step(ends - 1)
    assert set(again.step(ends + 1).withdraw) == set(ADDRESSES[1:])
    assert again.names["b"].absent == pytest.approx(2.0 + went - counted)


async def test_only_what_has_changed_is_written_and_only_then(tmp_path: Path) -> None:
    path, table = tmp_path / "routes.state", filled()
    kept = StateFile(path, SEALER, table)
    assert await kept.save((), 5.0)
    assert kept.size == path.stat().st_size
    assert not await kept.save((), 15.0)
    # The same answers again are no change.
    table.answered("a", ADDRESSES[:1], 20.0, complete=FAMILIES)
    table.answered("b", [], 20.0, complete=FAMILIES)
    table.popular_answered("p", [ip_address("11.9.9.9")], 20.0, complete=FAMILIES)
    table.step(20.0)
    assert not await kept.save((), 20.0)

    async def written(now: float) -> None:
        assert await kept.save((), now)
        loaded = route_state.load(path, SEALER, now)
        assert loaded is not None
        assert loaded[0] == (table.names, table.popular, table.announced)
        assert not await kept.save((), now)

    table.answered("b", ADDRESSES[2:], 25.0, complete=FAMILIES)
    assert table.unsaved == {("name", "b")}
    await written(25.0)
    table.popular_answered("p", [ip_address("11.9.9.8")], 30.0, complete=FAMILIES)
    await written(30.0)
    table.listed(["b", "c"], 35.0)
    await written(35.0)
    assert table.step(35.0)
    assert table.unsaved == set()
    await written(36.0)
    table.popular_names([])
    await written(37.0)
    assert not await kept.save((), 636.0)
    await written(637.0)  # so that it is known until when it was kept


async def test_what_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    path = tmp_path / "there" / "routes.state"
    kept = StateFile(path, SEALER, filled())
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            await kept.save((), 5.0)
    path.parent.mkdir()
    assert await kept.save((), 5.0)
    loaded = route_state.load(path, SEALER, 5.0)
    assert loaded is not None
    assert loaded[0][0].keys() == {"a", "b"}


async def test_a_large_state_is_written_in_turns(tmp_path: Path) -> None:
    table = RouteTable(Limits(per_host=16))
    names = [str(at) for at in range(1000)]
    table.listed(names, 0.0)
    for at, name in enumerate(names):
        addresses = [ip_address((11 << 24) + at * 16 + each) for each in range(16)]
        table.answered(name, addresses, 0.0, complete=FAMILIES)
        table.popular_answered(name, addresses, 0.0, complete=FAMILIES)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    await StateFile(tmp_path / "routes.state", SEALER, table).save((), 5.0)
    beside.cancel()
    assert turns >= 2 * 16_000 / 272, "whoever shares the loop has it again after some hundred addresses"


async def test_a_stolen_state_shows_neither_addresses_nor_names(tmp_path: Path) -> None:
    path = tmp_path / "routes.state"
    await StateFile(path, SEALER, filled()).save((), 5.0)
    data = path.read_bytes()
    assert b"11.0.0" not in data
    assert b"2a00" not in data
    key = secrets.token_bytes(16)
    assert name_id(key, "pages.example") == name_id(key, "pages.example") != name_id(bytes(16), "pages.example")


async def test_a_damaged_or_foreign_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "routes.state"
    await StateFile(path, SEALER, filled()).save((), 5.0)
    data = path.read_bytes()
    for damaged in (data[:-1], data[:60], b"", b"x" * 100, data[:70] + bytes([data[70] ^ 1]) + data[71:]):
        path.write_bytes(damaged)
        with pytest.raises(FormatError):
            route_state.load(path, SEALER, 5.0)
    path.write_bytes(data)
    with pytest.raises(KeyMaterialError):
        route_state.load(path, Sealer(bytes(31) + b"x"), 5.0)
    for text in (
        b'["blocker-routes",4]\n["end",1]', b'["blocker-routes",3]\n["end",1]', b'["blocker-routes",3,"x"]\n["end",1]',
        b'["blocker-routes",2]\n["failing","a",[["192.0.2.53",6]]]\n["end",2]',
        b'["blocker-routes",1]\n["end",5]',
        b'["blocker-routes",1]\n["x",1]\n["end",2]',
        b'["blocker-routes",1]\n["name","a",null,1,[["no address",1,null]]]\n["end",2]', b"{}", b"[]\n[]", b"\xff",
        b'["blocker-routes",1]\n["route","11.0.0.1"]\n["end",2]', b'["blocker-routes",1]\n7\n["end",2]',
    ):  # fmt: skip
        path.write_bytes(SEALER.seal(text, context=b"blocker route state"))
        with pytest.raises(FormatError):
            route_state.load(path, SEALER, 5.0)


async def life(directory: Path, port: int) -> tuple[set[str], set[str]]:
    """A feed's, until it has looked its names up once: the names that it knew to fail at its beginning, and its end."""
    feed = RouteFeed(
        RouteSettings(enabled=True, resolvers=(f"127.0.0.1:{port}",), lookup_tries=1), GuardSettings(), directory,
        Keyring(lookup=bytes(16), seal=bytes(32)), None, no_store,
    )  # fmt: skip
    running = asyncio.create_task(feed.run())
    await until(lambda: feed._lookups is not None)
    lookups = feed._lookups
    assert lookups is not None
    before = {key for key, _ in lookups.failed()}
    await feed._list(frozenset({LISTED, OTHER}))
    await until(lambda: lookups.untried == 0)
    await feed.stop()
    await running
    return before, {key for key, _ in lookups.failed()}


async def test_a_feed_keeps_which_names_failed(tmp_path: Path) -> None:
    source = Source()
    async with upstream(source.behave) as running:
        key = name_id(bytes(16), LISTED)
        assert await life(tmp_path, running.port) == (set(), {key})
        assert await life(tmp_path, running.port) == ({key}, {key})
        source.site(["11.0.0.1"], [])
        assert await life(tmp_path, running.port) == ({key}, set())
