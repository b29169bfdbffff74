"""Canonical URLs, one small function per written step, with no thought given to speed.

Contract: `canonicalize` takes text or bytes and returns ASCII text, or raises `InvalidURL`. Loops that run "until
nothing changes" do exactly that, so the worst case is quadratic here; the native core must be linear.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.oracle.idna import domain_to_ascii

MAX_INPUT_BYTES = 65_536
MAX_PORT = 65_535
SPECIAL_SCHEMES = frozenset({b"http", b"https", b"ws", b"wss", b"ftp"})

_SCHEME = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*):")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_C0_AND_SPACE = bytes(range(0x21))
# The forbidden domain code points of the WHATWG URL Standard that are ASCII.
FORBIDDEN_IN_HOST = bytes(range(0x21)) + b"#/:<>?@[\\]^|%\x7f"
# A comma is legal in a host, but it separates the labels of a SURT.
_ESCAPED_IN_HOST = frozenset(FORBIDDEN_IN_HOST + b"," + bytes(range(0x80, 0x100)))
_ESCAPED_IN_PATH = frozenset(bytes(range(0x21)) + b"#%" + bytes(range(0x7F, 0x100)))


class InvalidURL(ValueError):  # noqa: N818 - as the public name
    """The text is no URL; the message says why and never repeats the text."""


class Canonical(NamedTuple):
    """The parts of a canonical URL; `str()` of it is the canonical URL."""

    scheme: str
    host: str
    path: str
    query: str | None

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{self.target}"

    @property
    def target(self) -> str:
        """Path and query, as an HTTP/1.1 request line has them."""
        return self.path if self.query is None else f"{self.path}?{self.query}"


def canonicalize(url: str | bytes) -> str:
    """The canonical form of a URL."""
    return str(canonical_parts(url))


def surt(url: str | bytes) -> str:
    """Host labels reversed, each ended by a comma; then `)`, path and query. An IP address is one label."""
    parts = canonical_parts(url)
    labels = [parts.host] if is_ip(parts.host) else parts.host.split(".")[::-1]
    return "".join(f"{label}," for label in labels) + ")" + parts.target


def split(url: str | bytes) -> Canonical:
    """Host, path and query as matching sees them: cut at the first `?` of the canonical text."""
    scheme, _, rest = canonicalize(url).partition("://")
    before, question, query = rest.partition("?")
    host, slash, path = before.partition("/")
    return Canonical(scheme, host, slash + path, query if question else None)


def canonical_parts(url: str | bytes) -> Canonical:
    """The steps of the canonical form, in their order."""
    data = to_bytes(url)
    if len(data) > MAX_INPUT_BYTES:
        raise InvalidURL("too long")
    data = clean(data)
    scheme, rest = take_scheme(data)
    authority, path, query = take_authority(rest)
    parts = Canonical(
        scheme.decode("ascii"),
        canonical_host(host_of_authority(authority)),
        canonical_path(path),
        None if query is None else canonical_query(query),
    )
    if len(str(parts)) > MAX_INPUT_BYTES:  # it could not be read again
        raise InvalidURL("too long")
    return parts


def to_bytes(url: str | bytes) -> bytes:
    """UTF-8; a PEP 383 surrogate is the byte it stands for, any other lone surrogate is U+FFFD."""
    if isinstance(url, bytes):
        return url
    return b"".join(_encode_code_point(ord(character)) for character in url)


def _encode_code_point(code_point: int) -> bytes:
    if 0xDC80 <= code_point <= 0xDCFF:
        return bytes([code_point - 0xDC00])
    if 0xD800 <= code_point <= 0xDFFF:
        return "\ufffd".encode()
    return chr(code_point).encode()


def clean(data: bytes) -> bytes:
    """Step 1: trim, remove TAB CR LF, drop the fragment."""
    trimmed = data.strip(_C0_AND_SPACE)
    for removed in (b"\t", b"\r", b"\n"):
        trimmed = trimmed.replace(removed, b"")
    return trimmed.partition(b"#")[0]


def take_scheme(data: bytes) -> tuple[bytes, bytes]:
    """Step 2: the lower-case scheme, and what follows it and its slashes."""
    match = _SCHEME.match(data)
    if match is not None:
        name = match[1].lower()
        rest = data[match.end() :]
        if name in SPECIAL_SCHEMES:
            return name, rest.lstrip(b"/\\")
        port = re.split(rb"[/\\?]", rest, maxsplit=1)[0]
        if not re.fullmatch(rb"[0-9]+", port):
            raise InvalidURL("unsupported scheme")
    leading = len(data) - len(data.lstrip(b"/\\"))
    if leading == 1:
        raise InvalidURL("a path without a host")
    return b"http", data[leading:]


def take_authority(rest: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Authority, raw path and raw query (None when there is no `?`)."""
    before, question, query = rest.partition(b"?")
    match = re.search(rb"[/\\]", before)
    end = len(before) if match is None else match.start()
    return before[:end], before[end:], query if question else None


