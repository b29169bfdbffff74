"""The `squidguard-urls` format: the `urls` file of a squidGuard or ufdbGuard category.

    # a comment
    gallery.example/secret              prefix: at or under that path
    gallery.example/view?id=7           exact: that page with that query
    blocked.example                     host: that host, any path

squidGuard compares the beginning of the address; a rule here ends on a segment border, so `/secret` does not cover
`/secrets`, and a query is compared whole. squidGuard drops `www.` from what is listed and asked: `www_alias = true` in
the source says the same. A star is an ordinary sign there, so an entry that begins with `*.` is bad.
Source: squidGuard configuration, "URLlists".
"""

from __future__ import annotations

from blocker.errors import InvalidRule
from blocker.ingest.formats._format import Format, FormatOptions
from blocker.ingest.formats._lines import RuleLineReader


class SquidguardUrlsParser(RuleLineReader):
    """Reads one `urls` file."""

    def read_line(self, line: str) -> None:
        """See `LineReader`."""
        entry = line.strip()
        if not entry or entry.startswith("#"):
            return
        if entry.startswith("*."):
            raise InvalidRule("a star is no wildcard in a urls file")
        if "#" in entry:
            raise InvalidRule("entry holds a number sign, which no request carries")
        # Without the star the last segment would be one page; with a query there is nothing under the path.
        self.add(entry if "?" in entry else f"{entry.rstrip('/')}/*")


def _parser(_options: FormatOptions) -> SquidguardUrlsParser:
    return SquidguardUrlsParser()


FORMAT = Format("squidguard-urls", "the urls file of a squidGuard category", frozenset(), _parser)
