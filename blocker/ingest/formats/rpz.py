"""The `rpz` format: the names of a response policy zone, written as a master file.

    $TTL 300
    @ IN SOA localhost. hostmaster.localhost. 1 3600 600 86400 300
      IN NS localhost.
    tracker.example       CNAME .               host: that name only
    bad-domain.example    CNAME .               with the next line domain: the name and everything under it
    *.bad-domain.example  CNAME .

`CNAME .` (NXDOMAIN), `CNAME *.` (NODATA) and `CNAME rpz-drop.` block. Bad and reported: `rpz-passthru.`,
`rpz-tcp-only.`, other targets and local data, triggers on addresses, clients and name servers, `$INCLUDE`,
`$GENERATE`, names that are escaped or addresses, names outside the zone, and `*.name` without `name`: a rule for the
subdomains alone cannot be said, and one for the name as well would cover more. The zone's own records (SOA, NS and
whatever else stands at its top) say nothing about names and are passed over. The zone is the owner of its SOA, or
else the first `$ORIGIN`.

Sources: draft-vixie-dnsop-dns-rpz sections 3 and 4; RFC 1035 section 5.1; RFC 2308 section 4 (`$TTL`).
"""

from __future__ import annotations

import re

from blocker._native import parse_rule
from blocker.errors import FormatError, InvalidRule
from blocker.ingest.formats._format import Format, FormatOptions
from blocker.ingest.formats._lines import MAX_LINE_BYTES, RuleLineReader

