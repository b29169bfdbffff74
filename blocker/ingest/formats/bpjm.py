"""The `bpjm` format: MD5 digests of hosts and of paths under them, as the German authority's module is deployed.

The authority (BPjM, now BzKJ) hands its list out as digests only. Layout of the file `bpjm.data`, integers big-endian:

1. bytes 0-3: CRC-32 (IEEE) of everything after them
2. bytes 4-63: header: a byte 1, then the name of the edition, filled with NUL; not looked at, but the CRC covers it
3. records of 33 bytes: MD5 of the host (16), MD5 of the path (16), depth (1)

There is no published specification. The layout is that of tools that read and write the file on deployed routers; the
meaning of a record is that of an open filter for the same module, with whose published digests it agrees:

- The host is digested in lower case, without scheme and `www.`. A record holds on that host and on `www.` of it, and
  on no other subdomain: a match is never widened.
- The path is digested without its leading slash. Text with the slash is found too: both say the same page.
- The digest of nothing (or of `/`) lists the whole host, any path: kind `host`.
- A path that ends in a slash lists all that is under it: kind `prefix`. The path without that slash is another text.
- Any other path lists that page: kind `exact`; with `?` and a query, exactly that query, without one, any query.
- The depth is the number of slashes after the first one. The digest settles the text, so the depth tells nothing more;
  that it fits a byte bounds what a request can cost: no border deeper than 256 is digested.

Records stay digests: none is guessed at. Each becomes a rule of a host that cannot exist (RFC 6761 `.invalid`):
`<md5 of host>.bpjm-md5.invalid`, path `/<md5 of path>`, and so is diffed, sealed, published and rolled back like any
other; in clear text lists, such rules mean the same. Requests for that name itself are always allowed.

A request is digested in its canonical form. Missed are pages that the authority spelled otherwise before it digested
them: a host in Unicode, upper-case letters in a host, a port, escapes or dots that canonicalisation resolves, another
case in the path. Neither `path_case` nor `www_alias` can help: a digest cannot be folded.

Cost, measured over a million ordinary rules, with 100 000 records beside them (`decide_many`, ns a decision): an
unlisted host 120 without and 460 with the list, so 3.9 times, nearly all of it the one MD5; a listed page of the
ordinary rules 1500 and 2200, a listed record 2600. Tables without such a list, and policies that leave it out, pay
nothing measurable.

A wrong CRC, a cut record, bytes left over or a cut header refuse the file. The first bytes are a checksum and can look
like those of a packed file: give `compression = "none"` with a file that is not packed.
"""

from __future__ import annotations

import zlib
from typing import Final

from blocker._native import RuleSet
from blocker.errors import FormatError
from blocker.ingest.formats._format import Format, FormatOptions

CRC_BYTES: Final = 4
HEADER_BYTES: Final = 60
DIGEST_BYTES: Final = 16
RECORD_BYTES: Final = 2 * DIGEST_BYTES + 1
# The host that no request can have; the native decision knows it by the same name.
HASHED_SUFFIX: Final = ".bpjm-md5.invalid"

_START = CRC_BYTES + HEADER_BYTES
# MD5 of nothing and of "/": the whole host.
_WHOLE_HOST = frozenset(
    {bytes.fromhex("d41d8cd98f00b204e9800998ecf8427e"), bytes.fromhex("6666cd76f96956469e7be39d750cc7d9")}
)
_REMEDY = "fetch it again, or check that it is the deployed file, unpacked"


def is_hashed(host: str) -> bool:
    """Whether a rule of this host stands for a digest: no other software can be told it, nor can a person read it."""
    return host.endswith(HASHED_SUFFIX)


class BpjmParser:
    """Reads one file; see `ListParser`. A record counts as a line; there are no bad ones, only a damaged file.

    Cost: about 1.5 µs and one rule a record; nothing is handed out before the CRC of the whole file was right.
    """

    def __init__(self) -> None:
        self.lines = 0
        self.rules = 0
        self.bad = 0
        self.errors: list[tuple[int, str]] = []
        self._rule_set = RuleSet()
        self._head = bytearray()
        self._partial = b""
        self._crc = 0

    def feed(self, data: bytes) -> None:
        """Read a chunk; refuses nothing before the end."""
        if (missing := _START - len(self._head)) > 0:
            self._head += data[:missing]
            data = data[missing:]
            if len(self._head) < _START:
                return
            self._crc = zlib.crc32(self._head[CRC_BYTES:])
        if data:
            self._crc = zlib.crc32(data, self._crc)
            data = self._partial + data
            whole = len(data) - len(data) % RECORD_BYTES
            for start in range(0, whole, RECORD_BYTES):
                self._add(data[start : start + DIGEST_BYTES], data[start + DIGEST_BYTES : start + 2 * DIGEST_BYTES])
            self._partial = data[whole:]

    def finish(self) -> RuleSet:
        """Hand out the rules.

        Raises:
            FormatError: The file is cut, has bytes left over, or is damaged.
        """
        if len(self._head) < _START:
            raise FormatError(f"file has {len(self._head)} bytes, expected at least {_START} of header; {_REMEDY}")
        if self._partial:
            raise FormatError(
                f"{len(self._partial)} bytes are left over after record {self.lines}, "
                f"expected records of {RECORD_BYTES}; {_REMEDY}"
            )
        announced = int.from_bytes(self._head[:CRC_BYTES], "big")
        if announced != self._crc:
            raise FormatError(f"CRC-32 is {self._crc:08x}, expected {announced:08x}: the file is damaged; {_REMEDY}")
        return self._rule_set

    def _add(self, host: bytes, path: bytes) -> None:
        name = host.hex() + HASHED_SUFFIX
        if path in _WHOLE_HOST:
            self._rule_set.add("host", name)
        else:
            self._rule_set.add("exact", name, f"/{path.hex()}")
        self.lines += 1
        self.rules += 1


def _parser(_options: FormatOptions) -> BpjmParser:
    return BpjmParser()


FORMAT = Format(
    "bpjm", "MD5 digests of hosts and paths, as the German authority's module holds them", frozenset(), _parser
)