def host_of_authority(authority: bytes) -> bytes:
    """Step 3: the raw host, without user info and port."""
    host = authority.rpartition(b"@")[2]
    if host.startswith(b"["):
        host, bracket, after = host.partition(b"]")
        host += bracket
        if not bracket or (after and not after.startswith(b":")):
            raise InvalidURL("malformed IPv6 address")
        port = after[1:]
    elif b":" in host:
        host, _, port = host.rpartition(b":")
        if b":" in host:
            raise InvalidURL("port")
    else:
        port = b""
    if port and (not re.fullmatch(rb"[0-9]+", port) or int(port.lstrip(b"0")[:6] or b"0") > MAX_PORT):
        raise InvalidURL("port")
    return host


def percent_decode(data: bytes) -> bytes:
    """Decode every `%XX`, again and again, until nothing changes."""
    while True:
        decoded = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), data)
        if decoded == data:
            return data
        data = decoded


def percent_encode(data: bytes, escaped: frozenset[int]) -> str:
    """Write each byte of `escaped` as `%XX` in upper-case hex; the result is ASCII."""
    return "".join(f"%{byte:02X}" if byte in escaped else chr(byte) for byte in data)


def canonical_host(raw: bytes) -> str:
    """Step 4.

    Dots at the ends go before the bracket is looked for: a host that is only then seen to begin with one would be
    written `%5B…`, which begins with it from the start when it is read again.
    """
    host = percent_decode(raw).strip(b".")
    if host.startswith(b"["):
        return canonical_ipv6(host)
    host = (host if host.isascii() else to_ascii_or_same(host)).lower()
    host = re.sub(rb"\.+", b".", host.strip(b"."))
    if not host:
        raise InvalidURL("empty host")
    return parse_ipv4(host) or percent_encode(host, _ESCAPED_IN_HOST)


def to_ascii_or_same(host: bytes) -> bytes:
    """WHATWG domain-to-ASCII of a host with non-ASCII bytes; the bytes themselves where that fails."""
    try:
        ascii_host = domain_to_ascii(host.decode("utf-8"))
    except ValueError:
        return host
    if any(byte in FORBIDDEN_IN_HOST for byte in ascii_host):
        return host
    return ascii_host


def canonical_path(raw: bytes) -> str:
    """Step 5. A `?` that was escaped stays so: raw, it would begin the query for whoever reads the result."""
    path = resolve(percent_decode(raw).replace(b"\\", b"/"))
    return percent_encode(path, _ESCAPED_IN_PATH | frozenset(b"?"))


def resolve(path: bytes) -> bytes:
    """Dot segments first, and only then runs of slashes."""
    segments = remove_dot_segments(path.split(b"/")[1:])
    return re.sub(rb"/+", b"/", b"/" + b"/".join(segments))


def remove_dot_segments(segments: list[bytes]) -> list[bytes]:
    """What a browser does: empty segments count, and a dot segment at the end leaves an empty one."""
    output: list[bytes] = []
    for index, segment in enumerate(segments):
        is_last = index == len(segments) - 1
        if segment in (b".", b".."):
            if segment == b".." and output:
                output.pop()
            if is_last:
                output.append(b"")
        else:
            output.append(segment)
    return output


def canonical_query(raw: bytes) -> str:
    """Step 6: decoded and escaped as a path is, and nothing else."""
    return percent_encode(percent_decode(raw), _ESCAPED_IN_PATH)


