"""Exceptions and routes: whatever a host without a route has, the matcher lets through."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from blocker._native import RuleSet
from blocker.feeds.route_exceptions import Exceptions
from blocker.feeds.route_hosts import excepting_lists, hosts_of
from blocker.feeds.route_stop import Stop, StopFile
from blocker.matcher import ListOptions, Matcher, Policy, add_rule
from blocker.rules import Rule
from blocker.store.sealing import Sealer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

HOSTS = ("a.example", "www.a.example", "b.a.example")
WHERE = [
    *(("http://", host) for host in HOSTS), ("*.", "a.example"),
    ("http://*.", "a.example"), ("http://*.", "www.a.example"),
]  # fmt: skip
LINES = [
    f"{before}{host}{path}"
    for (before, host), path in itertools.product(WHERE, ("", "/p/", "/p/q/", "/p", "/P", "/p?x", "/p?X"))
    if before != "*." or not path
]
URLS = [
    f"http://{host}{path}"
    for host in (*HOSTS, "www.b.a.example")
    for path in ("/", "/p", "/p?x", "/p?X", "/P?x", "/P", "/p/", "/p/q", "/p/q/r", "/P/Q/r", "/p/z", "/other")
]
OPTIONS = st.builds(ListOptions, www_alias=st.booleans(), path_case=st.sampled_from(("sensitive", "insensitive")))


def rules(lines: Iterable[str]) -> RuleSet:
    made = RuleSet()
    for line in lines:
        add_rule(made, Rule.parse(line))
    return made


def exceptions_of(lines: Iterable[str], options: ListOptions = ListOptions()) -> Exceptions:  # noqa: B008 - frozen
    made = Exceptions()
    made.add(rules(lines), www_alias=options.www_alias, fold=options.path_case == "insensitive")
    return made


@given(st.lists(st.sampled_from(LINES), max_size=4), st.lists(st.sampled_from(LINES), max_size=4), OPTIONS, OPTIONS)
@example(["http://*.www.a.example"], ["*.a.example"], ListOptions(), ListOptions(www_alias=True))
@example(["http://*.www.a.example/p/"], ["http://*.a.example/p/"], ListOptions(), ListOptions(www_alias=True))
def test_what_is_blocked_somewhere_on_a_host_keeps_its_route(
    listed: list[str], excepted: list[str], options: ListOptions, others: ListOptions
) -> None:
    matcher = Matcher.build(
        {"listed": listed, "excepted": excepted}, allow=("excepted",), options={"listed": options, "excepted": others}
    )
    found = hosts_of(
        rules(listed), www_alias=options.www_alias, whole_hosts=True, fold=options.path_case == "insensitive",
        exceptions=exceptions_of(excepted, others),
    )  # fmt: skip
    for host in found.excepted:
        urls = [url for url in URLS if url.startswith(f"http://{host}/")]
        assert {matcher.decide(url).verdict for url in urls} <= {"allow"}, host
    assert not found.routed & found.excepted
    everything = hosts_of(rules(listed), www_alias=options.www_alias, whole_hosts=True)
    assert found.routed | found.excepted == everything.routed


@pytest.mark.parametrize(
    ("excepted", "routed"),
    [
        ([], True),
        (["http://a.example/p/"], False),
        (["http://a.example"], True),
        (["*.a.example"], True),
        (["http://a.example/p"], True),
        (["http://a.example/p/q/"], True),
        (["http://www.a.example/p/"], True),
    ],
)
def test_only_an_exception_that_says_the_same_takes_a_page_out(excepted: list[str], routed: bool) -> None:
    found = hosts_of(
        rules(["http://a.example/p/"]), www_alias=False, whole_hosts=False, exceptions=exceptions_of(excepted)
    )
    assert ("a.example" in found.routed) is routed
    assert ("a.example" in found.excepted) is not routed


def test_a_host_that_is_listed_whole_is_excepted_whole() -> None:
    found = hosts_of(
        rules(["http://a.example", "*.b.example"]), www_alias=False, whole_hosts=True,
        exceptions=exceptions_of(["http://a.example", "*.b.example"]),
    )  # fmt: skip
    assert found.routed == frozenset()
    assert found.excepted == {"a.example", "b.example", "www.b.example"}


def test_exceptions_are_those_that_the_policy_goes_by() -> None:
    table = Matcher.build(
        {"one": ["http://a.example/x"], "holds": [], "pardon": [], "tried": []}, allow=("holds", "pardon", "tried"),
        shadow=("tried",), serials={"holds": 7},
    ).table  # fmt: skip
    assert excepting_lists(table, None) == {"holds": 7, "pardon": 1}
    assert excepting_lists(table, Policy(lists={"one": None, "pardon": "shadow", "tried": "enforce"})) == {"tried": 1}


def test_exceptions_show_no_address() -> None:
    assert "example" not in repr(exceptions_of(["http://a.example/p"]))


def test_a_stop_is_kept_sealed_and_one_that_cannot_be_read_holds(tmp_path: Path) -> None:
    path = tmp_path / "routes.stopped"
    file = StopFile(path, Sealer(bytes(32)))
    assert file.load() is None
    file.save(Stop(17.0, "a reason"))
    assert file.load() == Stop(17.0, "a reason")
    assert b"reason" not in path.read_bytes()
    other = StopFile(path, Sealer(bytes([1]) * 32)).load()
    assert other is not None
    assert "cannot be read" in other.reason
    path.write_bytes(b"")
    assert file.load() is not None
    file.remove()
    file.remove()
    assert file.load() is None
