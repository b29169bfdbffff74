"""Rules that are known as digests only: what they match, and who wins where they meet rules in clear text."""

from __future__ import annotations

from hashlib import md5
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocker._native import NodeRun, RuleSet, Table
from blocker.ingest.formats import FormatOptions, find_format
from blocker.matcher import ListMetadata, Matcher, Policy, add_rule
from blocker.rules import Kind, Rule
from tests.bpjm_file import SAMPLE_ENTRIES, bpjm_file, digest
from tests.oracle import canonical
from tests.oracle.matcher import BruteForce, OracleDecision, OracleList, OraclePolicy
from tests.oracle.rules import EXACT, HOST, PREFIX, OracleRule, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tests.oracle.canonical import Canonical

KEY = b"0123456789abcdef"
SHADOW = Policy(name="trial", lists={"digests": "shadow", "plain": None, "exceptions": None, "allowed": None})
WITHOUT = Policy(name="without", lists={"plain": None, "exceptions": None})


def hashed_rules(entries: Iterable[tuple[str, str]]) -> RuleSet:
    parser = find_format("bpjm").parser(FormatOptions())
    parser.feed(bpjm_file(entries))
    return parser.finish()


def clear_rules(lines: Iterable[str]) -> RuleSet:
    rules = RuleSet()
    for line in lines:
        add_rule(rules, Rule.parse(line))
    return rules


def matcher(lists: Mapping[str, RuleSet], allow: tuple[str, ...] = (), policies: tuple[Policy, ...] = ()) -> Matcher:
    def run(rules: RuleSet) -> NodeRun:
        return rules.nodes(KEY)

    made = [(name, 1, name in allow, ListMetadata().dump(), run(rules)) for name, rules in lists.items()]
    return Matcher.of(Table.build(made, KEY), policies)


SAMPLE = matcher({"digests": hashed_rules(SAMPLE_ENTRIES)})
PSEUDO = f"{digest('hashed.example')}.bpjm-md5.invalid"


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://hashed.example/", Kind.HOST),
        ("HTTPS://WWW.Hashed.example:8080/any/page?x=1#y", Kind.HOST),
        ("http://deeper.hashed.example/", None),
        ("http://www.deeper.hashed.example/", None),
        ("http://www.www.hashed.example/", None),
        ("http://xhashed.example/", None),
        ("http://example/", None),
        ("http://pages.example/", None),
        ("http://pages.example/gallery/secret/", Kind.PREFIX),
        ("http://www.pages.example//gallery/./secret/x/y/z?q", Kind.PREFIX),
        ("http://pages.example/gallery/secret", None),
        ("http://pages.example/gallery/secret2/", None),
        ("http://pages.example/x/gallery/secret/", None),
        ("http://pages.example/GALLERY/secret/", None),
        ("http://pages.example/a/b.jpg", Kind.EXACT),
        ("http://pages.example/a/%62.jpg?any=query", Kind.EXACT),
        ("http://pages.example/a/b.jpg/", None),
        ("http://pages.example/view?id=7", Kind.EXACT),
        ("http://pages.example/view?id=70", None),
        ("http://pages.example/view?id=7&x", None),
        ("http://pages.example/view", None),
        (f"http://{PSEUDO}/", None),
        (f"http://www.{PSEUDO}/", None),
        (f"http://{digest('pages.example')}.bpjm-md5.invalid/{digest('a/b.jpg')}", None),
    ],
)
def test_what_a_digest_matches(url: str, kind: Kind | None) -> None:
    decision = SAMPLE.decide(url)
    assert decision.kind == kind
    assert decision.verdict == ("allow" if kind is None else "block")
    assert decision.list == (None if kind is None else "digests")
    assert SAMPLE.decide_many([url, url])[1].kind == kind


@pytest.mark.parametrize(
    ("host", "verdict"),
    [
        ("hashed.example", "block"),
        ("www.hashed.example", "block"),
        ("x.hashed.example", "allow"),
        ("www.pages.example", "inspect"),
        ("other.example", "allow"),
        (PSEUDO, "allow"),
        (f"{digest('pages.example')}.bpjm-md5.invalid", "allow"),
    ],
)
def test_what_is_known_of_a_host(host: str, verdict: str) -> None:
    assert SAMPLE.decide_host(host).verdict == verdict


