"""The `url` format: one URL a line, as an authority that lists single pages (IWF, for one) writes them.

    # a comment
    http://blocked.example/                     host: that host, any path
    http://gallery.example/secret/              prefix: at or under that path
    http://gallery.example/listed/page.html     exact: that page, with any query
    http://gallery.example/view?id=7            exact: that page with that query
    http://*.gallery.example/copies/            prefix, on the host and every subdomain
    gallery.example/more/*                      prefix; the scheme may be left out

Options: `bare` makes an URL without a path a `host` rule (the default) or a `domain` rule; `trailing_slash` makes one
that ends in a slash a `prefix` (the default) or an `exact` rule. Scheme, port and user information are dropped.
"""

from __future__ import annotations

from blocker._native import LineParser
from blocker.ingest.formats._format import Format, FormatOptions


def _parser(options: FormatOptions) -> LineParser:
    return LineParser("url", bare=options.bare or "host", trailing_slash=options.trailing_slash or "prefix")


FORMAT = Format(
    "url", "one URL a line: hosts, path prefixes and single pages", frozenset({"bare", "trailing_slash"}), _parser
)
