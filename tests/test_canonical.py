"""The canonical form: recorded vectors, its promised properties, and equality with the oracle."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import blocker
from tests.data_dir import vectors
from tests.oracle import canonical as oracle
from tests.oracle.strategies import any_url, hosts, is_stable, is_stable_character, nested_escapes, url_soup, urls

MAX_URL_BYTES = 65_536
MARKER = "Zq9MarkerQ9z"

Canonicalize = Callable[[str | bytes], str]
IMPLEMENTATIONS: dict[str, tuple[Canonicalize, type[Exception]]] = {
    "native": (blocker.canonicalize, blocker.InvalidURL),
    "oracle": (oracle.canonicalize, oracle.InvalidURL),
}
both = pytest.mark.parametrize(("canonicalize", "invalid"), IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)


def _vectors(key: str) -> list[Any]:
    """Vectors that have `canonical`, or those that have `error`, with their clause as test id."""
    found = []
    for clause, rows in vectors("canonical.json").items():
        for number, row in enumerate(rows if clause != "about" else []):
            if key in row:
                url = row["text"] if "text" in row else row["bytes"].encode("latin-1")
                found.append(pytest.param(url, row[key], id=f"{clause}-{number}"))
    return found


def outcome(canonicalize: Canonicalize, invalid: type[Exception], url: str | bytes) -> str | None:
    """The canonical URL, or None when it is invalid."""
    try:
        return canonicalize(url)
    except invalid:
        return None


def native_outcome(url: str | bytes) -> str | None:
    return outcome(blocker.canonicalize, blocker.InvalidURL, url)


def oracle_outcome(url: str | bytes) -> str | None:
    return outcome(oracle.canonicalize, oracle.InvalidURL, url)


@both
@pytest.mark.parametrize(("url", "expected"), _vectors("canonical"))
def test_vectors(canonicalize: Canonicalize, invalid: type[Exception], url: str | bytes, expected: str) -> None:
    del invalid
    assert canonicalize(url) == expected
    assert canonicalize(expected) == expected
    if isinstance(url, str):
        assert canonicalize(oracle.to_bytes(url)) == expected


@both
@pytest.mark.parametrize(("url", "fault"), _vectors("error"))
def test_invalid_vectors(canonicalize: Canonicalize, invalid: type[Exception], url: str | bytes, fault: str) -> None:
    with pytest.raises(invalid) as raised:
        canonicalize(url)
    if canonicalize is blocker.canonicalize:
        assert fault.lower() in str(raised.value).lower(), "the message must name what is wrong"


def test_published_vectors_are_all_recorded() -> None:
    assert len(vectors("canonical.json")["published"]) == 33


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://www.example.com/path?query", "com,example,www,)/path?query"),
        ("https://EXAMPLE.com", "com,example,)/"),
        ("http://localhost:81/a", "localhost,)/a"),
        ("http://0xC0000207/", "192.0.2.7,)/"),
        ("http://[2001:DB8:0::1]:443/a", "[2001:db8::1],)/a"),
        ("http://1.2.3.4.5/", "5,4,3,2,1,)/"),
        ("http://a,b.test/", "test,a%2Cb,)/"),
        ("http://a%2Fb.test/?", "test,a%2Fb,)/?"),
    ],
)
def test_surt_vectors(url: str, expected: str) -> None:
    assert blocker.surt(url) == expected
    assert oracle.surt(url) == expected


@given(any_url)
@example("http://h.test/.%3F")
@example("http://h.test/a%3F/../b")
@example("%2E[")
@example("http://.%5B/")
@example("http://%5B%3A%3A1%5D./")
def test_idempotent(url: str | bytes) -> None:
    once = native_outcome(url)
    assume(once is not None)
    assert once is not None
    assert blocker.canonicalize(once) == once
    assert blocker.surt(once) == blocker.surt(url)


@given(any_url)
def test_canonical_form_is_printable_ascii_of_known_shape(url: str | bytes) -> None:
    once = native_outcome(url)
    assume(once is not None)
    assert once is not None
    assert all("\x20" < character < "\x7f" for character in once)
    scheme, _, rest = once.partition("://")
    assert scheme in ("http", "https", "ws", "wss", "ftp")
    host, slash, path = rest.partition("/")
    assert host
    assert slash
    assert "//" not in path.partition("?")[0]
    assert "#" not in once


@given(st.one_of(st.text(), st.binary(), any_url))
def test_total_and_silent_about_the_input(url: str | bytes) -> None:
    """Only `InvalidURL` may be raised, and neither it nor anything behind it repeats a piece of the URL."""
    marked = [url + MARKER, MARKER + url] if isinstance(url, str) else [url + MARKER.encode(), MARKER.encode() + url]
    said = []
    for text in marked:
        try:
            blocker.canonicalize(text)
        except blocker.InvalidURL as error:
            said.append("".join((str(error), repr(error.args), repr(error.__cause__), repr(error.__context__))))
    assert all(text and MARKER.lower() not in text.lower() for text in said)


@settings(max_examples=800)
@given(any_url)
@example("http://h.test/.%3F")
@example("%2E[")
def test_native_equals_oracle(url: str | bytes) -> None:
    assume(is_stable(url))
    assert native_outcome(url) == oracle_outcome(url)


@settings(max_examples=800)
@given(st.one_of(urls(), url_soup, nested_escapes()))
def test_native_equals_oracle_on_hostile_urls(url: str | bytes) -> None:
    assume(is_stable(url))
    assert native_outcome(url) == oracle_outcome(url)


@settings(max_examples=800)
@given(hosts)
def test_native_equals_oracle_on_hostile_hosts(host: str) -> None:
    assume(is_stable(host))
    assert native_outcome(f"http://{host}/") == oracle_outcome(f"http://{host}/")


def test_native_equals_oracle_on_every_stable_character() -> None:
    """Each character alone; where scripts differ in more than their look, also inside a label and after an alef."""
    differing = []
    for code_point in (*range(0x80, 0xD800), *range(0xF900, 0x3_0000), *range(0xE_0000, 0xE_0200)):
        character = chr(code_point)
        if not is_stable_character(character):
            continue
        is_uniform = 0x3400 <= code_point < 0xD7A4 or code_point >= 0x2_0000  # ideographs and Hangul syllables
        for host in (character,) if is_uniform else (character, f"a{character}b", f"\u05d0{character}"):
            url = f"http://{host}/"
            if native_outcome(url) != oracle_outcome(url):
                differing.append(f"U+{code_point:04X}")
    assert not differing


@pytest.mark.parametrize("characters", [1, 63, 64, 254, 999, 1000, 1001, 2000])
def test_long_labels(characters: int) -> None:
    """No limit of DNS applies; the one that keeps punycode from taking quadratic time does."""
    label = "\u00fc" * characters
    for url in (f"http://{label}.test/", f"http://xn--{label.encode('punycode').decode()}.\u00fc/"):
        assert native_outcome(url) == oracle_outcome(url)
    assert ("%" in blocker.canonicalize(f"http://{label}.test/")) == (characters > 1000)


def test_length_limit_is_in_bytes_of_utf8() -> None:
    start = "http://h.test/"
    longest = start + "a" * (MAX_URL_BYTES - len(start))
    assert blocker.canonicalize(longest) == longest
    assert blocker.canonicalize(longest.encode()) == longest
    wide = "http://h.test/#" + "\u00fc" * ((MAX_URL_BYTES - len(start) - 1) // 2)
    assert blocker.canonicalize(wide) == start
    for too_long in (longest + "a", longest.encode() + b"a", wide + "\u00fc", " " * MAX_URL_BYTES + "a"):
        with pytest.raises(blocker.InvalidURL, match="long"):
            blocker.canonicalize(too_long)


# Inputs that make a careless implementation start over and over again.
ADVERSARIAL = {
    "escaped percent signs": "%25",
    "escaped percent digits": "%2525",
    "escapes that complete each other": "%%32%35",
    "bare percent signs": "%",
    "dot segments": "../",
    "deep dot segments": "a/../",
    "escaped dot segments": "%2e%2e/",
    "slashes": "/",
    "backslashes": "\\",
    "queries": "?",
    "user infos": "@",
    "tabs": "\t",
    "spaces": " ",
    "high bytes": "\u00fc",
}
NESTED_ESCAPE = "%" + "25" * 32_000 + "41"


def _fill(start: str, piece: str) -> str:
    room = MAX_URL_BYTES - len(start)
    return start + piece * (room // len(piece.encode()))


def _seconds(url: str) -> float:
    """Of this thread's time, the least of several runs: what else the machine does must not count."""
    best = float("inf")
    for _ in range(7):
        start = time.thread_time()
        native_outcome(url)
        best = min(best, time.thread_time() - start)
    return best


