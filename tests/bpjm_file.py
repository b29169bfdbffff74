"""Makes files of the `bpjm` format from clear text, with hashlib and zlib alone; run it to write the sample anew."""

from __future__ import annotations

import zlib
from hashlib import md5
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SAMPLE = Path(__file__).parents[1] / "lists" / "formats" / "sample-bpjm.data"
# Host without www., path without its first slash; an empty path is the whole host.
SAMPLE_ENTRIES = (
    ("hashed.example", ""),
    ("pages.example", "gallery/secret/"),
    ("pages.example", "a/b.jpg"),
    ("pages.example", "view?id=7"),
)


def digest(text: str) -> str:
    """MD5 in hexadecimal."""
    return md5(text.encode(), usedforsecurity=False).hexdigest()


def record(host: str, path: str) -> bytes:
    """One record; the depth counts the slashes of the path."""
    return bytes.fromhex(digest(host) + digest(path)) + bytes([path.count("/")])


def bpjm_file(entries: Iterable[tuple[str, str]], name: str = "sample") -> bytes:
    """A whole file."""
    rest = b"\x01" + name.encode().ljust(59, b"\0") + b"".join(record(host, path) for host, path in entries)
    return zlib.crc32(rest).to_bytes(4, "big") + rest


if __name__ == "__main__":
    SAMPLE.write_bytes(bpjm_file(SAMPLE_ENTRIES))
