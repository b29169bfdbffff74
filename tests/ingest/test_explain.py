"""Explanations over a real store: since when, what a draft would change, what is told where something is missing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from blocker import InvalidURL
from blocker.follower import Follower
from blocker.ingest.drafts import patch_draft, put_draft
from blocker.ingest.explain import Explanation, explain
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import publish
from blocker.ingest.rollback import rollback
from blocker.ingest.submit import Desk
from blocker.matcher import Policy
from blocker.snapshot import Snapshot
from blocker.store.audit import Actor
from blocker.store.sealing import Keyring
from tests.ingest.checks import pages, rules_of
from tests.ingest.guarding import FEW

if TYPE_CHECKING:
    from pathlib import Path

    from blocker._native import Matcher
    from blocker.store.redis import Store

NOW = 1_700_000_000.0
ANNA = Actor("token:anna", "Anna")
PAGE = "http://listed.example/gallery/1.jpg"
DEFAULT = Policy()
TRIAL = Policy(name="trial", lists={"main": "shadow", "extra": None})


class World:
    """A store, and a follower of it that is looked at when asked."""

    def __init__(self, store: Store, keyring: Keyring, directory: Path) -> None:
        self.store, self.keyring = store, keyring
        self._follower = Follower(
            self._opened, Snapshot(directory, keyring.lookup), keyring.lookup, policies=(TRIAL,), persist=False
        )
        self._at = NOW

    async def publish(self, name: str, *lines: str, options: PublishOptions | None = None, reason: str = "") -> None:
        self._at += 60
        await publish(
            self.store, self.keyring, name, options or PublishOptions(), rules_of(lines), reason=reason, now=self._at
        )

    async def matcher(self) -> Matcher:
        await self._follower.sync(self.store)
        assert self._follower.matcher is not None
        return self._follower.matcher

    async def explain(self, url: str = PAGE, policy: Policy = DEFAULT) -> Explanation:
        return await explain(await self.matcher(), url, policy, self.store, self.keyring)

    async def since(self, url: str = PAGE) -> list[tuple[int, float, bool]]:
        rules = [rule for rule in (await self.explain(url)).rules if rule.since is not None]
        return [(rule.since.serial, rule.since.at - NOW, rule.since.exact) for rule in rules if rule.since]

    async def _opened(self) -> Store:
        return self.store


@pytest.fixture
def world(store: Store, keyring: Keyring, tmp_path: Path) -> World:
    return World(store, keyring, tmp_path / "snapshot")


async def test_every_rule_with_its_list_and_the_one_that_decides(world: World) -> None:
    await world.publish("main", "http://listed.example/gallery/", "http://*.listed.example/gallery/1.jpg")
    await world.publish("extra", "http://*.example/gallery/", PAGE, "http://listed.example/other")
    await world.publish("free", "http://listed.example/", options=PublishOptions(action="allow"))
    told = await world.explain("HTTP://Listed.example//gallery/./1.jpg?x")
    assert (told.canonical, told.verdict, told.missing) == (f"{PAGE}?x", "block", ())
    assert [(rule.list, rule.kind, rule.part, rule.text) for rule in told.rules] == [
        ("extra", "exact", "decides", PAGE),
        ("main", "exact", "overruled", "http://*.listed.example/gallery/1.jpg"),
        ("main", "prefix", "overruled", "http://listed.example/gallery/"),
        ("extra", "prefix", "overruled", "http://*.example/gallery/"),
        ("free", "host", "overruled", "http://listed.example/"),
    ]
    assert json.loads(json.dumps(told.to_dict()))["rules"][0]["since"]["serial"] == 1
    assert "listed" not in repr(told)


async def test_a_policy_says_what_counts(world: World) -> None:
    await world.publish("main", PAGE)
    await world.publish("extra", "http://listed.example/")
    await world.publish("free", PAGE, options=PublishOptions(action="allow"))
    told = await world.explain(policy=TRIAL)
    assert [(rule.list, rule.part) for rule in told.rules] == [("main", "shadow"), ("extra", "decides")]
    assert (told.policy, told.verdict, told.shadow) == ("trial", "block", ("main",))


async def test_at_equal_specificity_the_exception_decides(world: World) -> None:
    await world.publish("main", PAGE)
    await world.publish("free", PAGE, options=PublishOptions(action="allow"))
    told = await world.explain()
    assert [(rule.list, rule.part) for rule in told.rules] == [("free", "decides"), ("main", "overruled")]
    assert told.verdict == "allow"


async def test_options_of_a_list_count(world: World) -> None:
    wide = PublishOptions(www_alias=True, path_case="insensitive")
    await world.publish("main", "http://www.listed.example/GALLERY/", "http://*.www.listed.example", options=wide)
    told = await world.explain()
    assert [(rule.kind, rule.part) for rule in told.rules] == [("prefix", "decides"), ("host", "overruled")]


async def test_since_is_the_serial_that_brought_it_without_a_break(world: World) -> None:
    other = [f"http://site{number}.example/" for number in range(40)]
    await world.publish("main", *other)
    await world.publish("main", *other, PAGE, reason="monthly")
    assert await world.since() == [(2, 120, True)]
    await world.publish("main", *other[1:], PAGE)
    assert await world.since() == [(2, 120, True)]
    assert (await world.explain()).rules[0].since == (2, NOW + 120, "monthly", True)
    await world.publish("main", *other)
    await world.publish("main", PAGE)
    assert await world.since() == [(5, 300, True)], "it was away meanwhile"
    await rollback(world.store, world.keyring, "main", 3, reason="back", now=NOW + 1000, actor=ANNA)
    assert await world.since() == [(5, 300, True)], "serial 6 is serial 3 again, and 5 had it as well"


async def test_since_over_many_layers_and_folds(world: World) -> None:
    lines = [f"http://site{number}.example/" for number in range(400)]
    await world.publish("main", *lines)
    for number in range(1, 40):
        await world.publish("main", *lines[number:], *([PAGE] if number >= 20 else []))
    assert await world.since() == [(21, 21 * 60, True)]


async def test_what_is_older_than_all_that_is_kept(world: World) -> None:
    for number in range(6):
        await world.publish("main", PAGE, f"http://site{number}.example/")
    await world.store.collect_orphans(grace_seconds=0, keep_serials=2)
    assert await world.since() == [(5, 300, False)]


async def test_what_drafts_and_proposals_would_change(world: World) -> None:
    await world.publish("main", PAGE)
    await world.publish("extra", "http://listed.example/")
    store, keyring = world.store, world.keyring
    await patch_draft(store, keyring, "main", rules_of([]), rules_of([PAGE]), base=1, actor=ANNA, now=NOW)
    (effect,) = (await world.explain()).proposed
    assert (effect.list, effect.shelf, effect.verdict, effect.by, effect.changes) == (
        "main", "draft", "block", "extra", True,
    )  # fmt: skip
    assert (effect.added, effect.removed, effect.author) == ((), (PAGE,), "token:anna")

    free = rules_of(["http://listed.example/gallery/1.jpg"])
    await put_draft(store, keyring, "free", PublishOptions(action="allow"), free, base=0, actor=ANNA, now=NOW)
    effects = {effect.list: effect for effect in (await world.explain()).proposed}
    assert (effects["free"].verdict, effects["free"].by, effects["free"].added) == ("allow", "free", (PAGE,))
    assert (await world.explain(policy=TRIAL)).proposed == (effects["main"],) or effects["main"].changes

    elsewhere = (await world.explain("http://other.example/")).proposed
    assert [(effect.verdict, effect.changes, effect.added) for effect in elsewhere] == [("allow", False, ())] * 2


async def test_what_waits_for_approval_is_shown_until_it_is_rejected(world: World) -> None:
    desk = Desk(world.store, world.keyring, lambda: FEW, lambda _: [])
    await publish(world.store, world.keyring, "main", PublishOptions(), pages(range(3000)), reason="", now=NOW)
    await put_draft(world.store, world.keyring, "main", PublishOptions(), rules_of([PAGE]), base=1, actor=ANNA, now=NOW)
    done = await desk.publish_draft("main", expected=1, actor=ANNA, now=NOW)
    assert done.status == "waiting"
    (effect,) = (await world.explain()).proposed
    assert (effect.shelf, effect.verdict, effect.changes, effect.id) == ("proposal", "block", True, done.proposal)
    await desk.reject("main", done.proposal, actor=Actor("token:bert", "Bert"), reason="no", now=NOW)
    assert (await world.explain()).proposed == ()


async def test_without_store_or_seal_key_what_the_matcher_knows(world: World) -> None:
    await world.publish("main", PAGE, "http://listed.example/")
    matcher = await world.matcher()
    for store, keyring, missing in (
        (None, world.keyring, "the store is away"),
        (world.store, Keyring(lookup=world.keyring.lookup, seal=None), "no seal key"),
    ):
        told = await explain(matcher, PAGE, DEFAULT, store, keyring)
        assert missing in told.missing[0]
        assert [(rule.kind, rule.part, rule.text, rule.since) for rule in told.rules] == [
            ("exact", "decides", None, None), ("host", "overruled", None, None),
        ]  # fmt: skip


async def test_a_list_that_cannot_be_read_is_told_and_the_others_are_shown(world: World) -> None:
    await world.publish("main", PAGE)
    await world.publish("extra", "http://listed.example/")
    matcher = await world.matcher()
    foreign = Keyring(lookup=world.keyring.lookup, seal=bytes(32))
    told = await explain(matcher, PAGE, DEFAULT, world.store, foreign)
    assert len(told.missing) == 2
    assert [(rule.list, rule.part, rule.text) for rule in told.rules] == [
        ("main", "decides", None), ("extra", "overruled", None),
    ]  # fmt: skip
    assert "listed.example" not in " ".join(told.missing)


async def test_what_is_no_url_is_refused_without_repeating_it(world: World) -> None:
    await world.publish("main", PAGE)
    with pytest.raises(InvalidURL) as refused:
        await world.explain("http://[zxqmark")
    assert "zxqmark" not in str(refused.value)
