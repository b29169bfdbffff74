"""Rules and their text forms, read line by line as the written rules say it.

Contract: `parse` gives an `OracleRule` in canonical form or raises `InvalidRule`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.oracle import canonical
from tests.oracle.canonical import InvalidURL

DOMAIN, HOST, PREFIX, EXACT = "domain", "host", "prefix", "exact"
MAX_HOST_BYTES = 253  # RFC 1035: 255 bytes on the wire, of which two are the first length and the root

_BLANKS = b" \t\r\n"
# Lines that hosts files begin with; the other such names (`localhost`, `broadcasthost` and so on) are single labels.
_OWN_NAMES = (b"localhost.localdomain", b"0.0.0.0")
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
# What may stand before the host: a scheme and its slashes, or two slashes and more.
_BEFORE_HOST = re.compile(rb"(?:(?:https?|wss?|ftp):[/\\]*|[/\\]{2,})?", re.IGNORECASE)


class InvalidRule(ValueError):  # noqa: N818 - as the public name
    """The text is no rule; the message says why and never repeats the text."""


class OracleRule(NamedTuple):
    """One rule in canonical form; a prefix path always ends in a slash."""

    kind: str
    host: str
    path: str | None = None
    query: str | None = None
    subdomains: bool = False


def canonical_rule(
    kind: str, host: str, path: str | None = None, query: str | None = None, subdomains: bool = False
) -> OracleRule:
    """Check the fields of a rule against its kind, and bring them into canonical form.

    A path field cannot hold a `?`, which would begin the query, nor a raw `#`, which would end the URL.
    """
    host = canonical_name(canonical.to_bytes(host))
    check_host(host)
    if kind in (DOMAIN, HOST):
        if path is not None or query is not None or subdomains:
            raise InvalidRule("a field that does not go with the kind")
        return OracleRule(kind, host)
    if path is None or not path.startswith("/") or "#" in path or (kind == PREFIX and query is not None):
        raise InvalidRule("a path that is missing or malformed, or a prefix with a query")
    if "?" in path or "#" in (query or ""):
        raise InvalidRule("a question mark in a path, or a raw number sign")
    path = canonical.canonical_path(canonical.to_bytes(path))
    if kind == PREFIX:
        if path == "/":
            return OracleRule(DOMAIN if subdomains else HOST, host)
        path = path if path.endswith("/") else path + "/"
    check_wildcard(host, subdomains=subdomains)
    query = None if query is None else canonical.canonical_query(canonical.to_bytes(query))
    return OracleRule(kind, host, path, query, subdomains)


def parse(
    line: str | bytes,
    format: str = "url",  # noqa: A002 - named as the public function names it
    *,
    bare: str = HOST,
    trailing_slash: str = PREFIX,
    domain_kind: str | None = None,
) -> OracleRule:
    """Read one line of a list."""
    data = canonical.to_bytes(line).strip(_BLANKS)
    if not data or data.startswith(b"#"):
        raise InvalidRule("blank line or comment")
    if b"\n" in data:
        raise InvalidRule("more than one line")
    if format == "url":
        return parse_url(data, bare, trailing_slash)
    if format == "domain":
        return parse_domain(data, domain_kind or DOMAIN)
    return parse_hosts(data, domain_kind or HOST)


def parse_url(data: bytes, bare: str, trailing_slash: str) -> OracleRule:
    """A URL with or without scheme, maybe with `*.` before its host, maybe with `/*` at its end."""
    if b"\t" in data:
        raise InvalidRule("a table and no list of URLs")
    before_host = _BEFORE_HOST.match(data)
    host_at = before_host.end() if before_host else 0
    has_scheme = b":" in data[:host_at]
    subdomains = data[host_at:].startswith(b"*.")
    if subdomains:
        data = data[:host_at] + data[host_at + 2 :]
    under = data.endswith(b"/*") and b"?" not in data and b"#" not in data
    if under:
        data = data[:-1]
    try:
        parts = canonical.split(data)
    except InvalidURL as error:
        raise InvalidRule(str(error)) from None
    check_host(parts.host)
    path, query = parts.path, parts.query
    if path == "/" and query is None:
        kind = DOMAIN if subdomains or (bare == DOMAIN and not under) else HOST
        check_labels(kind, parts.host, single_allowed=has_scheme and kind == HOST)
        return OracleRule(kind, parts.host)
    check_wildcard(parts.host, subdomains=subdomains)
    if under or (path.endswith("/") and query is None and trailing_slash == PREFIX):
        if query is not None:
            raise InvalidRule("a prefix with a query")
        return OracleRule(PREFIX, parts.host, path if path.endswith("/") else path + "/", None, subdomains)
    return OracleRule(EXACT, parts.host, path, query, subdomains)


def parse_domain(data: bytes, kind: str) -> OracleRule:
    """A bare name, maybe with `*.` or `.` before it, a dot after it, and a comment."""
    name = re.sub(rb"[ \t]+#.*$", b"", data, flags=re.DOTALL)
    name = name.removeprefix(b"*.") if name.startswith(b"*.") else name.removeprefix(b".")
    host = canonical_name(name)
    check_host(host)
    check_labels(kind, host, single_allowed=False)
    return OracleRule(kind, host)


def parse_hosts(data: bytes, kind: str) -> OracleRule:
    """An address that leads nowhere, and one name."""
    fields = re.sub(rb"[ \t]+#.*$", b"", data, flags=re.DOTALL).split()
    if len(fields) != 2:
        raise InvalidRule("not an address and one name")
    address, name = fields
    if name in _OWN_NAMES:
        raise InvalidRule("a name every hosts file gives the machine itself")
    loopback = address.startswith(b"127.") and canonical.parse_ipv4(address)
    if address not in (b"0.0.0.0", b"::", b"::1") and not loopback:
        raise InvalidRule("an address that is a real one")
    host = canonical_name(name)
    check_host(host)
    check_labels(kind, host, single_allowed=False)
    return OracleRule(kind, host)


def canonical_name(name: bytes) -> str:
    """The canonical host of a bare name or address; nothing else of a URL may be there."""
    try:
        if b":" in name:
            if name.startswith(b"[") and not name.endswith(b"]"):
                raise InvalidRule("something after an IPv6 address")
            return canonical.canonical_host(name if name.startswith(b"[") else b"[" + name + b"]")
        if re.search(rb"[/\\?#@\x00-\x20]", name):
            raise InvalidRule("not a bare name")
        return canonical.canonical_host(name)
    except InvalidURL as error:
        raise InvalidRule(str(error)) from None


def check_host(host: str) -> None:
    """Rule hosts are strict: an IP address, or labels that DNS could carry."""
    if canonical.is_ip(host):
        return
    if len(host) > MAX_HOST_BYTES or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise InvalidRule("not a host name")


def check_labels(kind: str, host: str, *, single_allowed: bool) -> None:
    """No whole-host rule on a single label, which would be a whole top-level domain or a slip."""
    if "." in host or canonical.is_ip(host) or single_allowed:
        return
    raise InvalidRule(f"a {kind} rule on a single label")


def check_wildcard(host: str, *, subdomains: bool) -> None:
    """An IP address has no subdomains."""
    if subdomains and canonical.is_ip(host):
        raise InvalidRule("an IP address has no subdomains")


def as_url(rule: OracleRule) -> str:
    """A URL that the rule must match."""
    return f"http://{rule.host}{rule.path or '/'}" + ("" if rule.query is None else f"?{rule.query}")
