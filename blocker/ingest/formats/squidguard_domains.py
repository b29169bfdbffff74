"""The `squidguard-domains` format: the `domains` file of a squidGuard or ufdbGuard category.

    # a comment
    bad-domain.example          domain: the name and everything under it
    192.0.2.7                   an address has no subdomains

It is written as the `domain` format is. A single label, with which those programs can block a whole top-level domain,
is bad here. Source: squidGuard, "How blocking works" (squidguard.org/Doc/aboutblocking.html) and configuration,
"Domainlists".
"""

from __future__ import annotations

from blocker._native import LineParser
from blocker.ingest.formats._format import Format, FormatOptions


def _parser(_options: FormatOptions) -> LineParser:
    return LineParser("domain", domain_kind="domain")


FORMAT = Format("squidguard-domains", "the domains file of a squidGuard category", frozenset(), _parser)
