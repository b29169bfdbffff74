"""Reads what an ICAP server says (RFC 3507), and takes nothing that is not well-formed.

It shares no code with the gateway.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

STATUS = re.compile(rb"ICAP/1\.0 ([1-5][0-9][0-9]) [ -~]+")
FIELD = re.compile(rb"([!#-'*+.0-9A-Z^-z|~-]+): ([ -~]*)")
ISTAG = re.compile(rb'"[!#-~]{1,30}"')
PLACES = re.compile(rb"((?:req|res)-hdr=[0-9]+, )?(?:req-body|res-body|opt-body|null-body)=[0-9]+")


@dataclass
class Reply:
    """One answer."""

    status: int
    fields: dict[str, str]
    head: bytes = b""
    """The encapsulated one, with its empty line."""
    body: bytes | None = None
    """Without its chunks."""
    chunks: bytes = b""
    """As they came."""
    whole: bool = True
    """Whether the body's end was there."""

    @property
    def verdict(self) -> tuple[int, str, str]:
        """Status, verdict and list."""
        return self.status, self.fields.get("x-blocker-verdict", ""), self.fields.get("x-blocker-list", "")


def replies(data: bytes) -> list[Reply]:
    """All answers of a connection, the last perhaps with half a body.

    Raises:
        AssertionError: This is not ICAP.
    """
    found: list[Reply] = []
    while data:
        assert not found or found[-1].whole, "nothing comes after half a body"
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, "a head that does not end"
        line, *lines = head.split(b"\r\n")
        status = STATUS.fullmatch(line)
        assert status, "a status line"
        fields: dict[str, str] = {}
        for text in lines:
            field = FIELD.fullmatch(text)
            assert field, "a field"
            name = field[1].decode().lower()
            assert name not in fields, "each field once"
            fields[name] = field[2].decode()
        assert ISTAG.fullmatch(fields["istag"].encode()), "section 4.7: quoted, at most 32 bytes, in every answer"
        reply = Reply(int(status[1]), fields)
        data = _encapsulated(reply, data)
        assert reply.status == 200 or reply.body is None, "only a 200 has something in it"
        found.append(reply)
    return found


def _encapsulated(reply: Reply, data: bytes) -> bytes:
    """Section 4.4: the parts are where the field says they are. What follows them."""
    text = reply.fields["encapsulated"].encode()
    assert PLACES.fullmatch(text), "a head at most, then a body or none"
    *heads, (kind, offset) = [(name, int(place)) for name, place in (part.split(b"=") for part in text.split(b", "))]
    assert [place for _, place in heads] == [0] * len(heads), "the first part is at 0"
    assert offset > 0 if heads else offset == 0
    reply.head, data = data[:offset], data[offset:]
    assert len(reply.head) == offset
    if heads:
        assert heads[0][0][:3] == kind[:3] or kind == b"null-body"
        assert reply.head.endswith(b"\r\n\r\n") or heads[0][0] == b"req-hdr", "an echo is as it came"
    if kind == b"null-body":
        return data
    reply.body, before = b"", data
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            break
        size = int(re.fullmatch(rb"([0-9a-fA-F]+)[ \t]*(?:;.*)?", line, re.DOTALL)[1], 16)  # type: ignore[index]
        if size == 0:
            trailer = None
            while trailer != b"":
                trailer, end, data = data.partition(b"\r\n")
                if not end:
                    reply.whole, reply.chunks = False, before
                    return b""
            reply.chunks = before[: len(before) - len(data)]
            return data
        chunk, end, data = data[:size], data[size : size + 2], data[size + 2 :]
        reply.body += chunk
        if end != b"\r\n":
            assert end in (b"", b"\r"), "a chunk is as long as it says"
            break
    reply.whole, reply.chunks = False, before
    return b""
