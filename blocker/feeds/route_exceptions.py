"""Which listed pages a policy's exceptions let through whole, so that their hosts need no route. Pure.

Who wins is decided by how specific a rule is, and at equal specificity an exception beats a block (`blocker.matcher`).
So an exception takes a rule out altogether only if it says the same: the same kind, host, path and query. One that
covers more (a host of which a page is listed) is less specific, and the page stays blocked; one that covers less leaves
the rest of the rule; and under either of them the host needs its route.

A list that folds case blocks every spelling of a path, so only exceptions that fold too take its rules out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    #: Kind, host, path, query, whether for subdomains too.
    Key = tuple[str, str, str | None, str | None, bool]


@dataclass(slots=True)
class Exceptions:
    """What the lists of exceptions say."""

    _as_written: set[Key] = field(default_factory=set, repr=False)
    _folded: set[Key] = field(default_factory=set, repr=False)

    def add(self, rules: Iterable[tuple[str, str, str | None, str | None, bool, str, str]], *,
            www_alias: bool, fold: bool) -> None:  # fmt: skip
        """Take in the rules of one list; the others as for `blocker.feeds.route_hosts.hosts_of`.

        Cost: 1 µs a rule, for a thread.
        """
        for kind, host, path, query, subdomains, *_ in rules:
            # With all under it a rule is of a host as it is written: the other spelling is more or less specific.
            for one in {host, www_of(host)} if www_alias and is_alone(kind, subdomains=subdomains) else {host}:
                key = (kind, one, path, query, subdomains)
                if fold:
                    self._folded.add(_fold(key))
                else:
                    self._as_written.add(key)

    def take_out(self, key: Key, *, fold: bool) -> bool:
        """Whether a rule that blocks blocks nothing.

        Args:
            key: The rule, on the host at hand.
            fold: Whether its list folds case.
        """
        return (not fold and key in self._as_written) or (bool(self._folded) and _fold(key) in self._folded)


def is_alone(kind: str, *, subdomains: bool) -> bool:
    """Whether a rule is of one host, and nothing under it."""
    return not subdomains and kind != "domain"


def www_of(host: str) -> str:
    """The other of the two hosts that `www_alias` takes for one."""
    return host.removeprefix("www.") if host.startswith("www.") else f"www.{host}"


def _fold(key: Key) -> Key:
    kind, host, path, query, subdomains = key
    return kind, host, path and path.lower(), query and query.lower(), subdomains
