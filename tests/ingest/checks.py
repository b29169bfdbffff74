"""What must hold of a list in the store, whoever published it and whatever died meanwhile."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from blocker._native import LineParser, NodeRun, RuleSet
from blocker.errors import StoreError
from blocker.ingest.cleartext import load_rules
from blocker.ingest.plan import PublishOptions
from blocker.ingest.update import PullResult, pull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from blocker.ingest.source import Source
    from blocker.store.keys import BlobKind
    from blocker.store.manifest import Manifest
    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring

# A loaded machine has needed seconds; a minute is only ever a fault.
DEADLINE = 60.0
# Unix time later than that of any file a test wrote a moment ago, so that its times count as settled.
LATER = 4e9


async def look(source: Source, store: Store, keyring: Keyring, now: float = LATER) -> PullResult:
    """One pull at a given time."""
    return await pull(source, store, keyring, clock=lambda: now)


def rules_of(lines: Iterable[str]) -> RuleSet:
    """A rule set of url lines."""
    parser = LineParser("url")
    parser.feed("\n".join(lines).encode())
    return parser.finish()


def pages(numbers: Iterable[int]) -> RuleSet:
    """A rule set of one page for each number."""
    return rules_of(f"http://site{number % 50}.example/page/{number}.html" for number in numbers)


async def folded(store: Store, keyring: Keyring, manifest: Manifest) -> NodeRun:
    """The trie that the layers of a manifest make, as a follower would see it."""
    layers = [[await store.get_blob("segment", name) for name in layer.segments] for layer in manifest.layers]
    return NodeRun.from_segments(layers, keyring.lookup)


async def assert_whole(store: Store, keyring: Keyring, name: str, serial: int | None = None) -> RuleSet:
    """The rules of a list, after checking that trie, text and manifest say the same."""
    manifest = await store.manifest(name, serial)
    rules = await load_rules(store, keyring, name, serial)
    assert rules.digest() == manifest.rules_digest
    assert len(rules) == manifest.entries
    assert PublishOptions.of(manifest).nodes(rules, keyring.lookup).digest() == manifest.digest
    assert (await folded(store, keyring, manifest)).digest() == manifest.digest
    return rules


async def is_stored(store: Store, kind: BlobKind, name: str) -> bool:
    """Whether a blob is in the store."""
    try:
        await store.get_blob(kind, name)
    except StoreError:
        return False
    return True


async def until(holds: Callable[[], object]) -> None:
    """Wait until something holds; fail if it does not in a minute."""
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)
