"""One look at one source: fetch, parse, guard, publish, and remember; each step before anything is visible.

A pull never leaves a list worse: until the commit nothing that a follower reads has changed, and what is remembered of
the source is written in the same step. So a process that dies anywhere just pulls again, and a list that was rolled
back stays so.

What is remembered belongs to the serial it led to. When the head was moved by another pull, it is not used and the
source is read again; when a person moved it (a rollback, a publish by hand), it holds, so a rollback stays until the
source or its description changes.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from blocker.errors import BlockerError, FetchError, FormatError, UpdateRefused
from blocker.ingest.expiry import utc_day, without_ended
from blocker.ingest.fetch import open_source
from blocker.ingest.formats._unpack import Unpacker
from blocker.ingest.guard import Severity, refuse_bad_share, refuse_empty, refuse_retired
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import Progress, head_manifest, no_progress, publish
from blocker.store.audit import INGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from blocker._native import RuleSet
    from blocker.ingest.formats import ListParser
    from blocker.ingest.source import Source
    from blocker.ingest.submit import Desk
    from blocker.store.manifest import Manifest
    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring

Status = Literal["published", "unchanged", "not_modified", "waiting", "refused", "failed"]

# The reason in the manifest of every pull; what is remembered of a source is judged by it.
PULL_REASON = "pull"
# The parts of a source's state that the next look asks with; see fetch.py.
VALIDATORS = frozenset({"etag", "last_modified", "proof", "sha256", "stamp"})
# Bad lines that are shown; all are counted.
SHOWN_ERRORS = 100

_T = TypeVar("_T")


class Stopped(BlockerError):  # noqa: N818 - a state, as StoreUnavailable is
    """A pull was given up during its download because whoever runs it stops; nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullResult:
    """What a pull did.

    Attributes:
        list: The list.
        status: published; unchanged: read, and the same rules; not_modified: the source says or shows that it is the
            same file; waiting: read, and a person must approve it; refused: read, and must not be published; failed:
            could not be read whole.
        serial: The list's head now; None if there is none yet.
        lines: Lines read.
        rules: Entries read, repeated ones counted.
        bad: Lines that are no entry.
        errors: The first bad lines: number, from 1, and reason.
        added: Rules that the list gained.
        removed: Rules that it lost.
        seconds: How long it took.
        detail: For waiting, refused and failed: why. It never holds an entry, or an address beyond its host.
    """

    list: str
    status: Status
    serial: int | None = None
    lines: int = 0
    rules: int = 0
    bad: int = 0
    errors: tuple[tuple[int, str], ...] = ()
    added: int = 0
    removed: int = 0
    seconds: float = 0.0
    detail: str = ""

    @property
    def good(self) -> bool:
        """Whether the list is now what its source says."""
        return self.status in ("published", "unchanged", "not_modified")


@dataclass(frozen=True, slots=True)
class _Read:
    """A source that was read to its end; without rules if it turned out to be the same bytes."""

    state: dict[str, str]
    rules: RuleSet | None = field(default=None, repr=False)
    lines: int = 0
    entries: int = 0
    bad: int = 0
    errors: tuple[tuple[int, str], ...] = ()


async def pull(
    source: Source,
    store: Store,
    keyring: Keyring,
    progress: Progress = no_progress,
    *,
    clock: Callable[[], float] = time.time,
    stopping: asyncio.Event | None = None,
    desk: Desk | None = None,
) -> PullResult:
    """Bring a list up to its source.

    Args:
        source: The source; its name is the list's.
        store: Where to.
        keyring: With the seal key.
        progress: Told of the phases fetch, plan and upload.
        clock: Unix time in seconds.
        stopping: When set, a download under way is given up; a publish under way is ended first.
        desk: Has the guards look at it, and proposes what a person must approve. None: only a person looks on.

    Returns:
        What happened. Faults of the source are a result and not an exception: the list stays as it is.

    Raises:
        Stopped: See `stopping`.
        StoreError, StoreUnavailable, KeyMaterialError: The store or the keys fail; see `publish`.

    Cost: memory for the rules, never for the file or a line of it.
    """
    started = time.perf_counter()
    state = await store.source_state(source.name)
    manifest = await head_manifest(store, source.name)
    result = PullResult(list=source.name, status="failed", serial=None if manifest is None else manifest.serial)
    known = _known(source, state, manifest)
    try:
        refuse_retired(retired=manifest is not None and manifest.retired)
        read = await _unless(stopping, _read(source, known, clock(), progress))
        if read is not None and read.rules is not None:
            result = replace(result, lines=read.lines, rules=read.entries, bad=read.bad, errors=read.errors)
            refuse_bad_share(good=read.entries, bad=read.bad, max_share=source.max_bad_share)
            refuse_empty(entries=len(read.rules), before=0 if manifest is None else manifest.entries)
        result, state = await _publish(
            source, store, keyring, read, state, result, clock(), progress, _Guarded(desk, manifest)
        )
    except FetchError as error:
        result = replace(result, detail=str(error))
    except UpdateRefused as error:
        result = replace(result, status="refused", detail=f"{source.name}: {error}")
    result = replace(result, seconds=time.perf_counter() - started)
    await store.set_source_state(source.name, {**state, **_outcome(result, clock())})
    return result


