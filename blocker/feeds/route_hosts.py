"""Which hosts a policy's lists have routed, read from the lists' clear text."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from blocker.ingest.guard import HASHED
from blocker.matcher import table_lists

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from blocker._native import RuleSet, Table
    from blocker.feeds.addresses import Address
    from blocker.feeds.routes import NameId
    from blocker.matcher import Policy

# Rules or names read between two chances for other threads: a third of a millisecond.
_SLICE = 256
_T = TypeVar("_T")


def name_id(key: bytes, name: str) -> NameId:
    """A name as a keyed digest, so that what is written to disk holds none; 128 bits, hex."""
    return hashlib.blake2b(name.encode(), key=key, digest_size=16, person=b"blocker-routes").hexdigest()


def ids_of(key: bytes, names: Iterable[str]) -> dict[NameId, str]:
    """Names by their ids. Cost: 2 µs a name, for a thread; others get their turn."""
    return {name_id(key, name): name for name in _unhurried(names)}


def routed_lists(table: Table, policy: Policy | None) -> Mapping[str, int]:
    """The lists whose hosts are routed, with their serials: those that the policy enforces.

    Shadow lists send nobody's traffic anywhere, and an exception needs no route.

    Args:
        table: All lists.
        policy: Which of them; None for all, each in its own mode.
    """
    chosen = None if policy is None else policy.lists
    found = {}
    for entry in table_lists(table):
        if entry.allow or (chosen is not None and entry.name not in chosen):
            continue
        mode = (chosen[entry.name] if chosen is not None else None) or entry.metadata.mode
        if mode == "enforce":
            found[entry.name] = entry.serial
    return found


def hosts_of(rules: RuleSet, *, www_alias: bool, whole_hosts: bool) -> frozenset[str]:
    """The hosts that rules have routed: those of single pages, and if asked those that are listed whole.

    A rule for a host and all its subdomains gives the host and `www.` of it: nobody can list the names there are.

    Cost: 1 µs a rule, for a thread; others get their turn.
    """
    found: set[str] = set()
    for kind, host, _path, _query, subdomains, *_ in _unhurried(rules):
        whole = kind in ("domain", "host")
        if (whole and not whole_hosts) or host.endswith(HASHED):
            continue
        found.add(host)
        if (www_alias or subdomains or kind == "domain") and literal(host) is None:
            found.add(host.removeprefix("www.") if host.startswith("www.") else f"www.{host}")
    return frozenset(found)


def literal(host: str) -> Address | None:
    """The address that a canonical host is, if it is one."""
    if not (host[-1:].isdigit() or host.startswith("[")):
        return None
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def with_www(names: Iterable[str]) -> frozenset[str]:
    """Popular names and `www.` of each, which is often elsewhere."""
    return frozenset(one for name in names for one in (name, f"www.{name}"))


def _unhurried(things: Iterable[_T]) -> Iterator[_T]:
    iterator = iter(things)
    while piece := list(islice(iterator, _SLICE)):
        yield from piece
        time.sleep(0)