def test_a_path_digested_with_its_slash_is_the_same_page() -> None:
    found = matcher({"digests": hashed_rules([("a.example", "/x/y"), ("a.example", "/z/")])})
    assert found.decide("http://a.example/x/y").kind is Kind.EXACT
    assert found.decide("http://a.example/z/y").kind is Kind.PREFIX


def test_addresses_are_hosts() -> None:
    found = matcher({"digests": hashed_rules([("192.0.2.1", ""), ("[2001:db8::1]", "x")])})
    assert found.decide("http://0xC0000201/").verdict == "block"
    assert found.decide("http://[2001:DB8:0::1]/x").verdict == "block"


def test_explain_names_the_list_and_says_that_a_digest_was_compared() -> None:
    told = SAMPLE.explain("http://pages.example/gallery/secret/x")
    winner = told["winner"]
    assert isinstance(winner, dict)
    assert (winner["list"], winner["kind"], winner["hashed"]) == ("digests", Kind.PREFIX, True)
    steps = told["steps"]
    assert isinstance(steps, list)
    (step,) = [step for step in steps if step["matches"]]
    where = f"invalid,bpjm-md5,{digest('pages.example')},"
    assert step["prefix"] == f"{where})/{digest('gallery/secret/')}"
    assert step["found"]
    assert where in [step["prefix"] for step in steps]


def test_nobody_else_pays_for_them() -> None:
    plain = matcher({"plain": clear_rules(["http://a.example/x"])})
    mixed = {"plain": clear_rules(["http://a.example/x"]), "digests": hashed_rules(SAMPLE_ENTRIES)}
    steps = plain.explain("http://a.example/x")["steps"]
    assert matcher(mixed, policies=(WITHOUT,)).explain("http://a.example/x", "without")["steps"] == steps
    assert matcher(mixed).explain("http://a.example/x")["steps"] != steps


def test_a_table_from_disk_knows_them(tmp_path: Path) -> None:
    SAMPLE.table.save(tmp_path / "table")
    again = Matcher.of(Table.open(tmp_path / "table", KEY))
    assert again.decide("http://hashed.example/x").list == "digests"


def test_a_hostile_path_costs_no_more_than_256_borders() -> None:
    steps = SAMPLE.explain("http://pages.example/" + "a/" * 20_000)["steps"]
    assert isinstance(steps, list)
    assert len(steps) < 2 * 256 + 10


def test_options_of_a_list_change_nothing() -> None:
    run = hashed_rules(SAMPLE_ENTRIES).nodes(KEY, www_alias=True, fold_case=True)
    found = Matcher.of(Table.build([("digests", 1, False, ListMetadata().dump(), run)], KEY))
    for path, kind in (("a/b.jpg", Kind.EXACT), ("gallery/secret/x", Kind.PREFIX), ("A/b.jpg", None)):
        assert found.decide(f"http://www.pages.example/{path}").kind == kind


class Records(NamedTuple):
    """A list of digests, as (MD5 of host, MD5 of path)."""

    name: str
    pairs: frozenset[tuple[str, str]]
    allow: bool


class Oracle:
    """Replaces each list of digests by what its records say of one request, and lets the slow oracle decide."""

    def __init__(self, clear: Mapping[str, OracleList], hashed: Iterable[Records], policies: Iterable[Policy]) -> None:
        self.clear, self.hashed = clear, {records.name: records for records in hashed}
        self.policies = {policy.name: self._policy(policy) for policy in policies}

    def decide(self, url: str, policy: str) -> OracleDecision:
        return self._oracle(canonical.split(url), whole=False).decide(url, policy)

    def decide_host(self, host: str, policy: str) -> OracleDecision:
        return self._oracle(canonical.split(f"http://{host}/"), whole=True).decide_host(host, policy)

    def _oracle(self, request: Canonical, *, whole: bool) -> BruteForce:
        said = {
            name: OracleList(name, list(rules_for(records, request, whole=whole)), allow=records.allow)
            for name, records in self.hashed.items()
        }
        return BruteForce({**self.clear, **said}, self.policies)

    def _policy(self, policy: Policy) -> OraclePolicy:
        names = policy.lists or dict.fromkeys([*self.clear, *self.hashed])
        return OraclePolicy({name: mode or "enforce" for name, mode in names.items()})


