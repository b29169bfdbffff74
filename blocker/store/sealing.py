"""The deployment's two keys, and the sealing of clear text for Redis.

The **lookup key** (SipHash, 16 bytes) makes node ids; every node needs it. The **seal key** (AES-256-GCM, 32 bytes)
opens the clear text of the lists; only nodes that publish, diff or export need it. Without them a Redis dump shows
sizes, counts, list names and dates, and no URL.

A sealed text is one piece after another, each at most 4 MiB of clear text, so that a piece fits a Redis value and what
one piece costs in memory is known before it is opened. A piece, integers big-endian:

1. bytes 0-3: magic, `BSEL`
2. byte 4: version, 1
3. byte 5: compression, 1 = one zstd frame
4. bytes 6-9: number of this piece, from 0
5. bytes 10-13: number of pieces, at least 1
6. bytes 14-29: text id, random, the same in all pieces of one text
7. bytes 30-37: first 8 bytes of the seal key's fingerprint
8. bytes 38-41: bytes in 10 and 11 together
9. bytes 42-53: nonce, 96 random bits
10. ciphertext of the compressed text (AES-256-GCM)
11. last 16 bytes: tag

Bytes 0-53 and the caller's context are authenticated with the ciphertext: a piece that was changed, cut, reordered,
taken from another text or opened in another context is refused. Random nonces are safe for 2³² pieces under one key
(NIST SP 800-38D section 8.3). Compression comes first, so a text's length shows how well it compresses: that is as
little as the number of entries shows, and nobody can choose part of a list to learn the rest of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import stat
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from blocker.errors import FormatError, KeyMaterialError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOOKUP_KEY_BYTES = 16
SEAL_KEY_BYTES = 32
LOOKUP_FILE = "lookup.key"
SEAL_FILE = "seal.key"

# Clear text of one piece: a Redis value of some MiB passes in one read and blocks neither side for long.
PIECE_BYTES = 4 * 2**20
# zstd's own default: on URL lists higher levels cost several times the time for a few percent.
ZSTD_LEVEL = 3

_MAGIC = b"BSEL"
_VERSION = 1
_ZSTD = 1
_HEADER = struct.Struct(">4sBBII16s8sI12s")
_TAG_BYTES = 16
_FINGERPRINT_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The keys this process holds. Its text form shows fingerprints only.

    Attributes:
        lookup: The 16-byte lookup key.
        seal: The 32-byte seal key; None on a node that only decides.
    """

    lookup: bytes = field(repr=False)
    seal: bytes | None = field(repr=False, default=None)

    @classmethod
    def load_or_create(cls, directory: Path, *, create: bool) -> Keyring:
        """Read `lookup.key` and, if it is there, `seal.key`.

        Processes that start at once agree: a key file appears whole or not at all and is never replaced, and the lookup
        key is made last, so whoever sees it sees the seal key too.

        Args:
            directory: The directory of the key files, `keys` inside the data directory. A mounted secret works.
            create: Make both keys where there is no lookup key, in a directory of mode 0700, files of mode 0600. A
                directory that holds a lookup key alone is a decision node's and gets no seal key.

        Raises:
            KeyMaterialError: A key is missing, malformed or readable by others, or cannot be read or written; names the
                file and the remedy.

        Blocks for some file reads; creation also waits for the disk.
        """
        lookup_file, seal_file = directory / LOOKUP_FILE, directory / SEAL_FILE
        with _named_in_errors(directory):
            if create and not lookup_file.exists():
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                _create(seal_file, SEAL_KEY_BYTES)
                _create(lookup_file, LOOKUP_KEY_BYTES)
            _refuse_open_directory(directory)
            lookup = _read(lookup_file, LOOKUP_KEY_BYTES)
            seal = _read(seal_file, SEAL_KEY_BYTES) if seal_file.exists() else None
        return cls(lookup=lookup, seal=seal)

    @property
    def lookup_fingerprint(self) -> str:
        """16 bytes in hex that name the lookup key and tell nothing of it."""
        return fingerprint("lookup", self.lookup)

    @property
    def seal_fingerprint(self) -> str | None:
        """16 bytes in hex that name the seal key and tell nothing of it; None without one."""
        return None if self.seal is None else fingerprint("seal", self.seal)

    def __str__(self) -> str:
        return f"lookup {self.lookup_fingerprint}, seal {self.seal_fingerprint or 'none'}"


