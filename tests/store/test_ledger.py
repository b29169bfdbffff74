from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from blocker.errors import StoreError
from blocker.store.keys import Keys
from blocker.store.ledger import BOOTS_KEPT

if TYPE_CHECKING:
    from blocker.store.redis import Store
    from tests.redis_server import RedisServer


async def test_checks_are_kept_per_list(store: Store) -> None:
    await store.set_checked("one", 1_700_000_000.25)
    await store.set_checked("two", 5)
    await store.set_checked("one", 1_600_000_000.5)  # a clock that was wrong can be put right
    assert await store.checked() == {"one": 1_600_000_000.5, "two": 5.0}
    with pytest.raises(StoreError, match="list name"):
        await store.set_checked("No List", 1)


async def test_a_sources_state_is_replaced_whole(store: Store) -> None:
    await store.set_source_state("test", {"etag": '"ä"', "modified": "x"})
    await store.set_source_state("test", {"etag": "new"})
    assert await store.source_state("test") == {"etag": "new"}
    await store.set_source_state("test", {})
    assert await store.source_state("test") == {}


async def test_a_flush_counts_once_however_often_it_is_sent(store: Store) -> None:
    for _ in range(3):
        await store.flush_hits("node", "boot", 1, {"a": 2, "b": 1})
    await store.flush_hits("node", "boot", 2, {"a": 5})
    await store.flush_hits("node", "boot", 1, {"a": 2, "b": 1})
    assert await store.load_hits("node") == {"a": 7, "b": 1}


async def test_each_boot_counts_by_itself_whatever_it_is_called(store: Store) -> None:
    await store.flush_hits("node", "zz", 7, {"a": 1})
    await store.flush_hits("node", "aa", 1, {"a": 10})
    await store.flush_hits("node", "zz", 7, {"a": 1})  # late, from before the restart
    await store.flush_hits("node", "zz", 8, {"a": 100})
    await store.flush_hits("node", "aa", 1, {"a": 10})
    assert await store.load_hits("node") == {"a": 111}


async def test_nodes_are_apart_and_known(store: Store) -> None:
    await store.flush_hits("two", "boot", 1, {"a": 1})
    await store.flush_hits("one", "boot", 1, {"a": 2})
    await store.flush_hits("none", "boot", 1, {})
    assert await store.load_hits("one") == {"a": 2}
    assert await store.load_hits("two") == {"a": 1}
    assert await store.hit_nodes() == ["one", "two"]


async def test_the_fleet_is_the_sum_of_its_nodes(store: Store) -> None:
    assert await store.fleet_hits() == {}
    await store.flush_hits("one", "boot", 1, {"a": 2, "b": 1})
    await store.flush_hits("two", "boot", 1, {"a": 5, "c": 7})
    assert await store.fleet_hits() == {"a": 7, "b": 1, "c": 7}


async def test_cells_are_folded_once_and_only_as_they_were_read(store: Store) -> None:
    await store.flush_hits("node", "boot", 1, {f"old{number}": number + 1 for number in range(3000)} | {"new": 4})
    read = {cell: count async for cells in store.scan_hits("node") for cell, count in cells.items()}
    assert len(read) == 3001
    await store.flush_hits("node", "boot", 2, {"old7": 1})
    folds = [(cell, count, "all", 8) for cell, count in read.items() if cell != "new"]
    assert await store.fold_hits("node", folds) == 2999
    assert await store.fold_hits("node", folds) == 0
    assert await store.load_hits("node") == {"new": 4, "old7": 9}
    assert await store.folded_hits("node") == {"all": 8 * 2999}


async def test_a_release_is_written_once_and_never_past_one_that_was_not_seen(store: Store) -> None:
    assert await store.releases() == {}
    assert await store.add_release("one", "first", seen=0) == "first"
    assert await store.add_release("one", "second", seen=1) == "first"
    assert await store.add_release("two", "other", seen=0) is None
    assert await store.add_release("two", "other", seen=1) == "other"
    assert await store.releases() == {"one": "first", "two": "other"}


