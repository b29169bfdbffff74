"""Hosts that no list may block as a whole: popular domains, public suffixes, and the operator's own infrastructure."""

from __future__ import annotations

import ipaddress
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from publicsuffixlist import PublicSuffixList

from blocker._native import canonicalize
from blocker.errors import InvalidURL, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# A line of `rank,name` has some tens of bytes; a longer one is no name of DNS.
MAX_LINE_BYTES = 1024
# A file of which more is no name is another file.
MAX_BAD_SHARE = 0.01


@cache
def _suffixes(*, only_icann: bool) -> PublicSuffixList:
    return PublicSuffixList(accept_unknown=False, only_icann=only_icann)


def is_public_suffix(host: str, *, only_icann: bool) -> bool:
    """Whether anybody can register names under a host, by the Public Suffix List; a single label always counts.

    Args:
        host: Canonical host name, A-labels.
        only_icann: Leave out suffixes of private companies, such as hosting services.
    """
    return "." not in host or bool(_suffixes(only_icann=only_icann).is_public(host))


def parents(host: str) -> Iterator[str]:
    """Every name above a host, nearest first; none of an address."""
    while "." in host:
        host = host.partition(".")[2]
        yield host


class NeverBlock:
    """What is never to be blocked as a whole.

    Args:
        popular: Popular domains, canonical.
        own_names: The operator's own domains, canonical.
        own_networks: The operator's own networks.
    """

    def __init__(
        self, popular: Iterable[str] = (), own_names: Iterable[str] = (), own_networks: Iterable[Network] = ()
    ) -> None:
        self._popular = frozenset(popular)
        self._above_popular = frozenset(above for name in self._popular for above in parents(name))
        self._own = frozenset(own_names)
        self._above_own = frozenset(above for name in self._own for above in parents(name))
        self._networks = tuple(own_networks)

    def popular(self, host: str, *, subdomains: bool) -> bool:
        """Whether a rule for all of `host` blocks a popular domain."""
        return host in self._popular or (subdomains and host in self._above_popular)

    def own(self, host: str, *, subdomains: bool) -> bool:
        """Whether a rule for all of `host` blocks part of the operator's own infrastructure."""
        if host in self._own or (subdomains and host in self._above_own):
            return True
        if self._networks and _is_address(host):
            try:
                address = ipaddress.ip_address(host.strip("[]"))
            except ValueError:
                return False
            return any(address in network for network in self._networks)
        return any(above in self._own for above in parents(host)) if self._own else False

    @staticmethod
    def public_suffix(host: str) -> bool:
        """Whether a rule for all names under `host` blocks those of everybody who registered one at a registry."""
        return not _is_address(host) and is_public_suffix(host, only_icann=True)

    @staticmethod
    def private_suffix(host: str) -> bool:
        """Whether a rule for all names under `host` blocks all customers of a hosting or dynamic DNS service."""
        return not _is_address(host) and is_public_suffix(host, only_icann=False) and not NeverBlock.public_suffix(host)


def _is_address(host: str) -> bool:
    return host[-1:].isdigit() or host.startswith("[")


def canonical_name(name: str) -> str:
    """A name as rules have it.

    Raises:
        SettingsError: It is none.
    """
    try:
        host = canonicalize(f"http://{name.strip()}/").split("/", 3)[2]
    except InvalidURL:
        raise SettingsError("a name of own_names is no host name") from None
    if any(sign in name for sign in "/:@?# *"):
        raise SettingsError("own_names holds host names alone: no scheme, port, path or wildcard")
    return host


def popular_domains(path: Path, top: int) -> frozenset[str]:
    """What `read_popular` reads, kept until the file changes.

    Raises:
        SettingsError: See there.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise SettingsError(f"guards.popular_domains: {path.name} cannot be read: {error.strerror}") from None
    return _kept_popular(path, top, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def _kept_popular(path: Path, top: int, _changed: int, _size: int) -> frozenset[str]:
    return read_popular(path, top)


def read_popular(path: Path, top: int) -> frozenset[str]:
    """The names of `ranked_popular`."""
    return frozenset(ranked_popular(path, top))


def ranked_popular(path: Path, top: int) -> dict[str, int]:
    """Popular domains from a file: a name a line, or `rank,name` as the usual rankings write them; `#` comments.

    Args:
        path: The file.
        top: So many names from its beginning; 0 is all.

    Returns:
        Name → its place in the file, from 1.

    Raises:
        SettingsError: It cannot be read, is no text, or more than 1 % of its lines are no names.

    Cost: 0.6 µs a name, for a thread.
    """
    found: dict[str, int] = {}
    bad = lines = 0
    try:
        with path.open("rb") as file:
            for line in file:
                text = line[:MAX_LINE_BYTES].decode("utf-8", "replace").strip()
                if not text or text.startswith("#"):
                    continue
                lines += 1
                first, _, second = text.partition(",")
                name = (second if first.isdecimal() else first).partition(",")[0].strip().rstrip(".").lower()
                if name.isascii() and name.replace(".", "").replace("-", "").replace("_", "").isalnum():
                    found.setdefault(name, len(found) + 1)
                else:
                    bad += 1
                if top and len(found) >= top:
                    break
    except OSError as error:
        raise SettingsError(f"guards.popular_domains: {path.name} cannot be read: {error.strerror}") from None
    if bad > MAX_BAD_SHARE * lines or not found:
        raise SettingsError(
            f"guards.popular_domains: {bad} of {lines} lines of {path.name} are no names; expected a name a line, or "
            "rank,name"
        )
    return found
