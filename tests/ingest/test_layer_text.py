"""The sealed text of a layer: of one list, in one order, whole."""

from __future__ import annotations

import pytest

from blocker.errors import FormatError
from blocker.ingest.cleartext import open_layer, seal_layer
from blocker.store.sealing import Sealer
from tests.ingest.checks import pages

NAME = "pages"


def test_a_layers_text_is_bound_to_its_list_and_order() -> None:
    seal = Sealer(b"s" * 32)
    added, removed = pages(range(150_000)), pages(range(5))
    blobs = seal_layer(seal, NAME, added, removed)
    assert len(blobs) > 3
    found = open_layer(seal, NAME, blobs)
    assert (found[0].digest(), found[1].digest()) == (added.digest(), removed.digest())
    wrong = [
        ("other", blobs), (NAME, []), (NAME, blobs[1:]), (NAME, blobs[:-1]), (NAME, [*blobs, blobs[-1]]),
        (NAME, [blobs[0], blobs[2], blobs[1], *blobs[3:]]), (NAME, [blobs[-1], *blobs[1:-1], blobs[0]]),
        (NAME, [blobs[0], *seal_layer(seal, NAME, removed, added)[1:]]),
        (NAME, [blobs[0][:-1], *blobs[1:]]),
    ]  # fmt: skip
    for name, parts in wrong:
        with pytest.raises(FormatError):
            open_layer(seal, name, parts)
    for index in (b"", b"BLTX", b"TEXT\x01\0\0\0\0", b"BLTX\x02\0\0\0\0"):
        with pytest.raises(FormatError, match="layer text"):
            open_layer(seal, NAME, [seal.seal(index, context=b"blocker layer of list pages: index"), *blobs[1:]])
