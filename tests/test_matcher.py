"""Who wins: recorded verdicts, and equality with the brute-force oracle over lists that collide all the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blocker
from blocker import BlockerError, Decision, InvalidRule, Kind, ListOptions, Matcher, Policy, Rule, Verdict
from tests.data_dir import vectors
from tests.oracle import rules as oracle_rules
from tests.oracle.matcher import BruteForce, Indexed, OracleDecision, OracleList, OraclePolicy
from tests.oracle.strategies import Case, Setup, cases, matching_hosts, setups

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.oracle.rules import OracleRule

Mode = Literal["enforce", "shadow"]
Answer = Literal["allow", "block"]


def seen(decision: Decision) -> OracleDecision:
    """The part of a decision that the oracle has too."""
    kind = None if decision.kind is None else str(decision.kind)
    return OracleDecision(str(decision.verdict), decision.list, kind, decision.shadow, decision.invalid)


def public_rule(rule: OracleRule) -> Rule:
    return Rule(**{**rule._asdict(), "kind": Kind(rule.kind)})


def build(lists: Iterable[OracleList], policy: OraclePolicy | None) -> Matcher:
    """The matcher under test, from the oracle's own description of lists and policy."""
    owners = list(lists)
    policies = []
    if policy is not None:
        modes = cast("dict[str, Mode | None]", dict(policy.modes))
        policies.append(Policy(name="default", lists=modes, on_invalid=cast("Answer", policy.on_invalid)))
    return Matcher.build(
        {owner.name: [public_rule(rule) for rule in owner.rules] for owner in owners},
        allow=tuple(owner.name for owner in owners if owner.allow),
        options={
            owner.name: ListOptions(
                www_alias=owner.www_alias, path_case="insensitive" if owner.fold_case else "sensitive"
            )
            for owner in owners
        },
        policies=policies,
    )


def build_setup(setup: Setup) -> tuple[Matcher, BruteForce, Indexed]:
    policies = {"default": setup.policy}
    return (
        build(setup.lists.values(), setup.policy),
        BruteForce(setup.lists, policies),
        Indexed(setup.lists, policies),
    )


def _recorded(case: dict[str, Any]) -> Setup:
    """Lists and policy of a recorded case."""
    lists = {}
    for name, spec in case["lists"].items():
        options: dict[str, Any] = {"rules": spec} if isinstance(spec, list) else spec
        slash = options.get("trailing_slash", "prefix")
        rules = [oracle_rules.parse(line, trailing_slash=slash) for line in options["rules"]]
        fold = options.get("path_case") == "insensitive"
        lists[name] = OracleList(name, rules, options.get("allow", False), options.get("www_alias", False), fold)
    modes = case.get("policy", dict.fromkeys(lists, "enforce"))
    return Setup(lists, OraclePolicy(modes, case.get("on_invalid", "allow")))


VERDICTS = vectors("verdicts.json")["cases"]


@pytest.mark.parametrize("case", VERDICTS, ids=[case["says"] for case in VERDICTS])
def test_recorded_verdicts(case: dict[str, Any]) -> None:
    matchers = build_setup(_recorded(case))
    for url, verdict, name, kind, *rest in case["urls"]:
        shadow = tuple(rest[0]) if rest else ()
        invalid = rest[1] if len(rest) > 1 else False
        expected = OracleDecision(verdict, name, kind, shadow, invalid)
        native, *oracles = matchers
        assert seen(native.decide(url)) == expected, url
        for oracle in oracles:
            assert oracle.decide(url) == expected, url


@pytest.mark.parametrize("case", VERDICTS, ids=[case["says"] for case in VERDICTS])
def test_recorded_host_verdicts(case: dict[str, Any]) -> None:
    native, *oracles = build_setup(_recorded(case))
    for host, verdict, name, kind in case["hosts"]:
        assert seen(native.decide_host(host))[:3] == (verdict, name, kind), host
        for oracle in oracles:
            assert oracle.decide_host(host)[:3] == (verdict, name, kind), host


@settings(max_examples=1500)
@given(cases())
def test_native_equals_brute_force(case: Case) -> None:
    native, oracle, _ = build_setup(case.setup)
    for url in case.urls:
        assert seen(native.decide(url)) == oracle.decide(url), url


@settings(max_examples=300)
@given(cases())
def test_indexed_oracle_equals_brute_force(case: Case) -> None:
    _, oracle, indexed = build_setup(case.setup)
    for url in case.urls:
        assert indexed.decide(url) == oracle.decide(url), url


@settings(max_examples=300)
@given(cases())
def test_decide_many_and_canonical_spelling(case: Case) -> None:
    """One by one, all at once, as text, as bytes, and in canonical form: the same decision."""
    native, _, _ = build_setup(case.setup)
    one_by_one = [seen(native.decide(url)) for url in case.urls]
    assert [seen(decision) for decision in native.decide_many(case.urls)] == one_by_one
    assert [seen(decision) for decision in native.decide_many([url.encode() for url in case.urls])] == one_by_one
    for url, decision in zip(case.urls, one_by_one, strict=True):
        if not decision.invalid:
            assert seen(native.decide(blocker.canonicalize(url))) == decision


@settings(max_examples=500)
@given(setups(), st.lists(matching_hosts, min_size=1, max_size=6))
def test_decide_host_equals_oracle(setup: Setup, hosts: list[str]) -> None:
    native, oracle, _ = build_setup(setup)
    for host in hosts:
        for spelling in (host, host.upper().encode(), host if host.startswith("[") else f"{host}."):
            assert seen(native.decide_host(spelling)) == oracle.decide_host(host), spelling


