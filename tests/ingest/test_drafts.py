"""Drafts: unseen, counted right, of one serial, never lost to a rival or a collection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocker._native import RuleSet
from blocker.errors import ChangeConflict, CommitConflict, FormatError, StoreError, UpdateRefused
from blocker.ingest.cleartext import read_rules, sealer
from blocker.ingest.drafts import discard_draft, patch_draft, put_draft, read_proposed
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import publish
from blocker.store.audit import Actor
from blocker.store.redis import Store
from tests.ingest.checks import assert_whole, pages, rules_of

if TYPE_CHECKING:
    from blocker.store.draft import Draft
    from blocker.store.sealing import Keyring
    from tests.redis_server import RedisServer

NAME = "pages"
NOW = 1_700_000_000.0
ANNA = Actor("token:anna", "Anna")
OPTIONS = PublishOptions()


async def put(store: Store, keyring: Keyring, rules: RuleSet, base: int, name: str = NAME) -> Draft:
    return await put_draft(store, keyring, name, OPTIONS, rules, base=base, actor=ANNA, now=NOW)


async def patch(store: Store, keyring: Keyring, added: RuleSet, removed: RuleSet, base: int) -> Draft:
    return await patch_draft(store, keyring, NAME, added, removed, base=base, actor=ANNA, now=NOW)


async def listed(store: Store, keyring: Keyring, rules: RuleSet, name: str = NAME) -> int:
    return (await publish(store, keyring, name, OPTIONS, rules, reason="test", now=NOW)).serial


async def test_a_draft_is_kept_and_nothing_of_it_is_published(store: Store, keyring: Keyring) -> None:
    commit = await store.last_commit()
    draft = await put(store, keyring, pages(range(100)), 0)
    assert (draft.base, draft.entries, draft.added, draft.removed, draft.person) == (0, 100, 100, 0, "Anna")
    assert await store.draft("drafts", NAME) == draft
    assert await store.heads() == {}
    assert await store.last_commit() == commit
    found = await read_proposed(store, keyring, NAME)
    assert found.rules.dump() == pages(range(100)).dump()
    assert (found.head, found.before) == (None, None)


async def test_a_draft_is_counted_against_the_list(store: Store, keyring: Keyring) -> None:
    serial = await listed(store, keyring, pages(range(100)))
    draft = await put(store, keyring, pages(range(50, 120)), serial)
    assert (draft.entries, draft.added, draft.removed) == (70, 20, 50)
    found = await read_proposed(store, keyring, NAME)
    assert (len(found.added), len(found.removed)) == (20, 50)
    await assert_whole(store, keyring, NAME, serial)


async def test_a_patch_changes_list_and_draft(store: Store, keyring: Keyring) -> None:
    serial = await listed(store, keyring, pages(range(100)))
    first = await patch(store, keyring, pages([200]), pages([3, 4]), serial)
    assert (first.entries, first.added, first.removed) == (99, 1, 2)
    second = await patch(store, keyring, pages([3, 201]), pages([200]), serial)
    assert (second.entries, second.added, second.removed) == (100, 1, 1)
    assert second.id != first.id
    wanted = pages([number for number in range(100) if number != 4] + [201])
    assert (await read_proposed(store, keyring, NAME)).rules.dump() == wanted.dump()


async def test_a_small_patch_writes_a_small_text(redis: RedisServer, store: Store, keyring: Keyring) -> None:
    serial = await listed(store, keyring, pages(range(20_000)))
    whole = sum([len(await store.get_blob("sealed", name)) for name in (await store.manifest(NAME)).sealed])
    draft = await patch(store, keyring, pages([30_000]), RuleSet(), serial)
    own = [name for name in draft.layers[-1].sealed if name not in (await store.manifest(NAME)).sealed]
    written = sum([len(await store.get_blob("sealed", name)) for name in own])
    assert written < whole / 20
    assert redis.command("HLEN", "{blocker:test}:drafts") == b":1\r\n"


async def test_a_rule_is_what_it_covers(store: Store, keyring: Keyring) -> None:
    before = RuleSet()
    before.add("exact", "a.example", "/x", None, False, "OLD-1", "")
    before.add("exact", "a.example", "/y", None, False, "OLD-2", "")
    serial = await listed(store, keyring, before)
    replaced, plain = RuleSet(), RuleSet()
    replaced.add("exact", "a.example", "/x", None, False, "NEW-1", "")
    plain.add("exact", "a.example", "/y")
    draft = await patch(store, keyring, replaced, plain, serial)
    assert draft.entries == 1
    assert [rule[5] for rule in (await read_proposed(store, keyring, NAME)).rules] == ["NEW-1"]


async def test_a_patch_that_cannot_be_meant_changes_nothing(store: Store, keyring: Keyring) -> None:
    serial = await listed(store, keyring, pages(range(10)))
    with pytest.raises(UpdateRefused, match="1 of 2 rules to remove are not in it"):
        await patch(store, keyring, RuleSet(), pages([5, 50]), serial)
    with pytest.raises(UpdateRefused, match="1 rules are to be both added and removed"):
        await patch(store, keyring, pages([5]), pages([5]), serial)
    assert await store.draft("drafts", NAME) is None
    with pytest.raises(StoreError, match="put a whole draft first"):
        await patch_draft(store, keyring, "absent", pages([1]), RuleSet(), base=0, actor=ANNA, now=NOW)


async def test_a_draft_belongs_to_a_serial(store: Store, keyring: Keyring) -> None:
    serial = await listed(store, keyring, pages(range(10)))
    for wrong in (serial - 1, serial + 1):
        with pytest.raises(CommitConflict, match=f"expected serial {wrong}, the head is {serial}"):
            await put(store, keyring, pages(range(5)), wrong)
    await put(store, keyring, pages(range(5)), serial)
    moved = await listed(store, keyring, pages(range(11)))
    with pytest.raises(CommitConflict, match="its draft was made from serial 1, the head is 2"):
        await patch(store, keyring, pages([70]), RuleSet(), moved)
    assert (await put(store, keyring, pages(range(5)), moved)).base == moved


async def test_of_two_patches_at_once_none_is_lost(redis: RedisServer, store: Store, keyring: Keyring) -> None:
    serial = await listed(store, keyring, pages(range(10)))

    async def one(number: int) -> None:
        async with await Store.open(redis.url, "test", keyring=keyring) as own:
            while True:
                try:
                    await patch(own, keyring, pages([number]), RuleSet(), serial)
                except ChangeConflict:
                    continue
                return

    await asyncio.gather(*(one(number) for number in range(100, 108)))
    found = await read_proposed(store, keyring, NAME)
    assert found.rules.dump() == pages([*range(10), *range(100, 108)]).dump()


async def test_a_collection_spares_drafts(store: Store, keyring: Keyring) -> None:
    serial = await listed(store, keyring, pages(range(100)))
    await put(store, keyring, pages(range(30)), serial)
    await put(store, keyring, pages(range(40)), serial)
    done = await store.collect_orphans(grace_seconds=0, keep_serials=1)
    assert done.blobs > 0  # the first draft's
    assert len((await read_proposed(store, keyring, NAME)).rules) == 40
    patched = await patch(store, keyring, pages([99]), RuleSet(), serial)
    await discard_draft(store, NAME, actor=ANNA, now=NOW)
    with pytest.raises(StoreError, match="has no draft"):
        await read_proposed(store, keyring, NAME)
    await store.collect_orphans(grace_seconds=0, keep_serials=1)
    with pytest.raises(StoreError, match="is not in the store"):
        await store.get_blob("sealed", patched.layers[-1].sealed[0])
    await assert_whole(store, keyring, NAME)


async def test_what_is_no_draft_is_named(redis: RedisServer, store: Store) -> None:
    for text in ("", "[]", "{}", "null", '{"layers":[],"findings":[]}', "{" * 100_000):
        redis.command("HSET", "{blocker:test}:drafts", NAME, text or "x")
        with pytest.raises(FormatError, match="draft: cannot be read"):
            await store.draft("drafts", NAME)


async def test_every_change_of_a_draft_is_in_the_audit_chain(store: Store, keyring: Keyring) -> None:
    serial = await listed(store, keyring, pages(range(10)))
    await put(store, keyring, pages(range(30)), serial)
    await patch(store, keyring, pages([50]), RuleSet(), serial)
    await discard_draft(store, NAME, actor=ANNA, now=NOW)
    records = [record.fields async for record in store.audit_records()]
    assert [(record["seq"], record["action"], record["person"]) for record in records] == [
        (1, "publish", ""), (2, "draft", "Anna"), (3, "draft", "Anna"), (4, "discard", "Anna"),
    ]  # fmt: skip
    assert "example" not in str(records)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30))), max_size=5))
async def test_patches_give_what_sets_would(
    store: Store, keyring: Keyring, steps: list[tuple[set[int], set[int]]]
) -> None:
    name = "sets"
    head = (await store.heads()).get(name)
    if head is None:
        await listed(store, keyring, pages(range(10)), name)
    else:
        await discard_draft(store, name, actor=ANNA, now=NOW)
    wanted = set(range(10))
    await put(store, keyring, pages(wanted), 1, name)
    for added, removed in steps:
        gone = (removed & wanted) - added
        wanted = (wanted - gone) | added
        await patch_draft(store, keyring, name, pages(added), pages(gone), base=1, actor=ANNA, now=NOW)
    draft = await store.draft("drafts", name)
    assert draft is not None
    assert (await read_rules(store, sealer(keyring), draft)).dump() == pages(wanted).dump()
    assert (draft.added, draft.removed) == (len(wanted - set(range(10))), len(set(range(10)) - wanted))


def test_rules_of_a_set_are_found_by_what_they_cover() -> None:
    rules = rules_of(["http://a.example/x", "http://*.b.example", "http://c.example/?q=1"])
    assert len(rules.common(rules)) == 3
    assert len(rules.common(rules_of(["http://a.example/x/", "http://c.example/?q=2"]))) == 0
