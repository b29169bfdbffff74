"""Reading text line by line from chunks split anywhere, for the formats that the native `LineParser` does not know.

Whole input, byte-by-byte input and any split give the same rules, counts and errors. A line longer than 64 KiB is bad
and is skipped without being kept; so is one that is not UTF-8. A NUL byte is no text and raises `FormatError`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from blocker._native import RuleSet, parse_rule
from blocker.errors import FormatError, InvalidRule

if TYPE_CHECKING:
    from blocker.ingest.formats._format import Bare, DomainKind, TrailingSlash

# The same as in the native reader: twice what any browser sends as an address.
MAX_LINE_BYTES = 65_536
# Errors that are kept; all are counted.
MAX_ERRORS = 1000
# Reasons that more than one format gives.
NOT_UTF8 = "line is not UTF-8"
TOO_LONG = "line is too long"

_BOM = b"\xef\xbb\xbf"


class LineReader(ABC):
    """A sans-IO reader: `feed` it chunks, then `finish`; a format says in `read_line` what a line means."""

    def __init__(self) -> None:
        self.lines = 0
        self.rules = 0
        self.bad = 0
        self.errors: list[tuple[int, str]] = []
        self.rule_set = RuleSet()
        self._partial = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> None:
        """Read a chunk.

        Raises:
            FormatError: It holds a NUL byte, or the file is not of this format at all.
        """
        if (nul := data.find(b"\0")) >= 0:
            line = self.lines + 1 + data.count(b"\n", 0, nul)
            raise FormatError(
                f"input is binary, not text: NUL byte in line {line}; unpack it or check where it comes from"
            )
        *whole, rest = data.split(b"\n")
        for piece in whole:
            if self._skipping or len(self._partial) + len(piece) > MAX_LINE_BYTES:
                self._drop(piece)
                self._end_of_long()
            elif self._partial:
                self._partial += piece
                line_bytes = bytes(self._partial)
                self._partial.clear()
                self._take(line_bytes)
            else:
                self._take(piece)
        if self._skipping or len(self._partial) + len(rest) > MAX_LINE_BYTES:
            self._drop(rest)
        else:
            self._partial += rest

    def finish(self) -> RuleSet:
        """Read what stands after the last line end, and hand out the rules.

        Raises:
            FormatError: The file is not of this format at all, or was cut.
        """
        if self._skipping:
            self._end_of_long()
        elif self._partial:
            self._take(bytes(self._partial))
            self._partial.clear()
        self.end()
        return self.rule_set

    @abstractmethod
    def read_line(self, line: str) -> None:
        """Read one line, without its LF.

        Raises:
            InvalidRule: It is bad; the message says why and never repeats the line.
        """

    def end(self) -> None:  # noqa: B027 - most formats have nothing to do here
        """Called after the last line."""

    def bad_line(self, reason: str) -> None:
        """A line that is too long or not UTF-8; the format may have to give up what it has begun."""
        self.report(self.lines, reason)

    def skipped(self, piece: bytes) -> None:  # noqa: B027 - as above
        """Called with each piece of a line that is too long."""

    def report(self, line: int, reason: str) -> None:
        """Count a fault and keep the first ones."""
        self.bad += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append((line, reason))

    def _take(self, line: bytes) -> None:
        self.lines += 1
        if self.lines == 1:
            line = line.removeprefix(_BOM)
        try:
            self.read_line(line.decode())
        except UnicodeDecodeError:
            self.bad_line(NOT_UTF8)
        except InvalidRule as error:
            self.report(self.lines, str(error))

    def _drop(self, piece: bytes) -> None:
        self._skipping = True
        self.skipped(bytes(self._partial) + piece)
        self._partial.clear()

    def _end_of_long(self) -> None:
        self._skipping = False
        self.lines += 1
        self.bad_line(TOO_LONG)


class RuleLineReader(LineReader):
    """A `LineReader` that adds rules written as the `url` or `domain` format writes them."""

    def __init__(
        self, bare: Bare = "host", trailing_slash: TrailingSlash = "prefix", domain_kind: DomainKind = "domain"
    ) -> None:
        super().__init__()
        self._bare, self._trailing_slash, self._domain_kind = bare, trailing_slash, domain_kind

    def add(self, text: str, form: str = "url", reference: str = "", metadata: str = "") -> None:
        """Add one entry.

        Raises:
            InvalidRule: It is no rule of that form.
        """
        if not text.isprintable() and any(sign < " " or "\ud800" <= sign <= "\udfff" for sign in text):
            raise InvalidRule("entry holds a control character or half a surrogate pair")
        rule = parse_rule(text, form, self._bare, self._trailing_slash, self._domain_kind)
        self.rule_set.add(*rule, reference, metadata)
        self.rules += 1
