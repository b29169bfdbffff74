from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from blocker.errors import CommitConflict, FormatError, StoreError
from blocker.store.collect import BATCH, Collected
from blocker.store.keys import Keys
from blocker.store.redis import Store
from tests.store.publishing import publish, read_whole, upload

if TYPE_CHECKING:
    from tests.redis_server import RedisServer

NOTHING = Collected(blobs=0, manifests=0, bytes=0)


async def test_blobs_that_no_manifest_names_are_dropped(store: Store) -> None:
    manifest = await publish(store, "test", 1, [b"kept"])
    [orphan] = await store.put_blobs("sealed", [b"orphan"])
    assert await store.collect_orphans(grace_seconds=0, keep_serials=1) == Collected(blobs=1, manifests=0, bytes=6)
    with pytest.raises(StoreError, match="not in the store"):
        await store.get_blob("sealed", orphan)
    await read_whole(store, manifest)
    assert await store.collect_orphans(grace_seconds=0, keep_serials=1) == NOTHING


async def test_young_blobs_stay(store: Store) -> None:
    [name] = await store.put_blobs("segment", [b"upload under way"])
    assert await store.collect_orphans(grace_seconds=3600, keep_serials=1) == NOTHING
    assert await store.get_blob("segment", name) == b"upload under way"


async def test_an_upload_makes_a_blob_young_again(server: RedisServer, store: Store, deployment: str) -> None:
    [name] = await store.put_blobs("segment", [b"wanted again"])
    server.command("ZADD", Keys(deployment).blobs, "5", f"segment:{name}")
    await store.put_blobs("segment", [b"wanted again"])
    assert await store.collect_orphans(grace_seconds=3600, keep_serials=1) == NOTHING


async def test_old_manifests_go_and_their_blobs_with_them(store: Store) -> None:
    manifests = [await publish(store, "test", serial, [b"%d" % serial, b"shared"]) for serial in range(1, 7)]
    assert await store.collect_orphans(grace_seconds=0, keep_serials=2) == Collected(
        blobs=8, manifests=4, bytes=4 * (1 + len(b"sealed 1"))
    )
    assert await store.history("test") == [manifests[5], manifests[4]]
    with pytest.raises(StoreError, match="no serial 4"):
        await store.manifest("test", 4)
    for manifest in manifests[4:]:
        await read_whole(store, manifest)


async def test_the_head_stays_even_if_it_is_retired_and_old(server: RedisServer, store: Store, deployment: str) -> None:
    first = await publish(store, "test", 1, [b"one"])
    retired = replace(first, serial=2, retired=True)
    await store.commit(retired, expected=1)
    for name in retired.segments:
        server.command("ZADD", Keys(deployment).blobs, "5", f"segment:{name}")
    assert await store.collect_orphans(grace_seconds=0, keep_serials=1) == Collected(blobs=0, manifests=1, bytes=0)
    await read_whole(store, await store.manifest("test"))


async def test_more_than_a_batch_of_everything(store: Store) -> None:
    epoch = await store.epoch()
    manifest = await publish(store, "test", 1, [b"one"])
    serials = 3 * BATCH + 7
    for serial in range(2, serials + 1):
        await store.commit(replace(manifest, serial=serial, epoch=epoch), expected=serial - 1)
    orphans = await store.put_blobs("segment", [b"%d" % number for number in range(2 * BATCH + 1)])
    collected = await store.collect_orphans(grace_seconds=0, keep_serials=BATCH + 1)
    assert (collected.blobs, collected.manifests) == (len(orphans), serials - BATCH - 1)
    assert [m.serial for m in await store.history("test", serials)] == [*range(serials, serials - BATCH - 1, -1)]
    assert await store.collect_orphans(grace_seconds=0, keep_serials=BATCH + 1) == NOTHING


async def test_a_collection_that_was_broken_off_is_finished_later(
    server: RedisServer, store: Store, deployment: str
) -> None:
    for serial in range(1, 9):
        await publish(store, "test", serial, [b"%d" % serial])
    for serial in (1, 2, 3):  # as a crash leaves it: the lowest are gone
        server.command("DEL", Keys(deployment).manifest("test", serial))
    collected = await store.collect_orphans(grace_seconds=0, keep_serials=2)
    assert (collected.manifests, collected.blobs) == (3, 12)