@pytest.mark.parametrize("piece", [*ADVERSARIAL.values(), NESTED_ESCAPE], ids=[*ADVERSARIAL, "nested escape"])
@pytest.mark.parametrize("place", ["path", "query", "host", "user info"])
def test_time_is_linear(piece: str, place: str) -> None:
    """64 KiB of anything takes at most a small multiple of 64 KiB of plain letters."""
    plain = max(_seconds(_fill("http://h.test/", "a")), 20e-6)
    start = {"path": "http://h.test/", "query": "http://h.test/?", "host": "http://", "user info": "http://u@"}[place]
    assert _seconds(_fill(start, piece)) < 60 * plain


@pytest.mark.parametrize(
    "piece",
    [
        "a.",
        "1.",
        "0x1.",
        "\u00fc.",
        "\u00fc",
        "xn--tda.",
        "\u05d0",
        "e\u0301",
        "\u1e9b\u0323",
        "\uff0e",
        "a:",
        "[",
        "".join(chr(0x4E00 + number) for number in range(500)) + ".",
    ],
)
def test_time_is_linear_in_hosts(piece: str) -> None:
    """Eight times the labels take about eight times as long: IDNA costs more per byte, but not per byte squared."""
    whole = _fill("http://", piece)
    eighth = whole[: len("http://") + (len(whole) - len("http://")) // 8]
    assert _seconds(whole) < 8 * 4 * max(_seconds(eighth), 20e-6)


def test_oracle_is_independent() -> None:
    """It may share nothing with what it checks."""
    for source in (Path(__file__).parent / "oracle").glob("*.py"):
        imports = [line for line in source.read_text(encoding="utf-8").splitlines() if "import" in line]
        assert not [line for line in imports if "blocker" in line.split()], source.name


def test_vector_file_is_plain_ascii() -> None:
    """So that any tool can read it, and a reader sees which character is meant."""
    text = (Path(__file__).parent / "vectors" / "canonical.json").read_bytes()
    assert text.isascii()
    json.loads(text)


@pytest.mark.parametrize("head", ["http://h.test/", "http://h.test/?", "http://"])
def test_a_form_that_outgrows_the_limit_is_no_url(head: str) -> None:
    """Escaping triples what it touches; a result that could not be read again is refused at once."""
    for count in (20_000, 21_800, 21_840, 21_846, 30_000, 65_000):
        url = head.encode() + b"\xff" * count
        found = native_outcome(url)
        assert found == oracle_outcome(url)
        assert found is None or blocker.canonicalize(found) == found
