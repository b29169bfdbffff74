from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from blocker.errors import CommitConflict, FormatError, KeyMaterialError, StoreError
from blocker.store.keys import COMMITS_KEPT, SCHEMA_VERSION, Keys
from blocker.store.manifest import Head
from blocker.store.redis import NO_COMMIT, UPLOAD_BYTES, Store
from blocker.store.sealing import Keyring
from tests.loop_time import loop_time
from tests.redis_server import RedisServer
from tests.store.publishing import make_layer, make_manifest, publish, read_whole, until, upload

if TYPE_CHECKING:
    from pathlib import Path

KEYRING = Keyring(lookup=bytes(16), seal=bytes(32))
MISSING = "f" * 64


async def test_the_epoch_is_made_once(server: RedisServer, store: Store, deployment: str) -> None:
    async with await Store.open(server.url, deployment) as other:
        epochs = await asyncio.gather(*(one.epoch() for one in (store, other) * 10))
    assert len(set(epochs)) == 1
    assert len(bytes.fromhex(epochs[0])) == 16


async def test_deployments_have_epochs_of_their_own(server: RedisServer, store: Store) -> None:
    async with await Store.open(server.url, f"t{secrets.token_hex(8)}") as other:
        assert await other.epoch() != await store.epoch()


async def test_another_schema_is_refused(server: RedisServer, store: Store, deployment: str) -> None:
    await store.epoch()
    server.command("HSET", Keys(deployment).meta, "schema", str(SCHEMA_VERSION + 1))
    with pytest.raises(StoreError, match=f"schema {SCHEMA_VERSION + 1}, this Blocker reads {SCHEMA_VERSION}"):
        await store.epoch()


async def test_other_keys_are_refused(server: RedisServer, deployment: str) -> None:
    async with await Store.open(server.url, deployment, keyring=KEYRING) as first:
        epoch = await first.epoch()
    strangers = {
        "lookup": Keyring(lookup=b"1" * 16, seal=bytes(32)),
        "seal": Keyring(lookup=bytes(16), seal=b"1" * 32),
    }
    for what, keyring in strangers.items():
        async with await Store.open(server.url, deployment, keyring=keyring) as stranger:
            with pytest.raises(KeyMaterialError, match=rf"{what}\.key.*copy the deployment's key files"):
                await stranger.epoch()
    for held in (KEYRING, Keyring(lookup=bytes(16)), None):
        async with await Store.open(server.url, deployment, keyring=held) as friend:
            assert await friend.epoch() == epoch


async def test_a_decision_node_that_comes_first_leaves_the_seal_key_open(server: RedisServer, deployment: str) -> None:
    async with await Store.open(server.url, deployment, keyring=Keyring(lookup=bytes(16))) as node:
        await node.epoch()
    async with await Store.open(server.url, deployment, keyring=KEYRING) as publisher:
        await publisher.epoch()
    async with await Store.open(server.url, deployment, keyring=replace(KEYRING, seal=b"1" * 32)) as stranger:
        with pytest.raises(KeyMaterialError, match=r"seal\.key"):
            await stranger.epoch()


async def test_an_empty_store_has_nothing(store: Store) -> None:
    assert await store.heads() == {}
    assert await store.history("test") == []
    assert await store.checked() == {}
    assert await store.source_state("test") == {}
    assert await store.load_hits("node") == {}
    assert await store.hit_nodes() == []
    assert await store.last_commit() == NO_COMMIT
    for serial in (None, 1):
        with pytest.raises(StoreError, match="list test"):
            await store.manifest("test", serial)


async def test_what_is_committed_is_read_back(store: Store) -> None:
    first = await publish(store, "test", 1, [b"one", b"two"])
    second = await publish(store, "test", 2, [b"one", b"three"])
    other = await publish(store, "other", 1, [b"one"])
    assert await store.heads() == {"test": second.head, "other": other.head}
    assert await store.manifest("test") == second
    assert await store.manifest("test", 1) == first
    assert await store.history("test") == [second, first]
    assert await store.history("test", 1) == [second]
    for manifest in (first, second, other):
        await read_whole(store, manifest)


