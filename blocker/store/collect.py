"""Orphan collection: drop what no list needs any more, while publishers go on publishing.

Why nothing that is needed can be lost, whatever runs at the same time:

1. Blobs that are older than the grace period are listed **first**, each with its time.
2. Then the heads, every manifest that stays, and all drafts and proposals are read. What they name is not an orphan.
3. Each orphan is dropped by a script that compares its time with the one listed. An upload and a commit both renew the
   time of every blob they name, atomically, so a blob that anybody wanted after step 1 stays.

A commit checks in its own script that its blobs are there. So a publish that races with a collection either succeeds
whole or is told to upload again; a head can never name a blob that is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from blocker.errors import StoreError
from blocker.store import scripts
from blocker.store.draft import Draft
from blocker.store.manifest import Head, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blocker.store.connection import Session
    from blocker.store.keys import Keys

# Manifests read, or keys dropped, in one command: some 100 KiB of answer, and well under a millisecond of the server.
BATCH = 64

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection dropped.

    Attributes:
        blobs: Segments and sealed texts.
        manifests: Manifests of serials that are no longer kept.
        bytes: Size of the blobs.
    """

    blobs: int
    manifests: int
    bytes: int


async def collect_orphans(session: Session, keys: Keys, grace_seconds: float, keep_serials: int) -> Collected:
    """See Store.collect_orphans.

    Raises:
        StoreError: `keep_serials` is below 1 or `grace_seconds` below 0, or Redis refused.
        FormatError: A manifest or head cannot be read; nothing is dropped then but old manifests.

    Cost: reads every kept manifest of every list.
    """
    if keep_serials < 1 or grace_seconds < 0:
        raise StoreError("a collection keeps at least 1 serial and takes no negative grace period")
    what = "collect orphans"
    seconds, micros = await session.script(what, scripts.TIME, [keys.meta])
    border = int(seconds) + int(micros) / 1e6 - grace_seconds
    flat: list[bytes] = await session.command(what, "ZRANGEBYSCORE", keys.blobs, "-inf", f"({border!r}", "WITHSCORES")
    listed = {member.decode(): score for member, score in zip(flat[::2], flat[1::2], strict=True)}
    heads = await session.command(what, "HGETALL", keys.heads)
    manifests = 0
    for name, text in heads.items():
        head = Head.from_json(name.decode(), text)
        oldest = max(head.serial - keep_serials + 1, 1)
        manifests += await _drop_manifests(session, keys, head.list, oldest)
        for serials in _batches(range(oldest, head.serial + 1)):
            texts = await session.command(what, "MGET", *(keys.manifest(head.list, serial) for serial in serials))
            for manifest in (Manifest.from_json(text) for text in texts if text is not None):
                for member in keys.members(manifest):
                    listed.pop(member, None)
    # Drafts and proposals name blobs as well; one that cannot be read keeps everything until somebody discards it.
    for shelf in (keys.drafts, keys.proposals):
        for text in await session.command(what, "HVALS", shelf):
            for member in keys.members(Draft.from_json(text)):
                listed.pop(member, None)
    blobs = size = 0
    for members in _batches([*listed]):
        pairs = [part for member in members for part in (member, listed[member])]
        result = await session.script(what, scripts.DROP, [keys.blobs, *map(keys.member_key, members)], *pairs)
        blobs += result[0]
        size += result[1]
    return Collected(blobs=blobs, manifests=manifests, bytes=size)


async def _drop_manifests(session: Session, keys: Keys, name: str, oldest: int) -> int:
    """Drop the manifests below `oldest`, lowest first, so that those which stay are always one run up to the head."""
    what = "collect old manifests"
    lowest = oldest
    while lowest > 1:
        batch = range(max(lowest - BATCH, 1), lowest)
        found: int = await session.command(what, "EXISTS", *(keys.manifest(name, serial) for serial in batch))
        lowest -= found
        if found < len(batch):
            break
    dropped = 0
    for batch_serials in _batches(range(lowest, oldest)):
        dropped += await session.command(what, "UNLINK", *(keys.manifest(name, serial) for serial in batch_serials))
    return dropped


def _batches(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))
