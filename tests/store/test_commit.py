"""Publishers that race, and commits whose answer is lost."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from blocker.errors import CommitConflict, StoreUnavailable
from blocker.store.connection import RETRIES
from blocker.store.keys import Keys
from blocker.store.redis import Store
from blocker.store.scripts import CHANGE
from tests.store.proxy import Proxy
from tests.store.publishing import make_manifest, publish, read_whole, upload

if TYPE_CHECKING:
    from tests.redis_server import RedisServer

MARKER = CHANGE.sha1.encode()
ALL = RETRIES + 1


async def test_of_publishers_at_once_one_wins(server: RedisServer, store: Store, deployment: str) -> None:
    epoch = await store.epoch()
    async with await Store.open(server.url, deployment) as second:
        for serial in range(1, 30):
            racing = [make_manifest(serial=serial, epoch=epoch, reason=f"{number}") for number in range(4)]
            outcomes = await asyncio.gather(
                *(
                    (store, second)[number % 2].commit(manifest, expected=serial - 1)
                    for number, manifest in enumerate(racing)
                ),
                return_exceptions=True,
            )
            won = [manifest for manifest, outcome in zip(racing, outcomes, strict=True) if outcome is None]
            assert len(won) == 1
            assert all(outcome is None or isinstance(outcome, CommitConflict) for outcome in outcomes)
            assert await store.manifest("test") == won[0]
    assert [manifest.serial for manifest in await store.history("test")] == [*range(29, 0, -1)]


async def test_publishers_that_retry_use_every_serial_once(server: RedisServer, store: Store, deployment: str) -> None:
    async def publisher(name: str) -> list[int]:
        done: list[int] = []
        async with await Store.open(server.url, deployment) as own:
            while len(done) < 15:
                head = (await own.heads()).get("test")
                serial = head.serial if head else 0
                manifest = replace(await upload(own, "test", serial + 1, [f"{name} {len(done)}".encode()]), reason=name)
                try:
                    await own.commit(manifest, expected=serial)
                except CommitConflict:
                    continue
                done.append(serial + 1)
        return done

    serials = await asyncio.gather(*(publisher(name) for name in "abc"))
    assert sorted(serial for one in serials for serial in one) == [*range(1, 46)]
    for manifest in await store.history("test"):
        assert manifest.serial in serials["abc".index(manifest.reason)]
        await read_whole(store, manifest)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_cut_is_bridged_by_itself(server: RedisServer, deployment: str, moment: str) -> None:
    async with Proxy(server) as proxy, await Store.open(proxy.url, deployment) as store:
        manifest = await upload(store, "test", 1, [b"one"])
        proxy.cut(MARKER, moment, times=RETRIES)  # type: ignore[arg-type]
        await store.commit(manifest, expected=0)
        assert proxy.cuts == RETRIES
        assert await store.manifest("test") == manifest
        assert await commits(server, deployment) == 1


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_commit_of_unknown_outcome_is_repeated(server: RedisServer, deployment: str, moment: str) -> None:
    async with Proxy(server) as proxy, await Store.open(proxy.url, deployment) as store:
        for serial in range(1, 4):
            manifest = await upload(store, "test", serial, [b"%d" % serial])
            proxy.cut(MARKER, moment, times=ALL)  # type: ignore[arg-type]
            with pytest.raises(StoreUnavailable):
                await store.commit(manifest, expected=serial - 1)
            assert proxy.cuts == ALL
            assert len(await store.heads()) == (serial > 1 or moment == "after")
            await store.commit(manifest, expected=serial - 1)
            assert await store.manifest("test") == manifest
            assert await commits(server, deployment) == serial


async def test_a_lost_answer_is_no_conflict_though_others_went_on(server: RedisServer, deployment: str) -> None:
    async with (
        Proxy(server) as proxy,
        await Store.open(proxy.url, deployment) as store,
        await Store.open(server.url, deployment) as other,
    ):
        mine = await upload(store, "test", 1, [b"mine"])
        proxy.cut(MARKER, "after", times=ALL)
        with pytest.raises(StoreUnavailable):
            await store.commit(mine, expected=0)
        await publish(other, "test", 2, [b"theirs"])
        await store.commit(mine, expected=0)
        assert [manifest.serial for manifest in await store.history("test")] == [2, 1]

        lost = await upload(store, "test", 3, [b"lost"])
        proxy.cut(MARKER, "before", times=ALL)
        with pytest.raises(StoreUnavailable):
            await store.commit(lost, expected=2)
        await publish(other, "test", 3, [b"theirs"])
        with pytest.raises(CommitConflict):
            await store.commit(lost, expected=2)


async def test_a_flush_whose_answer_is_lost_counts_once(server: RedisServer, deployment: str) -> None:
    async with Proxy(server) as proxy, await Store.open(proxy.url, deployment) as store:
        for sequence in range(1, 6):
            proxy.cut(b"EVALSHA", "after", times=ALL)
            with pytest.raises(StoreUnavailable):
                await store.flush_hits("node", "boot", sequence, {"cell": 1})
            await store.flush_hits("node", "boot", sequence, {"cell": 1})
            assert await store.load_hits("node") == {"cell": sequence}


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_an_upload_that_was_cut_is_repeated(server: RedisServer, deployment: str, moment: str) -> None:
    async with Proxy(server) as proxy, await Store.open(proxy.url, deployment) as store:
        blobs = [bytes([number]) * 100_000 for number in range(20)]
        proxy.cut(b"MULTI", moment, times=ALL)  # type: ignore[arg-type]
        with pytest.raises(StoreUnavailable):
            await store.put_blobs("segment", blobs)
        names = await store.put_blobs("segment", blobs)
        for name, blob in zip(names, blobs, strict=True):
            assert await store.get_blob("segment", name) == blob


async def commits(server: RedisServer, deployment: str) -> int:
    """Entries of the commit stream."""
    return int(server.command("XLEN", Keys(deployment).commits)[1:])
