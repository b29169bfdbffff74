"""What changed in a list between two of its serials: rules that came, and rules that went."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blocker.ingest.cleartext import load_rules

if TYPE_CHECKING:
    from blocker._native import RuleSet
    from blocker.store.manifest import Manifest
    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring


@dataclass(frozen=True, slots=True)
class Difference:
    """Two serials of a list, compared. A rule of which only reference or metadata changed has gone and has come.

    Attributes:
        older: What is compared.
        newer: What it is compared with.
        added: Rules of the newer that the older lacks.
        removed: Rules of the older that the newer lacks.
    """

    older: Manifest
    newer: Manifest
    added: RuleSet = field(repr=False)
    removed: RuleSet = field(repr=False)


async def diff(store: Store, keyring: Keyring, name: str, older: int, newer: int | None = None) -> Difference:
    """Compare a list at `older` with the same list at `newer`, its head by default; either may be the later one.

    Raises:
        StoreError: There is no such list or serial, or one of its blobs is gone.
        FormatError: What is stored is damaged.
        KeyMaterialError: This process holds no seal key, or another one.

    Cost: in proportion to both serials of the list, in threads.
    """
    first, second = await store.manifest(name, older), await store.manifest(name, newer)
    before = await load_rules(store, keyring, name, first.serial)
    # The manifest's own serial: the head may have moved since.
    after = await load_rules(store, keyring, name, second.serial)
    added, removed = await asyncio.to_thread(before.diff, after)
    return Difference(first, second, added, removed)
