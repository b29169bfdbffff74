"""The `spoe` gateway: an agent of HAProxy's Stream Processing Offload Engine.

The protocol is `blocker/native/src/wire/spop.rs`, which says what is asked and answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocker._native import SpopSession
from blocker.gateways.canaries import Answer, NoAnswer
from blocker.gateways.listener import Listener
from blocker.gateways.probe import StreamProbe
from blocker.rules import Verdict

if TYPE_CHECKING:
    import asyncio

    from blocker.gateways.engine import VerdictEngine
    from blocker.sections import SpoeSettings

NAME = "spoe"
# HAProxy's own.
_FRAME_BYTES = 16_380
_STRING = b"\x08"
_FINAL = b"\0\0\0\1"


def spoe_listener(engine: VerdictEngine, settings: SpoeSettings) -> Listener:
    """The gateway, not yet listening.

    Args:
        engine: Decides and counts.
        settings: Where it listens, its limits and its policy.

    Raises:
        UnknownPolicy: There is no such policy.
    """
    gate = engine.gate(NAME, settings.policy)
    return Listener(NAME, settings, lambda _limits: SpopSession(gate), engine.tick, gate)


class SpoeProbe(StreamProbe):
    """Asks as HAProxy does."""

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, url: str) -> Answer:
        """See `StreamProbe`."""
        writer.write(hello() + notify(url.encode()))
        await _frame(reader)
        answer = await _frame(reader)
        # Type, flags, ids of one byte, then one action for each variable.
        found = {}
        rest = answer[7:]
        while rest:
            name, rest = _text(rest[3:])
            value, rest = _text(rest[1:])
            found[name] = value.decode()
        if b"verdict" not in found:
            raise NoAnswer("the spoe gateway gave no verdict")
        return Answer(Verdict(found[b"verdict"]), found.get(b"list"))


def hello() -> bytes:
    """HAProxy's first frame."""
    pairs = [
        (b"supported-versions", _STRING + _string(b"2.0")),
        (b"max-frame-size", b"\x03" + _integer(_FRAME_BYTES)),
        (b"capabilities", _STRING + _string(b"pipelining")),
    ]
    return frame(1, b"".join(_string(name) + value for name, value in pairs))


def notify(url: bytes) -> bytes:
    """A question about an address."""
    return frame(3, _string(b"check") + b"\x01" + _string(b"url") + _STRING + _string(url), ids=b"\x01\x01")


def frame(kind: int, payload: bytes, *, flags: bytes = _FINAL, ids: bytes = b"\0\0") -> bytes:
    """A frame."""
    body = bytes([kind]) + flags + ids + payload
    return len(body).to_bytes(4, "big") + body


async def _frame(reader: asyncio.StreamReader) -> bytes:
    length = int.from_bytes(await reader.readexactly(4), "big")
    if length > _FRAME_BYTES:
        raise NoAnswer("the spoe gateway's answer is none")
    return await reader.readexactly(length)


def _integer(value: int) -> bytes:
    """HAProxy's doc/SPOE.txt, section 3.1."""
    if value < 240:
        return bytes([value])
    out = bytearray([value & 0xFF | 0xF0])
    value = (value - 240) >> 4
    while value >= 128:
        out.append(value & 0xFF | 0x80)
        value = (value - 128) >> 7
    out.append(value)
    return bytes(out)


def _string(text: bytes) -> bytes:
    return _integer(len(text)) + text


def _text(data: bytes) -> tuple[bytes, bytes]:
    """A short string, and what follows it; names of lists are shorter than 240 bytes."""
    return data[1 : 1 + data[0]], data[1 + data[0] :]
