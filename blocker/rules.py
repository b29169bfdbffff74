"""A rule: one entry of a list, its kinds, and its text forms.

`Rule` is the public, checked form of one entry; large lists never become `Rule` objects but stay in a native `RuleSet`.
Both read and canonicalise text with the same native code, so they cannot disagree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from blocker import _native
from blocker.errors import InvalidRule

if TYPE_CHECKING:
    from datetime import date

RuleFormat = Literal["url", "domain", "hosts"]

# Long enough for every authority's numbering seen so far, short enough that nobody keeps a page address in it.
MAX_REFERENCE_BYTES = 64
# Canonical hosts: no name is made of digits and dots alone, and none has brackets.
_ADDRESS = re.compile(r"[0-9.]+|\[.*\]")
_REFERENCE = re.compile(r"[^\x00-\x20\x7f]{1,64}")


class Verdict(StrEnum):
    """What a client should do with a request."""

    ALLOW = "allow"
    INSPECT = "inspect"  # something under this host is listed: look at the full URL
    BLOCK = "block"


class Kind(StrEnum):
    """How much a rule covers, from the whole domain to one page."""

    DOMAIN = "domain"  # the host and every subdomain, any path
    HOST = "host"  # that host only, any path
    PREFIX = "prefix"  # the path at or under it, on segment borders
    EXACT = "exact"  # that path; with a query exactly that query, without one any query


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One entry of a list, in canonical form.

    Fields are canonicalised on construction, so two rules that match the same requests in the same way are equal.

    Attributes:
        kind: How much the rule covers.
        host: Host name (A-labels), IPv4 address, or IPv6 address in brackets.
        path: Canonical path for `prefix` (always with a trailing slash) and `exact`; None for the others. A prefix of
            `/` covers the whole host and so becomes `host` (`domain` with `subdomains`).
        query: For `exact` only: the query that must be there, without its `?`; None means any query.
        subdomains: For path rules only: the rule also holds on every subdomain of `host` (written `*.host/path`).
        reference: The authority's own number for the entry, at most 64 bytes; never an address.
        category: The authority's category, free text.
        added: Day the authority listed it.
        expires: First day it no longer holds.

    Raises:
        InvalidRule: A field is malformed, or does not go with the kind.
    """

    kind: Kind
    host: str
    path: str | None = None
    query: str | None = None
    subdomains: bool = False
    reference: str | None = None
    category: str | None = None
    added: date | None = None
    expires: date | None = None

    def __post_init__(self) -> None:
        kind, host, path, query, subdomains = _native.canonical_rule(
            str(self.kind), self.host, self.path, self.query, self.subdomains
        )
        for field, value in (
            ("kind", Kind(kind)),
            ("host", host),
            ("path", path),
            ("query", query),
            ("subdomains", subdomains),
        ):
            object.__setattr__(self, field, value)
        if self.reference is not None:
            check_reference(self.reference)

    @classmethod
    def parse(
        cls,
        line: str | bytes,
        format: RuleFormat = "url",  # noqa: A002 - a fixed public name
        *,
        bare: Literal["host", "domain"] = "host",
        trailing_slash: Literal["prefix", "exact"] = "prefix",
        domain_kind: Literal["domain", "host"] | None = None,
        reference: str | None = None,
        category: str | None = None,
        added: date | None = None,
        expires: date | None = None,
    ) -> Rule:
        """Read one line of a list.

        Args:
            line: The entry alone: no comment, no line end needed.
            format: `url` (an URL, with or without scheme), `domain` (a name), `hosts` (an address and one name).
            bare: Kind of an URL without a path.
            trailing_slash: Kind of an URL whose path ends in a slash.
            domain_kind: Kind of a name in `domain` and `hosts`; by default `domain` there and `host` here.
            reference: See the class.
            category: See the class.
            added: See the class.
            expires: See the class.

        Raises:
            InvalidRule: The line is no rule of that format; the message says why and never repeats the line.
        """
        kind, host, path, query, subdomains = _native.parse_rule(
            line, format, bare, trailing_slash, domain_kind or default_domain_kind(format)
        )
        return cls(
            kind=Kind(kind),
            host=host,
            path=path,
            query=query,
            subdomains=subdomains,
            reference=reference,
            category=category,
            added=added,
            expires=expires,
        )

    def __str__(self) -> str:
        """The rule as the `url` format writes it, as far as that can say it."""
        wide = self.subdomains or (self.kind is Kind.DOMAIN and not is_address(self.host))
        host = f"*.{self.host}" if wide else self.host
        match self.kind:
            case Kind.DOMAIN:
                return f"http://{host}"
            case Kind.HOST:
                return f"http://{host}/"
            case Kind.PREFIX:
                return f"http://{host}{self.path}"
            case Kind.EXACT:
                return f"http://{host}{self.path}" + ("" if self.query is None else f"?{self.query}")


def default_domain_kind(format: str) -> Literal["domain", "host"]:  # noqa: A002 - named as in Rule.parse
    """Kind of a bare name: a domain list means whole domains, a hosts file names single hosts."""
    return "host" if format == "hosts" else "domain"


def is_address(host: str) -> bool:
    """Whether a canonical host is an IP address."""
    return _ADDRESS.fullmatch(host) is not None


def check_reference(reference: str) -> None:
    """Refuse a reference that nodes must not carry.

    Raises:
        InvalidRule: It is empty, longer than 64 bytes, holds blanks or control characters, or is an address.
    """
    too_long = len(reference.encode("utf-8", "replace")) > MAX_REFERENCE_BYTES
    if too_long or not _REFERENCE.fullmatch(reference) or "://" in reference:
        raise InvalidRule("reference must be 1 to 64 bytes without blanks and must not be an address")
