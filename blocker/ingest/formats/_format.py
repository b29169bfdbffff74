"""What every list format has in common: a name, the options it reads, and a parser made from them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blocker._native import RuleSet

Bare = Literal["host", "domain"]
TrailingSlash = Literal["prefix", "exact"]
DomainKind = Literal["domain", "host"]
Column = Literal["url", "host", "path", "reference", "category", "added", "expires"]
Delimiter = Literal[",", ";", "\t", "|"]


class ListParser(Protocol):
    """Reads one file: `feed` it any split of its bytes, then `finish`. The native `LineParser` is one.

    Attributes:
        lines: Lines read.
        rules: Entries read, repeated ones counted; complete after `finish`.
        bad: Lines or records that are no entry.
        errors: The first of them: the number of its first line, from 1, and the reason, which never holds the entry.
    """

    @property
    def lines(self) -> int: ...
    @property
    def rules(self) -> int: ...
    @property
    def bad(self) -> int: ...
    @property
    def errors(self) -> list[tuple[int, str]]: ...

    def feed(self, data: bytes) -> None:
        """Read a chunk; raises `FormatError` for what is no file of the format at all."""

    def finish(self) -> RuleSet:
        """Read what is left and hand out the rules; raises `FormatError` as `feed` does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatOptions:
    """How the entries of a list are read; None takes the format's own default.

    Attributes:
        bare: Kind of an URL without a path (`http://h/`).
        trailing_slash: Kind of an URL whose path ends in a slash.
        domain_kind: Kind of a bare name.
        columns: For tables: what a field of an entry is called there, where it is not called by its own name.
        delimiter: For tables: the sign between two columns.
    """

    bare: Bare | None = None
    trailing_slash: TrailingSlash | None = None
    domain_kind: DomainKind | None = None
    columns: Mapping[Column, str] | None = None
    delimiter: Delimiter | None = None

    def given(self) -> tuple[str, ...]:
        """Names of the options that are not left to the format."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) is not None)


@dataclass(frozen=True, slots=True)
class Format:
    """A way of writing a list.

    Attributes:
        name: What a source calls it.
        summary: One line for people.
        options: Names of the `FormatOptions` it reads.
        parser: Makes a fresh parser; one parser reads one file. The parser takes the file in any split of bytes, reads
            a byte-order mark, CRLF, `#` comments and blank lines, and counts a bad line instead of stopping at it.
            A NUL byte is no text and raises `FormatError`.
    """

    name: str
    summary: str
    options: frozenset[str]
    parser: Callable[[FormatOptions], ListParser]
