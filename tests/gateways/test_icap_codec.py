"""The icap gateway's codec: RFC 3507's own examples, each way of asking, every malformed request, any split."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocker import Matcher
from blocker._native import IcapSession
from blocker.gateways.icap import reqmod
from tests.gateways.icap_replies import replies
from tests.gateways.test_http_codec import LISTS, Desk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.gateways.icap_replies import Reply

# RFC 3507, section 4.8.3, examples 1 to 3, and section 4.10.3: all but the names, which are of the same length.
RFC_GET = (
    b"REQMOD icap://icap-server.test/server?arg=87 ICAP/1.0\r\nHost: icap-server.test\r\n"
    b"Encapsulated: req-hdr=0, null-body=170\r\n\r\n"
    b"GET / HTTP/1.1\r\nHost: origin-server.example\r\nAccept: text/html, text/plain\r\nAccept-Encoding: compress\r\n"
    b'Cookie: ff39fk3jur@4ii0e02i\r\nIf-None-Match: "xyzzy", "r2d2xxxx"\r\n\r\n'
)
RFC_POST = (
    b"REQMOD icap://icap-server.test/server?arg=87 ICAP/1.0\r\nHost: icap-server.test\r\n"
    b"Encapsulated: req-hdr=0, req-body=147\r\n\r\n"
    b"POST /origin-resource/form.pl HTTP/1.1\r\nHost: origin-server.example\r\nAccept: text/html, text/plain\r\n"
    b"Accept-Encoding: compress\r\nPragma: no-cache\r\n\r\n"
    b"1e\r\nI am posting this information.\r\n0\r\n\r\n"
)
RFC_NAUGHTY = (
    b"REQMOD icap://icap-server.test/content-filter ICAP/1.0\r\nHost: icap-server.test\r\n"
    b"Encapsulated: req-hdr=0, null-body=119\r\n\r\n"
    b"GET /naughty-content HTTP/1.1\r\nHost: naughty-site.example\r\nAccept: text/html, text/plain\r\n"
    b"Accept-Encoding: compress\r\n\r\n"
)
RFC_OPTIONS = (
    b"OPTIONS icap://icap.server.test/sample-service ICAP/1.0\r\nHost: icap.server.test\r\n"
    b"User-Agent: ICAP-Client-Library/2.3\r\n\r\n"
)
GOOD = b"GET http://harmless.example/ HTTP/1.1\r\nHost: harmless.example\r\n\r\n"
LISTED = b"GET http://listed.example/gallery/1.jpg HTTP/1.1\r\nHost: listed.example\r\n\r\n"
BODY = b"5;a=b\r\nhello\r\n3\r\n\r\n0\r\n0\r\nTrailer: x\r\n\r\n"
ALLOWED, BLOCKED = (204, "allow", ""), (200, "block", "police")


def posted(request: bytes, body: bytes, *fields: str) -> bytes:
    """A question about a request with a body, in chunks."""
    lines = [
        "REQMOD icap://blocker/reqmod ICAP/1.0",
        *fields,
        f"Encapsulated: req-hdr=0, req-body={len(request)}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + request + body


def ask(*pieces: bytes, desk: Desk | None = None) -> tuple[list[Reply], bool]:
    session = IcapSession((desk or Desk()).gate, 100)
    return replies(b"".join(session.feed(piece) for piece in pieces)), session.closing


def one(asked: bytes, desk: Desk | None = None) -> Reply:
    """The one answer on a connection that goes on."""
    (reply,), closing = ask(asked, desk=desk)
    assert reply.whole
    assert not closing
    assert "connection" not in reply.fields
    return reply


def test_what_the_rfc_asks_is_echoed_or_stopped() -> None:
    get, post = one(RFC_GET), one(RFC_POST)
    assert (get.verdict, get.head, get.body) == ((200, "allow", ""), RFC_GET[-170:], None)
    assert get.fields["encapsulated"] == "req-hdr=0, null-body=170"
    assert (post.verdict, post.body) == ((200, "allow", ""), b"I am posting this information.")
    assert post.head + post.chunks == RFC_POST.partition(b"\r\n\r\n")[2], "byte for byte"
    desk = Desk()
    desk.engine.swapped(Matcher.build({"police": ["http://naughty-site.example/naughty-content"]}))
    naughty = one(RFC_NAUGHTY, desk)
    assert naughty.verdict == BLOCKED
    assert naughty.head.startswith(b"HTTP/1.1 451 Unavailable For Legal Reasons\r\n")
    assert naughty.body
    assert naughty.fields["encapsulated"] == f"res-hdr=0, res-body={len(naughty.head)}"
    assert f"Content-Length: {len(naughty.body)}\r\n".encode().lower() in naughty.head.lower()


def test_options_says_what_there_is() -> None:
    for asked in (RFC_OPTIONS, RFC_OPTIONS[:-2] + b"Encapsulated: null-body=0\r\n\r\n"):
        reply = one(asked)
        assert reply.status == 200
        assert reply.fields["encapsulated"] == "null-body=0"
        said = {name: reply.fields[name] for name in ("methods", "allow", "preview", "max-connections")}
        assert said == {"methods": "REQMOD", "allow": "204", "preview": "0", "max-connections": "100"}
        assert int(reply.fields["options-ttl"]) > 0
        assert reply.fields["service"]


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (reqmod(GOOD, "Allow: 204"), ALLOWED), (reqmod(GOOD), (200, "allow", "")),
        (reqmod(GOOD, "allow:  206 , 204"), ALLOWED), (reqmod(GOOD, "Allow: 206"), (200, "allow", "")),
        (reqmod(GOOD, "Preview: 0"), ALLOWED), (reqmod(GOOD, "Preview: 0", "Allow: 204"), ALLOWED),
        (reqmod(LISTED, "Allow: 204"), BLOCKED), (reqmod(LISTED), BLOCKED), (reqmod(LISTED, "Preview: 0"), BLOCKED),
        (posted(GOOD, b"0\r\n\r\n", "Preview: 0"), ALLOWED),
        (posted(GOOD, b"0; ieof\r\n\r\n", "Preview: 1024"), ALLOWED),
        (posted(GOOD, b"5\r\nhello\r\n0; ieof\r\n\r\n", "Preview: 1024"), ALLOWED),
        (posted(GOOD, b"4\r\nhell\r\n0\r\n\r\n", "Preview: 4"), ALLOWED),
        (posted(GOOD, BODY, "Allow: 204"), ALLOWED), (posted(GOOD, BODY), (200, "allow", "")),
        (posted(LISTED, BODY), BLOCKED), (posted(LISTED, b"4\r\nhell\r\n0\r\n\r\n", "Preview: 4"), BLOCKED),
        (reqmod(b"GET /gallery/x HTTP/1.1\r\nHost: listed.example\r\n\r\n"), BLOCKED),
        (reqmod(b"GET /gallery/x HTTP/1.1\r\nhOST :listed.example:80\r\n\r\n"), BLOCKED),
        (reqmod(b"GET /gallery/ok HTTP/1.1\r\nHost: listed.example\r\n\r\n", "Allow: 204"), (204, "allow", "pardon")),
        (reqmod(b"GET http://listed.example/gallery/x HTTP/1.1\r\nHost: harmless.example\r\n\r\n"), BLOCKED),
        (reqmod(b"GET http://listed.example/gallery/a b HTTP/1.1\r\n\r\n"), BLOCKED),
        (reqmod(b"GET http://listed.example/gallery/\r\n\r\n"), BLOCKED),
        (reqmod(b"OPTIONS * HTTP/1.1\r\nHost: host.example\r\n\r\n"), BLOCKED),
        (reqmod(b"PATCH HTTPS://LISTED.example:443//gallery/%61 HTTP/2.0\r\n\r\n"), BLOCKED),
        (reqmod(b"CONNECT listed.example:443 HTTP/1.1\r\n\r\n", "Allow: 204"), (204, "inspect", "")),
        (reqmod(b"CONNECT listed.example:443 HTTP/1.1\r\n\r\n"), (200, "inspect", "")),
        (reqmod(b"CONNECT host.example:443 HTTP/1.1\r\n\r\n", "Allow: 204"), BLOCKED),
        (reqmod(b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\n\r\n", "Allow: 204"), ALLOWED),
        (reqmod(b"GET http://shadowed.example/ HTTP/1.1\r\n\r\n", "Allow: 204"), ALLOWED),
    ],
)  # fmt: skip
def test_each_way_of_asking(asked: bytes, answered: tuple[int, str, str]) -> None:
    reply = one(asked)
    assert reply.verdict == answered
    encapsulated = asked.partition(b"\r\n\r\n")[2]
    if answered[1] == "block":
        assert reply.head.startswith(b"HTTP/1.1 451 ")
    elif answered[0] == 200:
        assert reply.head + reply.chunks == encapsulated, "byte for byte"
    else:
        assert reply.fields["encapsulated"] == "null-body=0"


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n\r\nHost: listed.example\r\n\r\n", b"GET\r\n\r\n", b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: harmless.example\r\nHost: listed.example\r\n\r\n", b"GET  \r\n\r\n",
        b"GET / HTTP/1.1", b"GET / HTTP/1.1\r\nHost: a.example\r\nhost : a.example\r\n\r\n",
    ],
)  # fmt: skip
def test_a_request_that_says_nothing_or_two_things_is_400_and_the_connection_goes_on(request_: bytes) -> None:
    for asked in (reqmod(request_, "Allow: 204"), posted(request_, BODY)):
        (first, second), closing = ask(asked + reqmod(LISTED))
        assert (first.verdict, second.verdict, closing) == ((400, "", ""), BLOCKED, False)


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400), (b"GET / HTTP/1.1\r\n\r\n", 400), (b"\x16\x03\x01\n\n", 400),
        (reqmod(GOOD).replace(b"ICAP/1.0", b"ICAP/2.0"), 505), (reqmod(GOOD).replace(b"ICAP/1.0", b"ICAP/1.00"), 505),
        (reqmod(GOOD).replace(b"REQMOD", b"RESPMOD"), 405), (reqmod(GOOD).replace(b"REQMOD", b"reqmod"), 405),
        (reqmod(GOOD).replace(b"icap://blocker/reqmod ", b""), 400),
        (reqmod(GOOD).replace(b"REQMOD ", b"REQMOD  "), 400),
        (reqmod(GOOD).replace(b"Host: blocker", b"Host : blocker"), 400),
        (reqmod(GOOD, "Encapsulated: req-hdr=0, null-body=5"), 400), (reqmod(GOOD, *["X: y"] * 64), 400),
        (RFC_OPTIONS[:-2] + b"Encapsulated: opt-body=0\r\n\r\n0\r\n\r\n", 400),
        (RFC_OPTIONS[:-2] + b"Encapsulated: req-hdr=0, null-body=4\r\n\r\n", 400),
        *((b"REQMOD x ICAP/1.0\r\n" + line + b"\r\n" + LISTED, 400) for line in (
            b"", b"Encapsulated: \r\n", b"Encapsulated: req-hdr=0\r\n", b"Encapsulated: req-hdr=1, null-body=9\r\n",
            b"Encapsulated: req-hdr=0, null-body=-1\r\n", b"Encapsulated: req-hdr=0, null-body=0x9\r\n",
            b"Encapsulated: req-hdr=0, null-body=+9\r\n", b"Encapsulated: req-hdr=0, null-body=4294967297\r\n",
            b"Encapsulated: res-hdr=0, res-body=9\r\n", b"Encapsulated: req-hdr=0, null-body=0\r\n",
            b"Encapsulated: req-hdr=0, res-hdr=9, res-body=9\r\n", b"Encapsulated: null-body=9\r\n",
        )),
        (b"REQMOD x ICAP/1.0\r\nX-Long: " + b"a" * 70_000, 413), (reqmod(GOOD, f"X-Long: {'a' * 70_000}"), 413),
        (b"REQMOD x ICAP/1.0\r\nEncapsulated: req-hdr=0, null-body=262145\r\n\r\n", 413),
        *((posted(GOOD, body, "Allow: 204"), 400) for body in (
            b"x", b"\r\n", b"-1\r\n", b"5\r\nhell\r\n0\r\n\r\n", b"4\r\nhello\r\n0\r\n\r\n", b"1\nx", b"0\r\n\n",
            b"1 1\r\n", b"f" * 16 + b"\r\n", b"1;" + b"x" * 2000, b"0\r\n" + b"x: y\r\n" * 20_000,
        )),
    ],
)  # fmt: skip
def test_who_breaks_the_protocol_is_cut_off(asked: bytes, status: int) -> None:
    (reply,), closing = ask(asked, reqmod(LISTED))
    assert closing
    assert (reply.status, reply.fields["connection"], reply.body) == (status, "close", None)


def test_an_echo_of_a_broken_body_breaks_off() -> None:
    (reply,), closing = ask(posted(GOOD, b"5\r\nhello\r\n5\r\nhello!" + reqmod(LISTED)))
    assert closing
    assert (reply.body, reply.whole) == (b"hellohello", False), "and nothing is written into it"


def test_what_is_long_but_in_bounds_is_answered() -> None:
    head = b"GET http://listed.example/gallery/ HTTP/1.1\r\nX: " + b"a" * (256 * 1024 - 52) + b"\r\n\r\n"
    assert len(head) == 256 * 1024
    assert one(reqmod(head)).verdict == BLOCKED
    assert one(reqmod(GOOD, f"X-Long: {'a' * 65_000}", "Allow: 204")).verdict == ALLOWED
    body = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    assert len(one(posted(GOOD, body * 40 + b"0\r\n\r\n")).body or b"") == 40 * 65_536


def test_pipelined_requests_are_answered_in_turn() -> None:
    asked = [reqmod(LISTED), RFC_OPTIONS, posted(GOOD, BODY), reqmod(GOOD, "Allow: 204"), b"\r\n", posted(LISTED, BODY)]
    found, closing = ask(b"".join(asked * 50))
    assert [reply.verdict for reply in found] == [BLOCKED, (200, "", ""), (200, "allow", ""), ALLOWED, BLOCKED] * 50
    assert not closing


def test_the_tag_moves_with_the_lists() -> None:
    desk = Desk(ready=False)
    asked = [
        reqmod(LISTED),
        reqmod(GOOD),
        reqmod(GOOD, "Allow: 204"),
        RFC_OPTIONS,
        posted(b"GET\r\n\r\n", BODY),
        b"x\n\n",
    ]
    tags = []
    for serial in (None, 1, 2):
        if serial:
            desk.engine.swapped(Matcher.build(LISTS, serials={"police": serial}))
        found, _ = ask(b"".join(asked), desk=desk)
        assert len(found) == len(asked)
        tags.append({reply.fields["istag"] for reply in found})
    assert [len(tag) for tag in tags] == [1, 1, 1], "one for all answers of the same lists"
    assert len(set.union(*tags)) == 3


def test_before_there_is_a_matcher_nothing_is_let_through_or_blocked() -> None:
    desk = Desk(ready=False)
    for asked in (reqmod(LISTED), reqmod(GOOD, "Allow: 204"), posted(GOOD, BODY), reqmod(GOOD, "Preview: 0")):
        assert one(asked, desk).verdict == (503, "", "")
    assert one(RFC_OPTIONS, desk).status == 200


@pytest.mark.parametrize("asked", [reqmod(LISTED), reqmod(GOOD), posted(GOOD, BODY), posted(LISTED, BODY), RFC_OPTIONS])
def test_the_last_request_of_a_connection(asked: bytes) -> None:
    for value in (b"close", b"x, Close"):
        (reply,), closing = ask(asked.replace(b"ICAP/1.0\r\n", b"ICAP/1.0\r\nConnection: " + value + b"\r\n") + asked)
        assert (reply.fields["connection"], closing, reply.whole) == ("close", True, True)
    session = IcapSession(Desk().gate, 100)
    answers = [session.feed(asked), session.feed(asked[:20])]
    session.drain()
    assert (session.unfinished, session.closing) == (True, False)
    answers.append(session.feed(asked[20:]))
    kept, last = replies(b"".join(answers))
    assert ("connection" in kept.fields, last.fields["connection"], session.closing) == (False, "close", True)
    assert session.feed(asked) == b""


def test_who_asks_is_not_looked_at() -> None:
    who = [
        "X-Client-IP: 192.0.2.77",
        "X-Authenticated-User: V2luTlQ6Ly9ub2JvZHk=",
        "X-Client-IP: \u00e9, 7",
        "From: nobody",
    ]
    desk = Desk()
    for fields in ([], ["Allow: 204"]):
        for request in (LISTED, GOOD):
            plain, named = (one(reqmod(request, *fields, *more), desk) for more in ([], who))
            assert plain == named


def test_the_page_is_in_the_readers_language_and_bare_for_head() -> None:
    for language in ("sv", "de"):
        reply = one(reqmod(LISTED[:-2] + f"Accept-Language: xx, {language};q=0.5\r\n\r\n".encode()))
        assert f"content-language: {language}\r\n".encode() in reply.head.lower()
    default = one(reqmod(LISTED))
    assert b"content-language: en\r\n" in default.head.lower()
    assert default.body
    head = one(reqmod(b"HEAD" + LISTED[3:]))
    assert (head.verdict, head.head, head.body) == (BLOCKED, default.head, None)
    assert b"listed.example" not in default.head + default.body


PARTS: Sequence[bytes] = (
    reqmod(LISTED), reqmod(GOOD, "Allow: 204"), reqmod(GOOD), posted(GOOD, BODY), posted(LISTED, BODY, "Preview: 8"),
    RFC_OPTIONS, RFC_POST, b"\r\n", reqmod(GOOD, "Connection: close"), reqmod(b"GET\r\n\r\n"), posted(GOOD, b"x"),
    posted(GOOD, b"5\r\nhel"), reqmod(LISTED).replace(b"\r\n", b"\n"), b"REQMOD ", b"\n\n", b"\x00\xff",
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=6).map(b"".join), st.lists(st.integers(0, 2000), max_size=8))
def test_any_split_is_the_whole(data: bytes, cuts: list[int]) -> None:
    desk = Desk()
    whole = ask(data, desk=desk)
    borders = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert ask(*(data[a:b] for a, b in itertools.pairwise(borders)), desk=desk) == whole
    assert ask(*(data[at : at + 1] for at in range(len(data))), desk=desk) == whole


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PARTS), st.binary(max_size=40)), max_size=6).map(b"".join))
def test_garbage_is_answered_in_icap_or_not_at_all(data: bytes) -> None:
    session = IcapSession(Desk().gate, 100)
    found = replies(session.feed(data))
    assert len(found) <= data.count(b"\n\n") + data.count(b"\n\r\n") + 1
    assert all(reply.whole for reply in found) or session.closing or session.unfinished
    if not session.closing and not session.unfinished:
        assert replies(session.feed(reqmod(LISTED)))[0].status in (200, 400)
