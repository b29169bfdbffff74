"""Which rules match and in which order: held against the slow oracle, and against the decision over all of them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocker import InvalidURL, Matcher, canonicalize
from blocker._native import RuleSet, Table
from blocker.ingest.matching import matching_rules
from blocker.ingest.plan import PublishOptions
from blocker.matcher import ListMetadata, add_rule
from blocker.rules import Kind, Rule
from tests.ingest.checks import rules_of
from tests.oracle import canonical
from tests.oracle.matcher import as_matched, rank, rule_matches
from tests.oracle.strategies import Case, cases
from tests.test_hashed import ENTRIES, HOSTS, LINES, PATHS, clear_rules, hashed_rules

if TYPE_CHECKING:
    from tests.oracle.rules import OracleRule

KEY = b"0123456789abcdef"


def options(*, www_alias: bool = False, fold_case: bool = False) -> PublishOptions:
    return PublishOptions(www_alias=www_alias, path_case="insensitive" if fold_case else "sensitive")


def identity(rule: OracleRule | Rule) -> tuple[object, ...]:
    return (str(rule.kind), rule.host, rule.path, rule.query, rule.subdomains)


@settings(max_examples=400)
@given(cases())
def test_exactly_the_rules_that_match_in_the_order_of_the_oracle(case: Case) -> None:
    for owner in case.setup.lists.values():
        rules = RuleSet()
        for rule in owner.rules:
            rules.add(rule.kind, rule.host, rule.path, rule.query, rule.subdomains)
        for url in case.urls:
            try:
                request = canonical.split(url)
            except canonical.InvalidURL:
                with pytest.raises(InvalidURL):
                    matching_rules(rules, options(), url)
                continue
            found = matching_rules(rules, options(www_alias=owner.www_alias, fold_case=owner.fold_case), url)
            expected = {identity(rule): rule for rule in owner.rules if rule_matches(rule, owner, request)}
            assert {identity(one.rule) for one in found} == set(expected)
            ranks = [rank(as_matched(expected[identity(one.rule)], request.host)) for one in found]
            assert ranks == sorted(ranks, reverse=True)
            assert [(a.rank > b.rank) for a, b in itertools.pairwise(found)] == [
                a > b for a, b in itertools.pairwise(ranks)
            ]


@settings(max_examples=300, deadline=None)
@given(LINES, ENTRIES, st.lists(st.tuples(HOSTS, PATHS), min_size=1, max_size=6))
def test_the_first_of_them_is_the_one_that_decides(
    lines: list[str], entries: list[tuple[str, str]], requests: list[tuple[str, str]]
) -> None:
    clear, hashed = clear_rules(line for line in lines if "*.192" not in line), hashed_rules(entries)
    table = Table.build(
        [(name, 1, False, ListMetadata().dump(), rules.nodes(KEY)) for name, rules in (("c", clear), ("h", hashed))],
        KEY,
    )
    matcher = Matcher.of(table)
    for host, path in [*requests, *entries]:
        url = f"http://{host}/{path}"
        found = [
            (one.rank, name == "c", one.kind)
            for name, rules in (("c", clear), ("h", hashed))
            for one in matching_rules(rules, options(), url)
        ]
        decision = matcher.decide(url)
        best = max(found, default=None)
        assert (decision.kind, decision.list) == ((None, None) if best is None else (best[2], "c" if best[1] else "h"))


def test_what_is_noted_of_a_rule_comes_along() -> None:
    rules = RuleSet()
    add_rule(rules, Rule.parse("http://a.example/x/", reference="R-1", category="c"))
    (found,) = matching_rules(rules, options(), "http://A.example/x/y?z")
    assert (found.rule.reference, found.metadata, found.kind) == ("R-1", {"category": "c"}, Kind.PREFIX)
    assert "a.example" not in repr(found)


def test_a_host_with_very_many_rules_is_searched_and_not_walked() -> None:
    rules = rules_of(["http://big.example/", *(f"http://big.example/p/{number}" for number in range(50_000))])
    found = matching_rules(rules, options(), "http://big.example/p/7?x")
    assert [str(one.rule) for one in found] == ["http://big.example/p/7", "http://big.example/"]
    assert len(rules.near("http://big.example/p/7")) == 2
    assert canonicalize(str(found[0].rule)) == "http://big.example/p/7"