async def test_a_list_without_rules_and_a_retired_one_are_lists(store: Store) -> None:
    empty = make_manifest(epoch=await store.epoch(), entries=0)
    await store.commit(empty, expected=0)
    retired = replace(empty, serial=2, retired=True)
    await store.commit(retired, expected=1)
    assert await store.history("test") == [retired, empty]
    assert await store.heads() == {"test": retired.head}


async def test_history_is_newest_first_and_limited(store: Store) -> None:
    for serial in range(1, 8):
        await publish(store, "test", serial, [b"%d" % serial])
    assert [manifest.serial for manifest in await store.history("test", 5)] == [7, 6, 5, 4, 3]
    assert [manifest.serial for manifest in await store.history("test")] == [7, 6, 5, 4, 3, 2, 1]


async def test_blobs_are_named_by_their_sha256(store: Store) -> None:
    blobs = [b"", b"one", secrets.token_bytes(70_000), b"one"]
    names = await store.put_blobs("segment", blobs)
    assert names == [hashlib.sha256(blob).hexdigest() for blob in blobs]
    assert [await store.get_blob("segment", name) for name in names] == blobs
    assert await store.put_blobs("segment", []) == []


async def test_kinds_of_blobs_are_apart(store: Store) -> None:
    [name] = await store.put_blobs("segment", [b"one"])
    with pytest.raises(StoreError, match=f"sealed {name} is not in the store"):
        await store.get_blob("sealed", name)


async def test_many_and_large_blobs_go_up_in_bounded_batches(store: Store) -> None:
    blobs = [secrets.token_bytes(1000) for _ in range(300)]
    blobs += [secrets.token_bytes(3 * 2**20) for _ in range(4)] + [secrets.token_bytes(UPLOAD_BYTES + 1)]
    names = await store.put_blobs("sealed", blobs)
    for name, blob in zip(names, blobs, strict=True):
        assert await store.get_blob("sealed", name) == blob


async def test_a_blob_that_is_there_is_not_sent_again_but_wanted_again(
    server: RedisServer, store: Store, deployment: str
) -> None:
    blob = secrets.token_bytes(2**20)
    [name] = await store.put_blobs("segment", [blob])
    keys = Keys(deployment)
    assert server.command("ZADD", keys.blobs, "XX", "5", f"segment:{name}") == b":0\r\n"
    before = input_bytes(server)
    assert await store.put_blobs("segment", [blob, b"new"]) == [name, hashlib.sha256(b"new").hexdigest()]
    assert input_bytes(server) - before < len(blob) // 2
    score = float(server.command("ZSCORE", keys.blobs, f"segment:{name}").split(b"\r\n")[1])
    assert abs(score - time.time()) < 60


async def test_a_damaged_blob_is_refused(server: RedisServer, store: Store, deployment: str) -> None:
    [name] = await store.put_blobs("segment", [b"one"])
    server.command("SET", Keys(deployment).blob("segment", name), "two")
    with pytest.raises(FormatError, match=f"segment: expected SHA-256 {name}"):
        await store.get_blob("segment", name)


async def test_a_missing_blob_is_named(store: Store) -> None:
    with pytest.raises(StoreError, match=f"segment {MISSING} is not in the store"):
        await store.get_blob("segment", MISSING)


async def test_a_commit_needs_every_blob(server: RedisServer, store: Store, deployment: str) -> None:
    manifest = await upload(store, "test", 1, [b"one", b"two"])
    for name in (manifest.segments[0], manifest.sealed[1]):
        kind = "segment" if name in manifest.segments else "sealed"
        server.command("DEL", Keys(deployment).blob(kind, name))  # type: ignore[arg-type]
        with pytest.raises(StoreError, match="list test serial 1: 1 blobs are not in the store; upload"):
            await store.commit(manifest, expected=0)
        assert await store.heads() == {}
        assert await store.last_commit() == NO_COMMIT
        await upload(store, "test", 1, [b"one", b"two"])
    await store.commit(manifest, expected=0)


