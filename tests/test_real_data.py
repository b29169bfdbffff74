"""Real lists against real requests: what the oracle blocks is blocked, and nothing else.

Two and a half million rules are read twice, by the oracle and by the native parser, and a quarter of a million requests
are decided twice. It takes two to four minutes and 1.5 GB, most of both for the oracle.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections import Counter, deque
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Literal, NamedTuple

import pytest

from blocker import Decision, Matcher, Policy, Verdict, _native
from tests.data_dir import needs_shared_data, shared_lines, traffic
from tests.oracle import rules as oracle
from tests.oracle.matcher import Indexed, OracleDecision, OracleList, OraclePolicy
from tests.oracle.rules import OracleRule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor, Future

pytestmark = [needs_shared_data, pytest.mark.timeout(1200)]

LOOKUP_KEY = bytes(range(16))
BATCH = 20_000
# Batches that are read ahead.
WAITING = 8


# Rules as plain tuples, which cost less on their way, and how many lines are bad.
_Read = tuple[list[tuple[object, ...]], int]


class Source(NamedTuple):
    """A list file: its format, the column of the entry, and the value of the column before it, where that matters."""

    file: str
    format: str
    column: int = 0
    type: bytes | None = None
    least: int = 0

    def lines(self) -> Iterator[bytes]:
        """The entries alone."""
        for line in shared_lines(self.file):
            fields = line.split(b"\t")
            if self.type is None or fields[self.column - 1] == self.type:
                yield fields[self.column]


SOURCES = {
    "maltrail-domains": Source("lists/maltrail/maltrail_domains.tsv.zst", "domain", least=1_150_000),
    "maltrail-urls": Source("lists/maltrail/maltrail_urls.tsv.zst", "url", least=70_000),
    "tweetfeed-urls": Source("lists/tweetfeed_iocs.tsv.zst", "url", 2, b"url", least=400_000),
    "tweetfeed-domains": Source("lists/tweetfeed_iocs.tsv.zst", "domain", 2, b"domain", least=140_000),
    "urlhaus-history": Source("lists/urlhaus_filter_history_union.txt.zst", "url", least=1_000_000),
}


class Loaded(NamedTuple):
    """One list as both sides read it."""

    lines: int
    rules: set[OracleRule]
    bad: int
    parser: _native.LineParser
    rule_set: _native.RuleSet


def _by_the_oracle(lines: list[bytes], list_format: str) -> _Read:
    """What the oracle reads of these, for another process; a line that holds nothing is neither a rule nor bad."""
    rules: list[tuple[object, ...]] = []
    bad = 0
    for line in lines:
        try:
            rules.append(tuple(oracle.parse(line, list_format)))
        except oracle.InvalidRule:
            bad += bool(line.strip()) and not line.strip().startswith(b"#")
    return rules, bad


def _load(source: Source, readers: Executor) -> Loaded:
    """Feed the same lines to both, to the oracle by as many processes as there are processors."""
    parser = _native.LineParser(source.format, bare="host", domain_kind="domain")
    rules: set[OracleRule] = set()
    count = bad = 0
    lines = source.lines()
    waiting: deque[Future[_Read]] = deque()
    while (batch := list(islice(lines, BATCH))) or waiting:
        if batch:
            count += len(batch)
            waiting.append(readers.submit(_by_the_oracle, batch, source.format))
            parser.feed(b"\n".join(batch) + b"\n")
        if not batch or len(waiting) > WAITING:
            found, worse = waiting.popleft().result()
            rules.update(map(OracleRule._make, found))
            bad += worse
    return Loaded(count, rules, bad, parser, parser.finish())


@pytest.fixture(scope="module")
def loaded() -> Iterator[dict[str, Loaded]]:
    # Millions of tuples without a cycle among them: the collector would go through all of them again and again.
    gc.disable()
    # Not forked: other tests' libraries have threads.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as readers:
        found = {name: _load(source, readers) for name, source in SOURCES.items()}
    yield found
    gc.enable()


@pytest.fixture(scope="module")
def matcher(loaded: dict[str, Loaded]) -> Matcher:
    lists = [(name, 1, False, "", entry.rule_set.nodes(LOOKUP_KEY)) for name, entry in loaded.items()]
    return Matcher.of(_native.Table.build(lists, LOOKUP_KEY))


@pytest.mark.parametrize("name", SOURCES)
def test_both_read_the_same_rules(loaded: dict[str, Loaded], name: str) -> None:
    entry = loaded[name]
    assert entry.lines == entry.parser.lines >= SOURCES[name].least
    assert entry.bad == entry.parser.bad
    assert len(entry.rule_set) == len(entry.rules)
    native = {OracleRule(kind, host, path, query, below) for kind, host, path, query, below, _, _ in entry.rule_set}
    differing = native.symmetric_difference(entry.rules)
    assert not differing, Counter(rule.kind for rule in differing)


@pytest.mark.parametrize("name", SOURCES)
def test_every_rule_blocks_its_own_url(loaded: dict[str, Loaded], matcher: Matcher, name: str) -> None:
    rules = iter(loaded[name].rules)
    while batch := list(islice(rules, BATCH)):
        urls = [oracle.as_url(rule) for rule in batch]
        missed = sum(decision.verdict != Verdict.BLOCK for decision in matcher.decide_many(urls))
        assert missed == 0


def test_real_requests_are_decided_as_the_oracle_decides(loaded: dict[str, Loaded], matcher: Matcher) -> None:
    verdicts = _compare(matcher, Indexed({name: OracleList(name, list(entry.rules)) for name, entry in loaded.items()}))
    assert verdicts["allow"] + verdicts["block"] > 240_000
    assert verdicts["block"] > 2_000


def test_real_requests_with_exceptions_shadow_and_options(loaded: dict[str, Loaded]) -> None:
    """The same over the smaller lists, with everything switched on that changes how rules are compared."""
    modes: dict[str, Literal["enforce", "shadow"] | None] = {
        "tweetfeed-urls": "shadow",
        "maltrail-urls": "enforce",
        "tweetfeed-domains": "enforce",
    }
    owners = {
        name: OracleList(
            name,
            list(loaded[name].rules),
            allow=name == "tweetfeed-domains",
            www_alias=name != "tweetfeed-domains",
            fold_case=True,
        )
        for name in modes
    }
    lists = [
        (name, 1, owner.allow, "", loaded[name].rule_set.nodes(LOOKUP_KEY, www_alias=owner.www_alias, fold_case=True))
        for name, owner in owners.items()
    ]
    policy = Policy(name="default", lists=modes, on_invalid="block")
    matcher = Matcher.of(_native.Table.build(lists, LOOKUP_KEY), [policy])
    expected = {"default": OraclePolicy({name: str(mode) for name, mode in modes.items()}, "block")}
    assert _compare(matcher, Indexed(owners, expected))["shadow"] > 100


def _compare(matcher: Matcher, indexed: Indexed) -> Counter[str]:
    """Decide all requests twice; how often each verdict came, and how often a shadow list would have blocked."""
    verdicts: Counter[str] = Counter()
    requests = traffic()
    while batch := list(islice(requests, BATCH)):
        for url, decision in zip(batch, matcher.decide_many(batch), strict=True):
            expected = indexed.decide(url)
            assert _seen(decision) == expected, url
            verdicts[expected.verdict] += 1
            verdicts["shadow"] += bool(expected.shadow)
    return verdicts


def _seen(decision: Decision) -> OracleDecision:
    kind = None if decision.kind is None else str(decision.kind)
    return OracleDecision(str(decision.verdict), decision.list, kind, decision.shadow, decision.invalid)
