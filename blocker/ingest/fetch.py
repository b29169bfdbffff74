"""Opening a source: a file or an https address, as chunks of bytes that are the whole list or end in an error.

A download that is cut, empty, larger than the source allows (counted unpacked), too slow, or changed while it was read
is an error and never a shorter list. A source that did not change costs one round trip, or one look at a file's times.

No message holds an address beyond the host's name, or a byte of the list.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING

from blocker.ingest._file import open_file
from blocker.ingest._http import open_url
from blocker.ingest._origin import Origin, fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from blocker.ingest.source import Source


class Download:
    """An open source that may have something new.

    Attributes:
        total: Bytes that will come, for a progress bar; None when that is not known before the end.
    """

    __slots__ = ("_digest", "_origin", "_source", "total")

    def __init__(self, source: Source, origin: Origin) -> None:
        self.total = origin.total
        self._source = source
        self._origin = origin
        self._digest = hashlib.sha256()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file, in pieces of at most 1 MiB. It can be read once, and counts as whole only if this ends by itself.

        Raises:
            FetchError: It is cut, empty, too large, too slow, or changed while it was read.
        """
        size = 0
        async for chunk in self._origin.chunks:
            size += len(chunk)
            if size > self._source.max_bytes:
                raise fault(self._source, f"larger than max_bytes = {self._source.max_bytes}")
            await asyncio.to_thread(self._digest.update, chunk)
            yield chunk
        if not size:
            raise fault(self._source, "empty; a list without entries holds a comment")

    def state(self) -> dict[str, str]:
        """What to remember for the next look, once `chunks` has ended: validators and the SHA-256, no address."""
        return {**self._origin.state, "sha256": self._digest.hexdigest()}


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
        FetchError: It cannot be opened, trusted, or does not answer with a list.
    """
    opened = open_url(source, state) if source.path is None else open_file(source, state, now=now)
    async with opened as origin:
        yield None if origin is None else Download(source, origin)
