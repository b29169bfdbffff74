"""Expiry: a rule whose last day is over leaves its list by itself, under a new serial.

A rule's `expires` is the first day it no longer holds. Days are **UTC days**, whatever the operator's time zone, so
that all workers and authorities agree on when one begins. A day that cannot be read ends nothing.

Each list is read once per serial; from then on its next such day is known, and until that day a sweep costs two
commands. The commit compares the head, so a publish that comes between is never undone: the next sweep looks at that.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, NamedTuple

import structlog

from blocker._native import RuleSet
from blocker.errors import BlockerError, CommitConflict, StoreUnavailable
from blocker.ingest.cleartext import read_layers, sealer
from blocker.ingest.plan import Existing, PublishOptions, make_plan

if TYPE_CHECKING:
    from blocker.store.manifest import Head, Manifest
    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring

# The reason in the manifest; update.py takes it, as all but its own, for no look at the source.
EXPIRED_REASON = "expired"

_log = structlog.get_logger("blocker.ingest")


class Ended(NamedTuple):
    """What a day ends.

    Attributes:
        rules: Those that no longer hold.
        next_day: The day on which the next ones end; None if none ever does.
    """

    rules: RuleSet
    next_day: date | None


def utc_day(now: float) -> date:
    """The UTC day of a unix time."""
    return datetime.fromtimestamp(now, UTC).date()


def ended(rules: RuleSet, today: date) -> Ended:
    """Find the rules that hold no longer on a day. Pure and CPU-bound: for a thread if the set is large."""
    over, next_day = RuleSet(), None
    if b'"expires"' not in rules.dump():  # most lists know no expiry; far cheaper than to iterate
        return Ended(over, None)
    for rule in rules:
        day = _expires(rule[-1])
        if day is None:
            continue
        if day <= today:
            over.add(*rule)
        elif next_day is None or day < next_day:
            next_day = day
    return Ended(over, next_day)


def without_ended(rules: RuleSet, today: date) -> RuleSet:
    """The rules that still hold on a day; the same object if all do."""
    over = ended(rules, today).rules
    return rules.patched(RuleSet(), over) if len(over) else rules


def _expires(metadata: str) -> date | None:
    if '"expires"' not in metadata:
        return None
    try:
        fields = json.loads(metadata)
        return date.fromisoformat(fields["expires"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


class Expiry:
    """Takes out of all lists of a store what has expired.

    Args:
        store: Where the lists are.
        keyring: With the seal key.
    """

    def __init__(self, store: Store, keyring: Keyring) -> None:
        self._store = store
        self._keyring = keyring
        self._seen: dict[str, tuple[str, Head, date | None]] = {}
        self._told: dict[str, str] = {}

    @property
    def next_days(self) -> dict[str, date]:
        """List → the UTC day on which the next of its rules end, of lists in which any do; as of the last sweep."""
        return {name: day for name, (_, _, day) in self._seen.items() if day is not None}

    async def sweep(self, now: float) -> list[Manifest]:
        """Publish each list of which a rule has expired without it; what was published.

        Raises nothing that passes by itself or concerns one list: the log tells of it once, and the next sweep looks
        again.
        """
        published: list[Manifest] = []
        try:
            epoch, heads = await self._store.epoch(), await self._store.heads()
            self._recovered("")
            self._seen = {name: seen for name, seen in self._seen.items() if name in heads}
            for _, head in sorted(heads.items()):
                done = await self._look(epoch, head, now)
                if done is not None:
                    _log.info("rules expired", list=done.list, serial=done.serial, removed=done.removed)
                    published.append(done)
        except StoreUnavailable:
            pass  # whoever looks at a source says so
        except BlockerError as error:
            self._missed("", error)
        return published

    async def _look(self, epoch: str, head: Head, now: float) -> Manifest | None:
        """Look at one list, unless it is known that nothing in it has expired."""
        name, today = head.list, utc_day(now)
        seen = self._seen.get(name)
        if seen and seen[:2] == (epoch, head) and (seen[2] is None or today < seen[2]):
            return None
        try:
            done, next_day = await self._expire(epoch, head, today, now)
        except StoreUnavailable:
            raise
        except CommitConflict:
            return None  # the next sweep looks at what came between
        except BlockerError as error:
            self._missed(name, error)
            return None
        self._recovered(name)
        self._seen[name] = (epoch, head if done is None else done.head, next_day)
        return done

    def _missed(self, name: str, error: BlockerError) -> None:
        if self._told.get(name) != str(error):
            _log.warning("expired rules cannot be taken out", list=name or "(all)", reason=str(error))
        self._told[name] = str(error)

    def _recovered(self, name: str) -> None:
        self._told.pop(name, None)

    async def _expire(self, epoch: str, head: Head, today: date, now: float) -> tuple[Manifest | None, date | None]:
        """What was published, if anything had to be, and the next day on which something will."""
        store, seal = self._store, sealer(self._keyring)
        manifest = await store.manifest(head.list, head.serial)
        if manifest.retired:
            return None, None
        rules, changes = await read_layers(store, seal, manifest)
        over, next_day = await asyncio.to_thread(ended, rules, today)
        if not len(over):
            return None, next_day
        left = await asyncio.to_thread(rules.patched, RuleSet(), over)
        layers = [[await store.get_blob("segment", name) for name in layer.segments] for layer in manifest.layers]
        plan = await asyncio.to_thread(
            make_plan, head.list, PublishOptions.of(manifest), left, Existing(manifest, layers, rules, changes),
            lookup_key=self._keyring.lookup, sealer=seal,
        )  # fmt: skip
        segments = await store.put_blobs("segment", plan.segments)
        sealed = await store.put_blobs("sealed", plan.sealed)
        done = replace(
            manifest, serial=head.serial + 1, epoch=epoch, entries=plan.entries, digest=plan.digest,
            rules_digest=plan.rules_digest, layers=plan.layers(segments, sealed), created=now, reason=EXPIRED_REASON,
            added=plan.added, removed=plan.removed,
        )  # fmt: skip
        await store.commit(done, expected=head.serial, action="expire")
        return done, next_day
