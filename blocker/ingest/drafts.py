"""Drafts: the next version of a list, prepared by people and seen by nobody else until it is published.

A list has at most one draft. Every change gives it another id and compares what it replaces, so two people who change
one draft at once cannot lose each other's work: the second is told. A draft belongs to the serial it was made from.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from blocker._native import RuleSet
from blocker.errors import CommitConflict, NotThere, UpdateRefused
from blocker.ingest.cleartext import read_rules, seal_layer, sealer
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import head_manifest
from blocker.store.audit import Actor, AuditEntry
from blocker.store.changes import NOTHING, Along, Shelf, new_draft_id
from blocker.store.draft import Draft
from blocker.store.manifest import Layer

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocker.store.manifest import Manifest
    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring


class Proposed(NamedTuple):
    """A draft or proposal beside what it would replace.

    Attributes:
        draft: The draft.
        rules: Its rules.
        before: The rules of the list as it is now; None if there is no such list.
        head: The list as it is now; None if there is no such list.
        added: Rules that would come.
        removed: Rules that would go.
    """

    draft: Draft
    rules: RuleSet
    before: RuleSet | None
    head: Manifest | None
    added: RuleSet
    removed: RuleSet


def nothing_along(_draft: Draft) -> Along:
    """Nothing is written beside the draft."""
    return NOTHING


async def put_draft(
    store: Store, keyring: Keyring, name: str, options: PublishOptions, rules: RuleSet, *, base: int, actor: Actor,
    reason: str = "", now: float, along: Callable[[Draft], Along] = nothing_along,
) -> Draft:  # fmt: skip
    """Make `rules` the draft of a list, in the place of a draft that may be there.

    Args:
        store: Where the list is.
        keyring: With the seal key.
        name: The list; it need not exist.
        options: How it will act and match.
        rules: All its rules; not to be used elsewhere meanwhile.
        base: The list's present serial; 0 if it does not exist.
        actor: Who.
        reason: Why, for whoever looks at it.
        now: Unix time in seconds.
        along: From the new draft to what is written in the same step.

    Raises:
        CommitConflict: The list's serial is not `base`.
        ChangeConflict: Somebody else changed the draft meanwhile.
        StoreError, StoreUnavailable, KeyMaterialError: As `publish`.

    Cost: reads the list once, to count the difference; writes the whole text.
    """
    seal = sealer(keyring)
    head = await _head_at(store, name, base)
    before = RuleSet() if head is None else await read_rules(store, seal, head)
    added, removed = await asyncio.to_thread(before.diff, rules)
    blobs = await asyncio.to_thread(seal_layer, seal, name, rules, RuleSet())
    layer = Layer(
        segments=(), sealed=tuple(await store.put_blobs("sealed", blobs)), nodes=0, added=len(rules), removed=0
    )
    return await _shelve(
        store, await store.draft("drafts", name), actor, along,
        Draft(
            id=new_draft_id(), list=name, epoch=await store.epoch(), base=base, action=options.action,
            mode=options.mode, path_case=options.path_case, www_alias=options.www_alias, entries=len(rules),
            added=len(added), removed=len(removed), rules_digest=await asyncio.to_thread(rules.digest),
            layers=(layer,), created=now, author=actor.name, person=actor.person, reason=reason,
        ),
    )  # fmt: skip


async def patch_draft(
    store: Store, keyring: Keyring, name: str, added: RuleSet, removed: RuleSet, *, base: int, actor: Actor,
    reason: str = "", now: float, along: Callable[[Draft], Along] = nothing_along,
) -> Draft:  # fmt: skip
    """Change the draft of a list, or make one from the list as it is.

    A rule is what it covers: one that is added again takes the place of the one that is there, with its reference and
    metadata; one is removed whatever those are.

    Args:
        store: Where the list is.
        keyring: With the seal key.
        name: The list; it exists.
        added: Rules to add.
        removed: Rules to take out; each must be there.
        base: The list's present serial.
        actor: Who.
        reason: Why; empty keeps the draft's.
        now: Unix time in seconds.
        along: From the new draft to what is written in the same step.

    Raises:
        UpdateRefused: A rule to remove is not there, or is also added; nothing was changed.
        CommitConflict: The list's serial is not `base`, or the draft is of another serial.
        ChangeConflict: Somebody else changed the draft meanwhile.
        StoreError: There is no such list.

    Cost: reads the list and the draft; writes a text in proportion to the difference between them.
    """
    seal = sealer(keyring)
    head = await _head_at(store, name, base)
    if head is None:
        raise NotThere(f"list {name} is not in the store; put a whole draft first")
    draft = await store.draft("drafts", name)
    if draft is not None and (draft.base, draft.epoch) != (base, head.epoch):
        raise CommitConflict(
            f"list {name}: its draft was made from serial {draft.base}, the head is {base}; discard it or put it anew"
        )
    before = await read_rules(store, seal, head)
    present = before if draft is None else await read_rules(store, seal, draft)
    rules = await asyncio.to_thread(_patched, name, present, added, removed)
    net_added, net_removed = await asyncio.to_thread(before.diff, rules)
    blobs = await asyncio.to_thread(seal_layer, seal, name, net_added, net_removed)
    names = await store.put_blobs("sealed", blobs)
    layer = Layer(segments=(), sealed=tuple(names), nodes=0, added=len(net_added), removed=len(net_removed))
    if not head.layers:
        kept: tuple[Layer, ...] = ()
    else:
        kept = tuple(replace(layer, segments=()) for layer in head.layers)
    options = PublishOptions.of(head) if draft is None else draft
    return await _shelve(
        store, draft, actor, along,
        Draft(
            id=new_draft_id(), list=name, epoch=head.epoch, base=base, action=options.action, mode=options.mode,
            path_case=options.path_case, www_alias=options.www_alias, entries=len(rules), added=len(net_added),
            removed=len(net_removed), rules_digest=await asyncio.to_thread(rules.digest), layers=(*kept, layer),
            created=now, author=actor.name, person=actor.person,
            reason=reason or ("" if draft is None else draft.reason),
        ),
    )  # fmt: skip


async def discard_draft(store: Store, name: str, *, actor: Actor, now: float, shelf: Shelf = "drafts") -> Draft:
    """Take the draft of a list away; the draft it was.

    Raises:
        StoreError: There is none.
        ChangeConflict: Somebody else changed it meanwhile.
    """
    draft = await _there(store, shelf, name)
    entry = AuditEntry(action="discard", actor=actor, at=now, list=name, serial=draft.base, facts=facts_of(draft))
    await store.record(entry, epoch=await store.epoch(), along=store.shelved(shelf, name, draft, None))
    return draft


async def read_proposed(store: Store, keyring: Keyring, name: str, shelf: Shelf = "drafts") -> Proposed:
    """A draft or proposal, with its rules, beside the list as it is now.

    Raises:
        StoreError: There is none.
        FormatError: What is stored of it is damaged.
        KeyMaterialError: This process holds no seal key.
    """
    seal = sealer(keyring)
    draft = await _there(store, shelf, name)
    head = await head_manifest(store, name)
    before = None if head is None else await read_rules(store, seal, head)
    rules = await read_rules(store, seal, draft)
    added, removed = await asyncio.to_thread((before or RuleSet()).diff, rules)
    return Proposed(draft, rules, before, head, added, removed)


def options_of(draft: Draft) -> PublishOptions:
    """How the list will act and match."""
    return PublishOptions(action=draft.action, mode=draft.mode, path_case=draft.path_case, www_alias=draft.www_alias)


def facts_of(draft: Draft) -> dict[str, str | int | bool]:
    """What an audit record says of a draft; `rules_digest` is left to commits, by which they are known."""
    names = ("id", "base", "action", "mode", "path_case", "www_alias", "entries", "added", "removed")
    return {**{name: getattr(draft, name) for name in names}, "draft_digest": draft.rules_digest}


def _patched(name: str, present: RuleSet, added: RuleSet, removed: RuleSet) -> RuleSet:
    both = added.common(removed)
    if len(both):
        raise UpdateRefused(f"list {name}: {len(both)} rules are to be both added and removed; nothing was changed")
    gone = present.common(removed)
    if len(gone) < len(removed):
        raise UpdateRefused(
            f"list {name}: {len(removed) - len(gone)} of {len(removed)} rules to remove are not in it; nothing was "
            "changed"
        )
    replaced = present.common(added)
    return present.patched(RuleSet(), gone).patched(added, replaced)


async def _head_at(store: Store, name: str, base: int) -> Manifest | None:
    head = await head_manifest(store, name)
    serial = 0 if head is None else head.serial
    if serial != base:
        raise CommitConflict(f"list {name}: expected serial {base}, the head is {serial}; read it and try again")
    return head


async def _there(store: Store, shelf: Shelf, name: str) -> Draft:
    draft = await store.draft(shelf, name)
    if draft is None:
        raise NotThere(f"list {name} has no {'draft' if shelf == 'drafts' else 'proposal'}")
    return draft


async def _shelve(
    store: Store, before: Draft | None, actor: Actor, along: Callable[[Draft], Along], draft: Draft
) -> Draft:
    entry = AuditEntry(
        action="draft", actor=actor, at=draft.created, list=draft.list, serial=draft.base, reason=draft.reason,
        facts=facts_of(draft),
    )  # fmt: skip
    await store.record(
        entry, epoch=draft.epoch, along=store.shelved("drafts", draft.list, before, draft) + along(draft)
    )
    return draft
