from __future__ import annotations

import hashlib
import hmac
import secrets
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from blocker.errors import FormatError, KeyMaterialError
from blocker.store.sealing import PIECE_BYTES, Sealer, fingerprint
from tests.store.publishing import publish

if TYPE_CHECKING:
    from blocker.store.redis import Store
    from tests.redis_server import RedisServer

KEY = bytes(range(32))
SEALER = Sealer(KEY)
# The byte regions of a piece, as the head of sealing.py numbers them.
REGIONS = {
    "magic": range(4), "version": range(4, 5), "compression": range(5, 6), "number": range(6, 10),
    "pieces": range(10, 14), "text id": range(14, 30), "key": range(30, 38), "size": range(38, 42),
    "nonce": range(42, 54),
}  # fmt: skip
HEADER = 54
TAG = 16


def long_text(pieces: int) -> bytes:
    """A compressible text that takes this many pieces."""
    line = b"%08d http://long.example/a/page\n"
    return b"".join(line % number for number in range((pieces - 1) * PIECE_BYTES // len(line % 0) + 1000))


@given(st.binary(max_size=2000), st.binary(max_size=50))
def test_opens_what_it_sealed(plain: bytes, context: bytes) -> None:
    sealed = SEALER.seal(plain, context=context)
    assert SEALER.open(sealed, context=context) == plain


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES])
def test_pieces_hold_at_most_their_size(size: int) -> None:
    plain = bytes(size)
    pieces = SEALER.seal_pieces(plain, context=b"list")
    assert len(pieces) == max(1, -(-size // PIECE_BYTES))
    assert SEALER.open(b"".join(pieces), context=b"list") == plain


def test_incompressible_text_stays_near_its_size() -> None:
    pieces = SEALER.seal_pieces(secrets.token_bytes(PIECE_BYTES), context=b"")
    assert len(pieces[0]) < PIECE_BYTES + 1024


def test_the_same_text_is_never_sealed_to_the_same_bytes() -> None:
    sealed = {SEALER.seal(b"text", context=b"") for _ in range(100)}
    assert len(sealed) == 100
    nonces = {bytes(item[i] for i in REGIONS["nonce"]) for item in sealed}
    assert len(nonces) == 100


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_flipped_bit_anywhere_in_a_header_or_tag_is_detected(pieces: int) -> None:
    sealed = SEALER.seal(long_text(pieces) if pieces > 1 else b"short", context=b"list")
    first = HEADER + int.from_bytes(sealed[38:42], "big")
    starts = [0] if pieces == 1 else [0, first]
    for start in starts:
        ends = [*starts[1:], len(sealed)]
        end = next(end for end in ends if end > start)
        for position in (*range(start, start + HEADER), *range(end - TAG, end)):
            for bit in range(8):
                changed = bytearray(sealed)
                changed[position] ^= 1 << bit
                with pytest.raises((FormatError, KeyMaterialError)):
                    SEALER.open(bytes(changed), context=b"list")


def test_each_region_fails_by_its_name() -> None:
    sealed = SEALER.seal(b"text", context=b"list")
    says = {
        "magic": "magic: expected", "version": "version: expected 1", "compression": "compression: expected 1",
        "number": "expected the next piece", "pieces": "expected at least 1, got 0", "text id": "authentication failed",
        "key": "sealed under the seal key", "size": "bytes after the header|too many|authentication failed",
        "nonce": "authentication failed",
    }  # fmt: skip
    for region, positions in REGIONS.items():
        changed = bytearray(sealed)
        changed[positions[-1]] ^= 1
        with pytest.raises((FormatError, KeyMaterialError), match=says[region]):
            SEALER.open(bytes(changed), context=b"list")


@given(st.data())
def test_a_changed_ciphertext_is_detected(data: st.DataObject) -> None:
    sealed = bytearray(SEALER.seal(b"some text of a list", context=b"list"))
    position = data.draw(st.integers(HEADER, len(sealed) - 1))
    sealed[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FormatError, match="authentication failed"):
        SEALER.open(bytes(sealed), context=b"list")


def test_every_cut_and_every_extension_is_detected() -> None:
    sealed = SEALER.seal(b"some text of a list", context=b"list")
    for end in range(len(sealed)):
        with pytest.raises(FormatError, match=r"cut|bytes after"):
            SEALER.open(sealed[:end], context=b"list")
    for tail in (b"\0", sealed):
        with pytest.raises(FormatError, match="too many"):
            SEALER.open(sealed + tail, context=b"list")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_text_or_a_named_error(data: bytes) -> None:
    for candidate in (data, b"BSEL\x01\x01" + data):
        with pytest.raises((FormatError, KeyMaterialError)):
            SEALER.open(candidate, context=b"list")


def test_pieces_cannot_be_dropped_repeated_reordered_or_mixed() -> None:
    text = long_text(3)
    pieces = SEALER.seal_pieces(text, context=b"list")
    others = SEALER.seal_pieces(text, context=b"list")
    assert len(pieces) == 3
    for wrong in (
        pieces[:2], pieces[1:], [pieces[0], pieces[2]], [pieces[0], pieces[0], pieces[1]], pieces[::-1],
        [pieces[0], others[1], pieces[2]], [pieces[0], pieces[1], others[2]], [*pieces, pieces[2]],
    ):  # fmt: skip
        with pytest.raises(FormatError):
            SEALER.open(b"".join(wrong), context=b"list")
    assert SEALER.open(b"".join(pieces), context=b"list") == text


def test_another_context_is_refused() -> None:
    sealed = SEALER.seal(b"text", context=b"one list")
    for context in (b"", b"one lis", b"one list ", b"other"):
        with pytest.raises(FormatError, match="another context"):
            SEALER.open(sealed, context=context)


def test_another_key_is_named_as_such() -> None:
    other = Sealer(bytes(32))
    with pytest.raises(KeyMaterialError, match=r"copy the deployment's seal\.key"):
        other.open(SEALER.seal(b"text", context=b""), context=b"")


def test_a_bomb_of_a_faulty_writer_is_refused() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(PIECE_BYTES + 1))
    header = bytearray(SEALER.seal(b"", context=b"")[:HEADER])
    header[38:42] = (len(bomb) + TAG).to_bytes(4, "big")
    sealed = bytes(header) + SEALER._aead.encrypt(bytes(header[42:54]), bomb, bytes(header))
    with pytest.raises(FormatError, match="clear text: expected at most"):
        SEALER.open(sealed, context=b"")


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(KeyMaterialError, match="expected 32 bytes"):
        Sealer(bytes(size))


def test_a_fingerprint_is_an_hmac_over_a_fixed_label() -> None:
    expected = hmac.new(KEY, b"blocker seal key fingerprint v1", hashlib.sha256).digest()[:16]
    assert fingerprint("seal", KEY) == expected.hex() == SEALER.fingerprint
    assert fingerprint("lookup", KEY) != fingerprint("seal", KEY)


async def test_a_redis_dump_shows_no_clear_text(server: RedisServer, store: Store) -> None:
    words = [b"hidden-host-of-a-list.example", b"/hidden-path-of-a-list", b"hidden-query=of-a-list"]
    plain = b"\n".join(b"http://" + words[0] + words[1] + b"?" + words[2] + b"&n=%d" % n for n in range(1000))
    pieces = SEALER.seal_pieces(plain, context=b"test")
    names = await store.put_blobs("sealed", pieces)
    await publish(store, "test", 1, [b"visible segment bytes"])
    assert b"".join([await store.get_blob("sealed", name) for name in names]) == b"".join(pieces)
    assert server.command("CONFIG", "SET", "rdbcompression", "no") == b"+OK\r\n"
    assert server.command("SAVE") == b"+OK\r\n"
    path = server.directory / "dump.rdb"
    dump = path.read_bytes()
    path.unlink()
    assert b"visible segment bytes" in dump
    fragments = {word[i : i + 8] for word in words for i in range(len(word) - 7)}
    for secret in (*fragments, KEY, KEY.hex().encode()):
        assert secret not in dump


def test_pairs_of_pieces_share_no_bytes_but_the_header() -> None:
    pieces = SEALER.seal_pieces(bytes(3 * PIECE_BYTES), context=b"")
    for one, two in pairwise(pieces):
        assert one[HEADER:] != two[HEADER:]