async def _read(source: Source, known: Mapping[str, str], now: float, progress: Progress) -> _Read | None:
    """Fetch and parse; None if the source is what it was when `known` was noted."""
    async with open_source(source, known, now=now) as download:
        if download is None:
            return None
        parser = source.list_format.parser(source.format_options)
        unpacker = Unpacker(source.compression, source.max_bytes)
        done = 0
        progress("fetch", 0, download.total)
        async for chunk in download.chunks():
            try:
                await asyncio.to_thread(_feed, parser, unpacker.feed(chunk))
            except FormatError as error:
                raise UpdateRefused(str(error)) from None
            done += len(chunk)
            progress("fetch", done, download.total)
        state = download.state()
    if state["sha256"] == known.get("sha256"):
        return _Read(state)
    try:
        await asyncio.to_thread(_feed, parser, unpacker.finish())
        rules = await asyncio.to_thread(parser.finish)
    except FormatError as error:
        raise UpdateRefused(str(error)) from None
    return _Read(state, rules, parser.lines, parser.rules, parser.bad, tuple(parser.errors[:SHOWN_ERRORS]))


def _feed(parser: ListParser, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        parser.feed(piece)


async def _publish(
    source: Source, store: Store, keyring: Keyring, read: _Read | None, state: dict[str, str], result: PullResult,
    now: float, progress: Progress, guarded: _Guarded,
) -> tuple[PullResult, dict[str, str]]:  # fmt: skip
    """The result, and what to remember, of a source that was read and may be published, or did not change."""
    if read is None or read.rules is None:
        await store.set_checked(source.name, now)
        # The same bytes may come with another ETag or time: that is what the next look asks with.
        if read is not None:
            state = {name: value for name, value in state.items() if name not in VALIDATORS} | read.state
        return replace(result, status="not_modified"), state
    options = PublishOptions(
        action=source.action, mode=source.mode.value, path_case=source.path_case, www_alias=source.www_alias
    )
    # After the guards: a source may well have let all its entries expire.
    rules = await asyncio.to_thread(without_ended, read.rules, utc_day(now))
    waits = await guarded.look(source.name, options, rules, now)
    if waits:
        return replace(result, status="waiting", detail=waits), state
    remembered = {**read.state, "fingerprint": source.fingerprint()}
    done = await publish(
        store, keyring, source.name, options, rules, reason=PULL_REASON, now=now, progress=progress,
        expected=guarded.expected,
        along=lambda manifest: store.source_noted(source.name, {**remembered, "serial": str(manifest.serial)}),
    )  # fmt: skip
    result = replace(
        result, status="unchanged" if done.unchanged else "published", serial=done.serial,
        added=done.added, removed=done.removed,
    )  # fmt: skip
    return result, {**remembered, "serial": str(done.serial)}


@dataclass(frozen=True, slots=True)
class _Guarded:
    """The guards' look at what a source brought."""

    desk: Desk | None
    head: Manifest | None

    @property
    def expected(self) -> int | None:
        """What was looked at is published only upon the serial that it was compared with."""
        if self.desk is None:
            return None
        return 0 if self.head is None else self.head.serial

    async def look(self, name: str, options: PublishOptions, rules: RuleSet, now: float) -> str:
        """Why it must wait; empty if it may be published.

        Raises:
            UpdateRefused: A guard refuses it, or a person rejected it.
        """
        desk, head = self.desk, self.head
        if desk is None:
            return ""
        digest = await asyncio.to_thread(rules.digest)
        if head and not head.retired and head.rules_digest == digest and PublishOptions.of(head) == options:
            return ""
        findings = await desk.examine(name, options, rules, await desk.rules_of(head), head)
        told = "; ".join(finding.message for finding in findings if finding.severity is not Severity.NOTE)
        if any(finding.severity is Severity.REFUSE for finding in findings):
            raise UpdateRefused(told)
        if not any(finding.severity is Severity.APPROVE for finding in findings):
            return ""
        proposal = await desk.submit(name, options, rules, findings, head, actor=INGEST, reason=PULL_REASON, now=now)
        if proposal.state == "rejected":
            raise UpdateRefused(f"rejected by a person: {told}")
        return f"{name}: {told}; look at it and approve it: blocker lists approve {name} {proposal.id}"


def _known(source: Source, state: Mapping[str, str], manifest: Manifest | None) -> Mapping[str, str]:
    """What may be relied on of the last look; nothing if the list or the source is not what it led to."""
    if manifest is None or state.get("fingerprint") != source.fingerprint():
        return {}
    serial = int(state.get("serial", "0"))
    moved_by_hand = manifest.serial > serial and manifest.reason != PULL_REASON
    return state if manifest.serial == serial or moved_by_hand else {}


def _outcome(result: PullResult, now: float) -> dict[str, str]:
    """The part of a source's state that tells people how the last look went."""
    outcome = {
        "last_at": f"{now:.3f}",
        "last_status": result.status,
        "last_detail": result.detail,
        "last_seconds": f"{result.seconds:.3f}",
    }
    # Who was not sent the file again has seen no bad lines, but the list still has those of the last time.
    return outcome if result.status == "not_modified" else {**outcome, "last_bad": str(result.bad)}


async def _unless(stopping: asyncio.Event | None, work: Coroutine[None, None, _T]) -> _T:
    """The work's result; raises `Stopped` and cancels the work if `stopping` is set first."""
    task, stop = asyncio.create_task(work), asyncio.create_task((stopping or asyncio.Event()).wait())
    try:
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Stopped("the pull was given up during its download")
        return task.result()
    finally:
        task.cancel()
        stop.cancel()
        await asyncio.gather(task, stop, return_exceptions=True)
