"""Rollback: a list becomes again what it was at an older serial, under a new serial.

The new manifest names the old one's segments and sealed texts, so the trie is the old one byte for byte and nothing is
uploaded. The commit compares the head and checks in the same step that every blob is still there: a collection that
was quicker makes the rollback be refused whole, and one that comes later finds the blobs named and keeps them.

A rollback is no pull (see update.py): the next look at an unchanged source leaves it in place; a changed source, or
description of it, brings the list forward again.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from blocker._native import NodeRun
from blocker.errors import CommitConflict, FormatError, NotThere, StoreError, StoreUnavailable, UpdateRefused
from blocker.ingest.cleartext import read_rules, sealer
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import ATTEMPTS, PublishResult, nothing_along
from blocker.store.audit import INGEST, Actor

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocker.store.changes import Along
    from blocker.store.manifest import Manifest
    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring

# A sentence or two in a table of the list's log.
MAX_REASON = 200
# What looks like an address: a scheme, a dotted name, an IPv4 or a bracketed IPv6 address.
_ADDRESS = re.compile(r"://|[\w-]\.[^\W\d_]{2}|\d+\.\d+\.\d+\.\d+|\[[0-9a-fA-F]*:")

_log = structlog.get_logger("blocker.ingest")


async def rollback(
    store: Store,
    keyring: Keyring,
    name: str,
    serial: int,
    *,
    reason: str = "",
    now: float,
    actor: Actor = INGEST,
    expected: int | None = None,
    along: Callable[[Manifest], Along] = nothing_along,
) -> PublishResult:
    """Make list `name` again what it was at `serial`.

    Args:
        store: Where the list is.
        keyring: With the seal key the manifest's counts are those of the rules; without it, which is enough to roll
            back, they are the difference of the two numbers of entries.
        name: The list. A retired one comes back.
        serial: A serial that is still kept, and at which the list was not retired.
        reason: Why, for the list's log: one line without an address.
        now: Unix time in seconds.
        actor: Who does it, for the audit chain.
        expected: The present serial, where it must not have moved; None: whatever it is.
        along: From the new manifest to what is written in the same step.

    Returns:
        What the list is now; `unchanged`, and nothing written, if it was that already.

    Raises:
        UpdateRefused: The list was retired at that serial, or the reason is none that may be kept.
        StoreError: There is no such list; the serial was never there or was collected, or a blob of it is gone.
        FormatError: What is stored of that serial is damaged.
        CommitConflict: Others published the list again and again meanwhile.
        StoreUnavailable: Redis is away. Whether the commit was done is unknown; roll back again, which then finds it.
        KeyMaterialError: This process's keys are not the deployment's.

    Cost: reads both serials of the list; writes one manifest.
    """
    text = f"rollback to {serial}" + (f": {checked_reason(reason)}" if reason else "")
    for attempt in range(1, ATTEMPTS + 1):
        epoch = await store.epoch()
        head = (await store.heads()).get(name)
        if head is None:
            raise NotThere(f"list {name} is not in the store")
        if expected is not None and head.serial != expected:
            raise CommitConflict(
                f"list {name}: expected serial {expected}, the head is {head.serial}; read it and try again"
            )
        target = await store.manifest(name, serial)
        if target.retired:
            raise UpdateRefused(f"list {name} was retired at serial {serial}; choose a serial before that")
        present = await _present(store, name, head.serial)
        if present is not None and _is_same(present, target):
            return _result(present, unchanged=True)
        await _check_trie(store, keyring, target)
        added, removed = await _counts(store, keyring, present, target)
        manifest = replace(
            target, serial=head.serial + 1, epoch=epoch, created=now, reason=text, added=added, removed=removed
        )
        try:
            await store.commit(manifest, expected=head.serial, action="rollback", actor=actor, along=along(manifest))
        except CommitConflict:
            if attempt == ATTEMPTS:
                raise
            _log.info("rollback starts again", list=name)
            continue
        return _result(manifest, unchanged=False)
    raise AssertionError("the loop returns or raises")


def checked_reason(reason: str) -> str:
    """The reason, if it may stand in a log that people without the seal key read."""
    if not reason.isprintable() or len(reason) > MAX_REASON:
        raise UpdateRefused(f"a reason is one line of at most {MAX_REASON} characters")
    if _ADDRESS.search(reason):
        raise UpdateRefused("a reason is shown to whoever reads the log; write it without an address or a host name")
    return reason


async def _present(store: Store, name: str, serial: int) -> Manifest | None:
    """The head's manifest; None if it cannot be read, which a rollback mends."""
    try:
        return await store.manifest(name, serial)
    except StoreUnavailable:
        raise
    except (StoreError, FormatError) as error:
        _log.warning("the head cannot be read, its list is rolled back nevertheless", list=name, reason=str(error))
        return None


async def _check_trie(store: Store, keyring: Keyring, target: Manifest) -> None:
    """Refuse what no follower could load: it would go on with the list as it is, and the rollback be one in name."""
    layers = [[await store.get_blob("segment", name) for name in layer.segments] for layer in target.layers]
    run = await asyncio.to_thread(NodeRun.from_segments, layers, keyring.lookup)
    if run.digest() != target.digest:
        raise FormatError(
            f"list {target.list} serial {target.serial}: its segments do not fold to the trie that the manifest names; "
            "choose another serial"
        )


async def _counts(store: Store, keyring: Keyring, present: Manifest | None, target: Manifest) -> tuple[int, int]:
    """Rules that come and that go."""
    before = 0 if present is None else present.entries
    at_least = max(target.entries - before, 0), max(before - target.entries, 0)
    if keyring.seal is None:
        return at_least
    wanted = await read_rules(store, sealer(keyring), target)  # unreadable text is no list to go back to
    if present is None:
        return at_least
    try:
        rules = await read_rules(store, sealer(keyring), present)
    except StoreUnavailable:
        raise
    except (StoreError, FormatError):
        return at_least
    added, removed = await asyncio.to_thread(rules.diff, wanted)
    return len(added), len(removed)


def _is_same(present: Manifest, target: Manifest) -> bool:
    same_rules = (present.digest, present.rules_digest) == (target.digest, target.rules_digest)
    return same_rules and not present.retired and PublishOptions.of(present) == PublishOptions.of(target)


def _result(manifest: Manifest, *, unchanged: bool) -> PublishResult:
    return PublishResult(
        list=manifest.list, serial=manifest.serial, added=0 if unchanged else manifest.added,
        removed=0 if unchanged else manifest.removed, entries=manifest.entries, unchanged=unchanged,
        digest=manifest.digest,
    )  # fmt: skip
