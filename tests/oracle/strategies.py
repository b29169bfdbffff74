"""Hypothesis strategies that aim at the hard parts: escapes, dots, slashes, addresses, IDNA, colliding rules.

Alphabets are tiny on purpose: interesting things happen where pieces meet.
"""

from __future__ import annotations

import unicodedata
from itertools import product
from typing import NamedTuple

from hypothesis import strategies as st

from tests.oracle.canonical import is_ip, percent_decode, to_bytes
from tests.oracle.matcher import ENFORCE, SHADOW, OracleList, OraclePolicy
from tests.oracle.rules import DOMAIN, EXACT, HOST, PREFIX, OracleRule, canonical_rule

# The one old version that Python keeps. What it has, later versions treat alike, so implementations with different
# Unicode tables must agree; what came later is judged differently by a table that does not have it yet.
_OLD_UNICODE = unicodedata.ucd_3_2_0


def is_stable(url: str | bytes) -> bool:
    """Whether all characters of a URL, also those in escapes, are ASCII or in Unicode since version 3.2."""
    return all(is_stable_character(character) for character in percent_decode(to_bytes(url)).decode("utf-8", "ignore"))


def is_stable_character(character: str) -> bool:
    """Whether a character has been in Unicode since version 3.2."""
    return character.isascii() or _OLD_UNICODE.category(character) != "Cn"


def _soup(pieces: tuple[str, ...], max_size: int) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(pieces), max_size=max_size).map("".join)


_ESCAPES = (
    "%",
    "%25",
    "%2",
    "%%",
    "25",
    "2",
    "5",
    "e",
    "E",
    "%2e",
    "%2F",
    "%5c",
    "%3F",
    "%23",
    "%61",
    "%C3",
    "%bc",
    "%00",
)
_SCHEMES = ("", "http:", "http://", "HTTPS://", "ws:\\\\", "wss:/", "ftp:///", "//", "\\\\", "/", "mailto:", "x-y.z+1:")
_URL_PIECES = (
    *_ESCAPES,
    *_SCHEMES,
    "a",
    "B",
    "h.test",
    "0",
    "80",
    ".",
    "..",
    "/",
    "\\",
    "?",
    "#",
    "@",
    ":",
    "[",
    "]",
    "::1",
    " ",
    "\t",
    "\n",
    "\x00",
    "\x7f",
    ",",
    "*",
    "xn--",
    "\u00fc",
    "\u3002",
    "\u00ad",
    "\u200d",
    "\u05d0",
    "\udc80",
    "\ud800",
    "0x",
    "|",
)
_PATH_PIECES = (*_ESCAPES, "a", "b", "/", "/", "\\", ".", "..", "%252e", " ", "\u00fc", "\udcff", ";", "@", ":", "?")
_IDNA_PIECES = (
    "a",
    "1",
    "-",
    ".",
    "\u3002",
    "\uff0e",
    "\u00fc",
    "u\u0308",
    "\u0308",
    "\u00df",
    "\u1e9e",
    "\u00c4",
    "\u05d0",
    "\u0661",
    "\u06f1",
    "\u200c",
    "\u200d",
    "\u094d",
    "\u0915",
    "\u00ad",
    "\uff21",
    "\uff05",
    "\uff0f",
    "\u2260",
    "\u4e2d",
    "xn--",
    "xn--tda",
    "xn--a",
    "XN--",
    "\ufffd",
    "\ue000",
    "%C3%BC",
    "%25C3%25BC",
    "#",
    ",",
    "[",
    "_",
)

