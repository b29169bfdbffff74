"""A layer's rules in clear text, framed and sealed, and a list's rules read back from its layers.

Each layer of a list keeps what it added and removed, so that a small update seals a small text. Before sealing, the
text of a layer is, integers big-endian:

1. bytes 0-3: magic, `BLTX`
2. byte 4: version, 1
3. bytes 5-12: bytes in 4
4. the added rules, as `RuleSet.dump` writes them
5. the removed rules, in the same form, to the end; nothing in a base

It is sealed with the list's name as context, so a text cannot be passed off as another list's.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

from blocker._native import RuleSet
from blocker.errors import FormatError, KeyMaterialError
from blocker.store.sealing import Keyring, Sealer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocker.store.manifest import Manifest
    from blocker.store.redis import Store

_HEADER = struct.Struct(">4sBQ")
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
    first = added.dump()
    frame = b"".join((_HEADER.pack(_MAGIC, _VERSION, len(first)), first, removed.dump()))
    return sealer.seal_pieces(frame, context=_context(name))


def open_layer(sealer: Sealer, name: str, blobs: Sequence[bytes]) -> tuple[RuleSet, RuleSet]:
    """The rules that a layer added and removed. CPU-bound: for a thread.

    Raises:
        FormatError: It was changed, cut or reordered, is another list's, or no layer.
        KeyMaterialError: It was sealed under another key.
    """
    text = sealer.open(b"".join(blobs), context=_context(name))
    if len(text) < _HEADER.size:
        raise FormatError(f"layer text: expected a header of {_HEADER.size} bytes, got {len(text)}; publish again")
    magic, version, size = _HEADER.unpack_from(text)
    if magic != _MAGIC:
        raise FormatError(f"layer text: magic: expected {_MAGIC.hex()}, got {magic.hex()}; publish the list again")
    if version != _VERSION:
        raise FormatError(f"layer text: version: expected {_VERSION}, got {version}; upgrade this node")
    rules = memoryview(text)[_HEADER.size :]
    if size > len(rules):
        raise FormatError(f"layer text: expected {size} bytes of added rules, got {len(rules)}; publish the list again")
    return RuleSet.load(bytes(rules[:size])), RuleSet.load(bytes(rules[size:]))


async def load_rules(store: Store, keyring: Keyring, name: str, serial: int | None = None) -> RuleSet:
    """The rules of a list in clear text, for diffs and exports; the newest serial if none is given.

    Raises:
        StoreError: There is no such list or serial, or one of its blobs is gone.
        FormatError: What is stored is damaged, or its parts do not make the list that the manifest names.
        KeyMaterialError: This process holds no seal key, or another one.
    """
    return await read_rules(store, sealer(keyring), await store.manifest(name, serial))


async def read_rules(store: Store, sealer: Sealer, manifest: Manifest) -> RuleSet:
    """The rules of one manifest; see `load_rules`."""
    layers = [[await store.get_blob("sealed", name) for name in layer.sealed] for layer in manifest.layers]
    return await asyncio.to_thread(_folded, sealer, manifest, layers)


def _folded(sealer: Sealer, manifest: Manifest, layers: Sequence[Sequence[bytes]]) -> RuleSet:
    rules = RuleSet()
    for index, blobs in enumerate(layers):
        added, removed = open_layer(sealer, manifest.list, blobs)
        rules = rules.patched(added, removed) if index else added
    if rules.digest() != manifest.rules_digest:
        raise FormatError(
            f"list {manifest.list} serial {manifest.serial}: its texts do not make the rules that the manifest names; "
            "publish the list again"
        )
    return rules


def _context(name: str) -> bytes:
    return b"blocker layer of list " + name.encode()