def is_ip(canonical_host_text: str) -> bool:
    """Whether a canonical host is an IP address; every spelling of one was rewritten before."""
    return canonical_host_text.startswith("[") or parse_ipv4(canonical_host_text.encode()) is not None


def parse_ipv4(host: bytes) -> str | None:
    """The WHATWG IPv4 parser: one to four numbers, the last one filling the rest; None when it is a name."""
    texts = host.split(b".")
    if len(texts) > 4:
        return None
    numbers = [_ipv4_number(text) for text in texts]
    if None in numbers:
        return None
    *parts, last = (number for number in numbers if number is not None)
    if any(part > 255 for part in parts) or last >= 256 ** (4 - len(parts)):
        return None
    value = last + sum(part * 256 ** (3 - index) for index, part in enumerate(parts))
    return ".".join(str(byte) for byte in value.to_bytes(4, "big"))


def _ipv4_number(text: bytes) -> int | None:
    """Decimal, `0…` octal or `0x…` hexadecimal; `0x` alone is zero."""
    for pattern, base in ((rb"0x([0-9a-f]*)", 16), (rb"0([0-7]+)", 8), (rb"(0|[1-9][0-9]*)", 10)):
        match = re.fullmatch(pattern, text)
        if match is not None:
            digits = match[1].lstrip(b"0")
            # Twelve digits of any base exceed 32 bits, and int() refuses very long texts.
            return int(digits or b"0", base) if len(digits) < 12 else 1 << 32
    return None


def canonical_ipv6(host: bytes) -> str:
    """`[…]` around a WHATWG IPv6 address, rewritten as RFC 5952 says."""
    if not host.endswith(b"]"):
        raise InvalidURL("malformed IPv6 address")
    return f"[{write_ipv6(parse_ipv6(host[1:-1]))}]"


def parse_ipv6(text: bytes) -> list[int]:
    """Eight 16-bit groups of an IPv6 address."""
    if text.count(b"::") > 1 or b":::" in text:
        raise InvalidURL("malformed IPv6 address")
    head, compressed, tail = text.partition(b"::")
    before = _ipv6_groups(head, ends_address=not compressed)
    if not compressed:
        if len(before) != 8:
            raise InvalidURL("malformed IPv6 address")
        return before
    after = _ipv6_groups(tail, ends_address=True)
    missing = 8 - len(before) - len(after)
    if missing < 1:
        raise InvalidURL("malformed IPv6 address")
    return before + [0] * missing + after


def _ipv6_groups(text: bytes, *, ends_address: bool) -> list[int]:
    """Groups between colons; the very last may be a dotted quad, which counts as two."""
    if not text:
        return []
    groups: list[int] = []
    pieces = text.split(b":")
    for index, piece in enumerate(pieces):
        if re.fullmatch(rb"[0-9A-Fa-f]{1,4}", piece):
            groups.append(int(piece, 16))
        elif ends_address and index == len(pieces) - 1:
            groups.extend(_embedded_ipv4(piece))
        else:
            raise InvalidURL("malformed IPv6 address")
    return groups


def _embedded_ipv4(piece: bytes) -> list[int]:
    """Four decimal numbers without leading zeros, as two groups."""
    numbers = piece.split(b".")
    if len(numbers) != 4 or not all(re.fullmatch(rb"0|[1-9][0-9]{0,2}", number) for number in numbers):
        raise InvalidURL("malformed IPv6 address")
    first, second, third, fourth = (int(number) for number in numbers)
    if max(first, second, third, fourth) > 255:
        raise InvalidURL("malformed IPv6 address")
    return [first * 256 + second, third * 256 + fourth]


def write_ipv6(groups: list[int]) -> str:
    """Lower-case, no leading zeros, `::` for the first longest run of two or more zero groups.

    Always in hexadecimal, as the WHATWG serializer and so every browser does it.
    """
    best_start, best_length = 0, 1
    for start in range(8):
        length = 0
        while start + length < 8 and groups[start + length] == 0:
            length += 1
        if length > best_length:
            best_start, best_length = start, length
    texts = [f"{group:x}" for group in groups]
    if best_length == 1:
        return ":".join(texts)
    return ":".join(texts[:best_start]) + "::" + ":".join(texts[best_start + best_length :])