class Sealer:
    """Seals and opens texts under one seal key. Safe to use from several threads.

    Raises:
        KeyMaterialError: The key is not 32 bytes.
    """

    __slots__ = ("_aead", "_key_id", "fingerprint")

    def __init__(self, seal_key: bytes) -> None:
        if len(seal_key) != SEAL_KEY_BYTES:
            raise KeyMaterialError(f"seal key: expected {SEAL_KEY_BYTES} bytes, got {len(seal_key)}")
        self._aead = AESGCM(seal_key)
        self.fingerprint = fingerprint("seal", seal_key)
        self._key_id = bytes.fromhex(self.fingerprint)[:8]

    def seal(self, plain: bytes, *, context: bytes) -> bytes:
        """Compress and encrypt a text.

        Args:
            plain: The clear text, of any length.
            context: What the text is for, such as a list's name; `open` needs the same. It is not stored.

        Cost: about 7 ms a MiB of list text (opening: 3 ms), most of it without the GIL; run large texts in a thread.
        """
        return b"".join(self.seal_pieces(plain, context=context))

    def seal_pieces(self, plain: bytes, *, context: bytes) -> list[bytes]:
        """As `seal`, one item for each piece of at most 4 MiB clear text, in order: the blobs to upload."""
        view = memoryview(plain)
        parts = [view[start : start + PIECE_BYTES] for start in range(0, len(view), PIECE_BYTES)] or [view]
        compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_content_size=True)
        text_id = secrets.token_bytes(16)
        pieces: list[bytes] = []
        for number, part in enumerate(parts):
            packed = compressor.compress(part)
            nonce = secrets.token_bytes(12)
            header = _HEADER.pack(
                _MAGIC, _VERSION, _ZSTD, number, len(parts), text_id, self._key_id, len(packed) + _TAG_BYTES, nonce
            )
            pieces.append(header + self._aead.encrypt(nonce, packed, header + context))
        return pieces

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """The clear text of what `seal` returned, or of the joined items of `seal_pieces`.

        Raises:
            FormatError: It was changed, cut, reordered or extended, is of another version, or belongs to another
                context; names the piece and the part.
            KeyMaterialError: It was sealed under another key.
        """
        view = memoryview(sealed)
        texts: list[bytes] = []
        number, total, text_id = 0, 1, b""
        while number < total:
            part = f"sealed text, piece {number + 1}"
            header, body, view = self._take(part, view)
            _, _, _, found, pieces, found_id, _, _, nonce = _HEADER.unpack(header)
            if number == 0:
                total, text_id = pieces, found_id
            if found != number or pieces != total or found_id != text_id:
                raise FormatError(f"{part} of {total}: expected the next piece of the same text, got another one")
            try:
                packed = self._aead.decrypt(nonce, body, bytes(header) + context)
            except InvalidTag:
                raise FormatError(
                    f"{part} of {total}: authentication failed: it was changed, or sealed in another context; "
                    "publish the list again"
                ) from None
            texts.append(_decompressed(part, packed))
            number += 1
        if view.nbytes:
            raise FormatError(f"sealed text: {view.nbytes} bytes too many after the last of {total} pieces")
        return b"".join(texts)

    def _take(self, part: str, view: memoryview) -> tuple[memoryview, memoryview, memoryview]:
        """Header, body and the rest, with everything checked that needs no key."""
        if view.nbytes < _HEADER.size:
            raise FormatError(f"{part}: expected a header of {_HEADER.size} bytes, got {view.nbytes}; it was cut")
        header = view[: _HEADER.size]
        magic, version, compression, _, pieces, _, key_id, size, _ = _HEADER.unpack(header)
        if magic != _MAGIC:
            raise FormatError(f"{part}: magic: expected {_MAGIC.hex()}, got {magic.hex()}; this is no sealed text")
        if version != _VERSION:
            raise FormatError(f"{part}: version: expected {_VERSION}, got {version}; upgrade this node")
        if compression != _ZSTD:
            raise FormatError(f"{part}: compression: expected {_ZSTD} (zstd), got {compression}; upgrade this node")
        if pieces == 0:
            raise FormatError(f"{part}: number of pieces: expected at least 1, got 0")
        if key_id != self._key_id:
            raise KeyMaterialError(
                f"{part}: sealed under the seal key {key_id.hex()}…, this node holds {self._key_id.hex()}…; "
                f"copy the deployment's {SEAL_FILE} to this node"
            )
        if not _TAG_BYTES <= size <= view.nbytes - _HEADER.size:
            raise FormatError(f"{part}: expected {size} bytes after the header, got {view.nbytes - _HEADER.size}")
        end = _HEADER.size + size
        return header, view[_HEADER.size : end], view[end:]


def fingerprint(label: str, key: bytes) -> str:
    """Name of a key: 16 bytes in hex of HMAC-SHA256 under it over a fixed label."""
    message = f"blocker {label} key fingerprint v1".encode()
    return hmac.digest(key, message, hashlib.sha256)[:_FINGERPRINT_BYTES].hex()


def _decompressed(part: str, packed: bytes) -> bytes:
    # Only a holder of the key can get here with a bad frame; the bound still holds against a faulty writer.
    try:
        size = zstandard.frame_content_size(packed)
        if not 0 <= size <= PIECE_BYTES:
            raise FormatError(f"{part}: clear text: expected at most {PIECE_BYTES} bytes, got {size}")
        return zstandard.ZstdDecompressor().decompress(packed, max_output_size=PIECE_BYTES)
    except zstandard.ZstdError:
        raise FormatError(f"{part}: not one zstd frame; publish the list again") from None


def _create(path: Path, size: int) -> None:
    """Make a key file unless it exists: written aside, flushed, then linked, so that nobody ever reads half of it."""
    if path.exists():
        return
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(size).hex().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first: its key is the key
            os.link(aside, path)
    finally:
        aside.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _read(path: Path, size: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise KeyMaterialError(
            f"{path}: there is no such key file; copy the deployment's key files there with mode 0600"
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise KeyMaterialError(f"{path}: is no regular file; restore it from the deployment's backup")
    with os.fdopen(descriptor, "rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise KeyMaterialError(f"{path}: mode {mode:04o} lets others at the key; run chmod 600 {path}")
        text = file.read(2 * size + 2)  # one byte more than a good file has
    if not re.fullmatch(rb"[0-9a-fA-F]{%d}\n" % (2 * size), text):
        raise KeyMaterialError(
            f"{path}: expected {2 * size} hex digits and a newline; restore the file from the deployment's backup"
        )
    return bytes.fromhex(text.decode())


def _refuse_open_directory(directory: Path) -> None:
    mode = stat.S_IMODE(directory.stat().st_mode) if directory.exists() else 0
    if mode & 0o022:
        raise KeyMaterialError(f"{directory}: mode {mode:04o} lets others replace keys; run chmod 700 {directory}")


@contextlib.contextmanager
def _named_in_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KeyMaterialError(
            f"{error.filename or directory}: cannot be read or made ({error.strerror}); "
            "give this user the directory, or set data_dir to one it can write"
        ) from None