async def test_only_the_newest_boots_are_remembered(server: RedisServer, store: Store, deployment: str) -> None:
    order = [f"{number:x}" for number in range(3 * BOOTS_KEPT)]
    random.Random(5).shuffle(order)  # names tell nothing of the order  # noqa: S311
    for boot in order:
        for sequence in (1, 2):
            await store.flush_hits("node", boot, sequence, {"a": 1})
    kept = server.command("HKEYS", Keys(deployment).hits_sequence("node")).split(b"\r\n")[2::2]
    assert {boot.decode() for boot in kept} == set(order[-BOOTS_KEPT:])
    for boot in order[-BOOTS_KEPT:]:
        await store.flush_hits("node", boot, 2, {"a": 1})
    assert await store.load_hits("node") == {"a": 2 * len(order)}


async def test_a_first_flush_of_every_cell_is_one_step(store: Store) -> None:
    cells = {f"list{number % 64}:{number // 64}": number for number in range(64 * 168)}
    await store.flush_hits("node", "boot", 1, cells)
    assert await store.load_hits("node") == cells


async def test_flushes_at_once_all_count(store: Store) -> None:
    flushes = [(f"boot{boot}", sequence) for boot in range(5) for sequence in (1, 1, 1)]
    await asyncio.gather(*(store.flush_hits("node", boot, sequence, {"a": 1}) for boot, sequence in flushes))
    assert await store.load_hits("node") == {"a": 5}


async def test_a_zones_serial_is_one_for_all_nodes_and_only_grows(store: Store) -> None:
    async def serial(digest: str, rank: int, *, forced: bool = False) -> int | None:
        found = await store.zone_serial("police", digest, rank, forced=forced)
        return None if found is None else found.serial

    before = await store.server_time()
    first = await serial("a", 5)
    assert first is not None
    assert int(before) <= first <= await store.server_time(), "seconds: an emptied store goes on"
    assert await serial("a", 6) == first, "the same says the same"
    assert await serial("b", 7) == first + 1, "however soon"
    assert await serial("a", 8) == first + 2, "also what was said before"
    assert await serial("b", 7) is None, "older lists than another node has read"
    assert await serial("b", 7, forced=True) == first + 3, "unless a failover forgot those"
    other = await store.zone_serial("other", "b", 1)
    assert other is not None
    assert other.serial != first + 3
    with pytest.raises(StoreError, match="zone name"):
        await store.zone_serial("No Zone", "a", 1)


async def test_a_serial_leaps_where_a_node_serves_what_the_store_has_forgotten(store: Store) -> None:
    async def ask(digest: str, serial: int, mark: str, **how: bool) -> tuple[int, int]:
        found = await store.zone_serial("police", digest, 5, served=(serial, mark), **how)
        assert found is not None
        return found

    found = await store.zone_serial("police", "a", 5)
    assert found is not None
    first, day = found.serial, 86_400
    assert found.since == first, "nobody knows what was before"
    assert await ask("a", first, "a") == await ask("a", first, "a", kept=True) == (first, first)
    assert await ask("b", first, "a") == (first + 1, first), "what follows is certain"
    assert await ask("a", first, "a", kept=True) == (first, first), "it will see the lists that the other has read"
    assert await ask("b", first - 9, "b", kept=True) == (first + 1, first), "what was before does not matter"
    last = first + 10 + day
    assert await ask("c", first + 9, "b") == (last, last), "it has served a later one"
    last = last + 1 + day
    assert await ask("c", last - 1 - day, "b") == (last, last), "the same one with another content"
    last = last + 8 + day
    assert await ask("c", last - 1 - day, "c", kept=True) == (last, last), "and nothing is new"
    assert await ask("d", 2**32 - 1, "d") == (last + 1, last), "serials are a circle: that is an earlier one"
    assert await ask("e", last, "c") == (last + 2, last)
    last = last + 3 + day
    assert await ask("e", last - 2 - day, "c") == (last, last), "an earlier one with another content"
    for turn in range(1000):
        last, since = await ask(str(turn), last, "e" if turn == 0 else str(turn - 1))
    assert last - 999 < since < last - 400, "not all of it is noted for ever"
    assert await ask("f", since, "not what it was") == (last + 1 + day, last + 1 + day)
