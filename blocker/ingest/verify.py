"""Whether a list is what its authority made: a SHA-256, a detached Ed25519 signature, or a minisign signature.

    [verify]
    minisign_key = "RWQ..."                  # second line of minisign.pub
    signature_url = "https://lists.example/urls.txt.minisig"

A checksum from the place of the list shows a damaged download and no forged one; a signature shows both. Neither shows
that a list is the newest: an older one with its own signature passes. What is checked is the file as it is read, after
the transfer's own packing is taken off. No bytes are given on before all checks of them passed; see fetch.py.

An Ed25519 signature (RFC 8032, the plain scheme) is 64 bytes, as they are or in base64. A minisign signature is four
lines (https://jedisct1.github.io/minisign/, section "Signature format"; each line ends in LF or CR LF):

    1  "untrusted comment: ", any text                not protected by anything
    2  base64 of 74 bytes
         0-1    "ED": of the file's BLAKE2b-512; "Ed": of the file itself, the legacy form
         2-9    key id, the same as in the public key
         10-73  Ed25519 signature
    3  "trusted comment: ", any text
    4  base64 of 64 bytes: Ed25519 signature of bytes 10-73 of line 2 and of line 3's text

A minisign public key is base64 of 42 bytes: "Ed", key id (8), Ed25519 public key (32). Plain Ed25519 and "Ed" need the
whole file at once, which is mapped and not loaded; "ED" is hashed while the file is read and is the one to prefer.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import mmap
import re
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self
from urllib.parse import unquote, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator

from blocker.ingest._origin import check_address, fault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocker.errors import FetchError
    from blocker.ingest.source import Source

_PUBLIC_BYTES, _SIGNATURE_BYTES, _KEY_ID_BYTES = 32, 64, 8
_LEGACY, _PREHASHED = b"Ed", b"ED"
_UNTRUSTED, _TRUSTED = b"untrusted comment: ", b"trusted comment: "

# What sha256sum prints (and, with --tag, BSD systems); the name may be left out.
_SUM_LINE = re.compile(r"\\?([0-9a-fA-F]{64})(?:[ \t]+\*?(\S.*))?")
_TAG_LINE = re.compile(r"SHA256 \((.+)\) = ([0-9a-fA-F]{64})")


class PublicKey(NamedTuple):
    """A public key; without an id if it is none of minisign's."""

    public: bytes
    key_id: bytes | None = None

    @classmethod
    def of_ed25519(cls, text: str) -> Self:
        """From base64 of the 32 bytes; raises `ValueError`."""
        return cls(_public(_decoded(text.encode(), _PUBLIC_BYTES, "the public key")))

    @classmethod
    def of_minisign(cls, text: str) -> Self:
        """From the second line of `minisign.pub`; raises `ValueError`."""
        size = len(_LEGACY) + _KEY_ID_BYTES + _PUBLIC_BYTES
        data = _decoded(text.encode(), size, "the public key, the second line of minisign.pub")
        if data[:2] != _LEGACY:
            raise ValueError("is no minisign public key: expected Ed at its beginning")
        return cls(_public(data[10:]), data[2:10])

    def signed(self, signature: bytes, message: bytes | memoryview) -> bool:
        """Whether this key made the signature of the message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature:
            return False
        return True


class Verification(BaseModel):
    """The `[verify]` table of a source."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    sha256: str | None = Field(None, pattern=r"^[0-9a-fA-F]{64}$", description="SHA-256 of the list's file, in hex.")
    sha256_url: SecretStr | None = Field(None, max_length=8192, description="https address of a checksum file.")
    sha256_path: Path | None = Field(None, description="A checksum file, as sha256sum writes it.")
    ed25519_key: str | None = Field(None, description="Ed25519 public key, base64 of 32 bytes.")
    minisign_key: str | None = Field(None, description="minisign public key, the second line of minisign.pub.")
    signature_url: SecretStr | None = Field(None, max_length=8192, description="https address of the signature.")
    signature_path: Path | None = Field(None, description="File of the signature.")

    @field_validator("sha256_path", "signature_path")
    @classmethod
    def _from_directory(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return None if value is None else (info.context or {}).get("directory", Path()) / value

    @field_validator("sha256_url", "signature_url")
    @classmethod
    def _safe_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_address(value.get_secret_value())
            if "@" in urlsplit(value.get_secret_value()).netloc:
                raise ValueError("must hold no user or password; the server of url is sent the source's credentials")
        return value

    @field_validator("ed25519_key")
    @classmethod
    def _an_ed25519_key(cls, value: str | None) -> str | None:
        if value is not None:
            PublicKey.of_ed25519(value)
        return value

    @field_validator("minisign_key")
    @classmethod
    def _a_minisign_key(cls, value: str | None) -> str | None:
        if value is not None:
            PublicKey.of_minisign(value)
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        def given(*names: str) -> int:
            return sum(getattr(self, name) is not None for name in names)

        sums, keys = given("sha256", "sha256_url", "sha256_path"), given("ed25519_key", "minisign_key")
        if not sums and not keys and not given("signature_url", "signature_path"):
            raise ValueError("the table is empty; give a sha256 or a key")
        if sums > 1:
            raise ValueError("only one of sha256, sha256_url and sha256_path may be given")
        if keys > 1:
            raise ValueError("only one of ed25519_key and minisign_key may be given")
        if given("signature_url", "signature_path") != keys:
            raise ValueError("a key needs exactly one of signature_url and signature_path, and these need a key")
        return self

    @property
    def key(self) -> PublicKey | None:
        """The key that must have signed."""
        if self.minisign_key is not None:
            return PublicKey.of_minisign(self.minisign_key)
        return None if self.ed25519_key is None else PublicKey.of_ed25519(self.ed25519_key)

    def fingerprint(self) -> dict[str, str | None]:
        """What is said here, for `Source.fingerprint`: with another key or place the list is read again."""
        addresses = {"sha256_url": self.sha256_url, "signature_url": self.signature_url}
        hidden = {name: None if value is None else value.get_secret_value() for name, value in addresses.items()}
        return {**self.model_dump(mode="json"), **hidden}


class Verifier:
    """The checks of one download: made of what vouches for it, fed with it, asked once at its end.

    Attributes:
        proof: SHA-256 in hex of what was read to vouch for the list. If it is another than at the last look, the list
            is read again, even if its server says that it did not change.

    Raises:
        FetchError: The checksum file or the signature is malformed, of another key, or its comment is forged.
    """

    __slots__ = ("_blake2b", "_key", "_sha256", "_signature", "_source", "_sum", "proof")

    def __init__(self, source: Source, verification: Verification, files: Mapping[str, bytes]) -> None:
        """`files` holds the checksum file as `sha256` and the signature as `signature`, where these are files."""
        self._source = source
        parts = [name.encode() + len(data).to_bytes(8, "big") + data for name, data in sorted(files.items())]
        self.proof = hashlib.sha256(b"".join(parts)).hexdigest()
        self._sha256 = hashlib.sha256()
        self._key = verification.key
        self._signature, prehashed = b"", False
        try:
            self._sum = verification.sha256 and verification.sha256.lower()
            if "sha256" in files:
                self._sum = _listed_sum(files["sha256"], _file_name(source))
            if self._key is not None and self._key.key_id is not None:
                self._signature, prehashed = _minisign_signature(files["signature"], self._key)
            elif self._key is not None:
                self._signature = _plain_signature(files["signature"])
        except ValueError as error:
            raise self._fault(str(error)) from None
        self._blake2b = hashlib.blake2b(digest_size=64) if prehashed else None

    def update(self, chunk: bytes) -> None:
        """Take in the next bytes of the file."""
        self._sha256.update(chunk)
        if self._blake2b is not None:
            self._blake2b.update(chunk)

    def check(self, file: BinaryIO) -> None:
        """Check the whole; `file` is a real file with just the bytes taken in, at least one.

        Raises:
            FetchError: It is not what was vouched for.
        """
        if self._sum is not None and self._sha256.hexdigest() != self._sum:
            raise self._fault("the list's SHA-256 is not the expected one")
        if self._key is None:
            return
        if self._blake2b is not None:
            good = self._key.signed(self._signature, self._blake2b.digest())
        else:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as message:
                good = self._key.signed(self._signature, message)
        if not good:
            raise self._fault("the signature is not one of this list by this key")

    def _fault(self, what: str) -> FetchError:
        return fault(self._source, f"unverified: {what}; the list stays as it is")


def _minisign_signature(data: bytes, key: PublicKey) -> tuple[bytes, bool]:
    """The signature, and whether it is of the file's BLAKE2b-512, once its key and its comment are the key's own."""
    lines = [line.removesuffix(b"\r") for line in data.removesuffix(b"\n").split(b"\n")]
    if len(lines) != 4:
        raise ValueError(f"no minisign signature: expected 4 lines, got {len(lines)}")
    if not lines[0].startswith(_UNTRUSTED) or not lines[2].startswith(_TRUSTED):
        raise ValueError("no minisign signature: expected an untrusted comment in line 1 and a trusted one in line 3")
    size = len(_PREHASHED) + _KEY_ID_BYTES + _SIGNATURE_BYTES
    record = _decoded(lines[1], size, "algorithm, key id and signature in line 2")
    algorithm, key_id, signature = record[:2], record[2:10], record[10:]
    if algorithm not in (_LEGACY, _PREHASHED):
        raise ValueError("minisign signature of an unknown algorithm: expected ED or Ed")
    if key_id != key.key_id:
        raise ValueError(f"signed by another key: expected key id {_shown(key.key_id)}, got {_shown(key_id)}")
    vouched = _decoded(lines[3], _SIGNATURE_BYTES, "the global signature in line 4")
    if not key.signed(vouched, signature + lines[2].removeprefix(_TRUSTED)):
        raise ValueError("the minisign signature's trusted comment is forged or damaged")
    return signature, algorithm == _PREHASHED


def _plain_signature(data: bytes) -> bytes:
    return data if len(data) == _SIGNATURE_BYTES else _decoded(data.strip(), _SIGNATURE_BYTES, "an Ed25519 signature")


def _listed_sum(data: bytes, name: str) -> str:
    """The one checksum of the file, or that of the list's name if there are several."""
    found: set[tuple[str, str]] = set()
    for line in data.decode("utf-8", "replace").splitlines():
        if match := _SUM_LINE.fullmatch(line.strip()):
            found.add((match[1].lower(), (match[2] or "").rpartition("/")[2]))
        elif match := _TAG_LINE.fullmatch(line.strip()):
            found.add((match[2].lower(), match[1].rpartition("/")[2]))
    sums = {checksum for checksum, _named in found}
    if len(sums) > 1:
        sums = {checksum for checksum, named in found if named == name}
    if len(sums) != 1:
        raise ValueError("the checksum file holds no SHA-256, or several and not just one with the list's file name")
    return sums.pop()


def _file_name(source: Source) -> str:
    if source.url is None:
        return source.path.name if source.path is not None else ""
    return unquote(urlsplit(source.url.get_secret_value()).path).rpartition("/")[2]


def _decoded(text: bytes, size: int, what: str) -> bytes:
    """Base64 in its one canonical form, of so many bytes."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != size or base64.b64encode(data) != text:
        raise ValueError(f"expected base64 of {size} bytes: {what}")
    return data


def _public(data: bytes) -> bytes:
    if not any(data):  # what a placeholder decodes to: it vouches for what anybody signs
        raise ValueError("is all zeros; expected the authority's public key")
    return data


def _shown(key_id: bytes | None) -> str:
    """As minisign prints it."""
    return f"{int.from_bytes(key_id or b'', 'little'):016X}"
