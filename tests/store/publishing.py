"""Manifests and publishes for the tests, as small as they can be."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import TYPE_CHECKING, Any

from blocker.errors import StoreUnavailable
from blocker.store.manifest import Layer, Manifest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from blocker.store.redis import Store

# Long enough for a loaded machine; reached only by what is broken.
DEADLINE = 90.0


def make_manifest(**fields: Any) -> Manifest:  # noqa: ANN401 - any field's own type
    """A valid manifest with some fields of one's own."""
    values: dict[str, Any] = {
        "list": "test",
        "serial": 1,
        "epoch": "0" * 32,
        "action": "block",
        "mode": "enforce",
        "path_case": "sensitive",
        "www_alias": False,
        "entries": 1,
        "digest": hashlib.sha256(repr(fields).encode()).hexdigest(),
        "rules_digest": "1" * 64,
        "layers": (),
        "created": time.time(),
        "reason": "test",
    }
    return Manifest(**{**values, **fields})


def make_layer(segments: Sequence[str] = (), sealed: Sequence[str] = (), nodes: int = 1) -> Layer:
    """A layer of these blobs."""
    return Layer(segments=tuple(segments), sealed=tuple(sealed), nodes=nodes, added=1, removed=0)


async def upload(store: Store, name: str, serial: int, blobs: Sequence[bytes]) -> Manifest:
    """Upload blobs and describe them; nothing is committed."""
    segments = await store.put_blobs("segment", blobs)
    sealed = await store.put_blobs("sealed", [b"sealed " + blob for blob in blobs])
    return make_manifest(
        list=name, serial=serial, epoch=await store.epoch(), layers=(make_layer(segments, sealed),), reason=f"{serial}"
    )


async def publish(store: Store, name: str, serial: int, blobs: Sequence[bytes]) -> Manifest:
    """Upload and commit upon `serial - 1`."""
    manifest = await upload(store, name, serial, blobs)
    await store.commit(manifest, expected=serial - 1)
    return manifest


async def read_whole(store: Store, manifest: Manifest) -> None:
    """Read every blob of a manifest; raises if one is missing or wrong."""
    for name in manifest.segments:
        await store.get_blob("segment", name)
    for name in manifest.sealed:
        await store.get_blob("sealed", name)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Poll until something holds. A store that is away for the moment does not hold."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            if await condition():
                return
        except StoreUnavailable:
            pass
        assert time.monotonic() < deadline, "did not come true in time"
        await asyncio.sleep(0.01)
