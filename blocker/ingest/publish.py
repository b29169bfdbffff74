"""Publishing: a list's new rules become its next serial, whole or not at all, and only if something changed.

The order makes a crash harmless at any point: read the head, work out the plan (plan.py), upload its blobs, commit with
a comparison of the head. Whatever is left behind before the commit is an orphan and is collected; after the commit
nothing is missing. Of two publishers at once the second finds the head moved, reads it and plans again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from blocker.errors import ChangeConflict, CommitConflict, FormatError, StoreError, StoreUnavailable
from blocker.ingest.cleartext import read_layers, sealer
from blocker.ingest.plan import Existing, Plan, PublishOptions, make_plan
from blocker.store.audit import INGEST, Actor
from blocker.store.changes import NOTHING, Along
from blocker.store.manifest import Manifest

if TYPE_CHECKING:
    from blocker._native import RuleSet
    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring, Sealer

# Each lost race means that another publish of the list went through, so this many in a row is not two workers but a
# fault, also on a machine so busy that one of them always comes second; and a collection can drop fresh blobs only
# after its grace period, so once is already rare.
ATTEMPTS = 32

_log = structlog.get_logger("blocker.ingest")


# Told how far long work is; must return at once. Arguments: the phase, which is `fetch` (counted in bytes), `guards` or
# `plan` (one step each) or `upload` (blobs); what is done; the total, or None while it is not known.
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishResult:
    """What a publish did.

    Attributes:
        list: The list.
        serial: Its head now.
        added: Rules it gained.
        removed: Rules it lost.
        entries: Rules it has now.
        unchanged: Nothing was written, since neither rules nor options differ.
        digest: SHA-256 of its trie, hex.
    """

    list: str
    serial: int
    added: int
    removed: int
    entries: int
    unchanged: bool
    digest: str


def nothing_along(_manifest: Manifest) -> Along:
    """Nothing is written beside the manifest."""
    return NOTHING


def no_progress(_phase: str, _done: int, _total: int | None) -> None:
    """For callers that show none."""


async def publish(
    store: Store,
    keyring: Keyring,
    name: str,
    options: PublishOptions,
    rules: RuleSet,
    *,
    reason: str,
    now: float,
    progress: Progress = no_progress,
    actor: Actor = INGEST,
    expected: int | None = None,
    along: Callable[[Manifest], Along] = nothing_along,
    action: str = "publish",
) -> PublishResult:
    """Make `rules` the contents of list `name`.

    Args:
        store: Where to.
        keyring: With the seal key.
        name: The list; made if there is none of that name.
        options: How it acts and matches.
        rules: All its rules; not to be used elsewhere meanwhile.
        reason: Why, for the list's log; no rule's text.
        now: Unix time in seconds.
        progress: Told of the phases plan and upload.
        actor: Who does it, for the audit chain.
        expected: The serial that this builds upon (0: there is no such list yet). None: whatever is there.
        along: From the manifest that will be committed to what is written in the same step; nothing is where nothing
            changes.
        action: What this is, for the audit chain.

    Raises:
        CommitConflict: The head is not `expected`, or others published the list again and again meanwhile.
        ChangeConflict: What `along` expects is not so.
        StoreError: Redis refuses; nothing of this publish is visible.
        StoreUnavailable: Redis is away. Whether the commit was done is unknown; publish again, which then finds it.
        KeyMaterialError: This process holds no seal key, or not the deployment's.
        UpdateRefused: The plan failed its own check.

    Cost: in proportion to the whole list, old and new, in threads; what is written is in proportion to the change.
    """
    seal = sealer(keyring)
    for attempt in range(1, ATTEMPTS + 1):
        epoch = await store.epoch()
        manifest = await head_manifest(store, name)
        head = 0 if manifest is None else manifest.serial
        if expected is not None and head != expected:
            raise CommitConflict(f"list {name}: expected serial {expected}, the head is {head}; read it and try again")
        if manifest is not None and await asyncio.to_thread(_is_same, manifest, options, rules):
            await store.set_checked(name, now)
            return _result(manifest, added=0, removed=0, unchanged=True)
        progress("plan", 0, 1)
        existing = None if manifest is None else await _existing(store, seal, manifest)
        plan = await asyncio.to_thread(
            make_plan, name, options, rules, existing, lookup_key=keyring.lookup, sealer=seal
        )
        progress("plan", 1, 1)
        try:
            new = await _upload(store, name, options, plan, epoch, head, reason, now, progress)
            await store.commit(new, expected=head, action=action, actor=actor, along=along(new))
        except (StoreUnavailable, ChangeConflict):
            raise
        except StoreError as error:  # a conflict, blobs collected meanwhile, or another life of the store
            if attempt == ATTEMPTS:
                raise
            _log.info("publish starts again", list=name, conflict=isinstance(error, CommitConflict))
            continue
        await store.set_checked(name, now)
        return _result(new, added=plan.added, removed=plan.removed, unchanged=False)
    raise AssertionError("the loop returns or raises")


async def head_manifest(store: Store, name: str) -> Manifest | None:
    """The newest manifest of a list; None if there is no such list."""
    head = (await store.heads()).get(name)
    return None if head is None else await store.manifest(name, head.serial)


async def _existing(store: Store, seal: Sealer, manifest: Manifest) -> Existing | None:
    """The head, read whole; None if part of it is gone or damaged, so that publishing mends it."""
    try:
        layers = [[await store.get_blob("segment", name) for name in layer.segments] for layer in manifest.layers]
        return Existing(manifest, layers, *await read_layers(store, seal, manifest))
    except StoreUnavailable:
        raise
    except (StoreError, FormatError) as error:
        _log.warning("list is published anew, its head cannot be read", list=manifest.list, reason=str(error))
        return None


async def _upload(
    store: Store, name: str, options: PublishOptions, plan: Plan, epoch: str, head: int, reason: str, now: float,
    progress: Progress,
) -> Manifest:  # fmt: skip
    """Upload the blobs; the manifest that is to be committed."""
    names: dict[str, list[str]] = {"segment": [], "sealed": []}
    blobs = [("segment", blob) for blob in plan.segments] + [("sealed", blob) for blob in plan.sealed]
    for done, (kind, blob) in enumerate(blobs):
        progress("upload", done, len(blobs))
        names[kind] += await store.put_blobs("segment" if kind == "segment" else "sealed", [blob])
    progress("upload", len(blobs), len(blobs))
    return Manifest(
        list=name, serial=head + 1, epoch=epoch, action=options.action, mode=options.mode,
        path_case=options.path_case, www_alias=options.www_alias, entries=plan.entries, digest=plan.digest,
        rules_digest=plan.rules_digest, layers=plan.layers(names["segment"], names["sealed"]), created=now,
        reason=reason, added=plan.added, removed=plan.removed,
    )  # fmt: skip


def _is_same(manifest: Manifest, options: PublishOptions, rules: RuleSet) -> bool:
    same_options = not manifest.retired and PublishOptions.of(manifest) == options
    return same_options and manifest.rules_digest == rules.digest()


def _result(manifest: Manifest, *, added: int, removed: int, unchanged: bool) -> PublishResult:
    return PublishResult(
        list=manifest.list, serial=manifest.serial, added=added, removed=removed, entries=manifest.entries,
        unchanged=unchanged, digest=manifest.digest,
    )  # fmt: skip
