"""The audit chain: whatever somebody who can write to Redis does to it is found."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from blocker.errors import FormatError
from blocker.store.audit import Actor, AuditChain, AuditEntry, verify
from blocker.store.redis import Store
from blocker.store.sealing import Keyring
from tests.store.publishing import publish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.redis_server import RedisServer

KEYRING = Keyring(lookup=b"0123456789abcdef", seal=bytes(range(32)))


@pytest.fixture
async def keyed(server: RedisServer, deployment: str) -> AsyncIterator[Store]:
    """Three serials of one list."""
    async with await Store.open(server.url, deployment, keyring=KEYRING) as store:
        for serial in range(1, 4):
            await publish(store, "test", serial, [b"%d" % serial])
        yield store


async def problems(store: Store, anchors: list[tuple[int, str]] | None = None) -> list[str]:
    heads, head = await store.heads(), await store.audit_head()
    manifests = [manifest for name in heads for manifest in await store.history(name)]
    records = [record async for record in store.audit_records()]
    return [
        *verify(
            store.audit_chain, records, head, epoch=await store.epoch(), heads=heads, manifests=manifests,
            anchors=anchors or [],
        )
    ]  # fmt: skip


def entries(server: RedisServer, deployment: str) -> list[tuple[str, str, str]]:
    """Id, record and hash of each entry of the stream."""
    lines = server.command("XRANGE", f"{{blocker:{deployment}}}:audit", "-", "+").decode().split("\r\n")
    texts = [line for line in lines if line and line[0] not in "*$"]
    return [(texts[at], texts[at + 2], texts[at + 4]) for at in range(0, len(texts), 5)]


class Tampering:
    """What somebody with Redis alone can do."""

    def __init__(self, server: RedisServer, deployment: str) -> None:
        self.server, self.tag = server, f"{{blocker:{deployment}}}"
        self.entries = entries(server, deployment)

    def rewrite(self, changed: list[tuple[str, str, str]]) -> None:
        """Put another stream in the place of the one that is there."""
        self.server.command("DEL", f"{self.tag}:audit")
        for _, record, link in changed:
            self.server.command("XADD", f"{self.tag}:audit", "*", "record", record, "hash", link)

    def head(self, seq: int, link: str) -> None:
        self.server.command("HSET", f"{self.tag}:audit:head", "seq", str(seq), "hash", link)


async def test_a_whole_chain_is_whole(keyed: Store) -> None:
    assert await problems(keyed) == []
    seq, link = await keyed.audit_head()
    assert seq == 3
    assert await problems(keyed, [(3, link)]) == []
    records = [record.fields async for record in keyed.audit_records()]
    assert [(record["action"], record["serial"], record["seq"]) for record in records] == [
        ("publish", 1, 1), ("publish", 2, 2), ("publish", 3, 3),
    ]  # fmt: skip


async def test_an_altered_record(server: RedisServer, keyed: Store, deployment: str) -> None:
    tampering = Tampering(server, deployment)
    first, (key, record, link), last = tampering.entries
    other = json.dumps({**json.loads(record), "person": "somebody else"}, sort_keys=True, separators=(",", ":"))
    tampering.rewrite([first, (key, other, link), last])
    assert await problems(keyed) == ["record 2 was altered, or was not made by this deployment"]
    tampering.rewrite([first, (key, record, "0" * 64), last])
    assert "record 3 does not follow the one before it" in await problems(keyed)


async def test_a_record_left_out_swapped_or_slipped_in(server: RedisServer, keyed: Store, deployment: str) -> None:
    tampering = Tampering(server, deployment)
    first, second, third = tampering.entries
    tampering.rewrite([first, third])
    assert "record 2 is missing; record 3 stands in its place" in await problems(keyed)
    tampering.rewrite([second, first, third])
    assert "record 1 is missing; record 2 stands in its place" in await problems(keyed)
    tampering.rewrite([first, second, second, third])
    assert "record 3 is missing; record 2 stands in its place" in await problems(keyed)
    text, link = AuditChain(b"another key").link(
        AuditEntry(action="publish", actor=Actor("forger"), at=0), await keyed.epoch(), 4, third[2]
    )
    tampering.rewrite([first, second, third, ("", text, link)])
    tampering.head(4, link)
    assert await problems(keyed) == ["record 4 was altered, or was not made by this deployment"]


async def test_an_end_that_was_cut_off(server: RedisServer, keyed: Store, deployment: str) -> None:
    noted = await keyed.audit_head()
    tampering = Tampering(server, deployment)
    tampering.rewrite(tampering.entries[:2])
    assert "the chain ends with record 2, the store says 3" in await problems(keyed)
    tampering.head(2, tampering.entries[1][2])
    assert await problems(keyed) == ["list test: its head is serial 3, the newest record is of 2"]
    # All that it speaks of goes with it: only what was noted elsewhere still tells.
    second = await keyed.manifest("test", 2)
    server.command("HSET", f"{tampering.tag}:heads", "test", second.head.to_json())
    assert await problems(keyed) == []
    assert await problems(keyed, [noted]) == ["record 3, which was noted, is not there"]


async def test_a_manifest_that_was_replaced(server: RedisServer, keyed: Store, deployment: str) -> None:
    manifest = await keyed.manifest("test", 2)
    for changed in (replace(manifest, digest="0" * 64), replace(manifest, mode="shadow"), replace(manifest, entries=9)):
        server.command("SET", f"{{blocker:{deployment}}}:manifest:test:2", changed.to_json())
        assert await problems(keyed) == ["list test serial 2 is not what its record says"]


async def test_what_is_no_record_is_named(server: RedisServer, keyed: Store, deployment: str) -> None:
    tampering = Tampering(server, deployment)
    for text in ("x", "[]", "{}", '{"seq":"1"}', "{" * 10_000):
        tampering.rewrite([("", text, "0" * 64)])
        with pytest.raises(FormatError, match="it was tampered with"):
            await problems(keyed)


async def test_many_writers_make_one_chain(server: RedisServer, deployment: str) -> None:
    async def write(number: int) -> None:
        async with await Store.open(server.url, deployment, keyring=KEYRING) as own:
            for _ in range(10):
                entry = AuditEntry(action="test", actor=Actor(f"writer-{number}", 'Ünal "x" \\ 名'), at=float(number))
                await own.record(entry, epoch=await own.epoch())

    await asyncio.gather(*(write(number) for number in range(8)))
    async with await Store.open(server.url, deployment, keyring=KEYRING) as store:
        assert await problems(store) == []
        records = [record.fields async for record in store.audit_records()]
        assert [record["seq"] for record in records] == [*range(1, 81)]
        assert {record["person"] for record in records} == {'Ünal "x" \\ 名'}
        assert [record.seq for record in await store.newest_audit_records(3)] == [80, 79, 78]