def rules_for(records: Records, request: Canonical, *, whole: bool) -> Iterable[OracleRule]:
    def md5_of(text: str) -> str:
        return md5(text.encode(), usedforsecurity=False).hexdigest()

    rest = request.host.removeprefix("www.")
    host = md5_of(rest if "." in rest else request.host)
    paths = {path for at, path in records.pairs if at == host}
    for text in ("", "/"):
        if md5_of(text) in paths:
            yield OracleRule(HOST, request.host)
            paths.remove(md5_of(text))
    if whole and paths:
        yield OracleRule(EXACT, request.host, "/not/asked/for")
    for end in range(2, len(request.path) + 1):
        for text in (request.path[:end], request.path[1:end]):
            if md5_of(text) in paths:
                if text.endswith("/"):
                    yield OracleRule(PREFIX, request.host, request.path[:end])
                elif end == len(request.path):
                    yield OracleRule(EXACT, request.host, request.path)
    if request.query is not None and {md5_of(request.target), md5_of(request.target[1:])} & paths:
        yield OracleRule(EXACT, request.host, request.path, request.query)


HOSTS = st.sampled_from(["a.example", "b.a.example", "www.a.example", "example.org", "192.0.2.7", "www.org"])
PATHS = st.lists(st.sampled_from(["a", "b", "a/", "b/", "a/", "?q", "?q/"]), max_size=4).map("".join)
ENTRIES = st.lists(st.tuples(HOSTS, PATHS), max_size=6)
LINES = st.lists(st.builds("http://{}{}/{}".format, st.sampled_from(["", "", "*."]), HOSTS, PATHS), max_size=5)


@settings(max_examples=400, deadline=None)
@given(
    plain=LINES, exceptions=LINES, digests=ENTRIES, allowed=ENTRIES,
    requests=st.lists(st.tuples(HOSTS, PATHS), min_size=1, max_size=8),
)  # fmt: skip
def test_agrees_with_the_oracle(
    plain: list[str], exceptions: list[str], digests: list[tuple[str, str]], allowed: list[tuple[str, str]],
    requests: list[tuple[str, str]],
) -> None:  # fmt: skip
    plain, exceptions = ([line for line in lines if "*.192" not in line] for lines in (plain, exceptions))
    native = {
        "plain": clear_rules(plain), "exceptions": clear_rules(exceptions),
        "digests": hashed_rules(digests), "allowed": hashed_rules(allowed),
    }  # fmt: skip
    policies = (Policy(), SHADOW, WITHOUT)
    fast = matcher(native, ("exceptions", "allowed"), policies)
    clear = {
        "plain": OracleList("plain", [parse(line) for line in plain]),
        "exceptions": OracleList("exceptions", [parse(line) for line in exceptions], allow=True),
    }
    hashed = [
        Records(name, frozenset((digest(host), digest(path)) for host, path in entries), allow=name == "allowed")
        for name, entries in (("digests", digests), ("allowed", allowed))
    ]
    slow = Oracle(clear, hashed, policies)
    for policy in policies:
        for host, path in [*requests, *digests, *allowed]:
            url = f"http://{host}/{path}"
            got, want = fast.decide(url, policy.name), slow.decide(url, policy.name)
            assert (got.verdict, got.list, got.kind, got.shadow) == (want.verdict, want.list, want.kind, want.shadow), (
                url
            )
            whole, expected = fast.decide_host(host, policy.name), slow.decide_host(host, policy.name)
            assert (whole.verdict, whole.list, whole.shadow) == (expected.verdict, expected.list, expected.shadow), host
