"""Opening a source: a file or an https address, as chunks of bytes that are the whole list or end in an error.

A download that is cut, empty, larger than the source allows (counted unpacked), too slow, or changed while it was read
is an error and never a shorter list. A source that did not change costs one round trip, or one look at a file's times.

Of a source with a `[verify]` table no byte is given on before the whole is verified. Until then it is kept in a
temporary file without a name, so that memory stays bounded, what was verified is what is parsed (a second download
could be another file), nobody else can open it, and nothing of it stays behind, whatever dies. It is at most
`max_bytes` long and lies in TMPDIR. What vouches for the list is read first, at each look: that costs one more round
trip, and a changed checksum or signature is seen even where the list's server says that nothing changed.

No message holds an address beyond the host's name, or a byte of the list.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import urlsplit

from blocker.errors import FetchError
from blocker.ingest._file import open_file
from blocker.ingest._http import open_url
from blocker.ingest._origin import CHUNK_BYTES, Origin, fault
from blocker.ingest.verify import Verifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from blocker.ingest.source import Source

# A signature has some 300 bytes; a checksum file of a large site some hundred lines. More is something else.
MAX_PROOF_BYTES = 65_536
# For a file so small; beside it the list has its own time.
PROOF_SECONDS = 30.0

_T = TypeVar("_T")

_DEFAULT_PORTS = {"https": 443, "http": 80}


class Download:
    """An open source that may have something new.

    Attributes:
        total: Bytes that will come, for a progress bar; None when that is not known before the end.
    """

    __slots__ = ("_digest", "_origin", "_source", "_spool", "_verifier", "total")

    def __init__(self, source: Source, origin: Origin, verifier: Verifier | None = None) -> None:
        self.total = origin.total
        self._source = source
        self._origin = origin
        self._verifier = verifier
        self._digest = hashlib.sha256()
        self._spool: BinaryIO | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file, in pieces of at most 1 MiB. It can be read once, and counts as whole only if this ends by itself.

        Raises:
            FetchError: It is cut, empty, too large, too slow, changed while it was read, or unverified; in the last
                case nothing was yielded.
        """
        size = 0
        chunks = self._origin.chunks if self._verifier is None else self._verified(self._verifier)
        async for chunk in chunks:
            size += len(chunk)
            self._bound(size)
            await asyncio.to_thread(self._digest.update, chunk)
            yield chunk
        if not size:
            raise self._empty()

    def state(self) -> dict[str, str]:
        """What to remember for the next look, once `chunks` has ended: validators and SHA-256 sums, no address."""
        proof = {} if self._verifier is None else {"proof": self._verifier.proof}
        return {**self._origin.state, **proof, "sha256": self._digest.hexdigest()}

    def close(self) -> None:
        """Let go of what was kept to be verified."""
        if self._spool is not None:
            with contextlib.suppress(OSError):  # a full disk, told before; it is closed all the same
                self._spool.close()

    async def _verified(self, verifier: Verifier) -> AsyncIterator[bytes]:
        """The same chunks, the first one only when the last one was read and the whole is verified."""
        size = 0
        spool = self._spool = await self._kept(_temporary_file)
        async for chunk in self._origin.chunks:
            size += len(chunk)
            self._bound(size)
            await self._kept(lambda chunk=chunk: spool.write(chunk))  # type: ignore[misc]
            await asyncio.to_thread(verifier.update, chunk)
        if not size:
            raise self._empty()
        await self._kept(spool.flush)
        await asyncio.to_thread(verifier.check, spool)
        await self._kept(lambda: spool.seek(0))
        while chunk := await self._kept(lambda: spool.read(CHUNK_BYTES)):
            yield chunk

    async def _kept(self, step: Callable[[], _T]) -> _T:
        try:
            return await asyncio.to_thread(step)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise fault(self._source, f"cannot be kept until it is verified: {why}; make room, or set TMPDIR") from None

    def _bound(self, size: int) -> None:
        if size > self._source.max_bytes:
            raise fault(self._source, f"larger than max_bytes = {self._source.max_bytes}")

    def _empty(self) -> FetchError:
        return fault(self._source, "empty; a list without entries holds a comment")


@contextlib.asynccontextmanager
async def open_source(source: Source, state: Mapping[str, str], *, now: float) -> AsyncIterator[Download | None]:
    """Open a source.

    Args:
        source: What to open.
        state: `Download.state` of the last successful look; empty to be given the file in any case.
        now: Unix time in seconds.

    Yields:
        The download, or None if the source says that nothing changed since `state`.

    Raises:
        FetchError: It cannot be opened, trusted, or does not answer with a list; or what vouches for it cannot be read.
    """
    verifier = await _verifier(source, now)
    if verifier is not None and state.get("proof") != verifier.proof:
        state = {}
    opened = open_url(source, state) if source.path is None else open_file(source, state, now=now)
    async with opened as origin:
        if origin is None:
            yield None
            return
        download = Download(source, origin, verifier)
        try:
            yield download
        finally:
            download.close()


async def _verifier(source: Source, now: float) -> Verifier | None:
    verification = source.verify
    if verification is None:
        return None
    files = {}
    for name in ("sha256", "signature"):
        for field in (f"{name}_url", f"{name}_path"):
            if getattr(verification, field) is not None:
                files[name] = await _proof(source, field, now)
    return Verifier(source, verification, files)


async def _proof(source: Source, field: str, now: float) -> bytes:
    """A checksum file or a signature, read as a small source of its own."""
    place = getattr(source.verify, field)
    address = field.endswith("_url")
    part = source.model_copy(
        update={
            "path": None if address else place,
            "url": place if address else None,
            "ca_file": source.ca_file if address else None,
            "credentials": source.credentials if address and _same_origin(source, place.get_secret_value()) else None,
            "verify": None,
            "max_bytes": MAX_PROOF_BYTES,
            "timeout_seconds": min(source.timeout_seconds, PROOF_SECONDS),
        }
    )
    try:
        async with open_source(part, {}, now=now) as download:
            assert download is not None  # noqa: S101 - without a state there is always one
            return b"".join([chunk async for chunk in download.chunks()])
    except FetchError as error:
        raise FetchError(f"{error}; the list is unverified without its verify.{field} and stays as it is") from None


def _same_origin(source: Source, address: str) -> bool:
    """Whether the source's credentials may be sent to this address too."""
    return source.url is not None and _origin_of(source.url.get_secret_value()) == _origin_of(address)


def _origin_of(address: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(address)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)


def _temporary_file() -> BinaryIO:
    """A file of mode 0600 that has no name, or loses it at once where the system cannot make one without."""
    return tempfile.TemporaryFile()
