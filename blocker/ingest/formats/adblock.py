r"""The `adblock` format: of Adblock filter syntax what can be said as a rule about a host or a path.

    ! a comment                                 [Adblock Plus 2.0] too
    ||bad-domain.example^                       domain: the host and every subdomain
    ||gallery.example/secret                    prefix, on the host and every subdomain; `^` may follow
    ||gallery.example/view?id=7                 exact with its query, on the host and every subdomain
    |https://gallery.example/secret             prefix, on that host only; the scheme is dropped
    |https://gallery.example/view?id=7|         exact with its query
    ||bad-domain.example^$document,important    options: all, doc, document, important

A filter compares the beginning of an address; a rule here ends on a segment border and holds a query whole, so it may
cover less and never more (`/secret/` covers `/secret`, as every prefix does). What a rule cannot say is bad and
reported: exceptions (`@@`), element hiding (`##`), regular expressions, patterns without an anchor, wildcards, ports,
other options, and an end anchor without a query (an `exact` rule without one takes any query). An IP address has no
subdomains.

Sources: Adblock Plus, "How to write filters"; AdGuard and uBlock Origin, "Static filter syntax".
"""

from __future__ import annotations

import re

from blocker.errors import InvalidRule
from blocker.ingest.formats._format import Format, FormatOptions
from blocker.ingest.formats._lines import RuleLineReader

# Options under which a filter still concerns the page itself, whoever asks for it.
_OPTIONS = frozenset({"all", "doc", "document", "important"})
_HOST = re.compile(r"[\w-]+(?:\.[\w-]+)*|\[[0-9a-fA-F:.]+\]")
_ADDRESS = re.compile(r"[0-9]+(?:\.[0-9]+){3}|\[.*\]")
# Of fewer numbers, or of others, a host would become an address that the filter does not name.
_NUMERIC_END = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.IGNORECASE)
_HEADER = re.compile(r"\[[^\]]*\]")
_ANCHORED = re.compile(r"\|\||\|(?:https?|wss?|ftp)://", re.IGNORECASE)


class AdblockParser(RuleLineReader):
    """Reads one filter list."""

    def read_line(self, line: str) -> None:
        """See `LineReader`."""
        text = line.strip()
        if not text or text[0] == "!" or text == "#" or text.startswith("# ") or _HEADER.fullmatch(text):
            return
        if text.startswith("@@"):
            raise InvalidRule("exception filter: exceptions go into a list with action allow")
        if "#" in text:
            raise InvalidRule("filter hides elements or holds a number sign; it is no rule for addresses")
        anchor = _ANCHORED.match(text)
        if anchor is None:
            raise InvalidRule("filter without || or |http:// in front matches anywhere in an address")
        pattern = _without_options(text[anchor.end() :])
        self._add_pattern(pattern, below=anchor[0] == "||")

    def _add_pattern(self, pattern: str, *, below: bool) -> None:
        if pattern.endswith("*"):
            # A filter is open at its end: a star there says nothing.
            pattern = pattern.rstrip("*")
        ended = pattern.endswith("|")
        pattern = pattern.removesuffix("|")
        separated = pattern.endswith("^")
        pattern = pattern.removesuffix("^")
        if any(sign in pattern for sign in "*^|\\ \t"):
            raise InvalidRule("filter holds a wildcard, a separator, an anchor or a blank in its middle")
        host, path = _split(pattern)
        if not _HOST.fullmatch(host):
            raise InvalidRule("filter does not begin with a whole host name; a port, user or part of a name is none")
        if ended and (separated or "?" not in path):
            raise InvalidRule("end anchor without a query: an exact rule takes any query")
        address = _ADDRESS.fullmatch(host)
        if not address and _NUMERIC_END.fullmatch(host):
            raise InvalidRule("filter names a part of an IP address, or one in an unusual form")
        if separated and path.endswith("/"):
            raise InvalidRule("filter wants a separator after a slash")
        if path in ("", "/"):
            # As a name a host of one label is refused: it would be a whole top-level domain.
            self.add(host if below else f"http://{host}/", "domain" if below else "url")
            return
        start = f"http://*.{host}" if below and not address else f"http://{host}"
        if "?" in path:
            self.add(f"{start}{path}")
        else:
            self.add(f"{start}{path.rstrip('/')}/*" if path.strip("/") else f"{start}/")


def _split(pattern: str) -> tuple[str, str]:
    at = min((found for sign in "/?" if (found := pattern.find(sign)) >= 0), default=len(pattern))
    return pattern[:at], pattern[at:]


def _without_options(text: str) -> str:
    pattern, dollar, options = text.rpartition("$")
    if not dollar:
        return text
    if not _OPTIONS.issuperset(options.split(",")):
        raise InvalidRule("filter has options that a rule cannot say")
    return pattern


def _parser(_options: FormatOptions) -> AdblockParser:
    return AdblockParser()


FORMAT = Format("adblock", "Adblock filters: hosts and paths, nothing else", frozenset(), _parser)
