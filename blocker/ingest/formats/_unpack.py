"""Unpacking a list that is kept packed: gzip (RFC 1952), zstd (RFC 8878), or a zip of one file (PKWARE APPNOTE).

Sans-IO and bounded: a few kilobytes can unpack to gigabytes, so output comes in pieces, whoever reads may stop at any
time, and more than the given size is an error. What ends before its own end mark, or fails its checksum, is refused.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final, Literal, Protocol

import zstandard

from blocker.errors import FormatError
from blocker.ingest._gzip import Gunzip

if TYPE_CHECKING:
    from collections.abc import Iterator

Compression = Literal["auto", "none", "gzip", "zstd", "zip"]

# As large as the pieces that a source is read in.
PIECE_BYTES: Final = 2**20
# No text begins with one of these.
_MAGIC: Final[dict[bytes, Compression]] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}
_LONGEST_MAGIC = max(map(len, _MAGIC))
# A zstd block of 4 bytes can hold 128 KiB, so this much input is at most 8 MiB.
_ZSTD_STEP = 256
# The window that `zstd` itself accepts unless told otherwise: 128 MiB.
_ZSTD_WINDOW = 2**27
# Central directory of one member and its end record: each has up to three fields of 64 KiB.
_MAX_ZIP_TAIL = 2**18
_LOCAL, _CENTRAL, _END = struct.Struct("<4s5H3I2H"), struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s4H2IH")
_STORED, _DEFLATED = 0, 8
_ENCRYPTED_FLAG, _DESCRIPTOR_FLAG = 1, 8
# What may stand between the data and the central directory: nothing, or crc and sizes with or without a signature.
_DESCRIPTORS = (0, 12, 16, 20, 24)


class _Stream(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]:
        """Unpack more input."""

    def complete(self) -> bool:
        """Whether the input may end here."""


class Unpacker:
    """Takes a file off its packing.

    Args:
        compression: The packing; `auto` looks at the first bytes.
        max_bytes: Largest size, unpacked.
    """

    def __init__(self, compression: Compression, max_bytes: int) -> None:
        self._compression = compression
        self._stream = None if compression == "auto" else _STREAMS[compression]()
        self._head = b""
        self._max_bytes = max_bytes
        self._size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Unpack more input, piece by piece.

        Raises:
            FormatError: It is damaged, not of that packing, or too large.
        """
        if self._stream is None:
            self._head += data
            if len(self._head) < _LONGEST_MAGIC:
                return
            data = self._choose()
        yield from self._bounded(data)

    def finish(self) -> Iterator[bytes]:
        """Unpack what was kept back.

        Raises:
            FormatError: The file was cut, is damaged, or holds nothing.
        """
        if self._stream is None:
            yield from self._bounded(self._choose())
        if self._stream is None or not self._stream.complete():
            raise FormatError(f"{self._compression} file was cut")
        if not self._size:
            raise FormatError("file is empty; a list without entries holds a comment")

    def _choose(self) -> bytes:
        found = (name for magic, name in _MAGIC.items() if self._head.startswith(magic))
        self._compression = next(found, "none")
        self._stream = _STREAMS[self._compression]()
        data, self._head = self._head, b""
        return data

    def _bounded(self, data: bytes) -> Iterator[bytes]:
        assert self._stream is not None  # noqa: S101 - chosen by the callers
        try:
            for piece in self._stream.feed(data):
                self._size += len(piece)
                if self._size > self._max_bytes:
                    raise FormatError(f"file is larger than max_bytes = {self._max_bytes} when it is unpacked")
                yield piece
        except (zlib.error, zstandard.ZstdError):
            raise FormatError(f"file is damaged, or is no {self._compression} file; see option compression") from None


class _Plain:
    def feed(self, data: bytes) -> Iterator[bytes]:
        if data:
            yield data

    def complete(self) -> bool:
        return True


