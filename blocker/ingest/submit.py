"""From a prepared version to the list: the guards look at it, then it is published, waits for approval, or is refused.

What waits is a **proposal**: frozen, with what the guards said. A second person approves or rejects it; nothing else
does, and the person who proposed it cannot. An approval publishes exactly what was shown, since it names the proposal's
id, and only upon the serial that it was made from.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from blocker._native import RuleSet
from blocker.errors import (
    ChangeConflict,
    CommitConflict,
    FormatError,
    NotThere,
    SourceError,
    StoreError,
    StoreUnavailable,
    UpdateRefused,
)
from blocker.ingest.cleartext import read_rules, seal_layer, sealer
from blocker.ingest.drafts import facts_of, nothing_along, options_of, read_proposed
from blocker.ingest.expiry import utc_day, without_ended
from blocker.ingest.guard import Guards, Severity
from blocker.ingest.neighbours import Neighbours
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import Progress, head_manifest, no_progress, publish
from blocker.ingest.source import load_sources
from blocker.store.audit import Actor, AuditEntry
from blocker.store.changes import NOTHING, Along, new_draft_id
from blocker.store.draft import Draft, StoredFinding
from blocker.store.manifest import Layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from blocker.ingest.guard import Finding
    from blocker.ingest.source import Source
    from blocker.sections import GuardSettings
    from blocker.store.manifest import ListMode, Manifest
    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring

Status = Literal["published", "unchanged", "waiting", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a version.

    Attributes:
        list: The list.
        status: published; unchanged: it is that already; waiting: it needs approval; refused: it must not be published.
        serial: The list's serial now.
        entries: Rules in the version.
        added: Rules that come, or would.
        removed: Rules that go, or would.
        digest: Of the trie, where it was published.
        proposal: Id of what waits.
        findings: What the guards said.
        dry_run: Nothing was written; `status` says what would be.
    """

    list: str
    status: Status
    serial: int
    entries: int
    added: int
    removed: int
    digest: str = ""
    proposal: str = ""
    findings: tuple[StoredFinding, ...] = ()
    dry_run: bool = False


def stored(findings: Iterable[Finding]) -> tuple[StoredFinding, ...]:
    """What is kept of findings: all but the rules."""
    return tuple(
        StoredFinding(
            guard=finding.guard, severity=finding.severity.value, message=finding.message, count=finding.count
        )
        for finding in findings
    )