async def test_an_unreadable_manifest_stops_it(server: RedisServer, store: Store, deployment: str) -> None:
    await publish(store, "test", 1, [b"one"])
    [orphan] = await store.put_blobs("segment", [b"orphan"])
    server.command("SET", Keys(deployment).manifest("test", 1), "{}")
    with pytest.raises(FormatError):
        await store.collect_orphans(grace_seconds=0, keep_serials=1)
    assert await store.get_blob("segment", orphan) == b"orphan"


@pytest.mark.parametrize(("grace", "keep"), [(0, 0), (-1, 1)])
async def test_it_never_drops_a_head_by_mistake(store: Store, grace: float, keep: int) -> None:
    with pytest.raises(StoreError, match="at least 1 serial"):
        await store.collect_orphans(grace_seconds=grace, keep_serials=keep)


async def test_a_rollback_to_what_is_being_collected_is_whole_or_refused(store: Store) -> None:
    for attempt in range(25):
        name = f"list{attempt}"
        first = await publish(store, name, 1, [b"old %d" % attempt])
        await publish(store, name, 2, [b"new %d" % attempt])
        back = replace(first, serial=3)
        committed, _ = await asyncio.gather(
            store.commit(back, expected=2),
            store.collect_orphans(grace_seconds=0, keep_serials=1),
            return_exceptions=True,
        )
        if isinstance(committed, BaseException):
            assert isinstance(committed, StoreError)
            assert "upload them again" in str(committed)
            assert (await store.heads())[name].serial == 2
        await read_whole(store, await store.manifest(name))


@pytest.mark.parametrize("seed", range(3))
async def test_collections_that_race_with_publishers_lose_nothing(
    server: RedisServer, store: Store, deployment: str, seed: int
) -> None:
    """Whatever runs at once: a head is always whole, and in the end exactly what is named is there."""
    pool = [b"shared blob %d" % number for number in range(12)]
    outcomes: Counter[str] = Counter()
    publishing = 4

    async def publisher(number: int, name: str) -> None:
        nonlocal publishing
        chance = random.Random(f"{seed} {number}")  # noqa: S311 - a test's dice
        async with await Store.open(server.url, deployment) as own:
            for _ in range(25):
                history = await own.history(name, 3)
                serial = history[0].serial if history else 0
                if len(history) > 1 and chance.random() < 0.3:  # a rollback, which uploads nothing
                    manifest = replace(history[-1], serial=serial + 1, reason=secrets.token_hex(4))
                else:
                    blobs = chance.sample(pool, 4) + [secrets.token_bytes(8) for _ in range(chance.randrange(3))]
                    manifest = replace(await upload(own, name, serial + 1, blobs), reason=secrets.token_hex(4))
                try:
                    await own.commit(manifest, expected=serial)
                except CommitConflict:
                    outcomes["lost"] += 1
                except StoreError as error:
                    outcomes["collected" if "upload them again" in str(error) else str(error)] += 1
                else:
                    outcomes["won"] += 1
                await whole_head(own, name)
        publishing -= 1

    async def collector() -> None:
        while publishing:
            await store.collect_orphans(grace_seconds=0, keep_serials=2)

    names = ["a", "a", "b", "c"]
    async with asyncio.TaskGroup() as tasks:
        for number, name in enumerate(names):
            tasks.create_task(publisher(number, name))
        for _ in range(2):
            tasks.create_task(collector())

    assert outcomes.keys() <= {"won", "lost", "collected"}
    await store.collect_orphans(grace_seconds=0, keep_serials=2)
    keys = Keys(deployment)
    named: set[str] = set()
    for name in set(names):
        for manifest in await store.history(name):
            await read_whole(store, manifest)
            named |= set(keys.members(manifest))
    client = store._session.client
    assert {member.decode() for member in await client.execute_command("ZRANGE", keys.blobs, 0, -1)} == named
    stored = {key.decode() async for key in client.scan_iter(f"{keys.member_key('s')}e*", count=1000)}
    assert {key for key in stored if ":segment:" in key or ":sealed:" in key} == {keys.member_key(m) for m in named}


async def whole_head(store: Store, name: str) -> None:
    """Read all of a list's head; a blob may only be missing if the head has moved meanwhile."""
    while (head := (await store.heads()).get(name)) is not None:
        try:
            await read_whole(store, await store.manifest(name, head.serial))
        except StoreError:
            assert (await store.heads())[name] != head
        else:
            return
