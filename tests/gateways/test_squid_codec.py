"""The codec of Squid's helpers: ACLs and the rewriter, with channels and without, odd lines, and any split.

The lines are those of Squid's documentation (wiki, Features/AddonHelpers; `external_acl_type`, `url_rewrite_program`).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocker._native import SquidSession
from tests.gateways.test_http_codec import BLOCKED, Desk

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = "https://stop.example/page?a=1"
# What Squid's rfc1738_escape() leaves alone in a field of an ACL's line, beside letters and digits.
PLAIN = b"!$&()*+,-./:;=?@_"
LISTED = BLOCKED.encode()
YES, NO = b"OK blocker_verdict_=block blocker_list_=police\n", b"ERR blocker_verdict_=allow\n"
PARDONED, OTHER = NO[:-1] + b" blocker_list_=pardon\n", YES.replace(b"OK", b"ERR")
INSPECT, STOPPED = b"ERR blocker_verdict_=inspect\n", b'OK status=302 url="https://stop.example/page?a=1"\n'
NO_ADDRESS, TOO_LONG = b"BH message=no-address\n", b"BH message=line-too-long\n"


def escaped(address: bytes) -> bytes:
    return b"".join(bytes([byte]) if bytes([byte]).isalnum() or byte in PLAIN else b"%%%02X" % byte for byte in address)


def ask(*pieces: bytes, style: str = "block", desk: Desk | None = None) -> bytes:
    redirect = PAGE if style == "redirect" else None
    session = SquidSession((desk or Desk()).gate, "block" if redirect else style, redirect)
    answer = b"".join(session.feed(piece) for piece in pieces)
    assert not session.closing, "Squid ends its helpers, and not they themselves"
    return answer


@pytest.mark.parametrize("channel", [b"", b"0 ", b"7 ", b"4294967295 ", b"18446744073709551615 "])
@pytest.mark.parametrize(
    "extras", [b"", b" 192.0.2.7/- somebody GET myip=192.0.2.1 myport=3128", b" - -", b" ", b"  x"]
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_channels_come_back_and_extra_fields_are_skipped(channel: bytes, extras: bytes, end: bytes) -> None:
    for style, good, bad in (("block", NO, YES), ("redirect", b"ERR\n", STOPPED)):
        assert ask(channel + b"http://harmless.example/" + extras + end, style=style) == channel + good
        assert ask(channel + LISTED + extras + end, style=style) == channel + bad


@pytest.mark.parametrize(
    ("line", "block", "inspect"),
    [
        (LISTED, YES, OTHER),
        (escaped(LISTED), YES, OTHER),
        (escaped(b"HTTP://listed.example/gallery/%61{b}"), YES, OTHER),
        (b"http%3A%2F%2Flisted%2eexample%2fgallery%2f1", YES, OTHER),
        (b"http://listed.example/gallery/ok", PARDONED, PARDONED),
        (b"http://shadowed.example/", NO, NO),
        (b"listed.example:443", INSPECT, b"OK blocker_verdict_=inspect\n"),
        (b"listed.example", INSPECT, b"OK blocker_verdict_=inspect\n"),
        (b"LISTED.example:", INSPECT, b"OK blocker_verdict_=inspect\n"),
        (b"host.example:8443", YES, OTHER),
        (b"harmless.example:443", NO, NO),
        (b"[2001:db8::1]:443", NO, NO), (escaped(b"[2001:db8::1]:443"), NO, NO), (b"192.0.2.1", NO, NO),
        (b"-", NO, NO), (b"%2D", NO, NO), (b"", NO_ADDRESS, NO_ADDRESS), (b" x", NO_ADDRESS, NO_ADDRESS),
        (b"12 ", b"12 " + NO_ADDRESS, b"12 " + NO_ADDRESS), (b"12  x", b"12 " + NO_ADDRESS, b"12 " + NO_ADDRESS),
        (b"%zz%2", NO, NO), (b"\x00\xff\x80", NO, NO), (b"://", NO, NO), (b"%0a", NO, NO),
        # Too long for a channel's number.
        (b"1" * 21 + b" x", NO, NO),
    ],
)  # fmt: skip
def test_an_acl_matches_what_it_is_for(line: bytes, block: bytes, inspect: bytes) -> None:
    assert ask(line + b"\n") == block
    assert ask(line + b"\n", style="inspect") == inspect


def test_an_address_in_brackets_is_one_host() -> None:
    desk = Desk()
    desk.engine.swapped(type(desk.followed.matcher).build({"police": ["http://[2001:db8::1]/"]}))  # type: ignore[union-attr]
    for line in (b"[2001:db8::1]:443\n", b"[2001:db8::1]\n", b"%5B2001:db8::1%5D:443\n", b"http://[2001:db8::1]/\n"):
        assert ask(line, desk=desk) == YES
    assert ask(b"[2001:db8::2]:443\n", desk=desk) == NO


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (LISTED, STOPPED), (b"http://harmless.example/", b"ERR\n"), (b"host.example:443", STOPPED),
        (b"listed.example:443", b"ERR\n"), (b"-", b"ERR\n"), (b"", STOPPED),
        # Not escaped by Squid, so not unescaped.
        (b"http%3A//listed.example/gallery/1", b"ERR\n"), (b"http://listed.example/%67allery/1", STOPPED),
        (b"http://listed.example/%2567allery/1", STOPPED),
    ],
)  # fmt: skip
def test_the_rewriter_redirects_what_is_blocked(line: bytes, answer: bytes) -> None:
    assert ask(line + b"\n", style="redirect") == answer


def test_an_address_to_redirect_to_cannot_end_its_quotes() -> None:
    gate = Desk().gate
    for page in (
        'https://a.example/"',
        "https://a.example/\\",
        "https://a.example/ x",
        "a\nb",
        "a\r",
        "\u00e9",
        "\x7f",
    ):
        with pytest.raises(ValueError, match="printable ASCII"):
            SquidSession(gate, "block", page)
    for matches in ("allow", "", "BLOCK"):
        with pytest.raises(ValueError, match="block or inspect"):
            SquidSession(gate, matches, None)


@pytest.mark.parametrize("style", ["block", "inspect", "redirect"])
def test_before_there_is_a_matcher_the_helper_is_broken(style: str) -> None:
    desk = Desk(ready=False)
    asked = b"3 " + LISTED + b"\nhost.example:443\n"
    broken = b"BH message=no-lists-yet\n"
    # After a BH Squid would go on with the address as it was.
    answer = STOPPED if style == "redirect" else broken
    assert ask(asked, style=style, desk=desk) == b"3 " + answer + answer
    passing = SquidSession(desk.gate, "block", PAGE if style == "redirect" else None, open=True)
    assert passing.feed(asked + b"\n8 \n") == b"3 ERR\nERR\nERR\n8 ERR\n"


@pytest.mark.parametrize(
    ("page", "answer"),
    [
        ("http://127.0.0.1:8080/blocked", b'OK rewrite-url="http://127.0.0.1:8080/blocked?list=police"\n'),
        ("http://stop.example/?a=1", b'OK rewrite-url="http://stop.example/?a=1&list=police"\n'),
    ],
)
def test_a_rewriter_may_have_squid_fetch_the_page_of_the_list(page: str, answer: bytes) -> None:
    session = SquidSession(Desk().gate, "block", replace=page)
    assert session.feed(b"4 " + LISTED + b" x\n5 http://harmless.example/\n6 -\n") == b"4 " + answer + b"5 ERR\n6 ERR\n"
    alone = b'OK rewrite-url="' + page.encode() + b'"\n'
    assert SquidSession(Desk(ready=False).gate, "block", replace=page).feed(b"7 " + LISTED + b"\n") == b"7 " + alone
    with pytest.raises(ValueError, match="either redirects or replaces"):
        SquidSession(Desk().gate, "block", PAGE, page)


@pytest.mark.parametrize("size", [1 << 10, 1 << 16, 1 << 30])
def test_a_line_that_is_too_long_gets_its_answer_and_the_next_ones_theirs(size: int) -> None:
    most = 256 * 1024
    for length, channel, answer in ((most, b"9 ", NO), (most + 1, b"9 ", TOO_LONG), (most * 5, b"", TOO_LONG)):
        line = (channel + b"http://harmless.example/").ljust(length, b"a")
        data = line + b"\n7 " + LISTED + b"\n"
        answers = ask(*(data[at : at + size] for at in range(0, len(data), size)))
        assert answers == channel + answer + b"7 " + YES
    session = SquidSession(Desk().gate, "block", None)
    states = [(session.feed(piece), session.unfinished) for piece in (b"5 " + b"a" * most, b"b" * most, b"\n")]
    assert states == [(b"", True), (b"", True), (b"5 " + TOO_LONG, False)]


def test_many_lines_in_one_piece() -> None:
    asked = b"".join(b"%d %s\n" % (number, LISTED if number % 3 else b"-") for number in range(20_000))
    expected = b"".join(b"%d %s" % (number, YES if number % 3 else NO) for number in range(20_000))
    assert ask(asked) == expected


def test_a_helper_does_not_drain() -> None:
    session = SquidSession(Desk().gate, "block", None)
    session.drain()
    assert [session.feed(LISTED + b"\n"), session.feed(b"-\n")] == [YES, NO]


PARTS: Sequence[bytes] = (
    LISTED + b"\n", b"5 " + LISTED + b" -\r\n", b"listed.example:443\n", b"\n", b"\r\n", b" \n", b"77", b"77 \n",
    b"- -\n", escaped(LISTED) + b"\n", b"%", b"http://", b"\r", b"\x00\xff\n", b"1" * 25, b"12 http://a.example/",
)  # fmt: skip
STYLES = st.sampled_from(["block", "inspect", "redirect"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=8).map(b"".join), st.lists(st.integers(0, 400), max_size=8), STYLES)
def test_any_split_is_the_whole(data: bytes, cuts: list[int], style: str) -> None:
    desk = Desk()
    whole = ask(data, style=style, desk=desk)
    borders = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert ask(*(data[a:b] for a, b in itertools.pairwise(borders)), style=style, desk=desk) == whole
    assert ask(*(data[at : at + 1] for at in range(len(data))), style=style, desk=desk) == whole


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PARTS), st.binary(max_size=40)), max_size=8).map(b"".join), STYLES)
def test_each_line_has_one_answer_with_its_channel(data: bytes, style: str) -> None:
    lines, answers = data.split(b"\n")[:-1], ask(data, style=style).split(b"\n")
    assert answers.pop() == b""
    assert len(answers) == len(lines)
    for line, answer in zip(lines, answers, strict=True):
        first, space, _ = line.partition(b" ")
        channel = first + b" " if space and first.isdigit() and len(first) <= 20 else b""
        assert answer.removeprefix(channel).split(b" ")[0] in (b"OK", b"ERR", b"BH")
        assert answer.startswith(channel)
