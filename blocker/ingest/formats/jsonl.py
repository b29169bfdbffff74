"""The `jsonl` format: one JSON object a line (jsonlines.org, RFC 8259).

    {"url": "http://gallery.example/secret/", "reference": "A-17", "category": "example", "added": "2026-01-31"}
    {"host": "blocked.example", "path": "/", "reference": 18, "expires": "2026-12-31"}

The fields are those of the `csv` format, with the same meaning; others are passed over, and null is as good as
missing (but for `url`). `reference` may be a whole number. Blank lines and lines that begin with `#` are passed over.

Options: `columns` says what a field is called in this file; `bare` and `trailing_slash` are those of the `url` format.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from blocker.errors import InvalidRule
from blocker.ingest.formats._entry import OPTIONS, EntryReader
from blocker.ingest.formats._format import Column, Format, FormatOptions

if TYPE_CHECKING:
    from collections.abc import Mapping


class JsonLinesParser(EntryReader):
    """Reads one file of objects."""

    def read_line(self, line: str) -> None:
        """See `LineReader`."""
        text = line.strip()
        if not text or text[0] == "#":
            return
        try:
            entry = json.loads(text)
        except (ValueError, RecursionError):
            raise InvalidRule("line is no JSON") from None
        if not isinstance(entry, dict):
            raise InvalidRule("line is no JSON object")
        self.add_entry(self._fields(entry))

    def _fields(self, entry: Mapping[str, object]) -> dict[Column, str]:
        fields: dict[Column, str] = {}
        for column, name in self.names.items():
            value = entry.get(name)
            if column == "reference" and type(value) is int:
                value = str(value)
            if isinstance(value, str):
                fields[column] = value
            elif value is not None or (column == "url" and name in entry):
                raise InvalidRule(f"{column} is no text")
        return fields


def _parser(options: FormatOptions) -> JsonLinesParser:
    return JsonLinesParser(options)


FORMAT = Format("jsonl", "one JSON object a line", OPTIONS, _parser)
