"""The store in Redis: upload, commit, read, count, collect.

How a publish goes, and why no half of it can ever be seen:

1. `put_blobs` uploads segments and sealed texts under their own SHA-256. Nothing names them yet.
2. `commit` runs one script that compares the list's head with what the publisher saw, checks that every blob is there,
   writes the manifest, moves the head and appends to the commit stream: all or nothing.

A crash before 2 leaves orphans, which `collect_orphans` drops later; a crash after it loses nothing. An outcome that is
unknown because the connection broke is settled by committing again. Two publishers of one list cannot both win, and a
serial is never used twice.

What is not promised: Redis replicates asynchronously, so a failover may forget the last commits it had acknowledged.
The head then goes back; a follower sees that by serial and digest and reads the manifest anew. And nothing here waits
for Redis longer than its timeouts: every method raises StoreUnavailable then, and the caller keeps what it has.

Every method raises StoreError when Redis refuses and StoreUnavailable (a StoreError) when it cannot be used now. Every
method may be repeated.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from typing import TYPE_CHECKING, NamedTuple, Self

from blocker.errors import FormatError, KeyMaterialError, NotThere, StoreError, StoreUnavailable
from blocker.store import scripts
from blocker.store.changes import Changes
from blocker.store.collect import Collected, collect_orphans
from blocker.store.connection import Session
from blocker.store.keys import SCHEMA_VERSION, BlobKind, Keys
from blocker.store.manifest import Head, Manifest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from blocker.store.sealing import Keyring

# Bytes of blobs in one transaction: what the server and this side must hold at once. A larger blob goes alone. Two of
# the usual 4 MiB blobs must pass within the command timeout of 5 s, so a link needs some 14 Mbit/s.
UPLOAD_BYTES = 8 * 2**20
# A blob is read in parts of this size: one holds the loop for 0.2 ms, and a segment takes eight round trips.
PART_BYTES = 512 * 1024
# Longer texts are hashed in a thread: at 0.5 to 2 GB/s this many bytes hold the loop for 0.1 ms.
INLINE_HASH_BYTES = 64 * 1024
# One blocking read of the commit stream in seconds; shorter than the command timeout, which tells a dead server.
BLOCK_SECONDS = 2.0
# Seconds within which a health answer is due.
PING_SECONDS = 1.0
# The commit id before all others.
NO_COMMIT = "0-0"

_INFO_FIELDS = (
    "redis_mode", "role", "maxmemory_policy", "aof_enabled", "used_memory", "maxmemory", "connected_slaves",
    "uptime_in_seconds",
)  # fmt: skip


class ZoneSerial(NamedTuple):
    """The serial of a zone's version.

    Attributes:
        serial: It.
        since: The first serial that certainly has one content.
    """

    serial: int
    since: int


class Store(Changes):
    """The store of one deployment. Belongs to one event loop; any number of its tasks may use it at once."""

    def __init__(self, session: Session, waiter: Session, deployment: str, keyring: Keyring | None) -> None:
        super().__init__(session, Keys(deployment), keyring)
        self._waiter = waiter
        self._keyring = keyring

    @classmethod
    async def open(cls, client_url: str, deployment: str, *, keyring: Keyring | None = None) -> Self:
        """A store at a Redis URL. Nothing is sent yet, so a Redis that is away does not fail this.

        Args:
            client_url: See url.py.
            deployment: The deployment's name.
            keyring: The keys this node holds, to be compared with the deployment's by `epoch`.

        Raises:
            SettingsError: The URL is malformed.
            StoreError: The deployment's name is.
        """
        return cls(Session(client_url), Session(client_url), deployment, keyring)

    async def close(self) -> None:
        """Let commands under way end, at most 5 s, and close the connections."""
        await self._waiter.abort()
        await self._session.aclose()

    async def abort(self) -> None:
        """Close at once: commands under way are given up and their outcome stays unknown. Meant for readers."""
        await self._waiter.abort()
        await self._session.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def epoch(self) -> str:
        """The name of the store's present life, made on first use; another one means another or an emptied store.

        Compares schema and keys each time, so that no node goes on with keys that are not the deployment's.

        Raises:
            StoreError: The store was written by another version of Blocker.
            KeyMaterialError: This node's keys are not the deployment's.
        """
        keyring = self._keyring
        mine = (keyring.lookup_fingerprint, keyring.seal_fingerprint or "") if keyring else ("", "")
        found: Sequence[bytes] = await self._session.script(
            "read the epoch", scripts.IDENTIFY, [self._keys.meta], SCHEMA_VERSION, secrets.token_hex(16), *mine
        )
        schema, epoch, *theirs = (text.decode() for text in found)
        if schema != str(SCHEMA_VERSION):
            raise StoreError(
                f"the store has schema {schema}, this Blocker reads {SCHEMA_VERSION}; upgrade the older one, or use "
                "another deployment name"
            )
        for what, held, stored in zip(("lookup", "seal"), mine, theirs, strict=True):
            if held and held != stored:
                raise KeyMaterialError(
                    f"{what}.key: this node's key {held[:8]}… is not the deployment's {stored[:8]}…; copy the "
                    "deployment's key files to this node"
                )
        return epoch

    async def heads(self) -> dict[str, Head]:
        """The newest serial of every list, retired ones included. One small read.

        Raises:
            FormatError: A head is no head.
        """
        found = await self._session.command("read the heads", "HGETALL", self._keys.heads)
        return {name.decode(): Head.from_json(name.decode(), text) for name, text in found.items()}

    async def manifest(self, list: str, serial: int | None = None) -> Manifest:  # noqa: A002 - the project's word
        """The manifest of a list at a serial, or at its head.

        Raises:
            StoreError: There is no such list, or that serial was never there or was collected.
            FormatError: It is no manifest.
        """
        if serial is None:
            serial = await self._head_serial(list)
            if serial == 0:
                raise NotThere(f"list {list} is not in the store")
        text = await self._session.command("read a manifest", "GET", self._keys.manifest(list, serial))
        if text is None:
            raise NotThere(f"list {list} has no serial {serial} in the store; it was never there or is too old")
        return Manifest.from_json(text)

    async def history(
        self,
        list: str,  # noqa: A002 - the project's word
        limit: int = 50,
        *,
        before: int | None = None,
    ) -> list[Manifest]:
        """The newest manifests of a list that are still kept, newest first; empty for an unknown list.

        With `before`, the newest of those with a lower serial.

        Raises:
            FormatError: One is no manifest.
        """
        head = await self._head_serial(list) if before is None else before - 1
        keys = [self._keys.manifest(list, serial) for serial in range(head, max(head - limit, 0), -1)]
        if not keys:
            return []
        texts = await self._session.command("read a list's history", "MGET", *keys)
        return [Manifest.from_json(text) for text in texts if text is not None]

    async def put_blobs(self, kind: BlobKind, blobs: Sequence[bytes]) -> list[str]:
        """Upload blobs that are not there yet, and mark all as wanted now.

        Returns:
            Their names, in order: the SHA-256 of each in hex.

        Cost: one small round trip, then the missing bytes, at most 8 MiB (or one blob) at once.
        """
        names = await asyncio.to_thread(lambda: [hashlib.sha256(blob).hexdigest() for blob in blobs])
        wanted = dict(zip(names, blobs, strict=True))
        if not wanted:
            return []
        members = [self._keys.blob_member(kind, name) for name in wanted]
        keys = [self._keys.member_key(member) for member in members]
        clock, *missing = await self._session.script(
            "announce an upload", scripts.TOUCH, [self._keys.blobs, *keys], *members
        )
        started = time.monotonic()
        batch: list[tuple[str | bytes | float, ...]] = []
        size = 0
        data = [*wanted.values()]
        for position in missing:
            index = position - 1
            if batch and size + len(data[index]) > UPLOAD_BYTES:
                await self._session.transaction("upload", batch)
                batch, size = [], 0
            now = float(clock) + time.monotonic() - started
            batch += [("ZADD", self._keys.blobs, now, members[index]), ("SET", keys[index], data[index], "NX")]
            size += len(data[index])
        if batch:
            await self._session.transaction("upload", batch)
        return names

    async def get_blob(self, kind: BlobKind, name: str) -> bytes:
        """The bytes of a blob; raises as `get_blob_parts`."""
        return b"".join(await self.get_blob_parts(kind, name))

    async def get_blob_parts(self, kind: BlobKind, name: str) -> list[bytes]:
        """The bytes of a blob as they came: for a process that answers others meanwhile.

        A reply is parsed and copied in one go on the event loop, milliseconds for the usual 4 MiB, so it comes in
        parts.

        Raises:
            StoreError: It is not in the store.
            FormatError: Its bytes are not those it is named by.
        """
        key = self._keys.blob(kind, name)
        parts: list[bytes] = []
        while not parts or len(parts[-1]) == PART_BYTES:
            start = len(parts) * PART_BYTES
            parts.append(await self._session.command("read a blob", "GETRANGE", key, start, start + PART_BYTES - 1))
        small = len(parts) == 1 and len(parts[0]) <= INLINE_HASH_BYTES
        found = _sha256(*parts) if small else await asyncio.to_thread(_sha256, *parts)
        # What is missing, or was collected between two parts, reads as empty.
        if (found != name or not parts[0]) and not await self._session.command("look for a blob", "EXISTS", key):
            raise StoreError(f"{kind} {name} is not in the store; read the heads again, or publish the list again")
        if found != name:
            raise FormatError(f"{kind}: expected SHA-256 {name}, got {found}; publish the list again")
        return parts

    async def last_commit(self) -> str:
        """The id of the newest commit, to wait after; `0-0` if there was none."""
        return await self._last_commit(self._session)

    async def wait_for_commit(self, after: str, timeout: float) -> str:  # noqa: ASYNC109 - sent to Redis, not a cancellation
        """Wait until there may be a commit that is newer than `after`. A hint to look at the heads, nothing more.

        Args:
            after: What this or `last_commit` returned last; `0-0` returns at once if there ever was a commit.
            timeout: Seconds.

        Returns:
            The id of the newest commit, or `after` when the time is over.

        It has connections of its own, so that nothing waits behind it.
        """
        deadline = time.monotonic() + timeout
        while True:
            newest = await self._last_commit(self._waiter)
            left = deadline - time.monotonic()
            if newest != after or left <= 0:  # after a failover the newest may be an older one
                return newest
            block = max(1, int(min(left, BLOCK_SECONDS) * 1000))
            await self._waiter.command(
                "wait for a commit", "XREAD", "COUNT", 1, "BLOCK", block, "STREAMS", self._keys.commits, after
            )

    async def collect_orphans(self, *, grace_seconds: float, keep_serials: int) -> Collected:
        """Drop old manifests and the blobs that no manifest names; see collect.py.

        Args:
            grace_seconds: Blobs uploaded or committed more recently stay. Longer than any publish takes, or that
                publish is refused and uploads again.
            keep_serials: Newest manifests of each list that stay; at least 1, the head.
        """
        return await collect_orphans(self._session, self._keys, grace_seconds, keep_serials)

    async def zone_serial(
        self, zone: str, digest: str, rank: int, *, served: tuple[int, str] | None = None, forced: bool = False,
        kept: bool = False, at_least: int | None = None,
    ) -> ZoneSerial | None:  # fmt: skip
        """The serial of a zone's version, the same for every node that asks for it; greater than any before.

        Args:
            zone: The zone, as the configuration calls it.
            digest: Of what it says.
            rank: Of the lists that it was made from: grows with each of their serials.
            served: Serial and digest of what the node serves, which the store may have forgotten.
            forced: Whether it counts even if a version of newer lists is there: these were forgotten by a failover.
            kept: Whether the node has nothing newer than what it serves, and only wants to know whether that holds.
            at_least: The lowest serial that will do.

        Returns:
            It, or None where another node has made a version from newer lists.
        """
        key = self._keys.zone(zone)
        said = (digest, rank, int(forced), int(kept), *(served or ("", "")), "" if at_least is None else at_least)
        serial, since = await self._session.script("number a zone", scripts.ZONE_SERIAL, [key], *said)
        return None if serial < 0 else ZoneSerial(serial, since)

    async def server_time(self) -> float:
        """The Redis server's clock in unix seconds."""
        seconds, micros = await self._session.script("read the clock", scripts.TIME, [self._keys.meta])
        return int(seconds) + int(micros) / 1e6

    async def ping(self) -> float:
        """Seconds for one read from the server that holds this deployment; raises StoreUnavailable after one second."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self._session.command("ping", "EXISTS", self._keys.meta)
        except TimeoutError:
            raise StoreUnavailable(f"ping: Redis did not answer within {PING_SECONDS:g} s") from None
        return time.perf_counter() - started

    async def info(self) -> dict[str, str]:
        """What the server that holds this deployment says of itself.

        `version`, `server` (redis or valkey), `redis_mode`, `role`, `maxmemory_policy` (must be noeviction),
        `aof_enabled` (1 or 0), `used_memory` and `maxmemory` (bytes), `connected_slaves`, `uptime_in_seconds`.
        """
        fields = await self._session.info("read the server's info", self._keys.meta)
        shown = {name: str(fields[name]) for name in _INFO_FIELDS if name in fields}
        # Valkey keeps redis_version for what it is compatible with.
        version = fields.get("valkey_version") or fields.get("redis_version", "unknown")
        return {**shown, "version": str(version), "server": str(fields.get("server_name", "redis"))}

    async def _head_serial(self, list: str) -> int:  # noqa: A002 - the project's word
        text = await self._session.command("read a head", "HGET", self._keys.heads, list)
        return 0 if text is None else Head.from_json(list, text).serial

    async def _last_commit(self, session: Session) -> str:
        found = await session.command("read the newest commit", "XREVRANGE", self._keys.commits, "+", "-", "COUNT", 1)
        return found[0][0].decode() if found else NO_COMMIT


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
