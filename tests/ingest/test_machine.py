"""Random pushes, patches, publishes, approvals, rollbacks, expiries, collections and crashes, against a model.

Whatever happens: what the store shows of a list is one version that somebody published, whole; a publish that was
acknowledged is there ever after; no serial is used twice; the audit chain is whole. A crash is a client that is cut off
at a random await, or a Redis that is killed at a random moment: then the change is there whole or not at all.

Whether a change that was cut off is there depends on the machine's speed. So no rule has a precondition on what is
there: what can be drawn must be the same each time, or hypothesis cannot tell one run from another. A rule that finds
nothing to do sees that it is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections import Counter
from typing import TYPE_CHECKING, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from blocker.errors import ChangeConflict, CommitConflict, StoreError, UpdateRefused
from blocker.ingest.drafts import discard_draft, patch_draft, put_draft, read_proposed
from blocker.ingest.plan import PublishOptions
from blocker.ingest.rollback import rollback
from blocker.ingest.submit import Desk, Outcome
from blocker.store.audit import Actor, verify
from blocker.store.redis import Store
from blocker.store.sealing import Keyring
from tests.ingest.checks import assert_whole, pages
from tests.ingest.guarding import FEW
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

# Together 10 000 steps in a campaign; fewer in an ordinary run, which must stay short.
EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "25"))
STEPS = 50
# put, patch, discard, publish, approve, reject, rollback: each must have been done.
KINDS = 7
NOW = 1_700_000_000.0
KEYRING = Keyring(lookup=b"0123456789abcdef", seal=bytes(range(32)))
NAMES = ("one", "two")
ANNA, BERT = Actor("token:anna", "Anna"), Actor("token:bert", "Bert")
Version = tuple[frozenset[int], bool]

numbers = st.frozensets(st.integers(0, 12), max_size=6)
names = st.sampled_from(NAMES)
# After how many turns of the loop a client is cut off; None: not at all.
cuts = st.none() | st.none() | st.integers(0, 60)


class Machine(RuleBasedStateMachine):
    """The model: for each list the versions by serial, the draft, the proposal."""

    redis: ClassVar[RedisServer]
    steps: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.deployment = f"t{secrets.token_hex(6)}"
        self.versions: dict[str, list[Version]] = {name: [] for name in NAMES}
        self.drafts: dict[str, tuple[int, Version] | None] = dict.fromkeys(NAMES)
        self.proposals: dict[str, tuple[int, Version] | None] = dict.fromkeys(NAMES)

    @initialize()
    def open(self) -> None:
        self.connect()

    def connect(self) -> None:
        self.store = self.runner.run(Store.open(self.redis.url, self.deployment, keyring=KEYRING))
        self.desk = Desk(self.store, KEYRING, lambda: FEW)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.check_the_end()
            self.runner.run(self.store.close())
        self.runner.close()

    # --- what people do ----------------------------------------------------------------------------------------------

    @rule(name=names, wanted=numbers, shadow=st.booleans(), cut=cuts)
    def put(self, name: str, wanted: frozenset[int], shadow: bool, cut: int | None) -> None:
        options = PublishOptions(mode="shadow" if shadow else "enforce")
        base = len(self.versions[name])
        work = put_draft(self.store, KEYRING, name, options, pages(wanted), base=base, actor=ANNA, now=NOW)
        after = (base, (wanted, shadow))
        if self.do(work, cut):
            self.drafts[name] = after
        else:
            self.settle_draft(name, after)

    @rule(name=names, wanted=numbers, shadow=st.booleans(), cut=cuts)
    def push(self, name: str, wanted: frozenset[int], shadow: bool, cut: int | None) -> None:
        """A draft and its publish, one right after the other, as most are."""
        self.put(name, wanted, shadow, None)
        self.publish(name, False, cut)

    @rule(name=names, wanted=numbers, cut=cuts)
    def push_to_enforce(self, name: str, wanted: frozenset[int], cut: int | None) -> None:
        """As above; lists that are never enforced would never need a second person."""
        self.push(name, wanted, False, cut)

    @rule(name=names, added=numbers, removed=numbers, cut=cuts)
    def patch(self, name: str, added: frozenset[int], removed: frozenset[int], cut: int | None) -> None:
        base, draft = len(self.versions[name]), self.drafts[name]
        work = patch_draft(self.store, KEYRING, name, pages(added), pages(removed), base=base, actor=ANNA, now=NOW)
        if not base or (draft and draft[0] != base):
            self.refused(work, StoreError)
            return
        present, shadow = draft[1] if draft else self.versions[name][-1]
        if added & removed or not removed <= present:
            self.refused(work, UpdateRefused)
            removed = (removed & present) - added
            work = patch_draft(self.store, KEYRING, name, pages(added), pages(removed), base=base, actor=ANNA, now=NOW)
        after = (base, ((present - removed) | added, shadow))
        if self.do(work, cut):
            self.drafts[name] = after
        else:
            self.settle_draft(name, after)

    @rule(name=names)
    def discard(self, name: str) -> None:
        work = discard_draft(self.store, name, actor=ANNA, now=NOW)
        if self.drafts[name] is None:
            self.refused(work, StoreError)
        else:
            self.do(work, None)
            self.drafts[name] = None

    @rule(name=names, dry_run=st.booleans(), cut=cuts)
    def publish(self, name: str, dry_run: bool, cut: int | None) -> None:
        base, draft = len(self.versions[name]), self.drafts[name]
        work = self.desk.publish_draft(name, expected=base, actor=ANNA, dry_run=dry_run, now=NOW)
        if draft is None:
            self.refused(work, StoreError)
            return
        if draft[0] != base:
            self.refused(work, CommitConflict)
            return
        before = self.versions[name][-1] if base else None
        if dry_run:
            self.do(work, None)
            return
        if needs_a_second(before, draft[1]):
            if self.do(work, cut) or self.draft_of("drafts", name) is None:
                self.proposals[name], self.drafts[name] = draft, None
            return
        done = self.do(work, cut)
        if done or self.serial_of(name) > base or self.draft_of("drafts", name) is None:
            self.drafts[name] = None
            if draft[1] != before:
                self.versions[name].append(draft[1])
        if done:
            assert isinstance(done[0], Outcome)
            assert done[0].status == ("unchanged" if draft[1] == before else "published")
            assert done[0].serial == len(self.versions[name])

    @rule(name=names, second=st.booleans(), cut=cuts)
    def approve(self, name: str, second: bool, cut: int | None) -> None:
        base, proposal = len(self.versions[name]), self.proposals[name]
        stored = self.runner.run(self.store.draft("proposals", name))
        work = self.desk.approve(
            name, stored.id if stored else "none", expected=base, actor=BERT if second else ANNA, now=NOW
        )
        if proposal is None:
            self.refused(work, StoreError)
        elif not second:
            self.refused(work, UpdateRefused)
        elif proposal[0] != base:
            self.refused(work, ChangeConflict)
        elif self.do(work, cut) or self.serial_of(name) > base:
            self.proposals[name] = None
            self.versions[name].append(proposal[1])

    @rule(name=names, cut=cuts)
    def empty_with_a_second_person(self, name: str, cut: int | None) -> None:
        self.push(name, frozenset(), False, None)
        if self.proposals[name]:
            self.approve(name, True, cut)

    @rule(name=names)
    def reject(self, name: str) -> None:
        stored = self.runner.run(self.store.draft("proposals", name))
        work = self.desk.reject(name, stored.id if stored else "none", actor=BERT, reason="no", now=NOW)
        if self.proposals[name] is None:
            self.refused(work, StoreError)
        else:
            self.do(work, None)
            self.proposals[name] = None

    @rule(name=names, which=st.integers(0, 100), cut=cuts)
    def back(self, name: str, which: int, cut: int | None) -> None:
        versions = self.versions[name]
        if not versions:
            self.refused(rollback(self.store, KEYRING, name, 1, now=NOW), StoreError)
            return
        serial = which % len(versions) + 1
        wanted = versions[serial - 1]
        done = self.do(rollback(self.store, KEYRING, name, serial, now=NOW, actor=ANNA), cut)
        if wanted != versions[-1] and (done or self.serial_of(name) > len(versions)):
            versions.append(wanted)

    # --- what happens ------------------------------------------------------------------------------------------------

    @rule()
    def collect(self) -> None:
        self.runner.run(self.store.collect_orphans(grace_seconds=0, keep_serials=10_000))

    @rule()
    def kill_redis(self) -> None:
        self.redis.kill()
        self.redis.start()

    # --- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def every_list_is_one_whole_version(self) -> None:
        if not hasattr(self, "store"):
            return
        for name, versions in self.versions.items():
            assert self.serial_of(name) == len(versions)
            if versions:
                wanted, shadow = versions[-1]
                rules = self.runner.run(assert_whole(self.store, KEYRING, name))
                assert rules.dump() == pages(wanted).dump()
                manifest = self.runner.run(self.store.manifest(name))
                assert manifest.mode == ("shadow" if shadow else "enforce")
            assert self.draft_of("drafts", name) == self.drafts[name]
            assert self.draft_of("proposals", name) == self.proposals[name]

    def check_the_end(self) -> None:
        """Every serial is what it was, once; the audit chain tells the same."""

        async def read() -> list[str]:
            heads, head = await self.store.heads(), await self.store.audit_head()
            manifests = []
            for name, versions in self.versions.items():
                history = await self.store.history(name, 10_000)
                assert [manifest.serial for manifest in history] == [*range(len(versions), 0, -1)]
                for manifest, (wanted, _) in zip(history, reversed(versions), strict=True):
                    assert manifest.rules_digest == pages(wanted).digest()
                manifests += history
            records = [record async for record in self.store.audit_records()]
            return [
                *verify(
                    self.store.audit_chain, records, head, epoch=await self.store.epoch(), heads=heads,
                    manifests=manifests,
                )
            ]  # fmt: skip

        assert self.runner.run(read()) == []

    # --- how ---------------------------------------------------------------------------------------------------------

    def do(self, work: Coroutine[None, None, object], cut: int | None) -> tuple[object] | None:
        """The work's result; None if it was cut off before it had one."""

        async def until_cut() -> tuple[object] | None:
            task = asyncio.ensure_future(work)
            for _ in range(cut or 0):
                if task.done():
                    break
                await asyncio.sleep(0)
            if cut is not None and not task.done():
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                return (await task,)
            await (
                self.store.server_time()
            )  # a command under way has ended when the next on a fresh connection is answered
            return None

        done = self.runner.run(until_cut())
        type(self).steps[getattr(work, "__name__", "")] += 1
        if done is None:
            # A cut client's last command may still be on its way: the store of a new process shows how it ended.
            self.runner.run(self.store.close())
            self.connect()
        return done

    def refused(self, work: Coroutine[None, None, object], kind: type[Exception] | tuple[type[Exception], ...]) -> None:
        try:
            self.runner.run(work)
        except kind:
            return
        raise AssertionError("it was not refused")

    def serial_of(self, name: str) -> int:
        head = self.runner.run(self.store.heads()).get(name)
        return 0 if head is None else head.serial

    def draft_of(self, shelf: str, name: str) -> tuple[int, Version] | None:
        async def read() -> tuple[int, Version] | None:
            draft = await self.store.draft(shelf, name)  # type: ignore[arg-type]
            if draft is None or draft.state == "rejected":
                return None
            rules = (await read_proposed(self.store, KEYRING, name, shelf)).rules  # type: ignore[arg-type]
            held = frozenset(number for number in range(13) if len(rules.common(pages([number]))))
            assert len(held) == len(rules) == draft.entries
            return draft.base, (held, draft.mode == "shadow")

        return self.runner.run(read())

    def settle_draft(self, name: str, after: tuple[int, Version]) -> None:
        """A change that was cut off is there whole or not at all."""
        found = self.draft_of("drafts", name)
        assert found in (self.drafts[name], after)
        self.drafts[name] = found


def needs_a_second(before: Version | None, after: Version) -> bool:
    """Whether the guards ask for approval: emptying a list, or no longer enforcing it."""
    if before is None:
        return False
    emptied = bool(before[0]) and not after[0]
    return emptied or (bool(before[0]) and after[1] and not before[1])


def test_nothing_half_nothing_lost_nothing_twice(tmp_path: Path) -> None:
    with RedisServer(tmp_path, aof=True) as redis:

        class Once(Machine):
            pass

        Once.redis, Once.steps = redis, Counter()
        run_state_machine_as_test(
            Once,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize="MACHINE_EXAMPLES" not in os.environ,  # a campaign takes other ways each time
                suppress_health_check=list(HealthCheck),
            ),
        )
        assert len(Once.steps) == KINDS, "something was never tried"