_number = st.one_of(
    st.integers(0, 300), st.sampled_from((0, 255, 256, 65535, 65536, 2**24 - 1, 2**24, 2**32 - 1, 2**32, 2**64))
)
_ipv4_number = st.tuples(st.sampled_from(("{}", "0{:o}", "0x{:x}", "0X{:X}", "00{:o}", "0x0{:x}", "0{}")), _number).map(
    lambda drawn: drawn[0].format(drawn[1])
)
_ipv4_part = st.one_of(_ipv4_number, _ipv4_number, st.sampled_from(("", "0x", "08", "a", "%31", "\uff11", "1a", "0xg")))
_ipv4 = st.lists(_ipv4_part, min_size=1, max_size=5).map(".".join)
_ipv6_part = st.sampled_from(
    ("", "", "0", "0", "1", "ffff", "FFFF", "0db8", "00000", "g", "1.2.3.4", "1.2.3.04", "256.1.1.1")
)
_ipv6 = st.lists(_ipv6_part, min_size=1, max_size=9).map(lambda parts: f"[{':'.join(parts)}]")
_name = _soup(("a", "b", "WWW", ".", "..", "test", "-", "_", "%2e", "%2E", "%41"), 8)

hosts = st.one_of(_name, _ipv4, _ipv6, _soup(_IDNA_PIECES, 6))


@st.composite
def urls(draw: st.DrawFn) -> str:
    """URLs that have all parts in their places, each part hostile."""
    scheme = draw(st.sampled_from(_SCHEMES))
    user = draw(st.sampled_from(("", "", "", "u@", "u:p@", "a@b@", "@", "%40")))
    port = draw(st.sampled_from(("", "", "", ":", ":80", ":0080", ":65536", ":x")))
    path = draw(st.one_of(st.just(""), _soup(_PATH_PIECES, 12).map(lambda text: "/" + text)))
    query = draw(st.one_of(st.just(""), _soup(_PATH_PIECES, 8).map(lambda text: "?" + text)))
    fragment = draw(st.sampled_from(("", "", "", "#", "#a?b/c")))
    return scheme + user + draw(hosts) + port + path + query + fragment


@st.composite
def nested_escapes(draw: st.DrawFn) -> bytes:
    """A path of random bytes, each escaped any number of times over."""
    encoded = b""
    for byte in draw(st.binary(max_size=12)):
        piece = bytes([byte])
        for _ in range(draw(st.integers(0, 3))):
            piece = b"".join(b"%%%02x" % inner for inner in piece)
        encoded += piece
    return b"http://h.test/" + encoded


url_soup = _soup(_URL_PIECES, 16)
any_url: st.SearchStrategy[str | bytes] = st.one_of(
    urls(),
    url_soup,
    url_soup.map(lambda text: "http://" + text),
    url_soup.map(to_bytes),
    nested_escapes(),
    st.text(max_size=30),
    st.text(max_size=30).map(lambda text: "http://" + text),
    st.binary(max_size=30),
    st.binary(max_size=30).map(lambda data: b"http://h.test/" + data),
)

# Most rules and requests share these hosts and paths; the odd ones ask one special question each.
_MEETING_HOSTS = ("a.com", "www.a.com", "b.a.com", "www.b.a.com")
_ODD_HOSTS = (
    "www.www.a.com",
    "c.www.a.com",
    "b.com",
    "com",
    "www.com",
    "a.www.com",
    "192.0.2.7",
    "a.192.0.2.7",
    "www.192.0.2.7",
    "[2001:db8::1]",
)
_PATHS = ("/", "/a", "/a/", "/A", "/a/b", "/a/b/", "/A/b", "/ab", "/a/b/c/d")
_QUERIES = (None, None, "", "x", "X", "x=%25", "x?")
_SPELLINGS = (
    ("/", "/"),
    ("/", "//"),
    ("/", "\\"),
    ("/", "%2F"),
    ("/", "/./"),
    ("/", "/c/../"),
    ("a", "%61"),
    ("b", "%2562"),
    (".com", ".COM."),
)


