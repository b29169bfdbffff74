"""Reading text through a list format, whole or in pieces, and what came out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from blocker.errors import FormatError
from blocker.ingest.formats import FormatOptions, find_format

if TYPE_CHECKING:
    from collections.abc import Iterable

# Stands in entries of the tests; no error may repeat it.
MARK = "secret-mark"


class Outcome(NamedTuple):
    """Everything a parser says of a file; two readings are equal if these are."""

    rules: tuple[str, ...]
    lines: int
    found: int
    bad: int
    errors: tuple[tuple[int, str], ...]
    refused: str = ""


def text_of(rule: tuple[str, str, str | None, str | None, bool, str, str]) -> str:
    """A rule as the tests write it: kind, address, then reference and metadata if there are any."""
    kind, host, path, query, below, reference, metadata = rule
    address = ("*." if below else "") + host + (path or "") + ("" if query is None else f"?{query}")
    return " ".join(part for part in (kind, address, reference, metadata) if part)


def read(name: str, pieces: Iterable[bytes] | bytes | str, options: FormatOptions | None = None) -> Outcome:
    """Read a file of a format."""
    if isinstance(pieces, str):
        pieces = pieces.encode()
    if isinstance(pieces, bytes):
        pieces = [pieces]
    parser = find_format(name).parser(options or FormatOptions())
    try:
        for piece in pieces:
            parser.feed(piece)
        rules = tuple(text_of(rule) for rule in parser.finish())
    except FormatError as error:
        return Outcome((), 0, 0, 0, (), str(error))
    return Outcome(rules, parser.lines, parser.rules, parser.bad, tuple(parser.errors))
