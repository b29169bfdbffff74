"""What is kept of a zone over a restart: the same version and its differences, or nothing, and never a wrong one."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

import dns.name
import dns.rrset
import pytest

from blocker.feeds.history import History, condensed
from blocker.feeds.shelf import Kept, Shelf
from blocker.matcher import Policy
from blocker.store.sealing import Sealer
from tests.feeds.support import KEYRING, ORIGIN, plan, query, records, version
from tests.feeds.test_feed import World, described, names, serial, until
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from blocker.feeds.rpz import RpzFeed

FILLER = [f"http://name{at}.example/" for at in range(100)]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def world(redis: RedisServer, tmp_path: Path) -> World:
    return World(redis, tmp_path)


def kept() -> tuple[Kept, History]:
    its, history = plan(), History(8)
    versions = [version(its, 5 + at, [*FILLER, f"http://*.turn{at}.example"]) for at in range(4)]
    for older, newer in itertools.pairwise(versions):
        history.add(older, newer, older.zone.diff(newer.zone))
    return Kept(version=versions[-1], steps=history.steps, lists=frozenset({"police"}), current=True), history


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    whole, history = kept()
    shelf = Shelf(tmp_path / "zones", Sealer(bytes(32)))
    assert shelf.load(plan()) is None
    shelf.save(whole)
    back = shelf.load(plan())
    assert back is not None
    assert back.current
    assert (back.lists, back.version.serial) == (whole.lists, 8)
    assert back.version.zone.digest() == whole.version.zone.digest()
    restored = History(8)
    restored.restore(back.steps, back.version)
    for known in (4, 5, 6, 7):
        mine, theirs = history.since(known), restored.since(known)
        assert len(mine) == len(theirs) == (8 - known if known > 4 else 0)
        for one, other in ((condensed(mine), condensed(theirs)),) if mine else ():
            assert one.removed.digest() == other.removed.digest()
            assert one.added.digest() == other.added.digest()
    shorter = History(1)
    shorter.restore(back.steps, back.version)
    assert len(shorter) == 1
    assert not shorter.since(6)
    file = tmp_path / "zones" / "police.zone"
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"example" not in file.read_bytes()
    for its in (plan(action="nodata"), plan(ttl=61), plan(policy="other"), plan(refresh=77)):
        other_plan = shelf.load(its)
        assert other_plan is not None
        assert not other_plan.current, "a zone that is configured otherwise is another zone"
    shelf.keep_only(["police"])
    assert file.exists()
    shelf.keep_only([])
    assert not file.exists()


def test_what_is_damaged_is_told_and_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shelf, file = Shelf(tmp_path, Sealer(bytes(32))), tmp_path / "police.zone"
    shelf.save(kept()[0])
    whole = file.read_bytes()
    for damaged in (
        b"", whole[:1], whole[: len(whole) // 2], whole[:-1], whole + b"\0", whole[:200] + b"\xff" + whole[201:],
        Sealer(bytes(32)).seal(b"{}\n", context=b"blocker zone police"),
        Sealer(bytes(32)).seal(b'{"format":["blocker-zone",2]}\n', context=b"blocker zone police"),
        Sealer(bytes([1] * 32)).seal(b"{}\n", context=b"blocker zone police"),
    ):  # fmt: skip
        file.write_bytes(damaged)
        assert shelf.load(plan()) is None
        told = capsys.readouterr()
        assert "a zone's history is not used" in told.out + told.err
    shelf.save(kept()[0])
    (tmp_path / "family.zone").write_bytes(file.read_bytes())
    family = type(plan()).of("family", plan().settings)
    assert shelf.load(family) is None, "another zone's file"


async def test_a_restart_goes_on_with_differences(world: World) -> None:
    async with world.feed(directory="node") as feed:
        await world.put("police", *FILLER, "http://a.example/")
        await until(lambda: "a.example" in names(feed))
        first = serial(feed)
        await world.put("police", *FILLER, "http://b.example/")
        await until(lambda: "b.example" in names(feed))
        second = serial(feed)
    await world.put("police", *FILLER, "http://c.example/")  # while it is away
    async with world.feed(directory="node") as feed:
        await until(lambda: "c.example" in names(feed))
        third = serial(feed)
        for known, gone in ((first, "a"), (second, "b")):
            found = await difference(feed, known)
            assert [owner for owner, kind, _ in found if kind == "CNAME"] == [
                f"{name}.example.{ORIGIN}" for name in (gone, "c")
            ]
            assert [data.split()[2] for _, kind, data in found if kind == "SOA"] == [
                str(one) for one in (third, known, third, third)
            ]
    (world.directory / "node" / "police.zone").write_bytes(b"torn")
    async with world.feed(directory="node") as feed:
        await until(lambda: "c.example" in names(feed))
        assert serial(feed) == third
        found = await difference(feed, second)
        assert len(found) == 104, "whole, since what was before is not known"


async def test_without_the_store_the_last_version_is_served_and_an_emptied_one_changes_nothing(world: World) -> None:
    async with world.feed(directory="node") as feed:
        await world.put("police", *FILLER)
        await until(lambda: len(names(feed)) == 100)
        before = serial(feed)
    world.empty()
    async with world.feed(directory="node") as feed:
        assert serial(feed) == before, "at once"
        await until(lambda: "none of its lists" in feed._told.get("police", ""))
        await world.put("other", "http://b.example/")
        await until(lambda: "left the store" in feed._told["police"])
        assert (serial(feed), len(names(feed))) == (before, 100)
        await world.put("police", "http://c.example/")
        await until(lambda: names(feed) == {"b.example", "c.example"})
        assert serial(feed) > before, "whatever the store has forgotten"
        last = serial(feed)
    async with world.feed(directory="node", action="nodata") as feed:
        await until(lambda: serial(feed) > last)
        assert len(feed._zones["police"].history) == 0


async def difference(feed: RpzFeed, known: int) -> list[tuple[str, str, str]]:
    """What an IXFR from a version gives."""
    asked: Any = query("IXFR", key=None)
    asked.authority = [dns.rrset.from_text(ORIGIN, 0, "IN", "SOA", f"localhost. x.localhost. {known} 1 1 1 1")]
    asked.use_tsig(KEYRING, dns.name.from_text("resolver"))
    answer = feed.server.respond(asked.to_wire(), tcp=True, peer=None)
    async with contextlib.aclosing(answer) as messages:
        return records([one async for one in messages], asked)


async def test_a_list_that_a_policy_names_no_more_is_not_waited_for(world: World) -> None:
    both = Policy(name="family", lists={"police": None, "more": None})
    await world.put("police", "http://a.example/")
    await world.put("more", "http://b.example/")
    async with world.feed((both,), policy="family") as feed:
        await until(lambda: names(feed) == {"a.example", "b.example"})
        feed.configure(described(policy="family"), (Policy(name="family", lists={"police": None}),), 0.2)
        await until(lambda: names(feed) == {"a.example"})
