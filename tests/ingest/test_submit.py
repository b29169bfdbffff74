"""From a draft or a source to the list: what guards stop, what a second person decides, what is remembered of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from blocker.errors import ChangeConflict, CommitConflict, StoreError, UpdateRefused
from blocker.ingest.drafts import put_draft
from blocker.ingest.guard import Guards
from blocker.ingest.never_block import NeverBlock
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import publish
from blocker.ingest.rollback import rollback
from blocker.ingest.submit import Desk
from blocker.ingest.update import PullResult, pull
from blocker.store.audit import Actor
from tests.ingest.checks import LATER, assert_whole, pages, rules_of

if TYPE_CHECKING:
    from blocker._native import RuleSet
    from blocker.ingest.source import Source
    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring
    from tests.ingest.conftest import MakeSource

NAME = "pages"
NOW = 1_700_000_000.0
ANNA, BERT, MACHINE = Actor("token:anna", "Anna"), Actor("token:bert", "Bert"), Actor("ingest")
GUARDS = Guards(never_block=NeverBlock(["popular.example"]))


@pytest.fixture
def desk(store: Store, keyring: Keyring) -> Desk:
    return Desk(store, keyring, lambda: GUARDS, lambda name: ["http://site1.example/page/1.html"] * (name == "watched"))


async def draft(desk: Desk, rules: RuleSet, base: int, name: str = NAME, options: PublishOptions | None = None) -> None:
    await put_draft(
        desk.store, desk.keyring, name, options or PublishOptions(), rules, base=base, actor=ANNA, now=NOW
    )  # fmt: skip


async def look(source: Source, desk: Desk) -> PullResult:
    return await pull(source, desk.store, desk.keyring, clock=lambda: LATER, desk=desk)


async def actions(store: Store) -> list[str]:
    return [record.fields["action"] async for record in store.audit_records()]


async def test_a_draft_is_published_once(desk: Desk, store: Store, keyring: Keyring) -> None:
    await draft(desk, pages(range(10)), 0)
    done = await desk.publish_draft(NAME, expected=0, actor=ANNA, reason="first", now=NOW)
    assert (done.status, done.serial, done.entries, done.added, done.findings) == ("published", 1, 10, 10, ())
    assert (await store.manifest(NAME)).reason == "first"
    assert (await assert_whole(store, keyring, NAME)).dump() == pages(range(10)).dump()
    with pytest.raises(StoreError, match="has no draft"):
        await desk.publish_draft(NAME, expected=1, actor=ANNA, now=NOW)
    await draft(desk, pages(range(10)), 1)
    again = await desk.publish_draft(NAME, expected=1, actor=ANNA, now=NOW)
    assert (again.status, again.serial, again.digest) == ("unchanged", 1, done.digest)
    assert await store.draft("drafts", NAME) is None


async def test_a_dry_run_says_all_and_writes_nothing(desk: Desk, store: Store) -> None:
    await draft(desk, rules_of(["http://popular.example/", "http://a.example/x"]), 0)
    before = await store.audit_head()
    told = await desk.publish_draft(NAME, expected=0, actor=ANNA, dry_run=True, now=NOW)
    assert (told.status, told.dry_run, told.added) == ("refused", True, 2)
    assert [(finding.guard, finding.severity, finding.count) for finding in told.findings] == [
        ("never-block", "refuse", 1)
    ]
    assert await store.audit_head() == before
    assert await store.heads() == {}


async def test_what_a_guard_refuses_stays_a_draft(desk: Desk, store: Store) -> None:
    await draft(desk, rules_of(["http://*.popular.example"]), 0)
    told = await desk.publish_draft(NAME, expected=0, actor=ANNA, now=NOW)
    assert (told.status, told.serial) == ("refused", 0)
    assert await store.heads() == {}
    assert await store.draft("drafts", NAME) is not None
    assert await actions(store) == ["draft", "refuse"]


async def test_a_list_without_its_canary_is_refused(desk: Desk, store: Store) -> None:
    await draft(desk, pages(range(3)), 0, "watched")
    assert (await desk.publish_draft("watched", expected=0, actor=ANNA, now=NOW)).status == "published"
    await draft(desk, pages([0, 2]), 1, "watched")
    assert (await desk.publish_draft("watched", expected=1, actor=ANNA, now=NOW)).status == "refused"
    assert (await store.heads())["watched"].serial == 1


async def test_a_second_person_approves_what_was_shown(desk: Desk, store: Store, keyring: Keyring) -> None:
    await draft(desk, pages(range(2000)), 0)
    await desk.publish_draft(NAME, expected=0, actor=ANNA, now=NOW)
    await draft(desk, pages(range(100)), 1)
    told = await desk.publish_draft(NAME, expected=1, actor=ANNA, reason="half gone", now=NOW)
    assert (told.status, told.serial, told.removed) == ("waiting", 1, 1900)
    assert (await assert_whole(store, keyring, NAME)).dump() == pages(range(2000)).dump()
    with pytest.raises(UpdateRefused, match="a second person must approve it"):
        await desk.approve(NAME, told.proposal, expected=1, actor=ANNA, now=NOW)
    with pytest.raises(UpdateRefused, match="a person must approve it"):
        await desk.approve(NAME, told.proposal, expected=1, actor=MACHINE, now=NOW)
    with pytest.raises(ChangeConflict, match="another proposal waits"):
        await desk.approve(NAME, "0" * 16, expected=1, actor=BERT, now=NOW)
    done = await desk.approve(NAME, told.proposal, expected=1, actor=BERT, now=NOW)
    assert (done.status, done.serial) == ("published", 2)
    assert (await assert_whole(store, keyring, NAME)).dump() == pages(range(100)).dump()
    with pytest.raises(StoreError, match="no proposal that waits"):
        await desk.approve(NAME, told.proposal, expected=2, actor=BERT, now=NOW)
    assert await actions(store) == ["draft", "publish", "draft", "propose", "approve"]
    last = (await store.newest_audit_records(1))[0].fields
    assert (last["person"], last["reason"]) == ("Bert", "half gone")


async def test_an_approval_after_the_list_moved_is_refused(desk: Desk, store: Store, keyring: Keyring) -> None:
    await draft(desk, pages(range(5)), 0)
    await desk.publish_draft(NAME, expected=0, actor=ANNA, now=NOW)
    await draft(desk, rules_of([]), 1)
    told = await desk.publish_draft(NAME, expected=1, actor=ANNA, now=NOW)
    await publish(store, keyring, NAME, PublishOptions(), pages(range(6)), reason="other", now=NOW)
    with pytest.raises(ChangeConflict, match="made from serial 1, not 2"):
        await desk.approve(NAME, told.proposal, expected=2, actor=BERT, now=NOW)
    with pytest.raises(CommitConflict):
        await desk.approve(NAME, told.proposal, expected=1, actor=BERT, now=NOW)
    assert len(await assert_whole(store, keyring, NAME)) == 6


async def test_a_draft_never_undoes_what_came_after_it(desk: Desk, store: Store, keyring: Keyring) -> None:
    await draft(desk, pages(range(5)), 0)
    await publish(store, keyring, NAME, PublishOptions(), pages(range(6)), reason="other", now=NOW)
    for expected in (0, 1):
        for dry_run in (True, False):
            with pytest.raises(CommitConflict):
                await desk.publish_draft(NAME, expected=expected, actor=ANNA, dry_run=dry_run, now=NOW)
    assert len(await assert_whole(store, keyring, NAME)) == 6


async def test_a_serial_may_be_tried_in_the_shadow(desk: Desk, store: Store) -> None:
    await draft(desk, pages(range(5)), 0)
    done = await desk.publish_draft(NAME, expected=0, actor=ANNA, mode="shadow", now=NOW)
    assert done.status == "published"
    assert (await store.manifest(NAME)).mode == "shadow"
    await draft(desk, pages(range(5)), 1)
    assert (await desk.publish_draft(NAME, expected=1, actor=ANNA, now=NOW)).status == "published"
    assert (await store.manifest(NAME)).mode == "enforce"
    await draft(desk, pages(range(6)), 2)
    told = await desk.publish_draft(NAME, expected=2, actor=ANNA, mode="shadow", now=NOW)
    assert (told.status, told.findings[0].guard) == ("waiting", "options")


# --- what a source brings ---------------------------------------------------------------------------------------------


def text(numbers: range, *more: str) -> str:
    return "".join(f"http://site{number % 50}.example/page/{number}.html\n" for number in numbers) + "".join(more)


async def test_a_pull_that_shrinks_waits_and_is_proposed_once(
    desk: Desk, store: Store, file_source: MakeSource
) -> None:
    assert (await look(file_source(text(range(4000))), desk)).status == "published"
    source = file_source(text(range(1000)))
    for _ in range(3):
        result = await look(source, desk)
        assert (result.status, result.serial, result.good) == ("waiting", 1, False)
        assert "4000 rules become 1000" in result.detail
        assert "blocker lists approve file " in result.detail
    assert await actions(store) == ["publish", "propose"]
    assert (await store.source_state("file"))["last_status"] == "waiting"
    proposal = (await store.drafts("proposals"))["file"]
    done = await desk.approve("file", proposal.id, expected=1, actor=ANNA, now=NOW)
    assert (done.status, done.serial) == ("published", 2)
    assert (await look(source, desk)).status == "unchanged"
    assert (await look(source, desk)).status == "not_modified"


async def test_what_a_person_rejected_is_not_proposed_again(desk: Desk, store: Store, file_source: MakeSource) -> None:
    await look(file_source(text(range(4000))), desk)
    source = file_source(text(range(1000)))
    await look(source, desk)
    proposal = (await store.drafts("proposals"))["file"]
    await desk.reject("file", proposal.id, actor=ANNA, reason="a fault at the source", now=NOW)
    for _ in range(2):
        result = await look(source, desk)
        assert (result.status, "rejected by a person" in result.detail) == ("refused", True)
    assert await actions(store) == ["publish", "propose", "reject"]
    assert (await look(file_source(text(range(900))), desk)).status == "waiting", "another file is another question"
    assert (await look(file_source(text(range(3900))), desk)).status == "published"


async def test_a_pull_that_a_guard_refuses_changes_nothing(desk: Desk, store: Store, file_source: MakeSource) -> None:
    await look(file_source(text(range(10))), desk)
    result = await look(file_source(text(range(10), "http://popular.example/\n")), desk)
    assert (result.status, result.serial) == ("refused", 1)
    assert "never-block: 1 new rules" in result.detail
    assert "popular.example" not in result.detail
    assert (await store.heads())["file"].serial == 1


async def test_a_whole_host_with_listed_pages_in_another_list_waits(
    desk: Desk, store: Store, keyring: Keyring, file_source: MakeSource
) -> None:
    archive = rules_of(f"http://archive.example/copy/{number}" for number in range(12))
    await publish(store, keyring, "police", PublishOptions(), archive, reason="test", now=NOW)
    result = await look(file_source("http://archive.example/\nhttp://a.example/x\n"), desk)
    assert (result.status, result.serial) == ("waiting", None)
    assert "whole-host: 1 new rules" in result.detail
    assert (await look(file_source("http://quiet.example/\n"), desk)).status == "published"


async def test_a_rolled_back_list_is_not_pulled_forward_by_the_same_file(
    desk: Desk, store: Store, keyring: Keyring, file_source: MakeSource
) -> None:
    await look(file_source(text(range(10))), desk)
    source = file_source(text(range(20)))
    await look(source, desk)
    await rollback(store, keyring, "file", 1, now=NOW)
    assert (await look(source, desk)).status == "not_modified"
    assert (await store.heads())["file"].serial == 3