@settings(max_examples=300)
@given(cases())
def test_whole_host_verdict_holds_for_every_url_on_it(case: Case) -> None:
    """What `decide_host` settles without seeing the path, `decide` must answer too."""
    native, _, _ = build_setup(case.setup)
    for url in case.urls:
        try:
            host = blocker.canonicalize(url).split("/")[2]
        except blocker.InvalidURL:
            continue
        whole = native.decide_host(host)
        if whole.verdict != Verdict.INSPECT:
            assert native.decide(url).verdict == whole.verdict


@settings(max_examples=200)
@given(cases(), st.randoms(use_true_random=False))
def test_order_of_rules_is_no_matter(case: Case, random: Any) -> None:  # noqa: ANN401 - a Random or its double
    native, _, _ = build_setup(case.setup)
    shuffled = {}
    for name, owner in case.setup.lists.items():
        rules = list(owner.rules) * 2
        random.shuffle(rules)
        shuffled[name] = OracleList(name, rules, owner.allow, owner.www_alias, owner.fold_case)
    other = build(shuffled.values(), case.setup.policy)
    for url in case.urls:
        assert seen(other.decide(url)) == seen(native.decide(url))


def test_decision_carries_serial_and_reference() -> None:
    matcher = Matcher.build(
        {
            "a": [Rule.parse("example.com/a/", reference="A-1"), Rule.parse("example.com/a/b", reference="A-2")],
            "ok": [Rule.parse("example.com/a/c", reference="K-1")],
        },
        allow=("ok",),
        serials={"a": 7, "ok": 9},
    )
    for url, expected in [
        ("http://example.com/a/", ("block", "a", "prefix", 7, "A-1")),
        ("http://example.com/a/b", ("block", "a", "exact", 7, "A-2")),
        ("http://example.com/a/c", ("allow", "ok", "exact", 9, "K-1")),
        ("http://example.com/", ("allow", None, None, None, None)),
        ("/", ("allow", None, None, None, None)),
    ]:
        found = matcher.decide(url)
        assert (found.verdict, found.list, found.kind, found.serial, found.reference) == expected


def test_decision_has_no_truth_value() -> None:
    decision = Matcher.build({"a": ["http://example.com/"]}).decide("http://example.com/")
    with pytest.raises(TypeError):
        bool(decision)
    assert decision.verdict is Verdict.BLOCK
    assert decision.kind is Kind.HOST


def test_policies_stand_side_by_side() -> None:
    matcher = Matcher.build(
        {"a": ["http://example.com/"], "b": ["http://example.com/"], "c": ["http://example.net/"]},
        shadow=("c",),
        policies=[
            Policy(name="only-b", lists={"b": "enforce"}, on_invalid="block"),
            Policy(name="own-modes", lists={"c": None, "a": None}),
            Policy(name="all"),
        ],
    )
    assert set(matcher.policies) == {"default", "only-b", "own-modes", "all"}
    for policy, url, verdict, name, shadow in [
        ("default", "http://example.com/", "block", "a", ()),
        ("default", "http://example.net/", "allow", None, ("c",)),
        ("only-b", "http://example.com/", "block", "b", ()),
        ("only-b", "http://example.net/", "allow", None, ()),
        ("only-b", "/", "block", None, ()),
        ("own-modes", "http://example.net/", "allow", None, ("c",)),
        ("own-modes", "http://example.com/", "block", "a", ()),
        ("all", "http://example.com/", "block", "a", ()),
    ]:
        decision = matcher.decide(url, policy)
        assert (decision.verdict, decision.list, decision.shadow) == (verdict, name, shadow), (policy, url)
        assert seen(matcher.decide_many([url], policy)[0]) == seen(decision)


@pytest.mark.parametrize("argument", ["allow", "shadow", "options"])
def test_build_refuses_unknown_list_names(argument: str) -> None:
    arguments: dict[str, Any] = {argument: {"b": ListOptions()} if argument == "options" else ("b",)}
    with pytest.raises(InvalidRule):
        Matcher.build({"a": []}, **arguments)


def test_build_refuses_text_that_is_no_rule() -> None:
    with pytest.raises(InvalidRule):
        Matcher.build({"a": ["http://"]})


def test_empty_matchers_allow() -> None:
    for matcher in (Matcher.build({}), Matcher.build({"a": []})):
        assert seen(matcher.decide("http://example.com/")) == OracleDecision("allow")
        assert seen(matcher.decide_host("example.com")) == OracleDecision("allow")
        assert matcher.decide_many([]) == []


@pytest.mark.parametrize("count", [63, 64])
def test_as_many_lists_as_a_policy_may_have(count: int) -> None:
    lists = {f"list-{number}": [f"http://{number}.example.com/", "http://example.com/"] for number in range(count)}
    matcher = Matcher.build(lists, shadow=tuple(name for name in lists if name != f"list-{count - 1}"))
    last = f"list-{count - 1}"
    decision = matcher.decide("http://example.com/")
    assert (decision.list, decision.shadow) == (last, tuple(name for name in lists if name != last))
    assert matcher.decide(f"http://{count - 1}.example.com/").list == last
    assert matcher.decide("http://0.example.com/").shadow == ("list-0",)


@pytest.mark.parametrize("name", ["", "n" * 256])
def test_a_name_that_a_table_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(BlockerError, match="1 to 255 bytes"):
        Matcher.build({name: ["http://a.example/"]})