class Desk:
    """Takes versions of lists to where they belong.

    Args:
        store: Where the lists are.
        keyring: With the seal key.
        guards: What looks at each version; called each time, so that files may change.
        canaries: List → the addresses that it must block, for the guards.
    """

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        guards: Callable[[], Guards],
        canaries: Callable[[str], Iterable[str]] = lambda _name: (),
    ) -> None:
        self.store = store
        self.keyring = keyring
        self._guards = guards
        self._canaries = canaries
        self._neighbours = Neighbours(store, keyring)

    @classmethod
    def configured(cls, store: Store, keyring: Keyring, settings: GuardSettings, lists_dir: Path) -> Desk:
        """A desk with the guards and canaries of the settings and of the sources, as they are when they are needed."""

        def sources() -> tuple[Source, ...]:
            try:
                return load_sources(lists_dir).sources
            except SourceError:  # no directory: lists that are only pushed
                return ()

        return cls(
            store,
            keyring,
            lambda: Guards.load(settings, sources()),
            lambda name: next((source.canaries for source in sources() if source.name == name), ()),
        )

    async def examine(
        self, name: str, options: PublishOptions, rules: RuleSet, before: RuleSet | None, head: Manifest | None
    ) -> tuple[Finding, ...]:
        """What the guards say of a version; nothing is written.

        Cost: reads the other lists once per serial where whole hosts are added.
        """
        added, _ = await asyncio.to_thread((before or RuleSet()).diff, rules)
        paths = await self._neighbours.paths_of(name, before, added)
        guards = await asyncio.to_thread(self._guards)
        canaries = await asyncio.to_thread(self._canaries, name)
        return await asyncio.to_thread(
            guards.examine,
            name,
            options=options,
            rules=rules,
            before=before,
            before_options=None if head is None else PublishOptions.of(head),
            added=added,
            listed_paths=paths,
            canaries=canaries,
        )

    async def rules_of(self, head: Manifest | None) -> RuleSet | None:
        """The rules of a list as it is; None where there are none that can be read, which a new version mends."""
        if head is None:
            return None
        try:
            return await read_rules(self.store, sealer(self.keyring), head)
        except StoreUnavailable:
            raise
        except (StoreError, FormatError):
            return None

    async def publish_draft(
        self,
        name: str,
        *,
        expected: int,
        actor: Actor,
        reason: str = "",
        mode: ListMode | None = None,
        dry_run: bool = False,
        now: float,
        progress: Progress = no_progress,
        along: Callable[[Outcome], Along] = lambda _outcome: NOTHING,
    ) -> Outcome:
        """Publish the draft of a list, or propose it where the guards ask for a second person.

        Args:
            name: The list.
            expected: Its serial; 0 for a new list.
            actor: Who.
            reason: Why, for the list's log; empty takes the draft's.
            mode: enforce or shadow for this serial; None takes the draft's.
            dry_run: Only say what would happen.
            now: Unix time in seconds.
            progress: Told of the phases guards, plan and upload.
            along: What is written in the same step.

        Returns:
            What happened; a refused draft stays as it is.

        Raises:
            CommitConflict: The list's serial is not `expected`.
            ChangeConflict: Somebody changed the draft or the proposal meanwhile.
            StoreError: There is no draft.
        """
        proposed = await read_proposed(self.store, self.keyring, name)
        draft, rules = proposed.draft, proposed.rules
        head = 0 if proposed.head is None else proposed.head.serial
        if head != expected:
            raise CommitConflict(f"list {name}: expected serial {expected}, the head is {head}; read it and try again")
        if draft.base != expected:
            # Upon another serial it would undo what came between.
            raise CommitConflict(
                f"list {name}: its draft was made from serial {draft.base}, not {expected}; discard it or put it anew"
            )
        rules = await asyncio.to_thread(without_ended, rules, utc_day(now))
        options = options_of(draft) if mode is None else replace(options_of(draft), mode=mode)
        progress("guards", 0, 1)
        findings = await self.examine(name, options, rules, proposed.before, proposed.head)
        progress("guards", 1, 1)
        kept = stored(findings)
        outcome = Outcome(
            list=name, status=_status(findings), serial=0 if proposed.head is None else proposed.head.serial,
            entries=len(rules), added=len(proposed.added), removed=len(proposed.removed), findings=kept,
            dry_run=dry_run,
        )  # fmt: skip
        if dry_run:
            return outcome
        taken = self.store.shelved("drafts", name, draft, None)
        reason = reason or draft.reason or "push"
        match outcome.status:
            case "refused":
                facts = {**facts_of(draft), "guards": _names(kept)}
                entry = AuditEntry(action="refuse", actor=actor, at=now, list=name, serial=expected, facts=facts)
                await self.store.record(entry, epoch=draft.epoch, along=along(outcome))
                return outcome
            case "waiting":
                waiting = replace(
                    draft, id=new_draft_id(), state="waiting", findings=kept, reason=reason, mode=options.mode,
                    author=actor.name, person=actor.person, created=now,
                )  # fmt: skip
                outcome = replace(outcome, proposal=waiting.id)
                await self._propose(waiting, actor, taken + along(outcome), expected)
                return outcome
            case _:
                done = await publish(
                    self.store, self.keyring, name, options, rules, reason=reason, now=now, progress=progress,
                    actor=actor, expected=expected,
                    along=lambda manifest: taken + along(_published(outcome, manifest)),
                )  # fmt: skip
                if done.unchanged:
                    outcome = replace(outcome, status="unchanged", digest=done.digest)
                    entry = AuditEntry(
                        action="unchanged", actor=actor, at=now, list=name, serial=expected, facts=facts_of(draft)
                    )
                    await self.store.record(entry, epoch=draft.epoch, along=taken + along(outcome))
                    return outcome
                return replace(outcome, serial=done.serial, digest=done.digest)

    async def submit(
        self, name: str, options: PublishOptions, rules: RuleSet, findings: tuple[Finding, ...], head: Manifest | None,
        *, actor: Actor, reason: str, now: float,
    ) -> Draft:  # fmt: skip
        """Propose what a source brought, once: a version that waits or was rejected already is not proposed again.

        Returns:
            The proposal, waiting or rejected.
        """
        digest = await asyncio.to_thread(rules.digest)
        base = 0 if head is None else head.serial
        existing = await self.store.draft("proposals", name)
        epoch = await self.store.epoch()
        same = existing and (existing.rules_digest, existing.base, existing.epoch) == (digest, base, epoch)
        if existing and same and options_of(existing) == options:
            return existing
        blobs = await asyncio.to_thread(seal_layer, sealer(self.keyring), name, rules, RuleSet())
        names = tuple(await self.store.put_blobs("sealed", blobs))
        before = 0 if head is None else head.entries
        waiting = Draft(
            id=new_draft_id(), list=name, epoch=epoch, base=base, action=options.action, mode=options.mode,
            path_case=options.path_case, www_alias=options.www_alias, entries=len(rules),
            added=max(len(rules) - before, 0), removed=max(before - len(rules), 0), rules_digest=digest,
            layers=(Layer(segments=(), sealed=names, nodes=0, added=len(rules), removed=0),), created=now,
            author=actor.name, person=actor.person, reason=reason, state="waiting", findings=stored(findings),
        )  # fmt: skip
        await self._propose(waiting, actor, NOTHING, base)
        return waiting

    async def approve(
        self,
        name: str,
        proposal: str,
        *,
        expected: int,
        actor: Actor,
        reason: str = "",
        now: float,
        progress: Progress = no_progress,
        along: Callable[[Outcome], Along] = lambda _outcome: NOTHING,
    ) -> Outcome:
        """Publish a proposal.

        Args:
            name: The list.
            proposal: The proposal's id, as it was shown.
            expected: The list's serial.
            actor: Who; another person than the one who proposed it.
            reason: Why, for the audit chain.
            now: Unix time in seconds.
            progress: Told of the phases plan and upload.
            along: What is written in the same step.

        Raises:
            UpdateRefused: The same person proposed it, or it was rejected.
            CommitConflict: The list has moved on since it was proposed.
            ChangeConflict: What waits is another proposal.
            StoreError: Nothing waits.
        """
        draft = await self._waiting(name, proposal)
        if draft.person == actor.person and actor.person:
            raise UpdateRefused(f"list {name}: a second person must approve it; you proposed it")
        if not actor.person:
            raise UpdateRefused(f"list {name}: a person must approve it")
        if draft.base != expected:
            raise ChangeConflict(f"list {name}: the proposal was made from serial {draft.base}, not {expected}")
        found = await read_proposed(self.store, self.keyring, name, "proposals")
        rules = await asyncio.to_thread(without_ended, found.rules, utc_day(now))
        taken = self.store.shelved("proposals", name, draft, None)
        outcome = Outcome(
            list=name, status="published", serial=expected, entries=len(rules), added=len(found.added),
            removed=len(found.removed), proposal=draft.id, findings=draft.findings,
        )  # fmt: skip
        done = await publish(
            self.store, self.keyring, name, options_of(draft), rules, reason=draft.reason, now=now, progress=progress,
            actor=actor, expected=expected, action="approve",
            along=lambda manifest: taken + along(_published(outcome, manifest)),
        )  # fmt: skip
        if done.unchanged:
            entry = AuditEntry(action="unchanged", actor=actor, at=now, list=name, serial=expected, reason=reason)
            outcome = replace(outcome, status="unchanged", digest=done.digest)
            await self.store.record(entry, epoch=draft.epoch, along=taken + along(outcome))
            return outcome
        return replace(outcome, serial=done.serial, digest=done.digest)

    async def reject(
        self, name: str, proposal: str, *, actor: Actor, reason: str, now: float,
        along: Callable[[Draft], Along] = nothing_along,
    ) -> Draft:  # fmt: skip
        """Refuse a proposal. It is kept as rejected, so that its source does not propose it again.

        Raises:
            ChangeConflict: What waits is another proposal.
            StoreError: Nothing waits.
        """
        draft = await self._waiting(name, proposal)
        after = replace(draft, state="rejected")
        entry = AuditEntry(
            action="reject", actor=actor, at=now, list=name, serial=draft.base, reason=reason, facts=facts_of(draft)
        )
        move = self.store.shelved("proposals", name, draft, after)
        await self.store.record(entry, epoch=await self.store.epoch(), along=move + along(after))
        return after

    async def _waiting(self, name: str, proposal: str) -> Draft:
        draft = await self.store.draft("proposals", name)
        if draft is None or draft.state != "waiting":
            raise NotThere(f"list {name} has no proposal that waits for approval")
        if draft.id != proposal:
            raise ChangeConflict(f"list {name}: another proposal waits by now; look at it first")
        return draft

    async def _propose(self, draft: Draft, actor: Actor, along: Along, expected: int) -> None:
        head = await head_manifest(self.store, draft.list)
        if (0 if head is None else head.serial) != expected or draft.base != expected:
            raise ChangeConflict(f"list {draft.list}: its serial is not {expected} any more; read it and try again")
        entry = AuditEntry(
            action="propose", actor=actor, at=draft.created, list=draft.list, serial=draft.base, reason=draft.reason,
            facts={**facts_of(draft), "guards": _names(draft.findings)},
        )  # fmt: skip
        before = await self.store.draft("proposals", draft.list)
        move = self.store.shelved("proposals", draft.list, before, draft)
        await self.store.record(entry, epoch=draft.epoch, along=move + along)


def _status(findings: Iterable[Finding]) -> Status:
    severities = {finding.severity for finding in findings}
    if Severity.REFUSE in severities:
        return "refused"
    return "waiting" if Severity.APPROVE in severities else "published"


def _published(outcome: Outcome, manifest: Manifest) -> Outcome:
    return replace(outcome, serial=manifest.serial, digest=manifest.digest)


def _names(findings: Iterable[StoredFinding]) -> str:
    return ", ".join(dict.fromkeys(finding.guard for finding in findings))
