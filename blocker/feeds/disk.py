"""Files that are there whole or as they were before, and that nobody else can read."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Put a file in the place of another: written beside it, synced, renamed. Blocks: for a thread.

    Raises:
        OSError: It cannot be written; the old one stays, and nothing else is left behind.
    """
    partial = path.with_name(f".{path.name}.partial")
    with contextlib.suppress(FileNotFoundError):
        partial.unlink()
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:  # also an interrupt: nothing half written stays
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
