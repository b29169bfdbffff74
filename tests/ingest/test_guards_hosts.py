"""Guards on hosts and numbers: each accident that a guard exists for, and an oracle for what covers what."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocker._native import RuleSet
from blocker.errors import SettingsError
from blocker.ingest.guard import Finding, Guards, Severity
from blocker.ingest.limits import GuardLimits
from blocker.ingest.never_block import NeverBlock, is_public_suffix, read_popular
from blocker.ingest.plan import PublishOptions
from blocker.matcher import Matcher
from blocker.rules import Verdict
from blocker.sections import GuardSettings
from tests.ingest.checks import pages, rules_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

BLOCK = PublishOptions()
NEVER = NeverBlock(
    ["popular.example", "search.test", "www.big.example"],
    ["isp.example"],
    [ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8:1::/48")],
)


def examine(
    rules: RuleSet,
    before: RuleSet | None = None,
    *,
    options: PublishOptions = BLOCK,
    before_options: PublishOptions = BLOCK,
    limits: GuardLimits = GuardLimits(),  # noqa: B008 - frozen
    never: NeverBlock = NEVER,
    paths: Mapping[str, int] | None = None,
    canaries: Iterable[str] = (),
) -> list[tuple[str, str, int]]:
    findings = found(rules, before, options, before_options, limits, never, paths, canaries)
    return [(finding.guard, finding.severity.value, finding.count) for finding in findings]


def found(
    rules: RuleSet,
    before: RuleSet | None = None,
    options: PublishOptions = BLOCK,
    before_options: PublishOptions = BLOCK,
    limits: GuardLimits = GuardLimits(),  # noqa: B008 - frozen
    never: NeverBlock = NEVER,
    paths: Mapping[str, int] | None = None,
    canaries: Iterable[str] = (),
) -> tuple[Finding, ...]:
    return Guards(limits, {}, never).examine(
        "list",
        options=options,
        rules=rules,
        before=before,
        before_options=None if before is None else before_options,
        added=(before or RuleSet()).diff(rules)[0],
        listed_paths=paths,
        canaries=canaries,
    )


def test_an_ordinary_update_is_passed_without_a_word() -> None:
    assert examine(pages(range(500)), pages(range(400))) == []


def test_thousands_of_domains_by_mistake_popular_ones_among_them() -> None:
    """Denmark 2012: 8 000 domains were imported, the largest of the web among them."""
    before = rules_of(f"http://*.page{number}.test" for number in range(3000))
    mistake = rules_of(
        [f"http://*.page{number}.test" for number in range(3000)]
        + [f"http://*.other{number}.test" for number in range(8000)]
        + ["http://*.popular.example", "http://search.test/"]
    )
    assert examine(mistake, before) == [("never-block", "refuse", 2), ("growth", "approve", 8002)]
    assert [rule[1] for rule in found(mistake, before)[0].rules] == ["popular.example", "search.test"]


@pytest.mark.parametrize(
    ("line", "guard"),
    [
        ("http://popular.example/", "never-block"),
        ("http://*.popular.example", "never-block"),
        ("http://POPULAR.example./", "never-block"),
        ("http://*.big.example", "never-block"),
        ("http://big.example/", None),
        ("http://popular.example/listed/page.html", None),
        ("http://popular.example/gallery/", None),
        ("http://sub.popular.example/", None),
        ("http://*.sub.popular.example", None),
        ("http://notpopular.example/", None),
        ("http://isp.example/", "own-infrastructure"),
        ("http://*.mail.isp.example", "own-infrastructure"),
        ("http://mail.isp.example/", "own-infrastructure"),
        ("http://mail.isp.example/page", None),
        ("http://192.0.2.7/", "own-infrastructure"),
        ("http://3221225991/", "own-infrastructure"),  # 192.0.2.7 as one number
        ("http://[2001:db8:1::7]/", "own-infrastructure"),
        ("http://192.0.3.7/", None),
        ("http://[2001:db8:2::7]/", None),
        ("http://*.co.uk", "public-suffix"),
        ("http://co.uk/", None),
        ("http://*.github.io", "private-suffix"),
        ("http://github.io/", None),
        ("http://someone.github.io/", None),
    ],
)
def test_rules_for_whole_hosts(line: str, guard: str | None) -> None:
    guards = {name for name, *_ in examine(rules_of([line]), pages(range(3)))}
    assert guards >= {guard} if guard else not guards, line


def test_the_same_host_by_another_name_is_seen() -> None:
    rules = rules_of(["http://www.popular.example/"])
    assert examine(rules, pages([1])) == []
    alias = PublishOptions(www_alias=True)
    assert ("never-block", "refuse", 1) in examine(rules, pages([1]), options=alias, before_options=alias)


def test_exceptions_may_name_whole_hosts_and_people_may_exempt_one() -> None:
    rules = rules_of(["http://*.popular.example", "http://*.github.io"])
    allow = PublishOptions(action="allow")
    assert examine(rules, pages([1]), options=allow, before_options=allow) == []
    limits = GuardLimits(exempt=frozenset({"popular.example", "github.io"}))
    assert examine(rules, pages([1]), limits=limits) == []


def test_rules_that_were_there_before_are_not_found_again() -> None:
    before = rules_of(["http://*.popular.example"])
    assert examine(rules_of(["http://*.popular.example", "http://new.test/page"]), before) == []


def test_a_whole_host_on_which_single_pages_are_listed() -> None:
    """Demon 2009: a whole archive was blocked for one of its pages."""
    rules = rules_of(["http://archive.test/"])
    assert examine(rules, pages([1]), paths={"archive.test": 9}) == []
    assert examine(rules, pages([1]), paths={"archive.test": 10}) == [("whole-host", "approve", 1)]


def test_growth_and_shrinking() -> None:
    few, many = pages(range(2000)), pages(range(4100))
    assert examine(many, few) == [("growth", "approve", 2100)]
    assert examine(pages(range(4000)), few) == []
    assert examine(few, many) == [("shrink", "approve", 2100)]
    assert examine(pages(range(2900)), many) == []
    assert examine(pages(range(900)), pages([1])) == [], "few rules are never many"
    assert examine(many, few, limits=GuardLimits(max_growth=2)) == []
    assert examine(pages(range(20)), limits=GuardLimits(max_first=10)) == [("growth", "approve", 20)]


def test_emptying_a_list() -> None:
    assert examine(RuleSet(), pages(range(3))) == [("empty", "approve", 3)]
    assert examine(RuleSet(), RuleSet()) == examine(RuleSet()) == []


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (PublishOptions(), PublishOptions(mode="shadow"), True),
        (PublishOptions(mode="shadow"), PublishOptions(), False),
        (PublishOptions(), PublishOptions(action="allow"), True),
        (PublishOptions(), PublishOptions(path_case="insensitive"), True),
        (PublishOptions(www_alias=True), PublishOptions(), True),
    ],
)
def test_a_list_that_would_quietly_stop_blocking(before: PublishOptions, after: PublishOptions, told: bool) -> None:
    """New Zealand 2021: after a migration only a low share was blocked."""
    assert examine(pages([1]), pages([1]), options=after, before_options=before) == (
        [("options", "approve", 0)] if told else []
    )
    assert examine(pages([1]), RuleSet(), options=after, before_options=before) == []


def test_a_list_without_its_canary_is_refused() -> None:
    rules = rules_of(["http://canary.test/page.html", "http://a.test/"])
    assert examine(rules, rules, canaries=["http://canary.test/page.html", "https://a.test/x"]) == []
    assert examine(rules, rules, canaries=["http://canary.test/other.html"]) == [("canary", "refuse", 1)]


def test_messages_hold_no_entry() -> None:
    rules = rules_of(["http://*.popular.example", "http://isp.example/", "http://*.co.uk", "http://a.test/"])
    for finding in found(rules, pages(range(9000)), paths={"a.test": 99}, canaries=["http://marked.test/"]):
        for mark in ("popular.example", "isp.example", "co.uk", "a.test", "marked"):
            assert mark not in finding.message
            assert mark not in repr(finding)
    severities = [finding.severity for finding in found(rules, pages(range(9000)), paths={"a.test": 99})]
    assert severities == sorted(severities, key=list(Severity).index)


names = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(lambda labels: ".".join([*labels, "test"]))


@given(popular=st.sets(names, min_size=1, max_size=4), host=names, wide=st.booleans())
def test_a_rule_is_caught_exactly_if_it_blocks_a_popular_front_page(popular: set[str], host: str, wide: bool) -> None:
    line = f"http://*.{host}" if wide else f"http://{host}/"
    matcher = Matcher.build({"list": [line]})
    blocked = any(matcher.decide(f"http://{name}/").verdict is Verdict.BLOCK for name in popular)
    assert NeverBlock(popular).popular(host, subdomains=wide) is blocked


def test_popular_domains_are_read_as_rankings_write_them(tmp_path: Path) -> None:
    file = tmp_path / "top.csv"
    file.write_text("# comment\n1,popular.example\r\n2,Search.test\n\nplain.test\n7,\n" + "x.test\n" * 100, "utf-8")
    assert read_popular(file, 0) == {"popular.example", "search.test", "plain.test", "x.test"}
    assert read_popular(file, 2) == {"popular.example", "search.test"}
    guards = Guards.load(GuardSettings(popular_domains=file, own_names=("ISP.example",)))
    assert isinstance(guards, Guards)
    for text in ("<html>\n<body>not a list\n", "", "a b c\n" * 50):
        file.write_text(text, "utf-8")
        with pytest.raises(SettingsError, match=r"guards\.popular_domains: \d+ of \d+ lines of top.csv are no names"):
            read_popular(file, 0)
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read_popular(tmp_path / "absent", 0)
    for name in ("http://isp.example", "isp.example/x", "*.isp.example", ""):
        with pytest.raises(SettingsError, match="own_names"):
            Guards.load(GuardSettings(own_names=(name,)))


@pytest.mark.parametrize(
    ("host", "public", "icann"),
    [
        ("com", True, True), ("co.uk", True, True), ("example.co.uk", False, False), ("github.io", True, False),
        ("foo.kawasaki.jp", True, True), ("city.kawasaki.jp", False, False), ("localhost", True, True),
    ],
)  # fmt: skip
def test_public_suffixes(host: str, public: bool, icann: bool) -> None:
    assert is_public_suffix(host, only_icann=False) is public
    assert is_public_suffix(host, only_icann=True) is icann
