"""The canonical form against public vectors and real requests."""

from __future__ import annotations

import re
from typing import Any

import pytest

import blocker
from tests.data_dir import needs_shared_data, shared_json, traffic
from tests.oracle import canonical as oracle
from tests.oracle.strategies import is_stable

_SPECIAL = re.compile(r"(https?|wss?|ftp):(.*)", re.IGNORECASE | re.DOTALL)

# Input and `href` as the URL Standard's own tests have them; enough to notice a break where the shared data is missing.
BROWSER_CASES = [
    ("http://example\t.\norg", "http://example.org/"),
    ("http://user:pass@foo:21/bar;par?b#c", "http://user:pass@foo:21/bar;par?b#c"),
    ("http:\\\\x:hi@y\\z", "http://x:hi@y/z"),
    ("http:///foo//bar/../baz", "http://foo//baz"),
    ("http://example.com/foo/%2e%2", "http://example.com/foo/%2e%2"),
    ("http://example.com/foo/%2e./%2e%2e/.%2e/%2e.bar", "http://example.com/%2e.bar"),
    ("http://example.com////../..", "http://example.com//"),
    ("http://example.com/foo\t%91", "http://example.com/foo%91"),
    ("http://example.com/\u202e/foo/\u202d/bar", "http://example.com/%E2%80%AE/foo/%E2%80%AD/bar"),
    ("http://GOO\u200b\u2060\ufeffgoo.com", "http://googoo.com/"),
    ("http://www.foo\u3002bar.com", "http://www.foo.bar.com/"),
    ("http://\uff27\uff4f.com", "http://go.com/"),
    ("http://\uff10\uff38\uff43\uff10\uff0e\uff10\uff12\uff15\uff10\uff0e\uff10\uff11", "http://192.168.0.1/"),
    ("http://192.0x00A80001", "http://192.168.0.1/"),
    ("http://0x7f.1/test", "http://127.0.0.1/test"),
    ("http://[1::2]:3:4".removesuffix(":4"), "http://[1::2]:3/"),
    ("http://[::127.0.0.1]", "http://[::7f00:1]/"),
    ("http://[2001::1]:80", "http://[2001::1]/"),
    ("https://fa\u00df.ExAmPlE/", "https://xn--fa-hia.example/"),
    ("wss://host:443/ws?x", "wss://host/ws?x"),
    ("ftp://example.com//a/./b", "ftp://example.com//a/b"),
]


def _stands_alone(case: dict[str, Any]) -> bool:
    """A special URL that takes nothing from its base: a relative one of the base's scheme has no two slashes."""
    href = _SPECIAL.fullmatch(case["href"])
    found = _SPECIAL.fullmatch(oracle.clean(oracle.to_bytes(case["input"])).decode("utf-8", "replace"))
    if href is None or found is None:
        return False
    same_scheme = (case.get("base") or "").lower().startswith(found[1].lower() + ":")
    return not same_scheme or re.match(r"[/\\]{2}", found[2]) is not None


def _outcome(url: str | bytes) -> str | None:
    try:
        return blocker.canonicalize(url)
    except blocker.InvalidURL:
        return None


def _oracle_outcome(url: str | bytes) -> str | None:
    try:
        return oracle.canonicalize(url)
    except oracle.InvalidURL:
        return None


@pytest.mark.parametrize(("text", "href"), BROWSER_CASES)
def test_browser_equal(text: str, href: str) -> None:
    assert blocker.canonicalize(text) == blocker.canonicalize(href)
    assert oracle.canonicalize(text) == oracle.canonicalize(href)


@needs_shared_data
@pytest.mark.parametrize(
    ("name", "least"),
    [("urltestdata.json", 200), ("ada_extra_urltestdata.json", 5), ("ada_long_urltestdata.json", 1)],
)
def test_browser_equal_over_the_url_standards_cases(name: str, least: int) -> None:
    compared = 0
    for case in shared_json(f"url_vectors/{name}"):
        if isinstance(case, str) or case.get("failure") or not _stands_alone(case):
            continue
        compared += 1
        assert _outcome(case["input"]) == _outcome(case["href"]), case["input"]
        assert _outcome(case["input"]) == _oracle_outcome(case["input"]), case["input"]
    assert compared >= least


@needs_shared_data
def test_failing_cases_agree_with_the_oracle() -> None:
    """What a browser refuses may be canonicalised here (percent-escaped hosts), but both sides must do the same."""
    for name in ("urltestdata.json", "ada_extra_urltestdata.json", "verifydnslength_tests.json"):
        for case in shared_json(f"url_vectors/{name}"):
            if not isinstance(case, str) and is_stable(case["input"]):
                assert _outcome(case["input"]) == _oracle_outcome(case["input"]), case["input"]


@needs_shared_data
@pytest.mark.parametrize(
    ("name", "least"), [("toascii.json", 60), ("IdnaTestV2.json", 1600), ("IdnaTestV2-removed.json", 20)]
)
def test_uts46_vectors(name: str, least: int) -> None:
    """Non-ASCII hosts become what the vectors say, without empty labels; those that must fail are escaped instead.

    ASCII hosts are only lower-cased and are no matter of UTS #46 here.
    """
    compared = 0
    for case in shared_json(f"url_vectors/{name}"):
        if isinstance(case, str) or case["input"].isascii():
            continue
        compared += 1
        escaped = "".join(f"%{byte:02X}" for byte in case["input"].encode("utf-8", "replace"))
        actual = _outcome(f"http://{escaped}/")
        if case["output"] is None:
            assert actual is None or "%" in actual, case
        elif case["output"].strip("."):
            host = re.sub(r"\.+", ".", case["output"].strip("."))
            assert actual == _oracle_outcome(f"http://{host}/"), case
        else:
            assert actual is None, case
        assert actual == _oracle_outcome(f"http://{escaped}/"), case
    assert compared >= least


@needs_shared_data
def test_native_equals_oracle_over_real_requests() -> None:
    compared = 0
    for url in traffic():
        compared += 1
        assert _outcome(url) == _oracle_outcome(url), url
    assert compared > 240_000


@needs_shared_data
def test_real_requests_are_idempotent() -> None:
    for url in traffic():
        once = _outcome(url)
        assert once is None or blocker.canonicalize(once) == once, url
