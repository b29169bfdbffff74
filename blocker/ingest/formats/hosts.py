"""The `hosts` format: an address and a name a line, as in `/etc/hosts`.

    # a comment
    0.0.0.0 tracker.example     host: that name only, as a hosts file means it
    127.0.0.1 other.example     the address is read and dropped

Option: `domain_kind` makes a name a `host` rule (the default) or a `domain` rule, which covers its subdomains too.
"""

from __future__ import annotations

from blocker._native import LineParser
from blocker.ingest.formats._format import Format, FormatOptions
from blocker.rules import default_domain_kind


def _parser(options: FormatOptions) -> LineParser:
    return LineParser("hosts", domain_kind=options.domain_kind or default_domain_kind("hosts"))


FORMAT = Format("hosts", "an address and a name a line, as in /etc/hosts", frozenset({"domain_kind"}), _parser)
