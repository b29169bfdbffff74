"""Which hosts a policy's lists have routed, and which its exceptions spare, read from the lists' clear text."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

from blocker.feeds.route_exceptions import Exceptions, is_alone, www_of
from blocker.ingest.guard import HASHED
from blocker.ingest.never_block import parents
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


class Hosts(NamedTuple):
    """Hosts of lists.

    Attributes:
        routed: Those that need a route.
        excepted: Those of which exceptions let everything through.
        above: Hosts of rules for subdomains too, which exceptions do not take out: below them nothing is excepted.
    """

    routed: frozenset[str] = frozenset()
    excepted: frozenset[str] = frozenset()
    above: frozenset[str] = frozenset()

    @classmethod
    def together(cls, lists: Iterable[Self]) -> Self:
        """Those of several lists: a host is excepted where no list blocks anything."""
        every = list(lists)
        routed, excepted, above = (frozenset[str]().union(*(one[at] for one in every)) for at in range(3))
        below = {host for host in excepted if not above.isdisjoint(parents(host))}
        return cls(routed | below, excepted - routed - below, above)


def routed_lists(table: Table, policy: Policy | None) -> Mapping[str, int]:
    """The lists whose hosts are routed, with their serials: those that the policy enforces.

    Shadow lists send nobody's traffic anywhere, and an exception needs no route.

    Args:
        table: All lists.
        policy: Which of them; None for all, each in its own mode.
    """
    return _enforced(table, policy, allow=False)


def excepting_lists(table: Table, policy: Policy | None) -> Mapping[str, int]:
    """The lists of exceptions, holds among them, that a policy goes by, with their serials; as `routed_lists`."""
    return _enforced(table, policy, allow=True)


def _enforced(table: Table, policy: Policy | None, *, allow: bool) -> Mapping[str, int]:
    chosen = None if policy is None else policy.lists
    found = {}
    for entry in table_lists(table):
        if entry.allow is not allow or (chosen is not None and entry.name not in chosen):
            continue
        mode = (chosen[entry.name] if chosen is not None else None) or entry.metadata.mode
        if mode == "enforce":
            found[entry.name] = entry.serial
    return found


def hosts_of(
    rules: RuleSet, *, www_alias: bool, whole_hosts: bool, fold: bool = False, exceptions: Exceptions | None = None
) -> Hosts:
    """The hosts that rules have routed: those of single pages, and if asked those that are listed whole.

    A rule for a host and all its subdomains gives the host and `www.` of it: nobody can list the names there are.

    Args:
        rules: The list.
        www_alias: Whether `www.h` and `h` are one host for it.
        whole_hosts: Whether hosts that are listed whole are routed.
        fold: Whether it folds the case of paths.
        exceptions: Those of the policy.

    Cost: 1 µs a rule, for a thread; others get their turn.
    """
    routed: set[str] = set()
    spared: set[str] = set()
    above: set[str] = set()
    for kind, host, path, query, subdomains, *_ in _unhurried(rules):
        whole, alone = kind in ("domain", "host"), is_alone(kind, subdomains=subdomains)
        if (whole and not whole_hosts) or host.endswith(HASHED):
            continue
        names = [host]
        if (www_alias or not alone) and literal(host) is None:
            names.append(www_of(host))
        for name in names:
            # An alias is a rule of its own on the other host. A rule for all that is under a host is of that, as it is
            # written; of what is its alias and not under it (`h` of `www.h`) no exception is known to say the same.
            key = (kind, name if www_alias and alone else host, path, query, subdomains)
            out = exceptions is not None and (alone or name.endswith(host)) and exceptions.take_out(key, fold=fold)
            (spared if out else routed).add(name)
            if not (out or alone):
                above.add(host)
    return Hosts.together([Hosts(frozenset(routed), frozenset(spared), frozenset(above))])


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
