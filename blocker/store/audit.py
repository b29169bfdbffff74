"""The audit chain: who changed what, when and why, so that no record can be altered, left out or slipped in unseen.

Every commit writes its record in the same atomic step; so do drafts, proposals, approvals and refusals. A record is
JSON with its number and the hash of the one before; its own hash is HMAC-SHA256 of that JSON under a key derived from
the deployment's lookup key, so whoever can write to Redis alone can forge none.

What a chain inside the store cannot show by itself is that its end was cut off together with everything it speaks of.
So `verify` compares it with the manifests that are there, and takes an *anchor*, number and hash of a record that
somebody noted elsewhere.

A record never holds a rule, an address or anything of an internet user; actors are the people who run the lists.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from blocker.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from blocker.store.manifest import Head, Manifest

# The record before the first.
NO_HASH = ""
_KEY_LABEL = b"blocker audit chain"

Fact = str | int | float | bool | None


class Actor(NamedTuple):
    """Who makes a change.

    Attributes:
        name: What they act through: a token's name, `cli`, or `ingest`.
        person: Who they are; two of the same person are no second person. Empty for a machine.
    """

    name: str
    person: str = ""


INGEST = Actor("ingest")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """What a record says, before it has its place in the chain.

    Attributes:
        action: What was done: publish, rollback, expire, draft, propose, approve, reject, discard, refuse.
        actor: Who did it.
        at: Unix time in seconds, by the actor's clock.
        list: The list; empty for what concerns none.
        serial: The list's serial after it; 0 where there is none.
        reason: Why, in words. Never an address.
        facts: Counts, digests and options.
    """

    action: str
    actor: Actor
    at: float
    list: str = ""
    serial: int = 0
    reason: str = ""
    facts: Mapping[str, Fact] = field(default_factory=dict)

    @classmethod
    def of_commit(cls, manifest: Manifest, action: str, actor: Actor) -> AuditEntry:
        """The record of a manifest's commit."""
        names = (
            "action", "mode", "path_case", "www_alias", "entries", "added", "removed", "digest", "rules_digest",
            "retired",
        )  # fmt: skip
        return cls(
            action=action, actor=actor, at=manifest.created, list=manifest.list, serial=manifest.serial,
            reason=manifest.reason, facts={name: getattr(manifest, name) for name in names},
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """A link of the chain, as it is stored.

    Attributes:
        text: The JSON.
        hash: Its HMAC-SHA256, hex.
        fields: The JSON, read: seq, prev, epoch, and those of `AuditEntry` with the actor as name and person.
    """

    text: str
    hash: str
    fields: Mapping[str, Any]

    @property
    def seq(self) -> int:
        """Its number, from 1."""
        return int(self.fields["seq"])


class AuditChain:
    """Makes and checks links under the key of one deployment."""

    def __init__(self, lookup_key: bytes) -> None:
        self._key = hmac.digest(lookup_key, _KEY_LABEL, hashlib.sha256)

    def link(self, entry: AuditEntry, epoch: str, seq: int, prev: str) -> tuple[str, str]:
        """The record's text and hash."""
        fields = {
            "seq": seq, "prev": prev, "epoch": epoch, "at": round(entry.at, 3), "action": entry.action,
            "actor": entry.actor.name, "person": entry.actor.person, "list": entry.list, "serial": entry.serial,
            "reason": entry.reason, "facts": dict(entry.facts),
        }  # fmt: skip
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text, self._hash(text)

    def genuine(self, record: AuditRecord) -> bool:
        """Whether the hash is that of the text under the key."""
        return hmac.compare_digest(self._hash(record.text), record.hash)

    def _hash(self, text: str) -> str:
        return hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()


def read_record(text: bytes, hash: bytes) -> AuditRecord:  # noqa: A002 - the field's name
    """A stored record.

    Raises:
        FormatError: It is none.
    """
    try:
        decoded = text.decode()
        fields = json.loads(decoded)
        if not isinstance(fields, dict) or type(fields.get("seq")) is not int:
            raise ValueError("no record")  # noqa: TRY301 - one answer for all that is none
        return AuditRecord(decoded, hash.decode("ascii"), fields)
    except (ValueError, RecursionError):
        raise FormatError("audit: a record is no JSON with a number; it was tampered with") from None


def verify(
    chain: AuditChain,
    records: Iterable[AuditRecord],
    head: tuple[int, str],
    *,
    epoch: str,
    heads: Mapping[str, Head],
    manifests: Iterable[Manifest],
    anchors: Sequence[tuple[int, str]] = (),
) -> Iterator[str]:
    """What is wrong with a chain, a sentence each; nothing if it is whole. Pure.

    Args:
        chain: With the deployment's key.
        records: All of them, in the stream's order.
        head: Number and hash that the store says are the newest.
        epoch: The store's present life.
        heads: Heads of all lists.
        manifests: Manifests that are still kept.
        anchors: Number and hash of records noted elsewhere.
    """
    expected, prev = 1, NO_HASH
    noted = dict(anchors)
    commits: dict[tuple[str, int], Mapping[str, Any]] = {}
    newest: dict[str, int] = {}
    for record in records:
        fields, seq = record.fields, record.seq
        if seq != expected:
            yield f"record {expected} is missing; record {seq} stands in its place"
        elif fields.get("prev") != prev:
            yield f"record {seq} does not follow the one before it"
        if not chain.genuine(record):
            yield f"record {seq} was altered, or was not made by this deployment"
        if noted.pop(seq, record.hash) != record.hash:
            yield f"record {seq} is not the one that was noted"
        if fields.get("epoch") == epoch and fields.get("facts", {}).get("rules_digest") and fields.get("serial"):
            name, serial = str(fields["list"]), int(fields["serial"])
            if serial != newest.get(name, 0) + 1:
                yield f"record {seq}: list {name} serial {serial} does not follow serial {newest.get(name, 0)}"
            commits[name, serial] = fields["facts"]
            newest[name] = serial
        expected, prev = seq + 1, record.hash
    if (expected - 1, prev) != head:
        yield f"the chain ends with record {expected - 1}, the store says {head[0]}"
    for seq in sorted(noted):
        yield f"record {seq}, which was noted, is not there"
    for name, list_head in sorted(heads.items()):
        if newest.get(name, 0) != list_head.serial:
            yield f"list {name}: its head is serial {list_head.serial}, the newest record is of {newest.get(name, 0)}"
    for manifest in manifests:
        facts = commits.get((manifest.list, manifest.serial))
        if facts is None:
            if manifest.serial <= newest.get(manifest.list, 0):
                yield f"list {manifest.list} serial {manifest.serial} has no record"
        elif any(facts.get(name) != getattr(manifest, name) for name in facts if hasattr(manifest, name)):
            yield f"list {manifest.list} serial {manifest.serial} is not what its record says"
