"""Unpacking a gzip transfer in bounded steps (RFC 1952).

A few kilobytes can unpack to gigabytes, so each step asks for at most so much, and whoever reads may stop at any time.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# zlib's own sign for "expect a gzip header and check its trailer", with the largest window.
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class Gunzip:
    """A sans-IO reader of one gzip stream, which may have several members."""

    __slots__ = ("_member", "_started")

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP_WINDOW)
        self._started = False

    def feed(self, data: bytes, most: int) -> Iterator[bytes]:
        """Unpack more input, in pieces of 1 to `most` bytes.

        Raises:
            zlib.error: It is no gzip stream, or its checksum is wrong.
        """
        while data:
            if self._member.eof:
                self._member, self._started = zlib.decompressobj(_GZIP_WINDOW), False
            self._started = True
            if piece := self._member.decompress(data, most):
                yield piece
            data = self._member.unconsumed_tail or self._member.unused_data

    @property
    def complete(self) -> bool:
        """Whether the input may end here: after a whole member with its checksum."""
        return self._started and self._member.eof
