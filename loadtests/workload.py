"""What all load tests ask: a million rules, 700 k domains and 300 k pages, and one question in a hundred about them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from blocker._native import LineParser, Table
from blocker.matcher import ListMetadata, Matcher

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

RULES = 1_000_000
KEY = bytes(16)
# Different questions: more than a processor's caches hold, few enough to be read from memory.
QUESTIONS = 200_000
LISTED_EVERY = 100
#: Whatever the answer, it is right.
ANY = 2**32 - 1


def name(number: int) -> str:
    """A host of which nobody can tell the neighbours, as real ones are: in a sorted database they lie all over it."""
    return f"{number * 2_654_435_761 % 2**32:08x}.example"


def domains(rules: int = RULES) -> Iterator[str]:
    """Names that are listed with all below them."""
    return (name(3 * number) for number in range(rules * 7 // 10))


def pages(rules: int = RULES) -> Iterator[str]:
    """Pages that are listed with all below them, without scheme and last slash."""
    return (f"{name(3 * number + 1)}/listed" for number in range(rules * 3 // 10))


def lines(rules: int = RULES) -> list[str]:
    """The list in the format `url`."""
    return [f"http://*.{domain}" for domain in domains(rules)] + [f"http://{page}/" for page in pages(rules)]


def matcher(rules: int = RULES) -> Matcher:
    """The list, ready to decide."""
    parser = LineParser("url")
    parser.feed("\n".join(lines(rules)).encode())
    run = parser.finish().nodes(KEY)
    return Matcher.of(Table.build([("list", 1, False, ListMetadata().dump(), run)], KEY))


def urls(count: int = QUESTIONS, rules: int = RULES) -> Iterator[tuple[str, bool]]:
    """Addresses, and whether they are listed: by page and by domain in turns, all over the list."""
    for number in range(1, count + 1):
        turn, listed = divmod(number, LISTED_EVERY)
        if listed != 0:
            yield f"http://www.{name(3 * number + 2)}/page/{number}?q=1", False
        elif turn % 2:
            yield f"http://{name(3 * (turn * 7919 % (rules * 3 // 10)) + 1)}/listed/", True
        else:
            yield f"http://www.{name(3 * (turn * 7919 % (rules * 7 // 10)))}/page/{number}", True


def write_questions(path: Path, questions: Iterable[tuple[bytes, int]], greeting: bytes = b"") -> Path:
    """A file for `load.c`: what a connection says first, then each question and how many blocks its answer tells of."""
    with path.open("wb") as file:
        for question, blocks in ((greeting, ANY), *questions):
            file.write(struct.pack("=II", len(question), blocks) + question)
    return path
