"""Which hosts of which lists are routed."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from blocker._native import RuleSet
from blocker.feeds.route_hosts import hosts_of, literal, routed_lists, with_www
from blocker.matcher import Matcher, Policy, add_rule
from blocker.rules import Rule

LINES = (
    "http://pages.example/a/", "http://pages.example/b.html?x=1", "http://*.wide.example/c", "http://whole.example",
    "*.domain.example", "http://www.other.example/x", "http://192.0.2.7/x", "http://[2001:db8::7]/x",
    "http://0123456789abcdef0123456789abcdef.bpjm-md5.invalid/x",
)  # fmt: skip
PAGES = {"pages.example", "wide.example", "www.wide.example", "www.other.example", "192.0.2.7", "[2001:db8::7]"}


def rules() -> RuleSet:
    made = RuleSet()
    for line in LINES:
        add_rule(made, Rule.parse(line))
    return made


def test_hosts_of_single_pages_are_routed() -> None:
    found = {
        name if not name.startswith("[") else "[2001:db8::7]"
        for name in hosts_of(rules(), www_alias=False, whole_hosts=False).routed
    }
    assert found == PAGES


def test_hosts_that_are_listed_whole_are_routed_where_asked() -> None:
    found = hosts_of(rules(), www_alias=False, whole_hosts=True).routed
    assert {"whole.example", "domain.example", "www.domain.example"} < found
    assert "www.whole.example" not in found


def test_www_is_the_same_host_for_a_list_that_says_so() -> None:
    found = hosts_of(rules(), www_alias=True, whole_hosts=False).routed
    assert {"www.pages.example", "pages.example", "other.example", "www.other.example"} < found
    assert "www.192.0.2.7" not in found


@pytest.mark.parametrize(
    ("host", "address"),
    [("192.0.2.7", "192.0.2.7"), ("[2001:db8::7]", "2001:db8::7"), ("a.example", None), ("a.example7", None)],
)
def test_a_host_that_is_an_address_needs_no_looking_up(host: str, address: str | None) -> None:
    assert literal(host) == (None if address is None else ip_address(address))


def test_popular_names_come_with_their_www() -> None:
    assert with_www(["popular.example"]) == {"popular.example", "www.popular.example"}


def test_lists_that_a_policy_enforces_are_routed_and_no_others() -> None:
    table = Matcher.build(
        {"one": ["http://a.example/x"], "two": ["http://b.example/x"], "quiet": ["http://c.example/x"], "pardon": []},
        allow=("pardon",), shadow=("quiet",), serials={"one": 3},
    ).table  # fmt: skip
    assert routed_lists(table, None) == {"one": 3, "two": 1}
    assert routed_lists(table, Policy(lists=None)) == {"one": 3, "two": 1}
    chosen = Policy(lists={"two": "shadow", "quiet": "enforce", "pardon": None, "absent": "enforce"})
    assert routed_lists(table, chosen) == {"quiet": 1}
