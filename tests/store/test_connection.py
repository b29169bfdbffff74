"""A Redis that is slow, away, full, locked or demoted; and callers that go away."""

from __future__ import annotations

import asyncio
import random
import secrets
import statistics
import time
from typing import TYPE_CHECKING

import pytest

from blocker.errors import StoreError, StoreUnavailable
from blocker.store.connection import COMMAND_SECONDS, Session
from blocker.store.keys import Keys
from blocker.store.redis import Store
from tests.loop_time import loop_time
from tests.redis_server import RedisServer
from tests.store.proxy import Proxy
from tests.store.publishing import publish, read_whole, until, upload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def own_server(binary: Path, tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may stop, freeze and spoil."""
    with RedisServer(tmp_path / "redis", binary=binary, tcp=True, aof=True) as running:
        yield running


async def test_opening_needs_no_server(tmp_path: Path) -> None:
    took = []
    for url in (f"unix://{tmp_path}/none.sock", "redis://127.0.0.1:1", "redis+cluster://127.0.0.1:1",
                "redis+sentinel://127.0.0.1:1/master"):  # fmt: skip
        async with await Store.open(url, "test") as store:
            for use in (store.heads, store.epoch, store.ping, store.info, store.server_time, store.last_commit):
                started = time.monotonic()
                with pytest.raises(StoreUnavailable, match="Redis cannot be reached") as caught:
                    await use()
                took.append(time.monotonic() - started)
                assert "127.0.0.1" not in str(caught.value)
    assert statistics.median(took) < 2


async def test_a_restarted_server_is_used_again_without_a_word(own_server: RedisServer) -> None:
    async with await Store.open(own_server.url, "test") as store:
        manifest = await publish(store, "test", 1, [b"one"])
        await own_server.arestart()
        assert await store.heads() == {"test": manifest.head}
        await read_whole(store, manifest)
        await own_server.akill()
        with pytest.raises(StoreUnavailable):
            await store.heads()
        await own_server.astart()
        assert await store.heads() == {"test": manifest.head}
        assert await store.wait_for_commit("0-0", 5) == await store.last_commit()


async def test_a_frozen_server_is_told_in_time(tmp_path: Path) -> None:
    with RedisServer(tmp_path, tcp=True) as frozen:
        store = await Store.open(frozen.url, "test")
        await store.epoch()
        frozen.pause()
        took = []
        for _ in range(3):
            started = time.monotonic()
            with pytest.raises(StoreUnavailable, match="ping: Redis did not answer"):
                await store.ping()
            took.append(time.monotonic() - started)
        assert min(took) < 2
        async with loop_time() as spent:
            with pytest.raises(StoreUnavailable, match="did not answer in time"):
                await store.heads()
        assert spent.seconds < COMMAND_SECONDS + 3
        frozen.resume()
        assert await store.heads() == {}
        await store.close()


async def test_a_wrong_or_missing_password_is_told_apart(own_server: RedisServer) -> None:
    assert own_server.command("CONFIG", "SET", "requirepass", "right") == b"+OK\r\n"
    for user, says in (("", "asks for a password|refuses"), (":wr0ng@", "refuses the user or password")):
        async with await Store.open(own_server.url.replace("//", f"//{user}"), "test") as store:
            with pytest.raises(StoreUnavailable, match=says) as caught:
                await store.heads()
            assert "wr0ng" not in str(caught.value)
    async with await Store.open(own_server.url.replace("//", "//:right@"), "test") as store:
        assert await store.heads() == {}


async def test_a_user_without_rights_is_told(own_server: RedisServer) -> None:
    assert own_server.command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+hget", "+client") == b"+OK\r\n"
    async with await Store.open(own_server.url.replace("//", "//reader:pw@"), "test") as store:
        with pytest.raises(StoreError, match="its ACL does not let this user") as caught:
            await store.heads()
        assert not isinstance(caught.value, StoreUnavailable)


async def test_a_full_server_is_told_and_keeps_what_it_has(own_server: RedisServer) -> None:
    async with await Store.open(own_server.url, "test") as store:
        manifest = await publish(store, "test", 1, [b"one"])
        blobs = [secrets.token_bytes(2**18) for _ in range(8)]
        used = int((await store.info())["used_memory"])
        assert own_server.command("CONFIG", "SET", "maxmemory", str(used + 2**18)) == b"+OK\r\n"
        with pytest.raises(StoreUnavailable, match="out of memory; raise its maxmemory"):
            await publish(store, "test", 2, blobs)
        assert own_server.command("CONFIG", "SET", "maxmemory", "1") == b"+OK\r\n"
        with pytest.raises(StoreUnavailable, match="out of memory"):
            await store.flush_hits("node", "boot", 1, {"a": 1})
        assert await store.heads() == {"test": manifest.head}
        await read_whole(store, manifest)
        assert own_server.command("CONFIG", "SET", "maxmemory", "0") == b"+OK\r\n"
        await publish(store, "test", 2, blobs)


async def test_a_demoted_master_is_told_read_and_left(own_server: RedisServer, binary: Path, tmp_path: Path) -> None:
    with RedisServer(tmp_path / "other", binary=binary, tcp=True) as other:
        async with await Store.open(own_server.url, "test") as store:
            first = await publish(store, "test", 1, [b"one"])
            manifest = await upload(store, "test", 2, [b"two"])
            demote(other, own_server)
            await until(lambda: synced(other))
            assert other.command("REPLICAOF", "NO", "ONE") == b"+OK\r\n"
            demote(own_server, other)
            await until(lambda: synced(own_server))
            for write in (
                lambda: store.commit(manifest, expected=1),
                lambda: store.flush_hits("node", "boot", 1, {"a": 1}),
                lambda: store.put_blobs("segment", [b"three"]),
                lambda: store.set_source_state("test", {"a": "b"}),
                lambda: store.set_checked("test", 1),
            ):
                with pytest.raises(StoreUnavailable, match="it is a replica"):
                    await write()
                pool = store._session.client.connection_pool  # type: ignore[union-attr]
                assert not any(connection.is_connected for connection in pool._available_connections)
            assert await store.epoch() == first.epoch
            assert await store.heads() == {"test": first.head}
            assert own_server.command("REPLICAOF", "NO", "ONE") == b"+OK\r\n"
            await store.commit(manifest, expected=1)


async def test_a_wrong_type_is_an_error_that_shows_no_value(server: RedisServer, store: Store, deployment: str) -> None:
    server.command("SET", Keys(deployment).heads, "secret-value")
    with pytest.raises(StoreError, match="read the heads: Redis refused it: ResponseError") as caught:
        await store.heads()
    assert not isinstance(caught.value, StoreUnavailable)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


async def test_answers_never_shift_however_callers_are_cancelled(store: Store) -> None:
    """Every answer belongs to its question, though most callers left while theirs was under way."""
    blobs = [secrets.token_bytes(10 + 4000 * (number % 7)) for number in range(40)]
    names = await store.put_blobs("segment", blobs)
    dice = random.Random(7)  # noqa: S311 - a test's dice
    answered = 0

    async def ask(number: int) -> None:
        nonlocal answered
        assert await store.get_blob("segment", names[number]) == blobs[number]
        answered += 1

    for _ in range(60):
        asking = [asyncio.create_task(ask(dice.randrange(40))) for _ in range(12)]
        for _ in range(dice.randrange(12)):
            await asyncio.sleep(0)
        for task in dice.sample(asking, 9):
            task.cancel()
        for outcome in await asyncio.gather(*asking, return_exceptions=True):
            assert outcome is None or isinstance(outcome, asyncio.CancelledError)
    assert answered >= 60 * 3


async def test_a_command_ends_though_its_caller_left(store: Store) -> None:
    task = asyncio.create_task(store.set_checked("test", 5))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def written() -> bool:
        return await store.checked() == {"test": 5.0}

    await until(written)


async def test_close_waits_for_commands_and_takes_no_more(server: RedisServer, deployment: str) -> None:
    store = await Store.open(server.url, deployment)
    task = asyncio.create_task(store.put_blobs("segment", [secrets.token_bytes(2**20)]))
    await asyncio.sleep(0)
    flush = asyncio.create_task(store.flush_hits("node", "boot", 1, {"a": 1}))
    await asyncio.sleep(0)
    await store.close()
    await flush
    with pytest.raises(StoreUnavailable, match="closed"):
        await task
    for use in (store.heads, store.last_commit, store.ping):
        with pytest.raises(StoreUnavailable, match="closed"):
            await use()
    await store.close()


async def test_a_dropped_connection_is_replaced(server: RedisServer, deployment: str) -> None:
    async with Proxy(server) as proxy, await Store.open(proxy.url, deployment) as store:
        await store.epoch()
        for _ in range(2):
            proxy.cut(b"HGETALL", "before", times=2)
            assert await store.heads() == {}
            assert proxy.cuts == 2


async def test_a_session_of_an_unknown_host_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blocker.store.connection.CONNECT_SECONDS", 60.0)  # however long the name is looked for
    session = Session("redis://no-such-host.invalid")
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await session.command("test", "PING")
    await session.aclose()


def demote(server: RedisServer, master: RedisServer) -> None:
    """Make a server the replica of another."""
    assert server.command("REPLICAOF", "127.0.0.1", str(master.port)) == b"+OK\r\n"


async def synced(server: RedisServer) -> bool:
    """Whether a replica has its master's data."""
    return b"master_link_status:up" in server.command("INFO", "replication")