async def test_a_commit_upon_another_head_is_refused(store: Store) -> None:
    first = await publish(store, "test", 1, [b"one"])
    for expected in (0, 2, 5):
        manifest = await upload(store, "test", expected + 1, [b"two"])
        with pytest.raises(CommitConflict, match=f"expected serial {expected}, the head is 1"):
            await store.commit(manifest, expected=expected)
    with pytest.raises(StoreError, match="needs serial 2, not 3"):
        await store.commit(await upload(store, "test", 3, [b"two"]), expected=1)
    assert await store.history("test") == [first]


async def test_a_commit_of_another_epoch_is_refused(store: Store) -> None:
    manifest = replace(await upload(store, "test", 1, [b"one"]), epoch="0" * 32)
    with pytest.raises(StoreError, match="another life of the store"):
        await store.commit(manifest, expected=0)
    assert await store.heads() == {}


async def test_a_malformed_manifest_is_never_written(store: Store) -> None:
    manifest = await upload(store, "test", 1, [b"one"])
    listed: Any = [*manifest.layers]
    for bad in (replace(manifest, digest="x"), replace(manifest, entries=-1), replace(manifest, layers=listed)):
        with pytest.raises(FormatError, match="manifest"):
            await store.commit(bad, expected=0)
        assert await store.heads() == {}
    whole_seconds = replace(manifest, created=5)
    await store.commit(whole_seconds, expected=0)
    assert await store.manifest("test") == whole_seconds


async def test_a_repeated_commit_is_done_once(store: Store) -> None:
    manifest = await publish(store, "test", 1, [b"one"])
    commit = await store.last_commit()
    await asyncio.gather(*(store.commit(manifest, expected=0) for _ in range(10)))
    assert await store.last_commit() == commit
    later = await publish(store, "test", 2, [b"two"])
    await store.commit(manifest, expected=0)  # its outcome was unknown while somebody else went on
    assert await store.heads() == {"test": later.head}
    with pytest.raises(CommitConflict):
        await store.commit(replace(manifest, reason="another"), expected=0)


async def test_a_rollback_brings_back_the_old_blobs(store: Store) -> None:
    first = await publish(store, "test", 1, [b"one"])
    await publish(store, "test", 2, [b"two"])
    await store.commit(replace(first, serial=3, reason="rollback"), expected=2)
    back = await store.manifest("test")
    assert (back.serial, back.digest, back.layers) == (3, first.digest, first.layers)


async def test_a_manifest_of_a_thousand_blobs_commits(store: Store) -> None:
    names = await store.put_blobs("segment", [b"%d" % number for number in range(9000)])
    layers = tuple(make_layer(names[start : start + 1000]) for start in range(0, 9000, 1000))
    manifest = make_manifest(epoch=await store.epoch(), layers=layers)
    await store.commit(manifest, expected=0)
    assert await store.manifest("test") == manifest


async def test_a_damaged_head_or_manifest_is_named(server: RedisServer, store: Store, deployment: str) -> None:
    await publish(store, "test", 1, [b"one"])
    keys = Keys(deployment)
    server.command("SET", keys.manifest("test", 1), json.dumps({"serial": 1}))
    with pytest.raises(FormatError, match="manifest"):
        await store.manifest("test")
    server.command("HSET", keys.heads, "test", "{}")
    with pytest.raises(FormatError, match=r"head\.serial"):
        await store.heads()


async def test_the_stream_tells_each_commit(server: RedisServer, store: Store, deployment: str) -> None:
    manifest = await publish(store, "test", 1, [b"one"])
    told = server.command("XRANGE", Keys(deployment).commits, "-", "+")
    for part in (await store.epoch(), "test", "serial", manifest.digest):
        assert part.encode() in told


