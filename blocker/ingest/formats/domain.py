"""The `domain` format: one name a line, as lists meant for resolvers are written.

    # a comment
    bad-domain.example          domain: the name and everything under it
    192.0.2.7                   an address has no subdomains

Option: `domain_kind` makes a name a `domain` rule (the default) or a `host` rule, which leaves its subdomains alone.
"""

from __future__ import annotations

from blocker._native import LineParser
from blocker.ingest.formats._format import Format, FormatOptions
from blocker.rules import default_domain_kind


def _parser(options: FormatOptions) -> LineParser:
    return LineParser("domain", domain_kind=options.domain_kind or default_domain_kind("domain"))


FORMAT = Format("domain", "one domain name a line", frozenset({"domain_kind"}), _parser)
