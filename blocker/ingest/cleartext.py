"""A layer's rules in clear text, sealed, and a list's rules read back from its layers.

Each layer of a list keeps what it added and removed, so that a small update seals a small text. The sealed blobs of a
layer are, in order:

1. one blob: the sealed index. Its clear text, integers big-endian: bytes 0-3 magic, `BLTX`; byte 4 version, 1; bytes
   5-8 number of blobs in 2
2. the pieces of the sealed added rules, in the form of `RuleSet.dump`
3. the pieces of the sealed removed rules, in the same form; a base has none, so its text is empty

Each of the three is sealed with the list's name and its part as context, so that no text can be passed off as another
list's, or as the other part.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Literal

from blocker._native import RuleSet
from blocker.errors import FormatError, KeyMaterialError
from blocker.store.sealing import Keyring, Sealer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocker.store.draft import Draft
    from blocker.store.manifest import Manifest
    from blocker.store.redis import Store

_INDEX = struct.Struct(">4sBI")
_MAGIC = b"BLTX"
_VERSION = 1


def sealer(keyring: Keyring) -> Sealer:
    """What seals and opens the clear text of lists.

    Raises:
        KeyMaterialError: This process holds no seal key.
    """
    if keyring.seal is None:
        raise KeyMaterialError("no seal key: this node can decide, not publish, diff or export; copy seal.key to it")
    return Sealer(keyring.seal)


def seal_layer(sealer: Sealer, name: str, added: RuleSet, removed: RuleSet) -> list[bytes]:
    """The sealed text of a layer of list `name`, as the blobs to upload, in order. CPU-bound: for a thread."""
    first = sealer.seal_pieces(added.dump(), context=_context(name, "added"))
    second = sealer.seal_pieces(removed.dump(), context=_context(name, "removed"))
    index = _INDEX.pack(_MAGIC, _VERSION, len(first))
    return [sealer.seal(index, context=_context(name, "index")), *first, *second]


def open_layer(sealer: Sealer, name: str, blobs: Sequence[bytes]) -> tuple[RuleSet, RuleSet]:
    """The rules that a layer added and removed. CPU-bound: for a thread.

    Raises:
        FormatError: It was changed, cut or reordered, is another list's, or no layer.
        KeyMaterialError: It was sealed under another key.
    """
    if not blobs:
        raise FormatError("layer text: expected an index, got nothing; publish the list again")
    index = sealer.open(blobs[0], context=_context(name, "index"))
    if len(index) != _INDEX.size:
        raise FormatError(f"layer text: index: expected {_INDEX.size} bytes, got {len(index)}; publish the list again")
    magic, version, count = _INDEX.unpack(index)
    if magic != _MAGIC:
        raise FormatError(f"layer text: magic: expected {_MAGIC.hex()}, got {magic.hex()}; publish the list again")
    if version != _VERSION:
        raise FormatError(f"layer text: version: expected {_VERSION}, got {version}; upgrade this node")
    first, second = blobs[1 : 1 + count], blobs[1 + count :]
    added = RuleSet.load(sealer.open(b"".join(first), context=_context(name, "added")))
    return added, RuleSet.load(sealer.open(b"".join(second), context=_context(name, "removed")))


async def load_rules(store: Store, keyring: Keyring, name: str, serial: int | None = None) -> RuleSet:
    """The rules of a list in clear text, for diffs and exports; the newest serial if none is given.

    Raises:
        StoreError: There is no such list or serial, or one of its blobs is gone.
        FormatError: What is stored is damaged, or its parts do not make the list that the manifest names.
        KeyMaterialError: This process holds no seal key, or another one.
    """
    return await read_rules(store, sealer(keyring), await store.manifest(name, serial))


async def read_rules(store: Store, sealer: Sealer, version: Manifest | Draft) -> RuleSet:
    """The rules of one manifest or draft; see `load_rules`."""
    return (await read_layers(store, sealer, version))[0]


async def read_layers(
    store: Store, sealer: Sealer, version: Manifest | Draft
) -> tuple[RuleSet, list[tuple[RuleSet, RuleSet]]]:
    """The rules of one manifest or draft, and what each layer after the base added and removed; see `load_rules`."""
    layers = [[await store.get_blob("sealed", name) for name in layer.sealed] for layer in version.layers]
    return await asyncio.to_thread(_folded, sealer, version, layers)


def _folded(
    sealer: Sealer, version: Manifest | Draft, layers: Sequence[Sequence[bytes]]
) -> tuple[RuleSet, list[tuple[RuleSet, RuleSet]]]:
    rules, changes = RuleSet(), []
    for index, blobs in enumerate(layers):
        added, removed = open_layer(sealer, version.list, blobs)
        if index:
            changes.append((added, removed))
            rules = rules.patched(added, removed)
        else:
            rules = added
    if rules.digest() != version.rules_digest:
        raise FormatError(
            f"list {version.list} serial {version.serial}: its texts do not make the rules that the manifest names; "
            "publish the list again"
        )
    return rules, changes


def _context(name: str, part: Literal["index", "added", "removed"]) -> bytes:
    return f"blocker layer of list {name}: {part}".encode()
