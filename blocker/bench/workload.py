"""Rules and questions to measure with: made from a seed, or read from files of one's own.

Made lists are the mixture that the targets name: seven rules in ten are domains, three are pages on hosts that several
pages share. All names end in reserved top-level domains.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blocker import canonicalize
from blocker.errors import InvalidRule
from blocker.rules import Kind, Rule

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DOMAIN_SHARE = 0.7
PAGES_PER_HOST = 3
TOP_LEVEL = ("example", "test", "invalid")
#: Questions of each sort: enough that they do not all stay in the processor's caches.
QUESTIONS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What one run measures with.

    Attributes:
        lines: The list, in the `url` format.
        listed: URLs that a rule blocks.
        unlisted: URLs that none does, unless a file of one's own says otherwise.
    """

    lines: Sequence[str]
    listed: Sequence[str]
    unlisted: Sequence[str]


def made(size: int, seed: int = 1) -> Workload:
    """A list of `size` different rules, and questions about it."""
    rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
    domains = int(size * DOMAIN_SHARE)
    pages = size - domains
    lines = [f"*.{_name(rng, number)}" for number in range(domains)]
    hosts = [f"www.{_name(rng, domains + number)}" for number in range(pages // PAGES_PER_HOST + 1)]
    lines += [f"http://{rng.choice(hosts)}/{_word(rng)}/{_word(rng)}/{number}.html" for number in range(pages)]
    rng.shuffle(lines)
    listed = [_question(line, rng) for line in rng.choices(lines, k=min(QUESTIONS, size))]
    unlisted = [
        f"https://{_word(rng)}.{_name(rng, 10**9 + number)}/{_word(rng)}/{_word(rng)}.html?id={number}"
        for number in range(QUESTIONS)
    ]
    return Workload(lines=lines, listed=listed, unlisted=unlisted)


def read(rules: Path, urls: Path | None, seed: int = 1) -> Workload:
    """A list of one's own, one URL a line, and real requests if there are any."""
    lines = [line for line in rules.read_text("utf-8", "surrogateescape").splitlines() if line.strip()]
    kept = made(1, seed)
    rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
    good = [line for line in rng.choices(lines, k=min(2 * QUESTIONS, 2 * len(lines))) if _is_rule(line)]
    asked = kept.unlisted if urls is None else urls.read_text("utf-8", "surrogateescape").splitlines()[:QUESTIONS]
    return Workload(lines=lines, listed=[_question(line, rng) for line in good][:QUESTIONS], unlisted=asked)


def plain_walk(lines: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    """The list as two plain sets, whole hosts and pages, for `walk`."""
    hosts, pages = set(), set()
    for line in lines:
        try:
            rule = Rule.parse(line)
        except InvalidRule:
            continue
        if rule.path is None:
            hosts.add(rule.host)
        else:
            pages.add(f"{rule.host}{rule.path.rstrip('/')}")
    return frozenset(hosts), frozenset(pages)


def _name(rng: random.Random, number: int) -> str:
    return f"{_word(rng)}{number}.{TOP_LEVEL[number % len(TOP_LEVEL)]}"


def _word(rng: random.Random) -> str:
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(4, 10)))


def _is_rule(line: str) -> bool:
    try:
        Rule.parse(line)
    except InvalidRule:
        return False
    return True


def _question(line: str, rng: random.Random) -> str:
    """A URL that the rule of a line blocks."""
    rule = Rule.parse(line)
    if rule.kind is Kind.DOMAIN and not rule.host[0].isdigit() and not rule.host.startswith("["):
        return f"http://{_word(rng)}.{rule.host}/{_word(rng)}"
    query = "" if rule.query is None else f"?{rule.query}"
    return canonicalize(f"http://{rule.host}{rule.path or '/'}{query}")
