"""The `csv` format: a table with a header, as RFC 4180 writes it.

    # a comment; anywhere before the header or at the beginning of a record
    url,reference,category,added,expires
    http://gallery.example/secret/,A-17,example,2026-01-31,2026-12-31
    "http://gallery.example/view?id=1,2",A-18,"a ""quoted"" name",2026-01-31T12:00:00Z,

The columns are found by the names in the header, in any order; others are passed over. `url` is read as the `url`
format reads it. A table without it may have `host` and `path`, or, if `columns` says so, `host` alone. `reference` is
the authority's own number for the entry (at most 64 bytes, no blanks), `category` free text, `added` and `expires`
ISO 8601 dates or times (in UTC unless they say otherwise): the day it was listed, and the first day on which it no
longer holds.

Options: `columns` says what a column is called in this file; `delimiter` what stands between two: `,` (the default),
`;`, a TAB or `|`. `bare` and `trailing_slash` are those of the `url` format.

A field in quotes may hold line ends. A record longer than 64 KiB, with another number of fields than the header, or
with a quote where none may stand is bad. A quote that is not closed within 64 KiB refuses the file, since everything
after it would be missing.
"""

from __future__ import annotations

import re
from typing import Final

from blocker.errors import FormatError, InvalidRule
from blocker.ingest.formats._entry import COLUMNS, OPTIONS, EntryReader
from blocker.ingest.formats._format import Column, Format, FormatOptions
from blocker.ingest.formats._lines import MAX_LINE_BYTES, TOO_LONG

_QUOTED: Final = re.compile(r'[^"]*(?:""[^"]*)*')


class CsvParser(EntryReader):
    """Reads one table."""

    def __init__(self, options: FormatOptions) -> None:
        super().__init__(options)
        self._delimiter = options.delimiter or ","
        self._columns: dict[Column, int] = {}
        self._width = 0
        self._fields: list[str] = []
        # Parts of a field in quotes whose end is on a later line, and where its record began.
        self._open: list[str] | None = None
        self._first_line = 0
        self._size = 0
        self._odd_quotes = False

    def read_line(self, line: str) -> None:
        """See `LineReader`."""
        line = line.removesuffix("\r")
        if self._open is None:
            if not line.strip() or line.startswith("#"):
                return
            if '"' not in line:
                self._record(line.split(self._delimiter))
                return
            self._fields, self._size, self._first_line = [], 0, self.lines
        try:
            if self._scan(line):
                self._record(self._fields)
        except InvalidRule as error:
            self.report(self._first_line, str(error))

    def bad_line(self, reason: str) -> None:
        """See `LineReader`; within quotes the record goes on and is bad at its end."""
        if reason == TOO_LONG:
            odd, self._odd_quotes = self._odd_quotes, False
            if odd or self._open is not None:
                raise self._unclosed()
        if self._open is None:
            super().bad_line(reason)
        else:
            # Which bytes stand for quotes cannot be known any more.
            self._open = None
            self.report(self._first_line, reason)

    def skipped(self, piece: bytes) -> None:
        """See `LineReader`: an odd number of quotes leaves one open."""
        self._odd_quotes ^= piece.count(b'"') % 2 == 1

    def end(self) -> None:
        """See `LineReader`."""
        if self._open is not None:
            raise self._unclosed()
        if not self._width:
            raise FormatError("table has no header; its first line names the columns")

    def _unclosed(self) -> FormatError:
        line = self._first_line if self._open is not None else self.lines
        return FormatError(f"table has a quote that is not closed within {MAX_LINE_BYTES} bytes; see line {line}")

    def _scan(self, line: str) -> bool:
        """Take fields from a line that holds quotes, or that begins within quotes; true at the record's end."""
        self._size += len(line) + 1
        if self._size > MAX_LINE_BYTES + 1:
            raise self._unclosed()
        at = 0
        while True:
            if self._open is None:
                if not line.startswith('"', at):
                    end = line.find(self._delimiter, at)
                    field = line[at:] if end < 0 else line[at:end]
                    if '"' in field:
                        raise InvalidRule("quote within a field that does not begin with one")
                    self._fields.append(field)
                    if end < 0:
                        return True
                    at = end + 1
                    continue
                self._open = []
                at += 1
            end = _QUOTED.match(line, at).end()  # type: ignore[union-attr]  # it matches the empty text too
            self._open.append(line[at:end])
            if end == len(line):
                return False
            self._fields.append("\n".join(self._open).replace('""', '"'))
            self._open = None
            at = end + 1
            if at == len(line):
                return True
            if line[at] != self._delimiter:
                raise InvalidRule("quote within a field in quotes is not doubled")
            at += 1

    def _record(self, fields: list[str]) -> None:
        if not self._width:
            self._header(fields)
            return
        if len(fields) != self._width:
            raise InvalidRule("record has another number of fields than the header")
        self.add_entry({column: fields[at] for column, at in self._columns.items()})

    def _header(self, fields: list[str]) -> None:
        names = [field.strip().lower() for field in fields]
        for column in COLUMNS:
            name = self.names[column].strip().lower()
            if names.count(name) > 1:
                raise FormatError(f"header names the column for {column} more than once")
            if name in names:
                self._columns[column] = names.index(name)
            elif column in self.given:
                raise FormatError(f"header has no column of the name that the source gives for {column}")
        if "url" not in self._columns and not self.hosts_stand_alone and not {"host", "path"} <= self._columns.keys():
            raise FormatError("header names no column for url, nor host with path; see options columns and delimiter")
        self._width = len(fields)


def _parser(options: FormatOptions) -> CsvParser:
    return CsvParser(options)


FORMAT = Format("csv", "a table with a header, RFC 4180", OPTIONS | {"delimiter"}, _parser)
