"""The check gateway's codec: each way of asking, every malformed request, and any split of the bytes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocker import Matcher
from blocker._native import HttpSession
from blocker.control.stop_page import StopPage
from blocker.gateways.engine import VerdictEngine
from blocker.hits.counters import HitCounter
from blocker.stop_section import StopPageSettings
from tests.hits.support import Clock, Followed, MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence

LISTS = {
    "police": ["http://listed.example/gallery/", "http://host.example/"],
    "quiet": ["http://shadowed.example/"],
    "pardon": ["http://listed.example/gallery/ok"],
}
PAGES = StopPage(StopPageSettings(operator="Provider")).as_bytes()


class Desk:
    """An engine with a gate."""

    def __init__(self, *, ready: bool = True) -> None:
        self.followed = Followed(Matcher.build(LISTS, allow=("pardon",), shadow=("quiet",)) if ready else None)
        self.clock = Clock(1_795_989_600.0)
        self.store = MemoryStore()
        self.hits = HitCounter(self.store, node="node", zone=ZoneInfo("UTC"), clock=self.clock, boot="boot")
        self.engine = VerdictEngine(self.followed, self.hits)
        self.gate = self.engine.gate("check", "default", PAGES)

    def ask(self, *pieces: bytes) -> tuple[bytes, bool]:
        session = HttpSession(self.gate)
        return b"".join(session.feed(piece) for piece in pieces), session.closing


def nginx(url: str, *headers: str, method: str = "GET") -> bytes:
    lines = [f"{method} /nginx HTTP/1.1", "Host: blocker", f"X-Original-URL: {url}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def request(target: str, *headers: str, method: str = "GET", host: str | None = "blocker") -> bytes:
    fields = [*headers] if host is None else [f"Host: {host}", *headers]
    return ("\r\n".join([f"{method} {target} HTTP/1.1", *fields]) + "\r\n\r\n").encode("latin-1")


def seen(answer: bytes) -> tuple[int, str, str]:
    """Status, verdict and list of one answer."""
    head = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in head[1:])
    return int(head[0].split()[1]), fields.get("X-Blocker-Verdict", ""), fields.get("X-Blocker-List", "")


BLOCKED = "http://listed.example/gallery/1.jpg"
FORWARD = ("X-Forwarded-Proto: https", "X-Forwarded-Host: listed.example", "X-Forwarded-Uri: /gallery/x?y")


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (nginx(BLOCKED), (403, "block", "police")),
        (nginx("HTTPS://Listed.Example:443//gallery/%61"), (403, "block", "police")),
        (nginx("http://listed.example/"), (204, "allow", "")),
        (nginx("http://listed.example/gallery/ok"), (204, "allow", "pardon")),
        (nginx("http://shadowed.example/"), (204, "allow", "")),
        (nginx("/no-host"), (204, "allow", "")),
        (request("/forward", *FORWARD), (451, "block", "police")),
        (request("/forward", FORWARD[0], FORWARD[1], "X-Forwarded-Uri: /"), (200, "allow", "")),
        (request("/envoy/gallery/x", host="listed.example"), (451, "block", "police")),
        (request("/envoy/", host="listed.example:8443"), (200, "allow", "")),
        (request("/check?url=http%3A%2F%2Fhost.example%2F%3Fa%3D1"), (200, "block", "police")),
        (request("/check?url=http://host.example/?a=1&b=2"), (200, "block", "police")),
        (request("/check?host=listed.example"), (200, "inspect", "")),
        (request("/check?host=host.example"), (200, "block", "police")),
        (request("/check?host=%48ost%2Eexample"), (200, "block", "police")),
        (request("listed.example:443", method="CONNECT"), (200, "inspect", "")),
        (request("host.example:443", method="CONNECT"), (451, "block", "police")),
        (request("[2001:db8::1]:443", method="CONNECT"), (200, "allow", "")),
        (nginx(BLOCKED, method="HEAD"), (403, "block", "police")),
        (nginx(BLOCKED, "Content-Length: 0", method="POST"), (403, "block", "police")),
        (nginx(BLOCKED, "Content-Length: 0", "Content-Length: 0", method="POST"), (403, "block", "police")),
        (nginx(BLOCKED).replace(b"Host: blocker", b"Host:"), (403, "block", "police")),
        (nginx(BLOCKED).replace(b"Host: blocker", b"hOST:[2001:db8::1]:8080\t"), (403, "block", "police")),
        # In absolute-form it is the same question, asked of the target's host.
        (nginx(BLOCKED).replace(b" /nginx", b" http://blocker/nginx"), (403, "block", "police")),
        (request("HTTP://blocker:8080/forward", *FORWARD), (451, "block", "police")),
        (request("https://blocker/check?host=host.example"), (200, "block", "police")),
        (request("http://listed.example/envoy/gallery/x", host="harmless.example"), (451, "block", "police")),
        (request("http://harmless.example/envoy/gallery/x", host="listed.example"), (200, "allow", "")),
    ],
)
def test_each_way_of_asking(asked: bytes, answered: tuple[int, str, str]) -> None:
    answer, closing = Desk().ask(asked)
    assert seen(answer) == answered
    assert not closing


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (request("/nginx"), 400),
        (nginx(BLOCKED, f"X-Original-URL: {BLOCKED}"), 400),
        (nginx(BLOCKED, "x-original-url: http://harmless.example/"), 400),
        (request("/forward", *FORWARD, "X-Forwarded-Host: harmless.example"), 400),
        (request("/envoy/x", host=None), 400),
        (request("/envoy/x", "Host: b.example", host="a.example"), 400),
        (nginx(BLOCKED, "host: b.example"), 400),
        (request("listed.example:443", "Host: a.example", method="CONNECT", host="a.example"), 400),
        # RFC 9112, section 3.2: no host, or none that could be.
        (nginx(BLOCKED).replace(b"Host: blocker\r\n", b""), 400),
        (request("/check?host=a", host=None), 400),
        (request("listed.example:443", method="CONNECT", host=None), 400),
        *(
            (request("/envoy/", host=host), 400)
            for host in ("a.example/", "a.example?", "a.example#", "u@a.example", "a b", "a\\b", "\xfc.example", "a\tb")
        ),
        (
            request("/envoy/x").replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host: blocker", b"Connection: keep-alive"),
            400,
        ),
        # Section 3.2.2: absolute-form, with a host that is none.
        (request("http:///check?host=a"), 400),
        (request("http://u@a.example/check?host=a"), 400),
        (request("http://a.example/check?host=a", host=None), 400),
        (request("http://a.example/check?host=a", "Host: a.example"), 400),
        (request("http://a.example"), 404),
        (request("http://a.example?url=x"), 404),
        (request("http:/nginx"), 404),
        (request("ftp://a.example/nginx"), 404),
        (request("*", method="OPTIONS"), 404),
        (request("/check"), 400),
        (request("/check?uri=x"), 400),
        (request("/"), 404),
        (request("/nginx/x"), 404),
        (request("/envoyx"), 404),
    ],
)
def test_a_question_that_is_none_gets_an_error_and_the_connection_goes_on(asked: bytes, status: int) -> None:
    answer, closing = Desk().ask(asked, nginx(BLOCKED))
    first, second = answer.split(b"\r\n\r\n")[:2]
    assert int(first.split()[1]) == status
    assert seen(second) == (403, "block", "police")
    assert not closing


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n", 400),
        (nginx(BLOCKED, "Content-Length: 5, 6"), 400),
        (nginx(BLOCKED, "Content-Length: 5", "Content-Length: 6"), 400),
        (nginx(BLOCKED, "Content-Length: -1"), 400),
        (nginx(BLOCKED, "Content-Length: 99999999999999999999"), 400),
        (nginx(BLOCKED, "Content-Length: 1048577"), 413),
        (nginx(BLOCKED, "Content-Length: +5"), 400),
        (nginx(BLOCKED, "Content-Length: 0x5"), 400),
        (nginx(BLOCKED, "Content-Length:"), 400),
        (nginx(BLOCKED, "Transfer-Encoding: chunked"), 411),
        (nginx(BLOCKED, "transfer-encoding:\tChunked "), 411),
        (nginx(BLOCKED, "Transfer-Encoding: gzip, chunked"), 501),
        (nginx(BLOCKED, "Transfer-Encoding: chunked", "Transfer-Encoding: identity"), 501),
        (nginx(BLOCKED, "Transfer-Encoding: \x0bchunked"), 400),
        (nginx(BLOCKED, "Transfer-Encoding: chunked", "Content-Length: 5"), 400),
        (nginx(BLOCKED, "Content-Length: 0", "Transfer-Encoding: x"), 400),
        (nginx(BLOCKED, "Transfer-Encoding: chunked", "Expect: 100-continue"), 411),
        (nginx(BLOCKED, "Transfer-Encoding: chunked", "Connection: keep-alive").replace(b"/1.1", b"/1.0"), 400),
        (nginx(BLOCKED, *(f"X-{number}: y" for number in range(120))), 431),
        (b"GET /nginx HTTP/1.1\r\nX-Long: " + b"a" * 300_000, 431),
        (nginx(f"http://a.example/{'a' * 270_000}"), 431),
        (nginx(BLOCKED).replace(b"HTTP/1.1", b"HTTP/2.0"), 400),
        (nginx(BLOCKED).replace(b"Host: blocker", b"Host : blocker"), 400),
        (nginx(BLOCKED, "Content-Length : 5"), 400),
        (nginx(BLOCKED, "Content-Length\t: 5"), 400),
        # Lines folded into the one before (RFC 9112, section 5.2), and one that has none before it.
        (nginx(BLOCKED, "X: y", " Content-Length: 5"), 400),
        (nginx(BLOCKED, "X: y", "\tz"), 400),
        (nginx(BLOCKED).replace(b"Host", b" Host"), 400),
        # Ends of lines that not all read alike, and bytes that end a string for some.
        (nginx(BLOCKED).replace(b"\r\n", b"\n"), 400),
        (nginx(BLOCKED, "X: y\nContent-Length: 5"), 400),
        (nginx(BLOCKED, "X: y\rContent-Length: 5"), 400),
        (nginx(BLOCKED, "X: y")[:-2] + b"\n", 400),
        (nginx(BLOCKED, "X: y\0z"), 400),
        (nginx(BLOCKED, "X\0: y"), 400),
        (nginx(BLOCKED + "\0"), 400),
        (request("/check?host=a\0b"), 400),
        (request("/check?host=a b"), 400),
        (request(" /check?host=a"), 400),
        (nginx(BLOCKED, ": y"), 400),
        (nginx(BLOCKED, "no colon"), 400),
    ],
)
def test_who_breaks_the_protocol_is_cut_off(asked: bytes, status: int) -> None:
    answer, closing = Desk().ask(asked, nginx(BLOCKED))
    assert closing
    assert int(answer.split()[1]) == status
    assert answer.count(b"HTTP/1.1") == 1, "nothing after it is answered"
    assert b"listed" not in answer


def test_a_body_is_skipped() -> None:
    body = nginx("http://host.example/")  # a question of its own, if it were taken for one
    post = nginx(BLOCKED, f"Content-Length: {len(body)}", method="POST")
    answer, _ = Desk().ask(post + body + nginx("http://harmless.example/"))
    assert [seen(part)[0] for part in answer.replace(b"HTTP/1.1", b"\0HTTP/1.1").split(b"\0")[1:]] == [403, 204]


@pytest.mark.parametrize("header", ["Connection: close", "Connection: x, Close", "Expect: 100-continue"])
def test_the_last_request_of_a_connection(header: str) -> None:
    answer, closing = Desk().ask(nginx(BLOCKED, header) + nginx(BLOCKED))
    assert closing
    assert answer.count(b"HTTP/1.1") == 1
    assert b"\r\nConnection: close\r\n" in answer


def test_old_http_ends_after_its_answer_unless_it_asks() -> None:
    old = nginx(BLOCKED).replace(b"HTTP/1.1", b"HTTP/1.0")
    assert Desk().ask(old)[1]
    stays = old.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n")
    answer, closing = Desk().ask(stays + stays)
    assert not closing
    assert answer.count(b"\r\nConnection: keep-alive\r\n") == 2, "or the peer waits for an end"
    assert b"keep-alive" not in Desk().ask(nginx(BLOCKED, "Connection: keep-alive"))[0]
    assert Desk().ask(old.replace(b"\r\n\r\n", b"\r\nConnection: close, keep-alive\r\n\r\n"))[1], "close wins"


def test_old_http_waits_for_no_leave_to_send_its_body() -> None:
    old = nginx(BLOCKED, "Expect: 100-continue", "Connection: keep-alive", "Content-Length: 3").replace(
        b"/1.1", b"/1.0"
    )
    answer, closing = Desk().ask(old + b"abc" + nginx("http://harmless.example/"))
    assert not closing
    assert [seen(b"HTTP/1.1 " + part)[0] for part in answer.split(b"HTTP/1.1 ")[1:]] == [403, 204]


def test_a_session_that_drains_answers_once_more() -> None:
    desk = Desk()
    session = HttpSession(desk.gate)
    assert not session.unfinished
    states = []
    for piece in (nginx(BLOCKED)[:10], nginx(BLOCKED)[10:]):
        answer = session.feed(piece)
        states.append((session.unfinished, session.closing))
        session.drain()
    assert b"Connection: close" in answer
    assert states == [(True, False), (False, True)]
    assert session.feed(nginx(BLOCKED)) == b""


def test_before_there_is_a_matcher_nothing_is_let_through_or_blocked() -> None:
    desk = Desk(ready=False)
    assert seen(desk.ask(nginx(BLOCKED))[0])[0] == 503
    assert desk.gate.tag == "none"
    desk.engine.swapped(Matcher.build(LISTS))
    assert seen(desk.ask(nginx(BLOCKED))[0])[0] == 403
    before = desk.gate.tag
    desk.engine.swapped(Matcher.build(LISTS, serials={"police": 2}))
    assert desk.gate.tag != before


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_stop_page_is_the_answer(method: str) -> None:
    answer, _ = Desk().ask(request("/envoy/gallery/", "Accept-Language: xx, en", method=method, host="listed.example"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 451 Unavailable For Legal Reasons\r\n")
    lowered = head.lower()
    for field in (b'rel="blocked-by"', b"cache-control: no-store", b"content-language: en", b"x-blocker-list: police"):
        assert field in lowered
    assert b"listed.example" not in answer
    length = int(next(line for line in lowered.split(b"\r\n") if line.startswith(b"content-length")).split(b":")[1])
    assert len(body) == (length if method == "GET" else 0)
    assert length > 500


PARTS: Sequence[bytes] = (
    nginx(BLOCKED), nginx("http://harmless.example/"), request("/forward", *FORWARD), request("/nope"),
    request("/check?host=listed.example"), nginx(BLOCKED, "Content-Length: 7", method="POST") + b"1234567",
    b"\r\n", nginx(BLOCKED, "Content-Length: x"), nginx(BLOCKED, "Connection: close"), b"GET ", b"\n\n", b"\x00\xff",
    nginx(BLOCKED).replace(b"\r\n", b"\n"), request("/check?host=a", host=None),
    request("http://listed.example/envoy/gallery/"), nginx(BLOCKED, "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    nginx(BLOCKED, "Connection: keep-alive").replace(b"/1.1", b"/1.0"),
    request("/envoy/gallery/", host="listed.example"),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=6).map(b"".join), st.lists(st.integers(0, 2000), max_size=8))
def test_any_split_is_the_whole(data: bytes, cuts: list[int]) -> None:
    desk = Desk()
    whole = desk.ask(data)
    borders = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert desk.ask(*(data[a:b] for a, b in itertools.pairwise(borders))) == whole
    assert desk.ask(*(data[at : at + 1] for at in range(len(data)))) == whole


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PARTS), st.binary(max_size=40)), max_size=6).map(b"".join))
def test_garbage_is_answered_or_cut_off_and_never_more(data: bytes) -> None:
    desk = Desk()
    session = HttpSession(desk.gate)
    answer = session.feed(data)
    assert answer.count(b"HTTP/1.1 ") <= data.count(b"\n\n") + data.count(b"\n\r\n") + 1
    if not session.closing and not session.unfinished:
        assert seen(session.feed(nginx(BLOCKED)))[0] in (400, 403)
