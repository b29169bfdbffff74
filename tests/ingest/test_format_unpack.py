"""Packed lists: each packing in any split, cuts at every byte, damage, bombs."""

from __future__ import annotations

import gzip
import io
import zipfile
from typing import TYPE_CHECKING

import pytest
import zstandard

from blocker.errors import FormatError
from blocker.ingest.formats._unpack import Compression, Unpacker
from tests.ingest.checks import assert_whole, look

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring
    from tests.ingest.conftest import MakeSource

TEXT = "".join(f"http://site{number}.example/page\n" for number in range(200)).encode()


def zipped(*texts: bytes, method: int = zipfile.ZIP_DEFLATED, streamed: bool = False) -> bytes:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return not streamed

        def seek(self, *position: int) -> int:
            if streamed:
                raise OSError
            return super().seek(*position)

        def tell(self) -> int:
            if streamed:
                raise OSError
            return super().tell()

    target = Pipe()
    with zipfile.ZipFile(target, "w", method) as archive:
        for number, text in enumerate(texts):
            archive.writestr(f"list{number}.txt", text)
    return target.getvalue()


PACKED: dict[str, tuple[Compression, bytes]] = {
    "gzip": ("gzip", gzip.compress(TEXT, mtime=0)),
    "gzip of two members": ("gzip", gzip.compress(TEXT[:100], mtime=0) + gzip.compress(TEXT[100:], mtime=0)),
    "zstd": ("zstd", zstandard.ZstdCompressor(write_checksum=True).compress(TEXT)),
    "zstd of two frames": ("zstd", zstandard.compress(TEXT[:100]) + zstandard.compress(TEXT[100:])),
    "zip": ("zip", zipped(TEXT)),
    "zip, stored": ("zip", zipped(TEXT, method=zipfile.ZIP_STORED)),
    "zip, written to a pipe": ("zip", zipped(TEXT, streamed=True)),
}


def unpack(pieces: Iterable[bytes], compression: Compression = "auto", max_bytes: int = 2**20) -> bytes:
    unpacker = Unpacker(compression, max_bytes)
    found = [piece for data in pieces for piece in unpacker.feed(data)]
    return b"".join([*found, *unpacker.finish()])


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_file_reads_the_same_in_any_split(name: str) -> None:
    compression, data = PACKED[name]
    assert unpack([data]) == unpack([data], compression) == TEXT
    assert unpack(data[at : at + 1] for at in range(len(data))) == TEXT
    assert unpack([data[:3], b"", data[3:90], data[90:]]) == TEXT


@pytest.mark.parametrize("name", PACKED)
def test_a_cut_is_refused_wherever_it_is(name: str) -> None:
    compression, data = PACKED[name]
    ends = {"gzip of two members": len(gzip.compress(TEXT[:100], mtime=0)),
            "zstd of two frames": len(zstandard.compress(TEXT[:100]))}  # fmt: skip
    for cut in range(len(data)):
        if cut != ends.get(name):
            with pytest.raises(FormatError):
                unpack([data[:cut]], compression)


@pytest.mark.parametrize("name", ["gzip", "zstd", "zip", "zip, stored"])
def test_damage_is_refused(name: str) -> None:
    compression, data = PACKED[name]
    at = len(data) // 2 if compression != "zip" else 60
    with pytest.raises(FormatError):
        unpack([data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]], compression)
    with pytest.raises(FormatError):
        unpack([TEXT], compression)


@pytest.mark.parametrize("text", [b"a", b"PK", TEXT, b"\x1f"])
def test_what_is_not_packed_is_left_alone(text: bytes) -> None:
    assert unpack([text]) == unpack([text], "none") == text
    assert unpack(text[at : at + 1] for at in range(len(text))) == text


@pytest.mark.parametrize("packed", [zipped(TEXT, TEXT), zipped(b"", TEXT), zipped(TEXT, b"x" * 2**20, streamed=True)])
def test_a_zip_of_several_files_is_refused(packed: bytes) -> None:
    with pytest.raises(FormatError):
        unpack([packed])


@pytest.mark.parametrize("packed", [gzip.compress(b"", mtime=0), zstandard.compress(b""), zipped(b""), b""])
def test_a_file_of_nothing_is_refused(packed: bytes) -> None:
    with pytest.raises(FormatError, match="empty"):
        unpack([packed])


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, zipped])
def test_a_bomb_is_stopped_at_the_limit(pack: object) -> None:
    bomb = pack(bytes(2**28))  # type: ignore[operator]
    unpacker = Unpacker("auto", 2**22)
    sizes: list[int] = []
    with pytest.raises(FormatError, match="larger than max_bytes = 4194304"):
        sizes.extend(map(len, unpacker.feed(bomb)))
    assert sum(sizes) <= 2**22


@pytest.mark.parametrize("name", PACKED)
async def test_a_packed_list_is_pulled(name: str, file_source: MakeSource, store: Store, keyring: Keyring) -> None:
    compression, data = PACKED[name]
    for option in ("auto", compression):
        result = await look(file_source(data, compression=option), store, keyring)
        assert (result.good, result.bad) == (True, 0)
    assert len(await assert_whole(store, keyring, "file")) == 200
    cut = await look(file_source(data[:-9]), store, keyring)
    assert (cut.status, cut.serial) == ("refused", 1)
    large = await look(file_source(data, max_bytes=len(TEXT) - 1), store, keyring)
    assert not large.good