async def test_the_stream_is_trimmed(server: RedisServer, store: Store, deployment: str) -> None:
    commits = Keys(deployment).commits
    fill = "for i = 1, tonumber(ARGV[1]) do redis.call('XADD', KEYS[1], '*', 'epoch', 'x') end"
    server.command("EVAL", fill, "1", commits, str(COMMITS_KEPT + 1000))
    await publish(store, "test", 1, [b"one"])
    length = int(server.command("XLEN", commits)[1:])
    assert COMMITS_KEPT <= length < COMMITS_KEPT + 500


async def test_a_waiter_wakes_at_a_commit(store: Store) -> None:
    before = await store.last_commit()
    waiting = asyncio.create_task(store.wait_for_commit(before, 30))
    await publish(store, "test", 1, [b"one"])
    woken = await waiting
    assert woken == await store.last_commit() != before
    assert await store.wait_for_commit(before, 30) == woken  # missed while nobody waited
    await publish(store, "test", 2, [b"two"])
    await publish(store, "test", 3, [b"three"])
    assert await store.wait_for_commit(woken, 30) == await store.last_commit()


async def test_a_waiter_returns_what_it_had_when_time_is_over(store: Store) -> None:
    assert await store.wait_for_commit(NO_COMMIT, 0.05) == NO_COMMIT
    await publish(store, "test", 1, [b"one"])
    last = await store.last_commit()
    started = time.monotonic()
    assert await store.wait_for_commit(last, 0.2) == last
    assert time.monotonic() - started >= 0.2
    assert await store.wait_for_commit(last, 0) == last


async def test_a_waiter_sees_a_stream_that_went_back(server: RedisServer, store: Store, deployment: str) -> None:
    await publish(store, "test", 1, [b"one"])
    server.command("DEL", Keys(deployment).commits)
    assert await store.wait_for_commit("99999999999999-0", 30) == NO_COMMIT


async def test_closing_ends_a_wait_at_once(server: RedisServer, deployment: str) -> None:
    store = await Store.open(server.url, deployment)
    waiting = asyncio.create_task(store.wait_for_commit(NO_COMMIT, 60))
    await until(lambda: blocked(server))
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await waiting


async def test_aborting_ends_everything_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blocker.store.connection.COMMAND_SECONDS", 60.0)
    with RedisServer(tmp_path, tcp=True) as frozen:
        store = await Store.open(frozen.url, "test")
        await store.epoch()
        frozen.pause()
        reading = asyncio.create_task(store.heads())
        await asyncio.sleep(0)
        async with loop_time() as spent:
            await store.abort()
            with pytest.raises(StoreError, match="closed"):
                await reading
        assert spent.seconds < 2


async def test_the_servers_clock_and_health(store: Store) -> None:
    before = time.time()
    assert before - 1 < await store.server_time() < time.time() + 1
    assert 0 < await store.ping() < 1
    info = await store.info()
    assert info["version"].split(".")[0] in ("6", "7", "8", "9")
    assert info["role"] == "master"
    assert info["server"] in ("redis", "valkey")
    assert {"maxmemory_policy", "aof_enabled", "used_memory"} <= info.keys()


async def test_scripts_are_sent_again_to_a_server_that_forgot_them(server: RedisServer, store: Store) -> None:
    await publish(store, "test", 1, [b"one"])
    assert server.command("SCRIPT", "FLUSH") == b"+OK\r\n"
    manifest = await publish(store, "test", 2, [b"two"])
    await store.flush_hits("node", "boot", 1, {"cell": 1})
    assert await store.heads() == {"test": Head(list="test", serial=2, digest=manifest.digest)}


async def blocked(server: RedisServer) -> bool:
    """Whether a client waits in a blocking read."""
    return b"blocked_clients:1" in server.command("INFO", "clients")


def input_bytes(server: RedisServer) -> int:
    """Bytes the server has ever received."""
    line = next(line for line in server.command("INFO", "stats").splitlines() if line.startswith(b"total_net_input"))
    return int(line.partition(b":")[2])