def _pool(hosts: tuple[str, ...]) -> list[OracleRule]:
    """Every rule over these hosts and the few paths and queries."""
    rules: dict[OracleRule, None] = {}
    for host in hosts:
        rules.update(dict.fromkeys(OracleRule(kind, host) for kind in (DOMAIN, HOST)))
        wildcards = (False,) if is_ip(host) else (False, True)
        for path, subdomains in product(_PATHS, wildcards):
            rules[canonical_rule(PREFIX, host, path, None, subdomains)] = None
            for query in _QUERIES:
                rules[canonical_rule(EXACT, host, path, query, subdomains)] = None
    return list(rules)


def _by_kind(hosts: tuple[str, ...]) -> st.SearchStrategy[OracleRule]:
    """Each kind equally often, though there are far more exact rules than others."""
    pool = _pool(hosts)
    return st.one_of(
        *(st.sampled_from([rule for rule in pool if rule.kind == kind]) for kind in (DOMAIN, HOST, PREFIX, EXACT))
    )


matching_hosts = st.one_of(*[st.sampled_from(_MEETING_HOSTS)] * 3, st.sampled_from(_ODD_HOSTS))
matching_rules = st.one_of(*[_by_kind(_MEETING_HOSTS)] * 3, _by_kind(_ODD_HOSTS))


class Setup(NamedTuple):
    """Lists with their options, and one policy over some of them."""

    lists: dict[str, OracleList]
    policy: OraclePolicy


@st.composite
def setups(draw: st.DrawFn) -> Setup:
    """One to four lists of any action and options; the policy takes them in any order, some not at all."""
    lists = {
        name: OracleList(
            name,
            draw(st.lists(matching_rules, max_size=6)),
            allow=draw(st.sampled_from((False, False, True))),
            www_alias=draw(st.booleans()),
            fold_case=draw(st.booleans()),
        )
        for name in draw(st.sampled_from(("p", "pq", "pqr", "pqrs")))
    }
    order = draw(st.permutations(list(lists)))
    chosen = [name for name in order if draw(st.sampled_from((True, True, True, False)))] or order
    modes = {name: draw(st.sampled_from((ENFORCE, ENFORCE, SHADOW))) for name in chosen}
    return Setup(lists, OraclePolicy(modes, draw(st.sampled_from(("allow", "block")))))


@st.composite
def _spelled(draw: st.DrawFn, url: str) -> str:
    """The same request in another spelling."""
    spelled, spelling = draw(st.one_of(st.just(("a", "a")), st.sampled_from(_SPELLINGS)))
    before, found, after = url.rpartition(spelled)
    # The slash that ends a host must not be escaped: that would be another host.
    if found and ("/" in before or spelling in ("//", "\\", ".COM.")):
        url = before + spelling + after
    return draw(st.sampled_from(("http://", "https:", "", "//"))) + url


@st.composite
def _urls_near(draw: st.DrawFn, rule: OracleRule) -> str:
    """Requests that a rule matches or just misses."""
    host = draw(st.sampled_from(("", "", "", "www.", "c."))) + rule.host
    at = rule.path or draw(st.sampled_from(("/", "/a")))
    path = draw(st.sampled_from((at, at, at.rstrip("/"))))
    path += draw(st.sampled_from(("", "", "/", "c", "/c")))
    query = draw(st.sampled_from((rule.query, rule.query, None, "", "x")))
    return host + (path or "/") + ("" if query is None else f"?{query}")


_urls_anywhere = st.tuples(matching_hosts, st.sampled_from(_PATHS), st.sampled_from(("", "", "?", "?x", "?X"))).map(
    "".join
)


class Case(NamedTuple):
    """A setup and requests to decide with it."""

    setup: Setup
    urls: list[str]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Requests for hosts and paths that the rules speak of, in any spelling."""
    setup = draw(setups())
    rules = [rule for owner in setup.lists.values() for rule in owner.rules]
    near = st.sampled_from(rules).flatmap(_urls_near) if rules else _urls_anywhere
    return Case(setup, draw(st.lists(st.one_of(near, near, _urls_anywhere).flatmap(_spelled), min_size=1, max_size=8)))