_BLOCKS = frozenset({".", "*.", "rpz-drop."})
_OTHER_ACTIONS = frozenset({"rpz-passthru.", "rpz-tcp-only."})
_TRIGGERS = frozenset({"rpz-ip", "rpz-client-ip", "rpz-nsip", "rpz-nsdname"})
# Stands for the name of the zone where the file does not say it; no name in a file can end in it.
_UNNAMED = "@."
_CLASSES = frozenset({"in", "ch", "hs"})
# RFC 1035 section 5.1: seconds; BIND also reads 1h30m.
_TTL = re.compile(r"[0-9]+|(?:[0-9]+[smhdw])+", re.IGNORECASE)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|;.*|[()]|[^\s;()"]+|"')
_ADDRESS = re.compile(r"[0-9.]+")
_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_BELOW, _ITSELF = 1, 2


class RpzParser(RuleLineReader):
    """Reads one zone; rules are complete at `finish`, where names and their wildcards meet."""

    def __init__(self) -> None:
        super().__init__()
        self._zone: str | None = None
        self._origin = _UNNAMED
        self._owner: str | None = None
        self._open: list[str] = []
        self._open_line = 0
        self._open_size = 0
        self._depth = 0
        self._names: dict[str, int] = {}
        self._stars: dict[str, int] = {}

    def read_line(self, line: str) -> None:
        """See `LineReader`."""
        blank = line[:1] in (" ", "\t")
        words = line.split() if not any(sign in line for sign in ';()"') else self._words(line)
        if self._depth or self._open:
            self._continue(line, words, blank=blank)
        elif words:
            self._record(words, blank=blank)

    def _words(self, line: str) -> list[str]:
        words = []
        for word in _WORD.findall(line):
            if word[0] == ";":
                break
            if word == "(":
                self._depth += 1
            elif word == ")":
                if not self._depth:
                    self._open = []
                    raise InvalidRule("parenthesis closes that was not opened")
                self._depth -= 1
            else:
                words.append(word)
        return words

    def _continue(self, line: str, words: list[str], *, blank: bool) -> None:
        """A line of a record in parentheses (RFC 1035 section 5.1)."""
        if not self._open:
            self._open, self._open_line, self._open_size = [" " if blank else ""], self.lines, 0
        self._open_size += len(line)
        if self._open_size > MAX_LINE_BYTES:
            raise self._unclosed()
        self._open += words
        if not self._depth:
            first, *record = self._open
            self._open = []
            if record:
                try:
                    self._record(record, blank=bool(first))
                except InvalidRule as error:
                    self.report(self._open_line, str(error))

    def bad_line(self, reason: str) -> None:
        """See `LineReader`; within parentheses the whole record is lost."""
        if self._open:
            self._give_up(reason)
        else:
            super().bad_line(reason)

    def _give_up(self, reason: str) -> None:
        self._open, self._depth = [], 0
        self.report(self._open_line, reason)

    def _unclosed(self) -> FormatError:
        """Refuses the file: what the parenthesis swallowed would be missing, and be one bad record only."""
        return FormatError(
            f"zone holds a parenthesis that is not closed within {MAX_LINE_BYTES} bytes; see line {self._open_line}"
        )

    def _record(self, words: list[str], *, blank: bool) -> None:
        if words[0][0] == "$" and not blank:
            self._directive(words)
            return
        owner = self._owner if blank else words[0].lower()
        rest = words if blank else words[1:]
        while rest and (rest[0].lower() in _CLASSES or _TTL.fullmatch(rest[0])):
            rest = rest[1:]
        if owner is None or not rest:
            self._owner = owner if not blank else None
            raise InvalidRule("record without owner, type or data")
        self._owner = owner
        kind, data = rest[0].lower(), rest[1:]
        if self._zone is None:
            unnamed = self._origin.endswith(_UNNAMED)
            self._zone = self._absolute(owner) if kind == "soa" else _UNNAMED if unnamed else self._origin
            if self._origin == _UNNAMED:
                self._origin = self._zone
        name = self._trigger(owner, self._zone)
        if not name:
            return
        self._block(name, kind, data)

    def _directive(self, words: list[str]) -> None:
        what = words[0].lower()
        if what == "$ttl":
            return
        if what != "$origin" or len(words) < 2:
            raise InvalidRule("directive other than $TTL and $ORIGIN")
        origin = words[1].lower()
        self._origin = self._absolute(origin)
        self._owner = None

    def _absolute(self, name: str) -> str:
        """The name with its final dot."""
        if name == "@":
            return self._origin
        if name.endswith("."):
            return name
        return f"{name}." if self._origin == "." else f"{name}.{self._origin}"

    def _trigger(self, owner: str, zone: str) -> str:
        """The name that the zone speaks of; empty for the zone itself."""
        name = self._absolute(owner)
        if name == zone:
            return ""
        if zone == ".":
            return name.removesuffix(".")
        if not name.endswith(f".{zone}"):
            raise InvalidRule("name outside the zone, or the zone has no $ORIGIN")
        return name.removesuffix(f".{zone}")

    def _block(self, name: str, kind: str, data: list[str]) -> None:
        if _TRIGGERS.intersection(name.split(".")[-1:]):
            raise InvalidRule("trigger on an address, a client or a name server")
        if kind != "cname" or len(data) != 1:
            raise InvalidRule("local data: only CNAME to . or *. or rpz-drop. blocks")
        target = data[0].lower()
        if target in _OTHER_ACTIONS:
            raise InvalidRule("rpz-passthru. and rpz-tcp-only. are no block; exceptions go into a list of their own")
        if target not in _BLOCKS:
            raise InvalidRule("local data: only CNAME to . or *. or rpz-drop. blocks")
        below = name.startswith("*.")
        plain = name[2:] if below else name
        if not _NAME.fullmatch(plain):
            raise InvalidRule("owner is no host name")
        host = parse_rule(plain, "domain", "host", "prefix", "host")[1]
        if host != plain or _ADDRESS.fullmatch(host):
            raise InvalidRule("owner is an address or not in its canonical form")
        self._names[plain] = self._names.get(plain, 0) | (_BELOW if below else _ITSELF)
        if below:
            self._stars.setdefault(plain, self.lines)

    def end(self) -> None:
        """See `LineReader`."""
        if self._depth or self._open:
            raise self._unclosed()
        for name, parts in self._names.items():
            if parts & _ITSELF:
                self.rule_set.add("domain" if parts & _BELOW else "host", name)
                self.rules += 1
            else:
                self.report(self._stars[name], "wildcard without the name itself: subdomains alone cannot be said")
        self._names.clear()
        self._stars.clear()
        self.errors.sort()


def _parser(_options: FormatOptions) -> RpzParser:
    return RpzParser()


FORMAT = Format("rpz", "a response policy zone, names only", frozenset(), _parser)
