"""The follower: keeps one immutable matcher in step with the store, and never waits for it to answer.

A cycle reads the heads, fetches the segments that are new, merges all lists into a new table in a thread with the GIL
released, and swaps one reference. What can go wrong leaves the last good matcher in place:

- Redis is away: the matcher stays, the status says so, and the follower tries again by itself.
- One list cannot be read (a blob is gone or damaged): that list stays at its old serial, the others move on.
- A segment on this disk is gone or damaged: it is fetched again.
- The store was emptied or went back (another epoch, a lower serial, another digest): the manifests are read anew. A
  list that is simply missing is kept; only a retired one leaves.
- There are more lists than a table takes: those that are enforced stay and move on, then the first by name are added.
- The disk is full: the new matcher is enforced from memory; only the next start is slower.
- A fault of our own: logged, and tried again as if Redis were away.

Commits wake it at once; `poll_seconds` bounds the wait if a wake-up is lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import structlog

from blocker import _native
from blocker.errors import BlockerError, FormatError, StoreError, StoreUnavailable
from blocker.matcher import ListMetadata, Matcher, TableList, table_lists

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from pathlib import Path

    from blocker.matcher import Policy
    from blocker.snapshot import Snapshot
    from blocker.store.manifest import Head, Manifest
    from blocker.store.redis import Store

log = structlog.get_logger(__name__)

# Segments up to this size, which is every small change, are enforced before the disk has them: its sync takes longer
# than all the rest. They are written right after the swap.
HELD_BYTES = 2**20
#: Waits after failures, in seconds: soon at first, since most outages are restarts, then rarely.
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowerStatus:
    """What a node knows of itself and its store.

    Attributes:
        store_up: Whether the last cycle reached Redis.
        failures: Cycles that did not, since the start.
        lag_seconds: 0 while everything in the store is enforced; else the time since it last was.
        epoch: The store's identity, None before it was first read.
        last_sync: When everything in the store was last enforced, Unix seconds.
        checked: List to the time its source was last found good, Unix seconds.
        source: Where the matcher is from.
        detail: What keeps the node from being in step; empty if nothing.
    """

    store_up: bool = False
    failures: int = 0
    lag_seconds: float = 0.0
    epoch: str | None = None
    last_sync: float | None = None
    checked: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    source: Literal["store", "snapshot", "none"] = "none"
    detail: str = ""


class Follower:
    """Owns the matcher of a process. All methods belong to one event loop.

    Args:
        connect: Opens the store; called again after each failure.
        snapshot: The copy on disk.
        lookup_key: The deployment's.
        policies: Policies of the matchers to make.
        poll_seconds: Longest time between two looks at the heads.
        persist: Whether this process writes the copy on disk; a short-lived reader beside a node must not.
        clock: Unix time.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Store]],
        snapshot: Snapshot,
        lookup_key: bytes,
        *,
        policies: Iterable[Policy] = (),
        poll_seconds: float = 5.0,
        persist: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connect = connect
        self._snapshot = snapshot
        self._lookup_key = lookup_key
        self._policies = tuple(policies)
        self._poll_seconds = poll_seconds
        self._persistent = persist
        self._clock = clock
        self._matcher: Matcher | None = None
        self._lists: dict[str, TableList] = {}
        self._retired: set[tuple[str, Head]] = set()
        self._unwritten: dict[str, bytes] = {}
        self._damaged: set[str] = set()
        self._unsaved = False
        self._status = FollowerStatus()
        self._started = clock()
        self._store: Store | None = None
        self._stopping = asyncio.Event()
        self._at_swap: list[Callable[[Matcher], object]] = []

    def configure(self, policies: Iterable[Policy], poll_seconds: float) -> None:
        """Decide by other policies from now on."""
        self._policies, self._poll_seconds = tuple(policies), poll_seconds
        if self._matcher is not None:
            self._matcher = Matcher.of(self._matcher.table, self._policies)
            for callback in self._at_swap:
                callback(self._matcher)

    def on_swap(self, callback: Callable[[Matcher], object]) -> None:
        """Have `callback` called with each new matcher as it is put in place; it must return at once."""
        self._at_swap.append(callback)

    @property
    def matcher(self) -> Matcher | None:
        """The matcher to decide with; None until there is a first one. Read it once per decision."""
        return self._matcher

    @property
    def status(self) -> FollowerStatus:
        """The present state."""
        status = self._status
        if status.store_up and not status.detail:
            return status
        return replace(status, lag_seconds=max(0.0, self._clock() - (status.last_sync or self._started)))

    async def load_snapshot(self) -> None:
        """Enforce what the node enforced last, if a usable copy is on disk. A damaged one is reported and left out."""
        try:
            table = await asyncio.to_thread(self._snapshot.load)
            if table is not None:
                lists = {entry.name: entry for entry in table_lists(table)}
                await self._swap(Matcher.of(table, self._policies), lists)
                self._status = replace(self._status, source="snapshot", detail="not yet compared with the store")
        except (FormatError, OSError, ValueError, TypeError) as error:
            detail = str(error) if isinstance(error, FormatError) else f"snapshot: {type(error).__name__}"
            self._status = replace(self._status, detail=detail)
            log.warning("snapshot left out", detail=detail)

    async def run(self) -> None:
        """Follow the store until `stop`."""
        following = asyncio.create_task(self._follow())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((following, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Whatever it waits for is let go: a follower only reads, and what it writes to the disk appears whole.
            following.cancel()
            stopping.cancel()
            await asyncio.gather(following, stopping, return_exceptions=True)
            await self._let_go()

    async def stop(self) -> None:
        """Let `run` end soon; what it waits for is let go."""
        self._stopping.set()

    async def _follow(self) -> None:
        retry = FIRST_RETRY_SECONDS
        while True:
            try:
                if self._store is None:
                    self._store = await self._connect()
                after = await self._store.last_commit()
                await self.sync(self._store)
                retry = FIRST_RETRY_SECONDS
                await self._store.wait_for_commit(after, self._poll_seconds)
                continue
            except BlockerError as error:
                self._lost(str(error))
            except Exception as error:  # the matcher must outlive any fault of ours
                log.exception("following failed unexpectedly", exc_info=error)
                self._lost(f"unexpected {type(error).__name__}; it is logged")
            await self._let_go()
            await asyncio.sleep(retry)
            retry = min(retry * 2, LAST_RETRY_SECONDS)

    async def sync(self, store: Store) -> None:
        """One cycle: enforce what the store has now.

        Raises:
            StoreUnavailable: Redis cannot be used; the matcher stays.
            BlockerError: The store is not usable at all (another schema, another key); the matcher stays.
        """
        epoch = await store.epoch()
        heads = await store.heads()
        checked = await store.checked()
        problems: list[str] = []
        wanted = dict(self._lists)
        left_out: list[str] = []
        for name, head in sorted(heads.items()):
            known = wanted.get(name)
            if (epoch, head) in self._retired or (known and _place(known) == (epoch, head.serial, head.digest)):
                continue
            try:
                manifest = await store.manifest(name, head.serial)
                if manifest.retired:
                    self._retired.add((epoch, head))
                    wanted.pop(name, None)
                elif known is None and len(wanted) >= _native.MAX_LISTS:
                    left_out.append(name)
                else:
                    await self._fetch(store, manifest.segments)
                    wanted[name] = _listed(manifest)
            except StoreUnavailable:
                raise
            except (StoreError, FormatError) as error:
                problems.append(f"list {name}: {error}")
        if left_out:
            count = len(wanted) + len(left_out)
            problems.append(f"{count} lists, at most {_native.MAX_LISTS}; left out: {', '.join(left_out)}; retire some")
        problems += [f"list {name} left the store; its last serial stays" for name in sorted(wanted.keys() - heads)]
        # Without any list there is nothing to decide with yet; a node that has none says so instead of allowing all.
        if wanted != self._lists or (wanted and self._matcher is None):
            problems += await self._enforce(store, wanted)
        await self._persist()
        self._synced(epoch, checked, problems)

    def _synced(self, epoch: str, checked: Mapping[str, float], problems: list[str]) -> None:
        detail = "; ".join(problems)
        if detail and detail != self._status.detail:
            log.warning("not in step with the store", detail=detail)
        elif self._status.source != "store" or (self._status.detail and not detail):
            log.info("in step with the store", lists=len(self._lists))
        self._status = FollowerStatus(
            store_up=True,
            failures=self._status.failures,
            epoch=epoch,
            last_sync=self._status.last_sync if problems else self._clock(),
            checked=MappingProxyType(dict(checked)),
            source="none" if self._matcher is None else "store",
            detail=detail,
        )

    async def _fetch(self, store: Store, segments: Iterable[str]) -> None:
        """Get the segments that are not here."""
        for name in await asyncio.to_thread(self._missing, list(segments)):
            parts = await store.get_blob_parts("segment", name)
            if self._persistent and sum(map(len, parts)) > HELD_BYTES:
                try:
                    await asyncio.to_thread(self._snapshot.add_segment, name, *parts)
                    self._damaged.discard(name)
                    await asyncio.to_thread(parts.clear)  # as in `_swap`
                    continue
                except OSError as error:
                    # A full disk must not keep a list from being enforced.
                    log.warning("segment kept in memory only", error=type(error).__name__)
            self._unwritten[name] = b"".join(parts)

    def _missing(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self._file(name) is None and name not in self._unwritten]

    def _file(self, name: str) -> Path | None:
        """The file of a segment, if it is here and may be good."""
        return None if name in self._damaged else self._snapshot.segment(name)

    async def _enforce(self, store: Store, wanted: dict[str, TableList]) -> list[str]:
        """Build and swap; what is wrong, if it could not be."""
        lists = {name: wanted[name] for name in sorted(wanted)}
        names, policies = _segments(lists), self._policies
        try:
            await self._fetch(store, names)  # also what the disk lost of lists that did not change
            try:
                matcher = await asyncio.to_thread(self._build, lists)
            except (FormatError, OSError) as error:
                damaged = await asyncio.to_thread(self._find_damaged, names)
                if not damaged:
                    raise
                log.warning("damaged segments are fetched again", reason=_told(error), segments=len(damaged))
                self._damaged |= damaged
                await self._fetch(store, damaged)
                matcher = await asyncio.to_thread(self._build, lists)
        except StoreUnavailable:
            raise
        except (StoreError, FormatError, OSError) as error:
            return [_told(error)]
        if self._policies is not policies:  # they changed meanwhile
            matcher = Matcher.of(matcher.table, self._policies)
        await self._swap(matcher, lists)
        self._unsaved = True
        serials = {name: entry.serial for name, entry in lists.items()}
        log.info("enforced", serials=serials, nodes=len(matcher.table), bytes=matcher.table.bytes)
        return []

    def _find_damaged(self, names: Iterable[str]) -> set[str]:
        """Segments whose file is not what its name says."""
        damaged = set()
        for name in names:
            path = self._file(name)
            try:
                if path is not None and hashlib.sha256(path.read_bytes()).hexdigest() != name:
                    damaged.add(name)
            except OSError:
                damaged.add(name)
        return damaged

    def _build(self, lists: Mapping[str, TableList]) -> Matcher:
        def source(name: str) -> bytes | Path:
            return self._unwritten.get(name) or self._file(name) or b""

        merged = [
            (entry.name, entry.serial, entry.allow, entry.metadata.dump(),
             [[source(name) for name in layer] for layer in entry.metadata.layers])
            for entry in lists.values()
        ]  # fmt: skip
        return Matcher.of(_native.Table.merge(merged, self._lookup_key), self._policies)

    async def _swap(self, matcher: Matcher, lists: dict[str, TableList]) -> None:
        old = [self._matcher]
        self._matcher, self._lists = matcher, lists
        for callback in self._at_swap:
            callback(matcher)
        # Giving back tens of megabytes takes milliseconds: not on the loop.
        await asyncio.to_thread(old.clear)

    async def _persist(self) -> None:
        """Bring the disk up to what is enforced; a disk that cannot take it now is tried again next cycle."""
        matcher = self._matcher
        if matcher is None or not self._persistent or not (self._unsaved or self._unwritten):
            return
        names = _segments(self._lists)
        try:
            for name in [name for name in self._unwritten if name in names]:
                await asyncio.to_thread(self._snapshot.add_segment, name, self._unwritten[name])
                self._damaged.discard(name)
            self._unwritten.clear()
            await asyncio.to_thread(self._snapshot.save, matcher.table)
            await asyncio.to_thread(self._snapshot.keep_segments, names)
            self._unsaved = False
        except OSError as error:
            log.warning("snapshot not written; a restart would start from the older one", error=type(error).__name__)

    def _lost(self, detail: str) -> None:
        if self._status.store_up or self._status.detail != detail:
            log.warning("store not usable, the last good lists stay enforced", detail=detail)
        failures = self._status.failures + 1
        self._status = replace(self._status, store_up=False, failures=failures, detail=detail)

    async def _let_go(self) -> None:
        """Close the connections without waiting for an answer."""
        if self._store is not None:
            await self._store.abort()
            self._store = None


def _place(entry: TableList) -> tuple[str, int, str]:
    return entry.metadata.epoch, entry.serial, entry.metadata.digest


def _listed(manifest: Manifest) -> TableList:
    metadata = ListMetadata(
        entries=manifest.entries,
        mode=manifest.mode,
        digest=manifest.digest,
        epoch=manifest.epoch,
        created=manifest.created,
        layers=tuple(layer.segments for layer in manifest.layers),
    )
    return TableList(name=manifest.list, serial=manifest.serial, allow=manifest.action == "allow", metadata=metadata)


def _segments(lists: Mapping[str, TableList]) -> set[str]:
    return {name for entry in lists.values() for layer in entry.metadata.layers for name in layer}


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, BlockerError) else f"segments: {type(error).__name__}"
