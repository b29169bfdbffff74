"""Reads a list that somebody hands over, chunk by chunk, with memory for its rules and never for the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blocker.errors import FormatError, UpdateRefused
from blocker.ingest.formats import FormatOptions, find_format
from blocker.ingest.formats._unpack import Unpacker
from blocker.ingest.guard import refuse_bad_share

if TYPE_CHECKING:
    from blocker._native import RuleSet
    from blocker.ingest.formats._unpack import Compression

# Bad lines that are shown; all are counted.
SHOWN_ERRORS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToRead:
    """How a list's file is written; see `Source` for each field."""

    format: str
    options: FormatOptions = field(default_factory=FormatOptions)
    compression: Compression = "auto"
    max_bytes: int = 2**30
    max_bad_share: float = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadList:
    """A list that was read to its end.

    Attributes:
        rules: Its rules.
        lines: Lines read.
        entries: Entries read, repeated ones counted.
        bad: Lines that are no entry.
        errors: The first bad lines: number, from 1, and reason.
    """

    rules: RuleSet = field(repr=False)
    lines: int
    entries: int
    bad: int
    errors: tuple[tuple[int, str], ...]


class ListReader:
    """Sans-IO: `feed` it the file in any split, then `finish`. CPU-bound: for a thread.

    Raises:
        SourceError: The format is unknown.
        UpdateRefused: An option is none of the format's.
    """

    def __init__(self, how: HowToRead) -> None:
        chosen = find_format(how.format)
        unused = [option for option in how.options.given() if option not in chosen.options]
        if unused:
            allowed = ", ".join(sorted(chosen.options)) or "none"
            raise UpdateRefused(f"{', '.join(unused)}: not an option of format {how.format}; it takes {allowed}")
        self._how = how
        self._parser = chosen.parser(how.options)
        self._unpacker = Unpacker(how.compression, how.max_bytes)

    def feed(self, data: bytes) -> None:
        """Read a chunk.

        Raises:
            UpdateRefused: It is no file of that format or packing, or too large.
        """
        try:
            for piece in self._unpacker.feed(data):
                self._parser.feed(piece)
        except FormatError as error:
            raise UpdateRefused(str(error)) from None

    def finish(self) -> ReadList:
        """Read what is left.

        Raises:
            UpdateRefused: It was cut, or too much of it is no entry.
        """
        parser = self._parser
        try:
            for piece in self._unpacker.finish():
                parser.feed(piece)
            rules = parser.finish()
        except FormatError as error:
            raise UpdateRefused(str(error)) from None
        refuse_bad_share(good=parser.rules, bad=parser.bad, max_share=self._how.max_bad_share)
        return ReadList(
            rules=rules, lines=parser.lines, entries=parser.rules, bad=parser.bad,
            errors=tuple(parser.errors[:SHOWN_ERRORS]),
        )  # fmt: skip
