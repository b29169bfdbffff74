"""Rollback: the old trie under a new serial, byte for byte, whole or refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from blocker._native import RuleSet
from blocker.errors import CommitConflict, FormatError, StoreError, UpdateRefused
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import ATTEMPTS, PublishResult, publish
from blocker.ingest.rollback import rollback
from blocker.store.audit import INGEST, Actor
from blocker.store.changes import NOTHING, Along
from blocker.store.redis import Store
from blocker.store.sealing import Keyring
from tests.ingest.checks import assert_whole, pages

if TYPE_CHECKING:
    from blocker.store.manifest import Manifest
    from tests.redis_server import RedisServer

NAME = "pages"
NOW = 1_700_000_000.0
ENFORCE = PublishOptions()


async def put(
    store: Store, keyring: Keyring, rules: RuleSet, options: PublishOptions = ENFORCE, name: str = NAME
) -> PublishResult:
    return await publish(store, keyring, name, options, rules, reason="test", now=NOW)


async def back(store: Store, keyring: Keyring, serial: int, reason: str = "") -> PublishResult:
    return await rollback(store, keyring, NAME, serial, reason=reason, now=NOW + 60)


async def retire(store: Store, name: str = NAME) -> None:
    head = await store.manifest(name)
    changed = replace(head, serial=head.serial + 1, retired=True, entries=0, layers=())
    await store.commit(changed, expected=head.serial)


async def test_a_new_serial_is_the_old_one_byte_for_byte(store: Store, keyring: Keyring) -> None:
    for count in (1000, 1003, 500):
        await put(store, keyring, pages(range(count)))
    old = await store.manifest(NAME, 2)
    result = await back(store, keyring, 2, "the source sent half a file")
    assert result == PublishResult(
        list=NAME, serial=4, added=503, removed=0, entries=1003, unchanged=False, digest=old.digest
    )
    new = await store.manifest(NAME)
    reason = "rollback to 2: the source sent half a file"
    assert new == replace(old, serial=4, created=NOW + 60, reason=reason, added=503, removed=0)
    assert (await assert_whole(store, keyring, NAME)).dump() == pages(range(1003)).dump()
    assert [manifest.serial for manifest in await store.history(NAME)] == [4, 3, 2, 1]


async def test_options_come_back_too(store: Store, keyring: Keyring) -> None:
    rules = pages(range(10))
    await put(store, keyring, rules, PublishOptions(mode="shadow", www_alias=True))
    await put(store, keyring, rules)
    result = await back(store, keyring, 1)
    assert (result.serial, result.added, result.removed, result.unchanged) == (3, 0, 0, False)
    new = await store.manifest(NAME)
    assert (new.mode, new.www_alias, new.reason) == ("shadow", True, "rollback to 1")
    await assert_whole(store, keyring, NAME)


async def test_publishing_goes_on_upon_it(store: Store, keyring: Keyring) -> None:
    await put(store, keyring, pages(range(1000)))
    await put(store, keyring, pages(range(400)))
    await back(store, keyring, 1)
    result = await put(store, keyring, pages(range(1002)))
    assert (result.serial, result.added, result.removed) == (4, 2, 0)
    assert len((await store.manifest(NAME)).layers) == 2
    await assert_whole(store, keyring, NAME)


async def test_what_it_is_already_writes_nothing(store: Store, keyring: Keyring) -> None:
    await put(store, keyring, pages(range(10)))
    assert (await back(store, keyring, 1)).unchanged
    await put(store, keyring, pages(range(20)))
    done = await back(store, keyring, 1)
    again = await back(store, keyring, 1)
    assert again == replace(done, added=0, removed=0, unchanged=True)
    assert len(await store.history(NAME)) == 3


async def test_to_and_from_an_empty_list(store: Store, keyring: Keyring) -> None:
    await put(store, keyring, RuleSet())
    await put(store, keyring, pages(range(10)))
    emptied = await back(store, keyring, 1)
    assert (emptied.serial, emptied.removed, emptied.entries) == (3, 10, 0)
    await assert_whole(store, keyring, NAME)
    assert (await back(store, keyring, 2)).added == 10
    await assert_whole(store, keyring, NAME)


async def test_without_the_seal_key_counts_are_of_entries(store: Store, keyring: Keyring) -> None:
    await put(store, keyring, pages(range(100)))
    await put(store, keyring, pages(range(50, 120)))
    result = await back(store, Keyring(lookup=keyring.lookup), 1)
    assert (result.added, result.removed) == (30, 0)  # 50 came and 20 went
    await assert_whole(store, keyring, NAME)


# --- refusals --------------------------------------------------------------------------------------------------------


async def test_what_is_not_there_is_refused(store: Store, keyring: Keyring) -> None:
    with pytest.raises(StoreError, match="list pages is not in the store"):
        await back(store, keyring, 1)
    for count in range(1, 5):
        await put(store, keyring, pages(range(count)))
    await store.collect_orphans(grace_seconds=0, keep_serials=2)
    for serial in (1, 2, 5):
        with pytest.raises(StoreError, match=f"no serial {serial} in the store"):
            await back(store, keyring, serial)
    assert (await store.heads())[NAME].serial == 4


async def test_a_retired_serial_is_refused_and_a_retired_list_comes_back(store: Store, keyring: Keyring) -> None:
    await put(store, keyring, pages(range(10)))
    await retire(store)
    with pytest.raises(UpdateRefused, match="was retired at serial 2"):
        await back(store, keyring, 2)
    assert (await back(store, keyring, 1)).serial == 3
    assert not (await store.manifest(NAME)).retired
    await assert_whole(store, keyring, NAME)


@pytest.mark.parametrize(
    "reason",
    [
        "http://a", "see a.example", "a.example/x", "bücher.рф", "192.0.2.1", "[2001:db8::1]", "x" * 201, "a\nb",
        "a\x1b[0m",
    ],
)  # fmt: skip
async def test_a_reason_holds_no_address(store: Store, keyring: Keyring, reason: str) -> None:
    await put(store, keyring, pages(range(10)))
    await put(store, keyring, pages(range(20)))
    with pytest.raises(UpdateRefused, match="a reason is") as told:
        await back(store, keyring, 1, reason)
    assert reason not in str(told.value)
    assert (await store.heads())[NAME].serial == 2
    assert (await back(store, keyring, 1, "v1.2 of 3.5 % was wrong, e.g. too much. Ticket 7/8")).serial == 3


@pytest.mark.parametrize("kind", ["segment", "sealed"])
async def test_a_serial_whose_blobs_are_gone_is_refused_whole(
    redis: RedisServer, store: Store, keyring: Keyring, kind: str
) -> None:
    await put(store, keyring, pages(range(1000)))
    await put(store, keyring, pages(range(2000, 3000)))
    (base,) = (await store.manifest(NAME, 1)).layers
    redis.command("DEL", f"{{blocker:test}}:{kind}:{(base.segments if kind == 'segment' else base.sealed)[0]}")
    for keys in (keyring, Keyring(lookup=keyring.lookup)):
        with pytest.raises(StoreError, match="not in the store"):
            await back(store, keys, 1)
    assert (await store.heads())[NAME].serial == 2
    await assert_whole(store, keyring, NAME)


async def test_segments_that_are_another_trie_are_refused(store: Store, keyring: Keyring) -> None:
    await put(store, keyring, pages(range(100)))
    head = await store.manifest(NAME)
    await store.commit(replace(head, serial=2, digest="0" * 64), expected=1)
    await put(store, keyring, pages(range(101)))
    with pytest.raises(FormatError, match="serial 2: its segments do not fold"):
        await back(store, keyring, 2)


@pytest.mark.parametrize("lost", ["manifest", "sealed"])
async def test_a_damaged_head_can_be_left(redis: RedisServer, store: Store, keyring: Keyring, lost: str) -> None:
    await put(store, keyring, pages(range(100)))
    await put(store, keyring, pages(range(1000, 1500)))
    (base,) = (await store.manifest(NAME)).layers
    redis.command("DEL", f"{{blocker:test}}:{'manifest:pages:2' if lost == 'manifest' else f'sealed:{base.sealed[0]}'}")
    result = await back(store, keyring, 1)
    assert (result.serial, result.entries) == (3, 100)
    await assert_whole(store, keyring, NAME)


# --- rivals ----------------------------------------------------------------------------------------------------------


class _Meddled(Store):
    """A store in which something happens right before a commit."""

    async def commit(
        self,
        manifest: Manifest,
        *,
        expected: int,
        action: str = "publish",
        actor: Actor = INGEST,
        along: Along = NOTHING,
    ) -> None:
        await self.meddle()
        await super().commit(manifest, expected=expected, action=action, actor=actor, along=along)

    async def meddle(self) -> None:
        raise AssertionError("each rival says what it does")


async def test_a_publish_that_comes_between_is_seen(redis: RedisServer, store: Store, keyring: Keyring) -> None:
    await put(store, keyring, pages(range(100)))
    await put(store, keyring, pages(range(50)))

    class Rival(_Meddled):
        left = 3

        async def meddle(self) -> None:
            if self.left:
                self.left -= 1
                await put(store, keyring, pages(range(200 + self.left)))

    async with await Rival.open(redis.url, "test", keyring=keyring) as own:
        result = await back(own, keyring, 1)
        assert (result.serial, result.added, result.removed, result.entries) == (6, 0, 100, 100)
        await assert_whole(store, keyring, NAME)
        own.left = ATTEMPTS + 1
        with pytest.raises(CommitConflict):
            await back(own, keyring, 2)
    assert (await store.heads())[NAME].serial == 6 + ATTEMPTS


async def test_a_collection_that_comes_between_refuses_it_whole(
    redis: RedisServer, store: Store, keyring: Keyring
) -> None:
    await put(store, keyring, pages(range(100)))
    await put(store, keyring, pages(range(1000, 1500)))

    class Collected(_Meddled):
        async def meddle(self) -> None:
            done = await store.collect_orphans(grace_seconds=0, keep_serials=1)
            assert done.blobs

    async with await Collected.open(redis.url, "test", keyring=keyring) as own:
        with pytest.raises(StoreError, match="not in the store"):
            await back(own, keyring, 1)
    assert (await store.heads())[NAME].serial == 2
    await assert_whole(store, keyring, NAME)


async def test_a_collection_afterwards_keeps_it(store: Store, keyring: Keyring) -> None:
    await put(store, keyring, pages(range(100)))
    await put(store, keyring, pages(range(1000, 1500)))
    await back(store, keyring, 1)
    await store.collect_orphans(grace_seconds=0, keep_serials=1)
    await assert_whole(store, keyring, NAME)
    with pytest.raises(StoreError, match="no serial 2"):
        await back(store, keyring, 2)
