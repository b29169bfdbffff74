"""Rules and their text forms: recorded lines, and equality with the oracle."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import blocker
from blocker import InvalidRule, Kind, Rule, _native
from tests.oracle import canonical
from tests.oracle import rules as oracle
from tests.oracle.rules import OracleRule
from tests.oracle.strategies import hosts, is_stable, matching_rules, urls
from tests.rule_lines import DOMAIN_LINES, HOSTS_LINES, INVALID, URL_LINES


class Options(NamedTuple):
    """What a format may be told about a whole list."""

    bare: Literal["host", "domain"] = "host"
    trailing_slash: Literal["prefix", "exact"] = "prefix"


def _parts(rule: Rule) -> OracleRule:
    return OracleRule(str(rule.kind), rule.host, rule.path, rule.query, rule.subdomains)


def _native_rule(line: str | bytes, options: Options) -> OracleRule | None:
    try:
        return _parts(Rule.parse(line, bare=options.bare, trailing_slash=options.trailing_slash))
    except InvalidRule:
        return None


def _oracle_rule(line: str | bytes, options: Options) -> OracleRule | None:
    try:
        return oracle.parse(line, bare=options.bare, trailing_slash=options.trailing_slash)
    except oracle.InvalidRule:
        return None


@pytest.mark.parametrize(("line", "expected"), URL_LINES)
def test_url_lines(line: str | bytes, expected: tuple[Any, ...] | str) -> None:
    rule = None if expected == INVALID else OracleRule(*expected)
    assert _oracle_rule(line, Options()) == rule
    assert _native_rule(line, Options()) == rule


@pytest.mark.parametrize(
    ("line", "options", "expected"),
    [
        ("http://example.com/", Options(bare="domain"), ("domain", "example.com")),
        ("http://example.com", Options(bare="domain"), ("domain", "example.com")),
        ("example.com/?", Options(bare="domain"), ("exact", "example.com", "/", "")),
        ("example.com/a", Options(bare="domain"), ("exact", "example.com", "/a")),
        ("http://intranet/", Options(bare="domain"), INVALID),
        ("192.0.2.7", Options(bare="domain"), ("domain", "192.0.2.7")),
        ("example.com/a/", Options(trailing_slash="exact"), ("exact", "example.com", "/a/")),
        ("*.example.com/a/", Options(trailing_slash="exact"), ("exact", "example.com", "/a/", None, True)),
        ("example.com/a/*", Options(trailing_slash="exact"), ("prefix", "example.com", "/a/")),
        ("http://example.com/", Options(trailing_slash="exact"), ("host", "example.com")),
    ],
)
def test_url_options(line: str, options: Options, expected: tuple[Any, ...] | str) -> None:
    rule = None if expected == INVALID else OracleRule(*expected)
    assert _oracle_rule(line, options) == rule
    assert _native_rule(line, options) == rule


@pytest.mark.parametrize(
    ("format", "default", "line", "host"),
    [("domain", "domain", *row) for row in DOMAIN_LINES] + [("hosts", "host", *row) for row in HOSTS_LINES],
)
@pytest.mark.parametrize("kind", [None, "domain", "host"])
def test_name_lines(
    format: Literal["domain", "hosts"],  # noqa: A002 - as in Rule.parse
    default: str,
    line: str | bytes,
    host: str | None,
    kind: Literal["domain", "host"] | None,
) -> None:
    if host is None:
        with pytest.raises(InvalidRule):
            Rule.parse(line, format, domain_kind=kind)
        with pytest.raises(oracle.InvalidRule):
            oracle.parse(line, format, domain_kind=kind)
        return
    expected = OracleRule(kind or default, host)
    assert _parts(Rule.parse(line, format, domain_kind=kind)) == expected
    assert oracle.parse(line, format, domain_kind=kind) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"kind": Kind.DOMAIN, "host": "EXAMPLE.com."}, ("domain", "example.com")),
        ({"kind": Kind.DOMAIN, "host": "com"}, ("domain", "com")),
        ({"kind": Kind.HOST, "host": "0xC0000207"}, ("host", "192.0.2.7")),
        ({"kind": Kind.PREFIX, "host": "a.test", "path": "/b"}, ("prefix", "a.test", "/b/")),
        ({"kind": Kind.PREFIX, "host": "a.test", "path": "/"}, ("host", "a.test")),
        ({"kind": Kind.PREFIX, "host": "a.test", "path": "/", "subdomains": True}, ("domain", "a.test")),
        ({"kind": Kind.EXACT, "host": "a.test", "path": "/"}, ("exact", "a.test", "/")),
        ({"kind": Kind.EXACT, "host": "a.test", "path": "/b/../%63", "query": "%64"}, ("exact", "a.test", "/c", "d")),
        ({"kind": Kind.EXACT, "host": "a.test", "path": "/b", "query": ""}, ("exact", "a.test", "/b", "")),
        ({"kind": Kind.EXACT, "host": "a.test", "path": "/b", "query": "c?d"}, ("exact", "a.test", "/b", "c?d")),
        ({"kind": Kind.DOMAIN, "host": "a.test", "path": "/"}, INVALID),
        ({"kind": Kind.HOST, "host": "a.test", "query": ""}, INVALID),
        ({"kind": Kind.HOST, "host": "a.test", "subdomains": True}, INVALID),
        ({"kind": Kind.PREFIX, "host": "a.test"}, INVALID),
        ({"kind": Kind.PREFIX, "host": "a.test", "path": "b"}, INVALID),
        ({"kind": Kind.PREFIX, "host": "a.test", "path": "/b", "query": "c"}, INVALID),
        ({"kind": Kind.PREFIX, "host": "192.0.2.7", "path": "/b", "subdomains": True}, INVALID),
        ({"kind": Kind.EXACT, "host": "a.test"}, INVALID),
        ({"kind": Kind.EXACT, "host": "a.test", "path": "/b?c"}, INVALID),
        ({"kind": Kind.EXACT, "host": "a.test", "path": "/b?c", "query": "d"}, INVALID),
        ({"kind": Kind.EXACT, "host": "a.test", "path": "/b%3Fc"}, ("exact", "a.test", "/b%3Fc")),
        ({"kind": Kind.HOST, "host": ""}, INVALID),
        ({"kind": Kind.HOST, "host": "a.test/"}, INVALID),
        ({"kind": Kind.HOST, "host": "http://a.test"}, INVALID),
        ({"kind": Kind.HOST, "host": "a.test:80"}, INVALID),
        ({"kind": Kind.HOST, "host": "u@a.test"}, INVALID),
        ({"kind": Kind.DOMAIN, "host": "*.a.test"}, INVALID),
        ({"kind": Kind.DOMAIN, "host": "a!.test"}, INVALID),
    ],
)
def test_fields(fields: dict[str, Any], expected: tuple[Any, ...] | str) -> None:
    if expected == INVALID:
        with pytest.raises(InvalidRule):
            Rule(**fields)
        with pytest.raises(oracle.InvalidRule):
            oracle.canonical_rule(**fields)
    else:
        assert _parts(Rule(**fields)) == OracleRule(*expected)
        assert oracle.canonical_rule(**fields) == OracleRule(*expected)


def test_metadata_is_kept_and_checked() -> None:
    day = date(2026, 8, 1)
    rule = Rule.parse("example.com/a", reference="X-1", category="c", added=day, expires=day)
    assert (rule.reference, rule.category, rule.added, rule.expires) == ("X-1", "c", day, day)
    for reference in ("", "a b", "a" * 65, "http://example.com/", "a\n"):
        with pytest.raises(InvalidRule):
            Rule.parse("example.com/a", reference=reference)


_PLAIN_HOSTS = ("a.test", "www.a.test", "test", "*.a.test", "*.test", "*.192.0.2.7", "192.0.2.7")
_PATHS = (
    "",
    "/",
    "/*",
    "/a",
    "/a/",
    "/a/*",
    "/a*",
    "/a/./",
    "/a/..",
    "/%2e/*",
    "//",
    "\\*",
    "/a?b/*",
    "/a#b/*",
    "/.%3F",
)
_line_hosts = st.one_of(hosts, st.sampled_from(_PLAIN_HOSTS))
_lines = st.one_of(
    urls(),
    st.tuples(
        st.sampled_from(("", "http://", "HTTPS:", "//", "ftp:\\\\", "http:/")),
        st.sampled_from(("", "*.", "*.*.")),
        _line_hosts,
        st.sampled_from(_PATHS),
        st.sampled_from(("", "", "?", "?x", " ", "\n", "#f")),
    ).map("".join),
)
_options = st.builds(Options, st.sampled_from(("host", "domain")), st.sampled_from(("prefix", "exact")))


@settings(max_examples=1500)
@given(_lines, _options)
@example("h.test/a/..%3F", Options())
def test_native_equals_oracle(line: str, options: Options) -> None:
    assume(is_stable(line))
    assert _native_rule(line, options) == _oracle_rule(line, options)


@settings(max_examples=500)
@given(
    st.tuples(
        st.sampled_from(("", "*.", ".", "0.0.0.0 ", "127.1.2.3\t", "::1  ", "1.2.3.4 ")),
        _line_hosts,
        st.sampled_from(("", ".", "/", ":80")),
    ),
    st.sampled_from(("domain", "hosts")),
)
def test_names_equal_oracle(parts: tuple[str, str, str], format: Literal["domain", "hosts"]) -> None:  # noqa: A002
    line = "".join(parts)
    assume(is_stable(line))
    try:
        expected = oracle.parse(line, format)
    except oracle.InvalidRule:
        with pytest.raises(InvalidRule):
            Rule.parse(line, format)
    else:
        assert _parts(Rule.parse(line, format)) == expected


@given(st.one_of(st.text(), st.binary(), _lines), st.sampled_from(("url", "domain", "hosts")))
def test_total_and_silent_about_the_line(line: str | bytes, format: Literal["url", "domain", "hosts"]) -> None:  # noqa: A002
    marker = "zq9markerq9z"
    text = line + marker if isinstance(line, str) else line + marker.encode()
    said = "no error"
    try:
        Rule.parse(text, format)
    except InvalidRule as error:
        said = "".join((str(error), repr(error.args), repr(error.__cause__), repr(error.__context__)))
    assert said
    assert marker not in said.lower()


@given(matching_rules)
def test_text_form_reads_back(fields: OracleRule) -> None:
    rule = Rule(**{**fields._asdict(), "kind": Kind(fields.kind)})
    assert _parts(rule) == fields
    # Text refuses `*.` on one label, and reads an exact rule on a path that ends in a slash as a wider one.
    says_it = "." in fields.host or "[" in fields.host or fields.kind != oracle.DOMAIN
    # A domain rule on an address is written as the host rule that it amounts to.
    says_it = says_it and not (fields.kind == oracle.DOMAIN and canonical.is_ip(fields.host))
    if says_it and not (fields.kind == oracle.EXACT and fields.query is None and (fields.path or "").endswith("/")):
        assert Rule.parse(str(rule)) == rule


@settings(max_examples=200)
@given(
    st.lists(st.one_of(_lines, st.sampled_from(("", "# c", "a.test", "a.test/b")))), st.integers(1, 40), st.booleans()
)
def test_line_parser_equals_rule_parse(lines: list[str], step: int, end: bool) -> None:
    """However the bytes are cut, a list holds what its lines say one by one."""
    lines = [line.replace("\n", "").replace("\r", "") for line in lines]
    parsed, bad = [], 0
    for line in lines:
        try:
            parsed.append(_parts(Rule.parse(line)))
        except InvalidRule:
            bad += bool(line.strip(" \t")) and not line.strip(" \t").startswith("#")
    data = "\n".join(lines).encode("utf-8", "surrogatepass") + (b"\n" if end else b"")
    assume(data.decode("utf-8", "replace") == "\n".join(lines) + ("\n" if end else ""))
    parser = _native.LineParser("url")
    for start in range(0, len(data), step):
        parser.feed(data[start : start + step])
    if end:  # what follows the last line end is read by `finish`
        assert parser.rules == len(parsed)
    rules = parser.finish()
    assert (parser.bad, len(parser.errors)) == (bad, bad)
    assert {OracleRule(*row[:5]) for row in rules} == set(parsed)
    assert len(rules) == len(set(parsed))


def test_public_names() -> None:
    assert blocker.Rule is Rule
    assert issubclass(InvalidRule, ValueError)


@pytest.mark.parametrize("address", ["203.0.113.9", "[2001:db8::1]"])
def test_a_domain_rule_on_an_address_is_written_so_that_it_can_be_read(address: str) -> None:
    """An address has no subdomains, so it is written, and read again, as the host it is."""
    rule = Rule(kind=Kind.DOMAIN, host=address)
    assert Rule.parse(str(rule)) == Rule(kind=Kind.HOST, host=address)
