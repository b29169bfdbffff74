"""The OPT record of answers about zones (EDNS(0), RFC 6891), which is in each message to whoever has sent one.

It says why something is refused (RFC 8914) and how long a silent connection stays (RFC 7828), and over TLS it hides
how long messages are, if that is asked for (RFC 7830), by the blocks of RFC 8467 section 4.1: RFC 9103 leaves open what
servers pad (section 7.9.1). Who asks for nothing gets nothing padded, since an answer has no OPT where its question had
none. BIND and Unbound transfer so, and what is seen of their transfers is how much of a zone changes, and when.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dns.rdatatype import OPT

from blocker.feeds import signing

if TYPE_CHECKING:
    import dns.message

# Why something is refused (RFC 8914 sections 4.19 and 4.22): to this one, and by this server at all.
PROHIBITED = 18
NOT_SUPPORTED = 21
# Bytes of one message over TCP: its length has 16 bits (RFC 1035 section 4.2.2).
_MAX_MESSAGE = 65_535
# Bytes in whose multiples padded messages come (RFC 8467 section 4.1), and the most that a message can have of them.
_BLOCK = 468
_MAX_PADDED = _MAX_MESSAGE // _BLOCK * _BLOCK
_KEEPALIVE, _PADDING, _ERROR = 11, 12, 15
_OPTION = struct.Struct("!HH")
# Owner, type, size of datagrams, code and version, length.
_FIXED = struct.Struct("!BHHIH")
_DATAGRAM = 1232
# A keepalive is told in tenths of a second, of 16 bits (RFC 7828 section 3.1).
_TENTHS = 10
_MOST_TENTHS = 65_535


@dataclass(frozen=True, slots=True)
class Edns:
    """What the answers to one request have of it.

    Attributes:
        asked: Whether the request had an OPT; if not they have none.
        stream: Whether it came over a connection, whose answers amplify nothing.
        padded: Whether their length is hidden.
        keepalive: The option that says how long the connection stays, if that was asked.
    """

    asked: bool
    stream: bool = False
    padded: bool = False
    keepalive: bytes = b""

    @classmethod
    def of(cls, message: dns.message.Message, *, tcp: bool, tls: bool, idle_seconds: float) -> Edns:
        """For the answers to a message.

        Args:
            message: It.
            tcp: Whether it came over a connection.
            tls: Whether that is encrypted.
            idle_seconds: How long it stays while it is silent; 0: that is not told.
        """
        options = {int(option.otype) for option in message.options}
        keepalive = b""
        if tcp and idle_seconds and _KEEPALIVE in options:
            tenths = min(int(idle_seconds * _TENTHS), _MOST_TENTHS)
            keepalive = _OPTION.pack(_KEEPALIVE, 2) + tenths.to_bytes(2, "big")
        return cls(message.edns >= 0, tcp, tls and _PADDING in options, keepalive)

    def limit(self, after: int) -> int:
        """Bytes that a message may have before its OPT, and so many more after it."""
        if not self.asked:
            return _MAX_MESSAGE - after
        most = _MAX_PADDED - _OPTION.size if self.padded else _MAX_MESSAGE
        return most - _FIXED.size - len(self.keepalive) - after

    def append(self, message: bytes, *, after: int = 0, code: int = 0, error: int | None = None) -> bytes:
        """The message with its OPT.

        Args:
            message: Without one.
            after: Bytes of the signature that follows.
            code: Its RCODE, of which the OPT has the high bits.
            error: Why it refuses (RFC 8914); told over connections alone.
        """
        if not self.asked:
            return message
        options = self.keepalive
        if error is not None and self.stream:
            options += _OPTION.pack(_ERROR, 2) + error.to_bytes(2, "big")
        if self.padded:
            length = -(len(message) + _FIXED.size + len(options) + _OPTION.size + after) % _BLOCK
            options += _OPTION.pack(_PADDING, length) + bytes(length)
        fixed = _FIXED.pack(0, OPT, _DATAGRAM, code >> 4 << 24, len(options))
        return signing.append(message, fixed + options)
