"""Transaction signatures (RFC 8945): who asked, and the signature of each message of an answer.

The checks and the MACs are dnspython's; here is what goes around them: the keys, which error is told how, and the chain
of signatures over the messages of one transfer (section 5.3.1).
"""

from __future__ import annotations

import base64
import binascii
import struct
import time
from typing import TYPE_CHECKING

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.tsig
from dns.rdataclass import ANY
from dns.rdatatype import TSIG
from dns.rdtypes.ANY.TSIG import TSIG as Tsig  # noqa: N811 - the class beside the number of its type

from blocker.errors import KeyMaterialError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocker.feed_section import TsigSettings

# Seconds that two clocks may differ by (RFC 8945 section 10).
FUDGE = 300
_ADDITIONAL_COUNT = slice(10, 12)
Keyring = dict[dns.name.Name, dns.tsig.Key]


def load_keys(settings: Mapping[str, TsigSettings]) -> Keyring:
    """The configured keys.

    Raises:
        KeyMaterialError: A file cannot be read, is open to others, or holds no secret.
    """
    keys = {}
    for name, one in settings.items():
        text = one.secret.get_secret_value() if one.secret is not None else _read(name, one)
        try:
            secret = base64.b64decode(text.strip(), validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if len(secret) < 16:
            raise KeyMaterialError(f"feeds.rpz.keys.{name}: expected base64 of 16 bytes or more; see tsig-keygen(8)")
        key = dns.tsig.Key(dns.name.from_text(name), secret, one.algorithm)
        keys[key.name] = key
    return keys


def _read(name: str, settings: TsigSettings) -> str:
    path = settings.secret_file
    if path is None:
        return ""
    try:
        if path.stat().st_mode & 0o077:
            raise KeyMaterialError(f"feeds.rpz.keys.{name}: others can read {path}; make its mode 0600")
        return path.read_text("ascii", "replace")
    except OSError as error:
        raise KeyMaterialError(f"feeds.rpz.keys.{name}: {path} cannot be read: {error.strerror}") from None


class Signer:
    """Signs the messages of one answer, each with the signature before it in its digest."""

    def __init__(self, key: dns.tsig.Key, request_mac: bytes, *, error: int = 0, other: bytes = b"") -> None:
        self._key = key
        self._mac = request_mac
        self._context: object = None
        size = dns.tsig.mac_sizes[key.algorithm]
        self._tsig = Tsig(ANY, TSIG, key.algorithm, 0, FUDGE, bytes(size), 0, error, other)
        self.reserve = len(_record(key.name, self._tsig))

    def sign(self, message: bytes, *, more: bool = False) -> bytes:
        """The message with its signature.

        Args:
            message: Without one.
            more: Whether it is one of several messages.
        """
        identifier = struct.unpack_from("!H", message)[0]
        template = self._tsig.replace(original_id=identifier)
        signed, self._context = dns.tsig.sign(
            message, self._key, template, int(time.time()), self._mac, self._context, more
        )
        return append(message, _record(self._key.name, signed))


def append(message: bytes, record: bytes) -> bytes:
    """The message with one more additional record."""
    count = struct.unpack("!H", message[_ADDITIONAL_COUNT])[0] + 1
    return b"".join((message[:10], struct.pack("!H", count), message[12:], record))


def unsigned_error(request: dns.message.Message, answer: bytes, error: int) -> bytes:
    """An answer that says which error a signature had, itself unsigned (RFC 8945 section 5.3.2)."""
    asked = request.tsig
    if asked is None:
        return answer
    first = asked[0]
    told = Tsig(ANY, TSIG, first.algorithm, first.time_signed, first.fudge, b"", request.id, error, b"")
    return append(answer, _record(asked.name, told))


def check(wire: bytes, keys: Keyring) -> int:
    """The TSIG error of a request (RFC 8945 section 5.2): 0, BADSIG, BADKEY or BADTIME.

    Raises:
        DNSException: It is malformed.
    """
    try:
        dns.message.from_wire(wire, keyring=keys)
    except (dns.message.UnknownTSIGKey, dns.tsig.BadKey, dns.tsig.BadAlgorithm):
        return int(dns.rcode.BADKEY)
    except dns.tsig.BadTime:
        return int(dns.rcode.BADTIME)
    except (dns.tsig.BadSignature, dns.tsig.PeerError):
        return int(dns.rcode.BADSIG)
    return 0


def _record(owner: dns.name.Name, data: Tsig) -> bytes:
    wire = data.to_wire() or b""
    return b"".join((owner.to_wire() or b"", struct.pack("!HHIH", TSIG, ANY, 0, len(wire)), wire))
