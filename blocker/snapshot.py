"""A node's copy on disk: the table it enforced last, and the segments that table was made of.

Layout of the directory, mode 0700, each file written under another name, synced and renamed:

- `table`: the node table, memory-mapped at the next start, so that a node answers before it has seen Redis
- `segments/<sha256>`: segments by name, so that a small change fetches a small segment

Every file is ids under the lookup key; none holds a URL. Calls block on the disk: use a thread.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

from blocker import _native

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_NAME = re.compile(r"[0-9a-f]{64}")


class Snapshot:
    """The files of one node. One process at a time writes; any number may map the table."""

    def __init__(self, directory: Path, lookup_key: bytes) -> None:
        self._directory = directory
        self._segments = directory / "segments"
        self._lookup_key = lookup_key

    @property
    def table_path(self) -> Path:
        """The table's file."""
        return self._directory / "table"

    def load(self) -> _native.Table | None:
        """Map the table.

        Returns:
            None if there is none.

        Raises:
            FormatError: It is damaged, of another version or of another key; the message says what to do.
            OSError: It cannot be read.
        """
        try:
            return _native.Table.open(self.table_path, self._lookup_key)
        except FileNotFoundError:
            return None

    def save(self, table: _native.Table) -> None:
        """Replace the table on disk.

        Raises:
            OSError: The disk is full or not writable; the old file stays.
        """
        self._make_directories()
        table.save(self.table_path)

    def segment(self, name: str) -> Path | None:
        """The file of a segment, if it is here."""
        path = self._segments / name
        return path if _NAME.fullmatch(name) and path.is_file() else None

    def add_segment(self, name: str, *parts: bytes) -> Path:
        """Keep a segment whose name was checked against its bytes, given in one part or more.

        Raises:
            OSError: The disk is full or not writable; nothing is left behind.
        """
        self._make_directories()
        path = self._segments / name
        beside = path.with_name(f"{name}.{os.getpid()}.tmp")
        try:
            with beside.open("wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
        return path

    def _make_directories(self) -> None:
        # `parents=True` would make all but the last with the usual mode, which is open to others.
        self._directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._segments.mkdir(mode=0o700, exist_ok=True)

    def keep_segments(self, names: Iterable[str]) -> None:
        """Delete all segments but these, and what an earlier crash left half written."""
        wanted = set(names)
        with contextlib.suppress(FileNotFoundError):
            for path in self._segments.iterdir():
                if path.name not in wanted:
                    path.unlink(missing_ok=True)
            for path in self._directory.glob("table.*.tmp"):
                path.unlink(missing_ok=True)