class _Gzip:
    def __init__(self) -> None:
        self._gunzip = Gunzip()

    def feed(self, data: bytes) -> Iterator[bytes]:
        return self._gunzip.feed(data, PIECE_BYTES)

    def complete(self) -> bool:
        return self._gunzip.complete


class _Zstd:
    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._frame = self._decompressor.decompressobj()
        self._started = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        pieces: list[bytes] = []
        size = 0
        for at in range(0, len(data), _ZSTD_STEP):
            step = data[at : at + _ZSTD_STEP]
            while step:
                if self._frame.eof:
                    self._frame = self._decompressor.decompressobj()
                self._started = True
                piece = self._frame.decompress(step)
                step = self._frame.unused_data if self._frame.eof else b""
                pieces.append(piece)
                size += len(piece)
            if size >= PIECE_BYTES:
                yield b"".join(pieces)
                pieces, size = [], 0
        if size:
            yield b"".join(pieces)

    def complete(self) -> bool:
        return self._started and self._frame.eof


class _Zip:
    """One member, read from its local header on; the central directory behind it must say the same."""

    def __init__(self) -> None:
        self._buffer = b""
        self._in_tail = False
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._method: int | None = None
        self._left = 0
        self._crc = 0
        self._size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._method is None:
            self._buffer += data
            data = self._header()
        while data and not self._in_tail and self._method is not None:
            if self._method == _DEFLATED:
                piece = self._inflate.decompress(data, PIECE_BYTES)
                data = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
                self._in_tail = self._inflate.eof
            else:
                piece, data = data[: self._left], data[self._left :]
                self._left -= len(piece)
                self._in_tail = not self._left
            if piece:
                self._crc = zlib.crc32(piece, self._crc)
                self._size += len(piece)
                yield piece
        if self._in_tail:
            self._buffer += data
            if len(self._buffer) > _MAX_ZIP_TAIL:
                raise FormatError("zip file holds more than one file, or something behind it")

    def _header(self) -> bytes:
        """Read the local header if it is all there; returns what follows it."""
        if len(self._buffer) < _LOCAL.size:
            return b""
        magic, _version, flags, method, _time, _date, _crc, packed, _size, name, extra = _LOCAL.unpack_from(
            self._buffer
        )
        if magic != b"PK\x03\x04":
            raise FormatError("file is no zip file with one file in it; see option compression")
        if flags & _ENCRYPTED_FLAG or method not in (_STORED, _DEFLATED):
            raise FormatError("zip file is encrypted or packed in another way than deflate")
        if method == _STORED and (flags & _DESCRIPTOR_FLAG or packed == 0xFFFF_FFFF):
            raise FormatError("zip file does not say how long its file is")
        start = _LOCAL.size + name + extra
        if len(self._buffer) < start:
            return b""
        rest, self._buffer = self._buffer[start:], b""
        self._method, self._left = method, packed
        self._in_tail = method == _STORED and not packed
        return rest

    def complete(self) -> bool:
        tail = self._buffer
        at = next((at for at in _DESCRIPTORS if tail[at : at + 4] == b"PK\x01\x02"), None)
        if not self._in_tail or at is None or len(tail) < at + _CENTRAL.size:
            if any(tail[other : other + 4] == b"PK\x03\x04" for other in _DESCRIPTORS):
                raise FormatError("zip file holds more than one file")
            return False
        entry = _CENTRAL.unpack_from(tail, at)
        crc, size, variable = entry[7], entry[9], sum(entry[10:13])
        if crc != self._crc or size not in (self._size & 0xFFFF_FFFF, 0xFFFF_FFFF):
            raise FormatError("zip file is damaged: checksum or size is wrong")
        after = at + _CENTRAL.size + variable
        if tail[after : after + 4] == b"PK\x01\x02":
            raise FormatError("zip file holds more than one file")
        end = tail.find(b"PK\x05\x06", after)
        return end >= 0 and len(tail) >= end + _END.size


_STREAMS: Final[dict[Compression, type[_Stream]]] = {"none": _Plain, "gzip": _Gzip, "zstd": _Zstd, "zip": _Zip}
