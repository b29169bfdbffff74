"""A source that is a file on this machine.

An unchanged file is known by its device, inode, size and times, unless it is so young that its times prove nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from blocker.ingest._origin import CHUNK_BYTES, Deadline, Origin, fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from blocker.ingest.source import Source

# Within the coarsest usual resolution of file times (2 s on FAT, 1 s on old NFS) a second change may leave no trace.
SETTLED_SECONDS = 2.0


@contextlib.asynccontextmanager
async def open_file(source: Source, state: Mapping[str, str], *, now: float) -> AsyncIterator[Origin | None]:
    """Open `source.path`; yields None if it is the file that `state` was made of.

    Raises:
        FetchError: It cannot be read, is no regular file, or is larger than `max_bytes`.
    """
    deadline = Deadline(source)
    file = await deadline.wait(asyncio.to_thread(_open, source))
    try:
        status = os.fstat(file.fileno())
        stamp = _stamp(status)
        if stamp == state.get("stamp"):
            yield None
            return
        if status.st_size > source.max_bytes:
            raise fault(source, f"file has {status.st_size} bytes, more than max_bytes = {source.max_bytes}")
        settled = now - max(status.st_mtime, status.st_ctime) >= SETTLED_SECONDS
        yield Origin(status.st_size, {"stamp": stamp} if settled else {}, _chunks(source, file, status, deadline))
    finally:
        file.close()


def _open(source: Source) -> BinaryIO:
    assert source.path is not None  # noqa: S101 - fetch.py chose this module by it
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for its writer for ever.
        descriptor = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unreadable(source, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise fault(source, "path is no regular file")
    return os.fdopen(descriptor, "rb", buffering=0)


async def _chunks(source: Source, file: BinaryIO, before: os.stat_result, deadline: Deadline) -> AsyncIterator[bytes]:
    done = 0
    while done <= before.st_size and (chunk := await deadline.wait(asyncio.to_thread(_read, source, file))):
        done += len(chunk)
        yield chunk
    after = os.fstat(file.fileno())
    # A rename over this file changes its status time and not its contents: what was read is then the old file, whole.
    if done != before.st_size or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise fault(source, "file changed while it was read; write it aside and rename it into place")


def _read(source: Source, file: BinaryIO) -> bytes:
    try:
        return file.read(CHUNK_BYTES)
    except OSError as error:
        raise _unreadable(source, error) from None


def _stamp(status: os.stat_result) -> str:
    parts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return ":".join(map(str, parts))


def _unreadable(source: Source, error: OSError) -> Exception:
    return fault(source, f"file cannot be read: {error.strerror or type(error).__name__}")
