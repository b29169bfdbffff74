"""Changes of the deployment: each is one atomic step, with its link of the audit chain.

A commit moves a list's head; other changes keep drafts, proposals and what else must be written together with them.
Either all of a change is there or nothing, record included.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from blocker.errors import ChangeConflict, CommitConflict, FormatError, StoreError
from blocker.store import scripts
from blocker.store.audit import INGEST, NO_HASH, Actor, AuditChain, AuditEntry, AuditRecord, read_record
from blocker.store.draft import Draft
from blocker.store.keys import COMMITS_KEPT
from blocker.store.ledger import Ledger
from blocker.store.manifest import Manifest
from blocker.store.token import Token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from blocker.store.connection import Session
    from blocker.store.keys import Keys
    from blocker.store.sealing import Keyring

# Whoever loses the race for the next link tries again; so many in a row are no race.
CHAIN_ATTEMPTS = 64
# How long the answer to a change is kept for whoever asks for it again.
ANSWER_SECONDS = 86_400
# Audit records read in one command: some 100 KiB.
AUDIT_BATCH = 256

Shelf = Literal["drafts", "proposals"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Along:
    """What is written in the same step as a change, and on which condition.

    Attributes:
        expected: Hash fields and the text that each must hold now; None for a field that must not be there.
        writes: Commands: word, key, further words.
        blobs: Members of `blobs` that must be there, beside those of a manifest.
    """

    expected: tuple[tuple[str, str, str | None], ...] = ()
    writes: tuple[tuple[str, ...], ...] = ()
    blobs: tuple[str, ...] = ()

    def __add__(self, other: Along) -> Along:
        """Both."""
        return Along(
            expected=self.expected + other.expected, writes=self.writes + other.writes, blobs=self.blobs + other.blobs
        )


NOTHING = Along()


class Changes(Ledger):
    """The part of Store that changes lists."""

    def __init__(self, session: Session, keys: Keys, keyring: Keyring | None) -> None:
        super().__init__(session, keys)
        # Without keys the chain only finds accidents; every command and node has them.
        self._chain = AuditChain(keyring.lookup if keyring else b"")

    async def commit(
        self,
        manifest: Manifest,
        *,
        expected: int,
        action: str = "publish",
        actor: Actor = INGEST,
        along: Along = NOTHING,
    ) -> None:
        """Make a manifest the head of its list: all of it or nothing. Repeating a commit that was done does nothing.

        Args:
            manifest: Its blobs are uploaded; its serial is `expected + 1`.
            expected: The head's serial that the publisher built upon; 0 for a new list.
            action: What this is, for the audit chain.
            actor: Who does it, for the audit chain.
            along: What else is written in the same step.

        Raises:
            CommitConflict: The head is another by now; nothing was written.
            ChangeConflict: What `along` expects is not so; nothing was written.
            StoreError: The epoch is not the store's, or a blob is missing because it was collected meanwhile: upload
                again. Nothing was written.
            FormatError: The manifest is malformed; nothing was sent.
            StoreUnavailable: The outcome is unknown; commit the same manifest again.
        """
        if Manifest.from_json(manifest.to_json()) != manifest:
            raise FormatError("manifest: its fields are not of the types they should be")
        if manifest.serial != expected + 1:
            raise StoreError(f"a manifest upon serial {expected} needs serial {expected + 1}, not {manifest.serial}")
        entry = AuditEntry.of_commit(manifest, action, actor)
        what = f"commit list {manifest.list} serial {manifest.serial}"
        await self._change(what, entry, manifest.epoch, along, manifest)

    async def record(self, entry: AuditEntry, *, epoch: str, along: Along = NOTHING) -> None:
        """Make a change that moves no head.

        Raises:
            ChangeConflict: What `along` expects is not so; nothing was written.
            StoreError: The epoch is not the store's, or a blob is missing. Nothing was written.
            StoreUnavailable: The outcome is unknown.
        """
        await self._change(f"record a change ({entry.action})", entry, epoch, along, None)

    async def _change(self, what: str, entry: AuditEntry, epoch: str, along: Along, manifest: Manifest | None) -> None:
        keys = self._keys
        members = [*(keys.members(manifest) if manifest else ()), *along.blobs]
        extra_keys = list(dict.fromkeys([check[0] for check in along.expected] + [write[1] for write in along.writes]))
        numbers = {key: number for number, key in enumerate(extra_keys, 1)}
        extras = json.dumps(
            {
                "expected": [[numbers[key], field, text or ""] for key, field, text in along.expected],
                "writes": [[word, numbers[key], *rest] for word, key, *rest in along.writes],
            }
        )
        head: tuple[str | int, ...] = ("", 0, "", "", "", COMMITS_KEPT)
        if manifest is not None:
            head = (
                manifest.list, manifest.serial - 1, manifest.to_json(), manifest.head.to_json(), manifest.digest,
                COMMITS_KEPT,
            )  # fmt: skip
        manifest_key = keys.manifest(manifest.list, manifest.serial) if manifest else keys.meta
        names = [
            keys.meta, keys.heads, keys.commits, keys.blobs, keys.audit, keys.audit_head, manifest_key,
            *map(keys.member_key, members), *extra_keys,
        ]  # fmt: skip
        seq, prev = await self.audit_head()
        for _attempt in range(CHAIN_ATTEMPTS):
            text, link = self._chain.link(entry, epoch, seq + 1, prev)
            outcome, *detail = await self._session.script(
                what, scripts.CHANGE, names, epoch, *head, prev, seq + 1, link, text, len(members), extras, *members
            )
            match outcome:
                case b"done":
                    return
                case b"chain":
                    seq, prev = int(detail[0]), detail[1].decode()
                case b"conflict":
                    raise CommitConflict(
                        f"list {entry.list}: expected serial {head[1]}, the head is {detail[0]}; read it and try again"
                    )
                case b"moved":
                    raise ChangeConflict(
                        f"{detail[0].decode()}: somebody else changed it meanwhile; read it and try again"
                    )
                case b"missing":
                    raise StoreError(
                        f"{what}: {detail[0]} blobs are not in the store; upload them again and commit again"
                    )
                case _:
                    raise StoreError(f"{what}: of another life of the store; read the epoch and the heads again")
        raise StoreError(f"{what}: the audit chain moved on again and again; try later")

    async def audit_head(self) -> tuple[int, str]:
        """Number and hash of the newest audit record; 0 and an empty text if there is none."""
        seq, link = await self._session.command("read the audit head", "HMGET", self._keys.audit_head, "seq", "hash")
        return (0, NO_HASH) if seq is None else (int(seq), link.decode())

    async def audit_records(self) -> AsyncIterator[AuditRecord]:
        """All audit records, oldest first.

        Raises:
            FormatError: One is none.
        """
        after = "-"
        while True:
            found = await self._session.command(
                "read the audit stream", "XRANGE", self._keys.audit, after, "+", "COUNT", AUDIT_BATCH
            )
            for _, fields in found:
                yield read_record(fields.get(b"record", b""), fields.get(b"hash", b""))
            if len(found) < AUDIT_BATCH:
                return
            after = f"({found[-1][0].decode()}"

    async def newest_audit_records(self, count: int) -> list[AuditRecord]:
        """The newest audit records, newest first."""
        found = await self._session.command(
            "read the audit stream", "XREVRANGE", self._keys.audit, "+", "-", "COUNT", count
        )
        return [read_record(fields.get(b"record", b""), fields.get(b"hash", b"")) for _, fields in found]

    @property
    def audit_chain(self) -> AuditChain:
        """What makes and checks links of this deployment."""
        return self._chain

    async def draft(self, shelf: Shelf, list: str) -> Draft | None:  # noqa: A002 - the project's word
        """The draft or proposal of a list, if there is one.

        Raises:
            FormatError: What is there is none.
        """
        text = await self._session.command(f"read {shelf}", "HGET", self._shelf(shelf), list)
        return None if text is None else Draft.from_json(text)

    async def drafts(self, shelf: Shelf) -> dict[str, Draft]:
        """All drafts or proposals, by list.

        Raises:
            FormatError: One is none.
        """
        found = await self._session.command(f"read {shelf}", "HGETALL", self._shelf(shelf))
        return {name.decode(): Draft.from_json(text) for name, text in sorted(found.items())}

    def shelved(self, shelf: Shelf, name: str, before: Draft | None, after: Draft | None) -> Along:
        """Puts a draft in the place of another, or takes it away; only if the other is still there."""
        key = self._shelf(shelf)
        write = ("HDEL", key, name) if after is None else ("HSET", key, name, after.to_json())
        return Along(
            expected=((key, name, None if before is None else before.to_json()),),
            writes=(write,),
            blobs=() if after is None else tuple(dict.fromkeys(self._keys.members(after))),
        )

    def source_noted(self, list: str, state: dict[str, str]) -> Along:  # noqa: A002 - the project's word
        """Replaces what is remembered of a list's source; see `set_source_state`."""
        key = self._keys.source(list)
        return Along(writes=(("DEL", key), ("HSET", key, *(text for item in state.items() for text in item))))

    @property
    def token_key(self) -> str:
        """Where tokens are; see tokens.py."""
        return self._keys.tokens

    async def token(self, id: str) -> tuple[Token | None, float]:  # noqa: A002 - the field's name
        """A token by its id, and when it was used last (unix seconds, 0: never).

        Raises:
            FormatError: What is there is none.
        """
        text = await self._session.command("read a token", "HGET", self._keys.tokens, id)
        used = await self._session.command("read a token's use", "HGET", self._keys.tokens_used, id)
        return (None if text is None else Token.from_json(text)), float(used or 0)

    async def tokens(self) -> dict[str, Token]:
        """All tokens by id, those that are not valid any more included.

        Raises:
            FormatError: One is none.
        """
        found = await self._session.command("read the tokens", "HGETALL", self._keys.tokens)
        return {name.decode(): Token.from_json(text) for name, text in sorted(found.items())}

    async def tokens_used(self) -> dict[str, float]:
        """When each token was used last, unix seconds, to the hour."""
        found = await self._session.command("read the tokens' use", "HGETALL", self._keys.tokens_used)
        return {name.decode(): float(when) for name, when in found.items()}

    async def token_was_used(self, id: str, when: float) -> None:  # noqa: A002 - the field's name
        """Note a use."""
        await self._session.command("note a token's use", "HSET", self._keys.tokens_used, id, when)

    async def kept_answer(self, name: str) -> str | None:
        """The answer to a change that was done already, by the SHA-256 of what names it."""
        text = await self._session.command("read a kept answer", "GET", self._keys.idempotency(name))
        return None if text is None else text.decode()

    def answer_kept(self, name: str, text: str) -> Along:
        """Keeps the answer to a change for a day."""
        return Along(writes=(("SET", self._keys.idempotency(name), text, "EX", str(ANSWER_SECONDS)),))

    def _shelf(self, shelf: Shelf) -> str:
        return self._keys.drafts if shelf == "drafts" else self._keys.proposals


def new_draft_id() -> str:
    """A fresh draft's name: 64 random bits."""
    return secrets.token_hex(8)
