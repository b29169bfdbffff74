"""A look at a message before it is parsed: whether it has no more in it than a request about a zone has.

A parser does what a message tells it to: a name of 127 labels, and thousands of records that point back to it, cost it
seconds, and come from anybody. A request about a zone has one question, the SOA of an IXFR (RFC 1995 section 3), EDNS
and a signature; an answer to a notice has the SOA that it answers (RFC 1996 section 3.7). Whatever has more is not
parsed. Length alone says nothing: padding makes a good query as long as any (RFC 7830).
"""

from __future__ import annotations

import struct

from dns.rdatatype import OPT, SOA, TSIG

# Of a message's head (RFC 1035 section 4.1.1).
HEAD_BYTES = 12
_COUNTS = struct.Struct("!4H")
# Type, class, TTL and length of a record.
_FIXED = struct.Struct("!HHIH")
_OPTION = struct.Struct("!HH")
# The longest name (RFC 1035 section 2.3.4).
_NAME_BYTES = 255
# A name of 255 bytes has 127 labels at most; the rest is for its end, and a pointer or two.
_STEPS = 130
# EDNS options of one query; programs send four at most.
_OPTIONS = 16
# The one option that has a name in it, and belongs into answers only (RFC 9567).
_REPORT_CHANNEL = 18


def is_plain(wire: bytes, *, answer: bool = False) -> bool:
    """Whether a message has nothing but what belongs there, so that parsing it costs little.

    What it says is not looked at, and may be wrong in any other way.

    Args:
        wire: The message, with a whole head.
        answer: Whether it should answer a notice; otherwise it should be a request about a zone.

    Cost: some 10 µs; at most some 700 bytes are looked at.
    """
    questions, answers, authority, additional = _COUNTS.unpack_from(wire, 4)
    if questions != 1 and not (answer and questions == 0):
        return False
    if answers > answer or authority > 1 or additional > 2:
        return False
    try:
        at = HEAD_BYTES
        if questions:
            at += len(question_of(wire))
        for _ in range(answers + authority):
            at = _record(wire, at, (SOA,))
        for _ in range(additional):
            at = _record(wire, at, (OPT, TSIG))
    except (IndexError, struct.error, ValueError):
        return False
    return at == len(wire)


def question_of(wire: bytes) -> bytes:
    """The first question as it is on the wire; its name has no pointer, since nothing stands before it.

    An answer repeats it so: whoever makes a name of it, and writes that again, does more the more labels it has, by
    their square.

    Raises:
        IndexError, ValueError: There is none of 255 bytes at most and without a pointer; a plain message has one.
    """
    at = HEAD_BYTES
    while length := wire[at]:
        at += 1 + length
        if length >= 0x40 or at >= HEAD_BYTES + _NAME_BYTES:
            raise ValueError
    if at + 5 > len(wire):
        raise ValueError
    return wire[HEAD_BYTES : at + 5]


def _record(wire: bytes, at: int, kinds: tuple[int, ...]) -> int:
    """Where a record of these types ends."""
    at = _name(wire, at)
    kind: int
    length: int
    kind, _, _, length = _FIXED.unpack_from(wire, at)
    at += _FIXED.size
    if kind not in kinds:
        raise ValueError
    if kind == OPT:
        _look_at_options(wire, at, at + length)
    else:  # an algorithm's name, or those of a server and a mailbox
        after = _name(wire, at)
        if kind == SOA:
            _name(wire, after)
    return at + length


def _look_at_options(wire: bytes, at: int, end: int) -> None:
    for _ in range(_OPTIONS):
        if at >= end:
            return
        code, length = _OPTION.unpack_from(wire, at)
        if code == _REPORT_CHANNEL:
            raise ValueError
        at += _OPTION.size + length
    if at < end:
        raise ValueError


def _name(wire: bytes, at: int) -> int:
    """Where a name ends that is stored at a place; it is followed wherever it leads."""
    end = 0
    for _ in range(_STEPS):
        length = wire[at]
        if length == 0:
            return end or at + 1
        if length < 0x40:
            at += 1 + length
        elif length >= 0xC0:
            end = end or at + 2
            at = (length & 0x3F) << 8 | wire[at + 1]
        else:
            raise ValueError
    raise ValueError
