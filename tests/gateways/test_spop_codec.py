"""The spoe gateway's codec, asked by an encoder of the test's own: handshake, questions, broken frames."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocker._native import SpopSession
from tests.data_dir import needs_shared_data, shared_json
from tests.gateways.test_http_codec import BLOCKED, Desk

if TYPE_CHECKING:
    from collections.abc import Iterator

Value = str | bytes | bool | int | None
# From a NOTIFY that another implementation tests with: an address, a string and two NULLs.
STRANGER = bytes.fromhex(
    "000000530300000001fe1201116765742d69702d72657075746174696f6e0402697006c1c8e3de04686f73740812646f6d61696e2e6578616d"
    "706c652e636f6d0d617574686f72697a6174696f6e0006636f6f6b696500"
)


def integer(value: int) -> bytes:
    if value < 240:
        return bytes([value])
    out, value = [value % 16 + 240], (value - 240) // 16
    while value >= 128:
        out.append(value % 128 + 128)
        value = (value - 128) // 128
    return bytes([*out, value])


def read_integer(data: bytes, at: int) -> tuple[int, int]:
    value, at, shift = data[at], at + 1, 4
    if value < 240:
        return value, at
    while True:
        byte, at = data[at], at + 1
        value += byte << shift
        shift += 7
        if byte < 128:
            return value, at


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return integer(len(data)) + data


def typed(value: Value) -> bytes:
    match value:
        case None:
            return b"\x00"
        case bool():
            return bytes([0x11 if value else 0x01])
        case int():
            return b"\x03" + integer(value)
        case _:
            return b"\x08" + string(value)


def frame(kind: int, payload: bytes, *, stream: int = 0, number: int = 0, flags: int = 1) -> bytes:
    body = bytes([kind]) + flags.to_bytes(4, "big") + integer(stream) + integer(number) + payload
    return len(body).to_bytes(4, "big") + body


def hello(**changed: Value) -> bytes:
    fields: dict[str, Value] = {
        "supported-versions": "2.0", "max-frame-size": 16_380, "capabilities": "pipelining", "engine-id": "e",
    }  # fmt: skip
    fields |= {name.replace("_", "-"): value for name, value in changed.items()}
    return frame(1, b"".join(string(name) + typed(value) for name, value in fields.items() if value is not None))


def notify(stream: int = 1, number: int = 1, **arguments: Value) -> bytes:
    payload = string("check") + bytes([len(arguments)])
    payload += b"".join(string(name) + typed(value) for name, value in arguments.items())
    return frame(3, payload, stream=stream, number=number)


def frames(data: bytes) -> Iterator[tuple[int, int, int, dict[str, str | int]]]:
    """Type, stream, frame, and what it says: variables of an ACK, fields of the others."""
    while data:
        length = int.from_bytes(data[:4], "big")
        body, data = data[4 : 4 + length], data[4 + length :]
        assert len(body) == length
        kind = body[0]
        assert body[1:5] == b"\0\0\0\1"
        stream, at = read_integer(body, 5)
        number, at = read_integer(body, at)
        found: dict[str, str | int] = {}
        while at < len(body):
            if kind == 103:
                assert body[at : at + 3] == b"\x01\x03\x02", "set-var, three arguments, scope of the transaction"
                at += 3
            size, at = read_integer(body, at)
            name, at = body[at : at + size].decode(), at + size
            value, at = read_integer(body, at + 1) if body[at] == 3 else _text(body, at)
            found[name] = value
        yield kind, stream, number, found


def _text(body: bytes, at: int) -> tuple[str, int]:
    assert body[at] == 8
    size, at = read_integer(body, at + 1)
    return body[at : at + size].decode(), at + size


def ask(*data: bytes, desk: Desk | None = None) -> tuple[list[tuple[int, int, int, dict[str, str | int]]], bool]:
    session = SpopSession((desk or Desk()).gate)
    return [*frames(b"".join(session.feed(piece) for piece in data))], session.closing


def test_the_handshake() -> None:
    assert ask(hello()) == (
        [(101, 0, 0, {"version": "2.0", "max-frame-size": 16_380, "capabilities": "pipelining"})],
        False,
    )
    assert ask(hello(healthcheck=True))[1], "a health check is answered and ends"
    assert ask(hello(healthcheck=False), notify(url=BLOCKED))[0][1][0] == 103
    assert ask(hello(max_frame_size=10**6))[0][0][3]["max-frame-size"] == 65_536
    assert not ask(hello(supported_versions="1.0, 2.1"))[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"url": BLOCKED}, {"verdict": "block", "list": "police"}),
        ({"url": "http://harmless.example/"}, {"verdict": "allow"}),
        ({"url": "http://listed.example/gallery/ok"}, {"verdict": "allow", "list": "pardon"}),
        ({"host": "listed.example"}, {"verdict": "inspect"}),
        ({"host": "host.example"}, {"verdict": "block", "list": "police"}),
        ({"host": "harmless.example", "url": BLOCKED}, {"verdict": "block", "list": "police"}),
        ({"host": "listed.example", "path": "/gallery/x?y"}, {"verdict": "block", "list": "police"}),
        ({"host": "LISTED.example:80", "path": "/"}, {"verdict": "allow"}),
        ({"cookie": "x", "src": None, "f": True, "n": 2**40, "url": BLOCKED}, {"verdict": "block", "list": "police"}),
        ({"url": None}, {}), ({"url": 5}, {}), ({}, {}), ({"other": BLOCKED}, {}),
        ({"url": ""}, {"verdict": "allow"}),
    ],
)  # fmt: skip
def test_questions(arguments: dict[str, Value], said: dict[str, str]) -> None:
    (_, *answers), closing = ask(hello(), notify(700, 3, **arguments))
    assert answers == [(103, 700, 3, said)]
    assert not closing


def test_pipelined_questions_keep_their_numbers() -> None:
    asked = b"".join(
        notify(number, number % 7, url=BLOCKED if number % 2 else "http://a.example/") for number in range(500)
    )
    (_, *answers), _ = ask(hello() + asked)
    expected = [(number, number % 7, "block" if number % 2 else "allow") for number in range(500)]
    assert [(stream, number, said["verdict"]) for _, stream, number, said in answers] == expected


def test_before_there_is_a_matcher_no_variable_is_set() -> None:
    assert ask(hello(), notify(url=BLOCKED), desk=Desk(ready=False))[0][1] == (103, 1, 1, {})


def test_a_strangers_frame_is_read() -> None:
    (_, answer), closing = ask(hello(), STRANGER)
    assert (answer, closing) == ((103, 542, 1, {"verdict": "allow"}), False)


@needs_shared_data
def test_the_strangers_frame_is_the_one_that_others_test_with() -> None:
    vectors = shared_json("dns/spoe/spoe_vectors.json")
    assert bytes.fromhex(vectors["notify_frame"]["hex"]) == STRANGER
    for case in vectors["varint_encode"]:
        assert integer(case["value"]).hex() == case["hex"]


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (hello(supported_versions=None), 5), (hello(max_frame_size=None), 6), (hello(capabilities=None), 7),
        (hello(supported_versions="1.0"), 8), (hello(supported_versions="20.0"), 8), (hello(max_frame_size=255), 9),
        (notify(url=BLOCKED), 4), (hello() + hello(), 4),
        (hello() + notify(url=BLOCKED)[:4] + b"\x03" + b"\0" * 60, 10),
        (hello() + frame(3, string("check") + b"\x01", flags=0), 10), (hello() + frame(0, b"", flags=1), 10),
        (hello() + frame(3, string("check") + b"\x05"), 4), (hello() + frame(3, b"\xff" * 20), 4),
        (hello() + frame(3, string("check") + b"\x01" + string("url") + b"\x08\x7fx"), 4),
        (hello() + frame(3, string("check") + b"\x01" + string("url") + b"\x0c"), 4),
        (hello() + (16_381).to_bytes(4, "big"), 3), (b"\xff\xff\xff\xff", 3), (b"GET / HTTP/1.1\r\n\r\n", 3),
        (hello() + b"\0\0\0\0", 4), (hello() + frame(2, b""), 0),
    ],
)  # fmt: skip
def test_who_breaks_the_protocol_is_told_and_disconnected(asked: bytes, status: int) -> None:
    answers, closing = ask(asked, notify(url=BLOCKED))
    assert closing
    kind, _, _, said = answers[-1]
    assert (kind, said["status-code"]) == (102, status)
    assert said["message"]


def test_frames_of_unknown_types_are_skipped() -> None:
    (_, answer), closing = ask(hello(), frame(99, b"any\xff"), notify(url=BLOCKED))
    assert (answer[3]["verdict"], closing) == ("block", False)


def test_a_draining_agent_answers_what_it_was_asked_and_takes_leave() -> None:
    session = SpopSession(Desk().gate)
    session.feed(hello())
    session.drain()
    assert not session.closing, "an idle connection is the listener's to close"
    asked = notify(url=BLOCKED) * 3
    (*answers, last), rest = list(frames(session.feed(asked[:-4]))), asked[-4:]
    assert (len([*answers, last]), session.closing) == (2, False), "one is under way"
    *answers, last = frames(session.feed(rest))
    assert [said["verdict"] for _, _, _, said in answers] == ["block"]
    assert (last[0], last[3]["status-code"], session.closing) == (102, 0, True)


PARTS = (
    hello(), hello(), notify(url=BLOCKED), notify(300, 2**20, host="listed.example", x=None), frame(99, b"abc"),
    frame(2, b""), STRANGER, b"\0\0\0\x07", notify(url=BLOCKED)[:9], frame(3, b"", flags=0), b"\xf0",
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=8), st.lists(st.integers(0, 400), max_size=6))
def test_any_split_is_the_whole(parts: list[bytes], cuts: list[int]) -> None:
    desk, data = Desk(), hello() + b"".join(parts)
    whole = ask(data, desk=desk)
    borders = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert ask(*(data[a:b] for a, b in itertools.pairwise(borders)), desk=desk) == whole
    assert ask(*(data[at : at + 1] for at in range(len(data))), desk=desk) == whole


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PARTS), st.binary(max_size=30)), max_size=6).map(b"".join), st.booleans())
def test_garbage_is_answered_in_frames_or_not_at_all(data: bytes, greeted: bool) -> None:
    answers, closing = ask((hello() if greeted else b"") + data)
    assert all(kind in (101, 102, 103) for kind, *_ in answers)
    assert closing == any(kind == 102 for kind, *_ in answers) or closing
