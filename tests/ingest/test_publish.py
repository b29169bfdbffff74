"""Publishing: only changes are written, layers fold to the trie of the rules, and of two publishers both are whole."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from blocker._native import NodeRun, RuleSet
from blocker.errors import KeyMaterialError, StoreError
from blocker.ingest.cleartext import load_rules, open_layer
from blocker.ingest.plan import Existing, PublishOptions, make_plan
from blocker.ingest.publish import PublishResult, publish
from blocker.store.layers import MAX_LAYERS
from blocker.store.manifest import Manifest
from blocker.store.redis import Store
from blocker.store.sealing import Keyring, Sealer
from tests.ingest.checks import assert_whole, folded, pages, rules_of
from tests.redis_server import RedisServer
from tests.store.publishing import make_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "pages"
NOW = 1_700_000_000.0
ENFORCE = PublishOptions()


async def put(
    store: Store, keyring: Keyring, rules: RuleSet, options: PublishOptions = ENFORCE, name: str = NAME
) -> PublishResult:
    return await publish(store, keyring, name, options, rules, reason="test", now=NOW)


async def test_a_first_publish_makes_the_list(store: Store, keyring: Keyring) -> None:
    rules = pages(range(100))
    result = await put(store, keyring, rules)
    assert result == PublishResult(
        list=NAME, serial=1, added=100, removed=0, entries=100, unchanged=False,
        digest=ENFORCE.nodes(rules, keyring.lookup).digest(),
    )  # fmt: skip
    manifest = await store.manifest(NAME)
    assert (manifest.created, manifest.reason, len(manifest.layers)) == (NOW, "test", 1)
    assert (manifest.layers[0].added, manifest.layers[0].removed) == (100, 0)
    assert (await store.checked())[NAME] == NOW
    assert (await assert_whole(store, keyring, NAME)).dump() == rules.dump()


async def test_the_same_again_publishes_nothing_but_was_checked(store: Store, keyring: Keyring) -> None:
    first = await put(store, keyring, pages(range(100)))
    later = await publish(store, keyring, NAME, ENFORCE, pages(range(100)), reason="again", now=NOW + 60)
    assert later == replace(first, added=0, unchanged=True)
    assert (await store.checked())[NAME] == NOW + 60
    assert len(await store.history(NAME)) == 1


async def test_a_small_change_is_a_small_layer(store: Store, keyring: Keyring) -> None:
    await put(store, keyring, pages(range(1000)))
    result = await put(store, keyring, pages(range(3, 1005)))
    assert (result.serial, result.added, result.removed, result.entries) == (2, 5, 3, 1002)
    base, delta = (await store.manifest(NAME, 2)).layers
    assert (await store.manifest(NAME, 1)).layers == (base,)
    assert (delta.added, delta.removed, delta.nodes) == (5, 3, 8)
    for serial in (1, 2):
        await assert_whole(store, keyring, NAME, serial)


async def test_a_large_change_is_a_new_base(store: Store, keyring: Keyring) -> None:
    await put(store, keyring, pages(range(1000)))
    await put(store, keyring, pages(range(500, 1500)))
    (base,) = (await store.manifest(NAME)).layers
    assert (base.added, base.removed) == (1000, 0)
    await assert_whole(store, keyring, NAME)


async def test_layers_never_become_too_many(store: Store, keyring: Keyring) -> None:
    counts, bases = [], set()
    for step in range(MAX_LAYERS + 11):
        await put(store, keyring, pages(range(step, 1000 + step)))
        layers = (await store.manifest(NAME)).layers
        counts.append(len(layers))
        bases.add(layers[0].segments)
        await assert_whole(store, keyring, NAME)
    first, *_ = bases
    assert counts == [*range(1, MAX_LAYERS + 1), 2, *range(3, 13)]
    assert bases == {first}, "a fold of small layers leaves the base, which every follower has"
    for serial in range(1, MAX_LAYERS + 12):
        await assert_whole(store, keyring, NAME, serial)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1200)), min_size=20, max_size=60))
def test_however_layers_are_folded_they_are_the_list(steps: list[tuple[int, int]]) -> None:
    """Random changes, those taken back at once and those of metadata alone among them; no store is needed for it."""
    seal, lookup = Sealer(bytes(range(32))), b"0123456789abcdef"
    rules, existing, folds = pages(range(1000)), None, 0
    for serial, (size, at) in enumerate(steps, start=1):
        some = pages(range(at, at + size))
        here = rules.common(some)
        rules = rules.patched(RuleSet(), here) if len(here) else rules.patched(some, RuleSet())
        plan = make_plan(NAME, ENFORCE, rules, existing, lookup_key=lookup, sealer=seal)
        blobs = [] if existing is None else [*existing.layers[: len(plan.kept)]]
        changes = [] if existing is None else [*existing.changes[: max(len(plan.kept) - 1, 0)]]
        folds += existing is not None and 0 < len(plan.kept) < len(existing.layers)
        if plan.fresh is not None:
            blobs.append(plan.segments)
            if plan.kept:
                changes.append(open_layer(seal, NAME, plan.sealed))
        layers = plan.layers([f"{number:064x}" for number, _ in enumerate(plan.segments)], [])
        assert len(layers) == len(blobs) <= MAX_LAYERS
        assert sum(layer.nodes for layer in layers[1:]) * 4 <= layers[0].nodes
        assert NodeRun.from_segments(blobs, lookup).digest() == ENFORCE.nodes(rules, lookup).digest() == plan.digest
        manifest = make_manifest(
            list=NAME, serial=serial, digest=plan.digest, rules_digest=plan.rules_digest, layers=layers
        )  # fmt: skip
        existing = Existing(manifest, blobs, rules, changes)
        base = existing.rules_of(1)
        for added, removed in changes:
            base = base.patched(added, removed)
        assert base.dump() == rules.dump()
    event(f"{folds} folds of small layers")


@pytest.mark.parametrize(
    "options",
    [PublishOptions(action="allow"), PublishOptions(mode="shadow")],
    ids=["action", "mode"],
)
async def test_changed_options_publish_without_writing_the_list_again(
    store: Store, keyring: Keyring, options: PublishOptions
) -> None:
    rules = pages(range(100))
    await put(store, keyring, rules)
    result = await put(store, keyring, rules, options)
    assert (result.serial, result.added, result.removed, result.unchanged) == (2, 0, 0, False)
    first, second = await store.manifest(NAME, 1), await store.manifest(NAME, 2)
    assert (second.layers, second.digest) == (first.layers, first.digest)
    assert PublishOptions.of(second) == options


@pytest.mark.parametrize(
    "options",
    [PublishOptions(path_case="insensitive"), PublishOptions(www_alias=True)],
    ids=["path case", "www alias"],
)
async def test_other_matching_makes_another_trie_of_the_same_rules(
    store: Store, keyring: Keyring, options: PublishOptions
) -> None:
    rules = pages(range(100))
    first = await put(store, keyring, rules)
    second = await put(store, keyring, rules, options)
    assert (second.serial, second.added, second.removed) == (2, 0, 0)
    assert second.digest != first.digest
    assert len((await store.manifest(NAME)).layers) == 1
    await assert_whole(store, keyring, NAME)
    back = await put(store, keyring, rules)
    assert (back.serial, back.digest) == (3, first.digest)


async def test_a_list_may_become_empty_and_full_again(store: Store, keyring: Keyring) -> None:
    await put(store, keyring, pages(range(10)))
    emptied = await put(store, keyring, RuleSet())
    assert (emptied.serial, emptied.removed, emptied.entries) == (2, 10, 0)
    assert (await store.manifest(NAME)).layers == ()
    await assert_whole(store, keyring, NAME)
    assert (await put(store, keyring, RuleSet())).unchanged
    shadowed = await put(store, keyring, RuleSet(), PublishOptions(mode="shadow"))
    assert shadowed.serial == 3
    full = await put(store, keyring, pages(range(10)))
    assert (full.serial, full.added) == (4, 10)
    await assert_whole(store, keyring, NAME)


async def test_references_alone_are_a_change(store: Store, keyring: Keyring) -> None:
    def rules(changed: str) -> RuleSet:
        made = pages(range(100))
        for number in range(20):
            reference = changed if number == 7 else "same"
            made.add("exact", "refs.example", f"/{number}", None, False, reference, "")
        return made

    await put(store, keyring, rules("IWF-1"))
    result = await put(store, keyring, rules("IWF-2"))
    assert (result.added, result.removed, result.entries) == (1, 1, 120)
    await assert_whole(store, keyring, NAME)


async def test_metadata_that_moves_no_node_is_kept_as_text(store: Store, keyring: Keyring) -> None:
    def rules(category: str) -> RuleSet:
        made = pages(range(100))
        made.add("host", "meta.example", None, None, False, "", f'{{"category":"{category}"}}')
        return made

    first = await put(store, keyring, rules("a"))
    second = await put(store, keyring, rules("b"))
    assert (second.serial, second.added, second.removed, second.digest) == (2, 1, 1, first.digest)
    delta = (await store.manifest(NAME)).layers[-1]
    assert (delta.nodes, delta.segments) == (0, ())
    assert delta.sealed
    await assert_whole(store, keyring, NAME)


async def test_the_same_rules_make_the_same_trie_whatever_way_they_came(store: Store, keyring: Keyring) -> None:
    for step in range(6):
        await put(store, keyring, pages(range(step, 500 + step)))
    layered = await store.manifest(NAME)
    assert len(layered.layers) > 1
    scratch = await put(store, keyring, pages(range(5, 505)), name="scratch")
    assert scratch.digest == layered.digest
    plans = [
        make_plan(NAME, ENFORCE, rules_of(lines), None, lookup_key=keyring.lookup, sealer=Sealer(bytes(range(32))))
        for lines in (["http://a.example/", "http://b.example/x"], ["http://b.example/x", "http://a.example/"])
    ]
    assert plans[0].segments == plans[1].segments
    assert plans[0].rules_digest == plans[1].rules_digest


async def test_a_large_list_is_many_blobs(store: Store, keyring: Keyring) -> None:
    await put(store, keyring, pages(range(300_000)))
    (base,) = (await store.manifest(NAME)).layers
    assert len(base.segments) > 1
    assert len(base.sealed) > 3  # the index, the pieces of the added rules, the empty removed rules
    await assert_whole(store, keyring, NAME)


# --- rivals and damage ----------------------------------------------------------------------------------------------


async def test_two_publishers_at_once_are_both_whole(redis: RedisServer, store: Store, keyring: Keyring) -> None:
    steps = 12

    async def publisher(offset: int) -> list[int]:
        async with await Store.open(redis.url, "test", keyring=keyring) as own:
            return [
                (await put(own, keyring, pages(range(offset + step, offset + step + 300)))).serial
                for step in range(steps)
            ]

    serials = await asyncio.gather(publisher(0), publisher(10_000))
    history = await store.history(NAME, 100)
    assert sorted(serials[0] + serials[1]) == sorted(manifest.serial for manifest in history) == [*range(1, 25)]
    for manifest in history:
        await assert_whole(store, keyring, NAME, manifest.serial)
    last = pages(range(steps - 1, steps + 299)), pages(range(10_000 + steps - 1, 10_000 + steps + 299))
    assert history[0].rules_digest in {rules.digest() for rules in last}


async def test_rivals_with_the_same_rules_publish_once(redis: RedisServer, store: Store, keyring: Keyring) -> None:
    async def publisher() -> PublishResult:
        async with await Store.open(redis.url, "test", keyring=keyring) as own:
            return await put(own, keyring, pages(range(300)))

    results = await asyncio.gather(*(publisher() for _ in range(4)))
    assert {result.serial for result in results} == {1}
    assert sorted(result.unchanged for result in results) == [False, True, True, True]
    assert len(await store.history(NAME)) == 1


@pytest.mark.parametrize("kind", ["segment", "sealed"])
async def test_a_list_whose_blobs_are_lost_is_mended(
    redis: RedisServer, store: Store, keyring: Keyring, kind: str
) -> None:
    await put(store, keyring, pages(range(1000)))
    (base,) = (await store.manifest(NAME)).layers
    lost = (base.segments if kind == "segment" else base.sealed)[0]
    redis.command("DEL", f"{{blocker:test}}:{kind}:{lost}")
    result = await put(store, keyring, pages(range(1001)))
    assert (result.serial, result.entries) == (2, 1001)
    assert len((await store.manifest(NAME)).layers) == 1
    await assert_whole(store, keyring, NAME)


async def test_blobs_that_are_collected_before_the_commit_are_uploaded_again(
    redis: RedisServer, store: Store, keyring: Keyring
) -> None:
    await put(store, keyring, pages(range(1000)))
    lost: list[str] = []

    def lose(phase: str, done: int, total: int | None) -> None:
        # Everything is uploaded and nothing committed: the worst moment for a collection.
        if phase == "upload" and done == total and not lost:
            keys = redis.command("KEYS", "*segment*").split()
            lost.extend(key.decode() for key in keys if key.startswith(b"{blocker"))
            redis.command("DEL", *lost)

    result = await publish(store, keyring, NAME, ENFORCE, pages(range(1001)), reason="test", now=NOW, progress=lose)
    assert lost
    assert result.serial == 2
    await assert_whole(store, keyring, NAME)


async def test_a_damaged_trie_in_hand_leads_to_a_new_base(keyring: Keyring) -> None:
    seal = Sealer(bytes(range(32)))
    first = make_plan(NAME, ENFORCE, pages(range(1000)), None, lookup_key=keyring.lookup, sealer=seal)
    other = make_plan(NAME, ENFORCE, pages(range(999)), None, lookup_key=keyring.lookup, sealer=seal)
    manifest = Manifest(
        list=NAME, serial=1, epoch="0" * 32, action="block", mode="enforce", path_case="sensitive", www_alias=False,
        entries=1000, digest=first.digest, rules_digest=first.rules_digest, layers=first.layers(["0" * 64], ["1" * 64]),
        created=NOW, reason="",
    )  # fmt: skip
    cut = [bytes(first.segments[0][:-1])]
    for segments in (first.segments, other.segments, cut):
        plan = make_plan(
            NAME, ENFORCE, pages(range(1001)), Existing(manifest, [segments], pages(range(1000)), ()),
            lookup_key=keyring.lookup, sealer=seal,
        )  # fmt: skip
        assert bool(plan.kept) is (segments is first.segments)
        assert (plan.added, plan.removed) == (1, 0)


# --- keys and texts -------------------------------------------------------------------------------------------------


async def test_a_node_without_the_seal_key_cannot_publish_or_read(store: Store, keyring: Keyring) -> None:
    await put(store, keyring, pages(range(10)))
    bare = Keyring(lookup=keyring.lookup)
    for work in (put(store, bare, pages(range(11))), load_rules(store, bare, NAME)):
        with pytest.raises(KeyMaterialError, match="no seal key"):
            await work


async def test_another_seal_key_is_refused_and_nothing_is_replaced(
    redis: RedisServer, store: Store, keyring: Keyring
) -> None:
    await put(store, keyring, pages(range(10)))
    stranger = Keyring(lookup=keyring.lookup, seal=b"x" * 32)
    with pytest.raises(KeyMaterialError):
        await put(store, stranger, pages(range(11)))
    async with await Store.open(redis.url, "test", keyring=stranger) as own:
        with pytest.raises(KeyMaterialError, match=r"seal\.key"):
            await put(own, stranger, pages(range(11)))
    assert len(await store.history(NAME)) == 1


async def test_an_unknown_list_or_serial_is_named(store: Store, keyring: Keyring) -> None:
    with pytest.raises(StoreError, match="list nothing is not in the store"):
        await load_rules(store, keyring, "nothing")
    await put(store, keyring, pages(range(10)))
    with pytest.raises(StoreError, match="has no serial 7"):
        await load_rules(store, keyring, NAME, 7)


# --- any sequence ---------------------------------------------------------------------------------------------------

# A floor of rules, so that most changes become layers and not a new base.
FLOOR = [f"http://floor{number}.example/{number}" for number in range(60)]
UNIVERSE = [
    "http://a.example/", "http://*.a.example/", "http://a.example/x/", "http://a.example/x/y/z/", "http://a.example/x",
    "http://a.example/x?q=1", "http://*.a.example/x/", "http://b.a.example/X/", "http://www.a.example/x/",
    "http://www.b.example/", "http://b.example/", "http://192.0.2.1/a", "http://[2001:db8::1]/", "http://*.c.b.example/",
]  # fmt: skip

subsets = st.sets(st.sampled_from(UNIVERSE)).map(sorted)
options = st.builds(
    PublishOptions,
    action=st.sampled_from(["block", "allow"]),
    mode=st.sampled_from(["enforce", "shadow"]),
    path_case=st.sampled_from(["sensitive", "sensitive", "insensitive"]),
    www_alias=st.sampled_from([False, False, True]),
)


@pytest.fixture(scope="module")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(subsets, st.booleans(), options), min_size=1, max_size=6))
def test_any_sequence_of_publishes_folds_to_the_trie_of_its_rules(
    shared_redis: RedisServer, keyring: Keyring, steps: list[tuple[list[str], bool, PublishOptions]]
) -> None:
    async def run() -> None:
        async with await Store.open(shared_redis.url, "test", keyring=keyring) as store:
            shared_redis.command("FLUSHALL")
            before: tuple[PublishOptions, str] | None = None
            serial = 0
            for lines, floor, chosen in steps:
                rules = rules_of(lines + (FLOOR if floor else []))
                result = await put(store, keyring, rules, chosen)
                after = (chosen, rules.digest())
                assert result.unchanged is (after == before)
                serial += not result.unchanged
                before = after
                manifest = await store.manifest(NAME)
                assert manifest.serial == result.serial == serial
                trie = chosen.nodes(rules, keyring.lookup)
                assert (await folded(store, keyring, manifest)).digest() == trie.digest() == result.digest
                assert (await load_rules(store, keyring, NAME)).dump() == rules.dump()

    asyncio.run(run())
