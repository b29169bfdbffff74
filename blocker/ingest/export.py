"""Export: a list's rules as the text of a list file, which reads back to the same rules.

What a format can carry is not decided by a table but by its reader: each line is read as a source would read it, and a
rule whose line is not that rule again is left out and counted. Only `csv` and `jsonl` carry a reference and metadata;
elsewhere a rule goes out without them, and they are counted too.
"""

from __future__ import annotations

import contextlib
import grp
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TextIO

from blocker._native import parse_rule
from blocker.errors import BlockerError, FormatError, InvalidRule, InvalidURL
from blocker.ingest.formats import FormatOptions, find_format
from blocker.ingest.formats.bpjm import is_hashed
from blocker.ingest.writers import WRITERS, Listed, head
from blocker.rules import default_domain_kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from blocker._native import RuleSet

# What a source takes for one line at most.
MAX_LINE_BYTES = 65_536
# Formats in which a list of digests is still that list for whoever reads it here.
_WHOLE = frozenset({"url", "csv", "jsonl"})
_OPTIONS = ("bare", "trailing_slash", "domain_kind")
# Lines handed over at once: some 64 KiB.
BATCH = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the source that will read the text reads it; None is the format's own default.

    Attributes:
        format: Its format.
        bare: Kind of an URL without a path.
        trailing_slash: Kind of an URL whose path ends in a slash.
        domain_kind: Kind of a bare name.
    """

    format: str = "url"
    bare: Literal["host", "domain"] | None = None
    trailing_slash: Literal["prefix", "exact"] | None = None
    domain_kind: Literal["domain", "host"] | None = None


@dataclass(slots=True)
class Export:
    """The text of a rule set: iterate once, then ask what could not be said in it.

    Attributes:
        rules: What is written.
        reading: How it will be read.
        written: Rules written so far.
        left_out: Rules that the format cannot carry.
        references: References of written rules, which it cannot carry.
        metadata: Categories and days of written rules, which it cannot carry; counted by rule.
    """

    rules: RuleSet
    reading: Reading
    written: int = 0
    left_out: int = 0
    references: int = 0
    metadata: int = 0

    def lines(self) -> Iterator[str]:
        """The lines, without their ends, in the order of the rules."""
        reader = _Reader(self.reading)
        for rule in self.rules:
            line = reader.line(rule)
            if line is None:
                self.left_out += 1
                continue
            self.written += 1
            kept = reader.kept(line, rule)
            self.references += bool(rule[5]) and not kept
            self.metadata += bool(rule[6]) and not kept
            yield line


class _Reader:
    """Writes a rule, and reads it back as the source will."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._native = reading.format in ("url", "domain", "hosts")
        self._write = WRITERS[reading.format]
        self._head = "".join(f"{line}\n" for line in head(reading.format, "x", 1)).encode()

    def line(self, rule: Listed) -> str | None:
        """A line that is read as this rule; None if the format has none."""
        reading = self._reading
        if is_hashed(rule[1]) and reading.format not in _WHOLE:
            return None  # whoever reads names would take it for one
        line = self._write(rule)
        if len(line.encode()) > MAX_LINE_BYTES:
            return None
        if not self._native:
            read = self._read(line)
            return line if read is not None and read[:5] == rule[:5] else None
        try:
            same = rule[:5] == parse_rule(
                line, reading.format, reading.bare or "host", reading.trailing_slash or "prefix",
                reading.domain_kind or default_domain_kind(reading.format),
            )  # fmt: skip
        except (InvalidRule, InvalidURL):
            return None
        return line if same else None

    def kept(self, line: str, rule: Listed) -> bool:
        """Whether reference and metadata are read back as well."""
        return not (rule[5] or rule[6]) or (not self._native and self._read(line) == rule)

    def _read(self, line: str) -> Listed | None:
        """The one rule that a file with this line alone makes."""
        reading = self._reading
        chosen = find_format(reading.format)
        options = FormatOptions(
            **{name: value for name in _OPTIONS if name in chosen.options and (value := getattr(reading, name))}
        )
        parser = chosen.parser(options)
        try:
            parser.feed(self._head + line.encode() + b"\n")
            rules = [*parser.finish()]
        except FormatError:
            return None
        return rules[0] if len(rules) == 1 and not parser.bad else None


def write(lines: Iterable[str], target: TextIO) -> None:
    """Write lines in batches, so that neither the whole text is held nor each line handed over by itself."""
    batch: list[str] = []
    for line in lines:
        batch.append(f"{line}\n")
        if len(batch) == BATCH:
            target.write("".join(batch))
            batch.clear()
    target.write("".join(batch))
    target.flush()


def write_file(lines: Iterable[str], path: Path, *, mode: int = 0o600, group: str | None = None) -> None:
    """Write a file that is there whole or, if anything fails, as it was before.

    Args:
        lines: Without their ends.
        path: Where; what is there is replaced, with its mode and group.
        mode: Of the file, from its first moment there.
        group: Name or number of its group; None: that of this process, or of a directory that hands on its own.

    Raises:
        BlockerError: It cannot be written, or given to the group.
    """
    number = None if group is None else _group(group)
    partial = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as target:
                if number is not None:  # before the mode, which lets the group in
                    _give(target.fileno(), number, group)
                os.fchmod(target.fileno(), mode)
                write(lines, target)
                os.fsync(target.fileno())
            partial.replace(path)
        except BaseException:  # also an interrupt: nothing half written stays
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
    except OSError as error:
        raise BlockerError(f"{path} cannot be written: {error.strerror}") from None


def _group(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise BlockerError(f"there is no group {name!r} on this machine") from None


def _give(descriptor: int, number: int, group: str | None) -> None:
    try:
        os.fchown(descriptor, -1, number)
    except PermissionError:
        raise BlockerError(
            f"the file cannot be given to group {group}: make this user a member of it (usermod -aG), and log in anew"
        ) from None
