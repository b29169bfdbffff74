"""The sessions that ExaBGP holds, and what each carries; sans-IO, from lines of ExaBGP 4.2.

ExaBGP acknowledges a command when it has taken it in. It does so too while no router is there, for a neighbor that was
configured later and has nothing, and for a family that the neighbor has not: whether anybody has a route is another
question. Three things answer it:

    neighbor 192.0.2.1 up                           of itself, with `neighbor-changes` in its configuration
    show neighbor extensive                         each neighbor, its state, and the families of both sides
    show adj-rib out extensive                      each neighbor's routes, which begin `neighbor 192.0.2.1 local-ip`

Each neighbor of this ExaBGP is taken for a router that should have the routes. What a router does with what it was
sent, its own filters and limits, nobody here can see.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from blocker.feeds.addresses import Address
    from blocker.feeds.bgp import Form

NEIGHBORS = "show neighbor extensive"
INVENTORY = "show adj-rib out extensive"
_EVENT = re.compile(r"neighbor (\S+) (up|down|connected)(?: |$)")
_OF = re.compile(r"neighbor (\S+) local-ip ")
_NEIGHBOR = re.compile(r"Neighbor (\S+)$")
_STATE = re.compile(r"state +(\S+)")
_FAMILY = re.compile(r"(ipv[46] (?:unicast|flow)): +(\S+) +(\S+)")


@dataclass(slots=True)
class Session:
    """One neighbor.

    Attributes:
        up: Whether the session is established.
        configured: Families that ExaBGP has for it.
        shared: Those that the router has too.
        lacking: Routes that it should have been sent, and was not when it was last looked at.
    """

    up: bool = False
    configured: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    lacking: frozenset[Address] = field(default_factory=frozenset)


class Sessions:
    """All neighbors, by their addresses as ExaBGP is configured."""

    def __init__(self) -> None:
        self._all: dict[str, Session] = {}

    def event(self, line: str) -> bool | None:
        """Read a line; whether it says that a session came up or, if it did not, went or began. None: another line."""
        found = _EVENT.match(line)
        if found is None:
            return None
        session = self._all.setdefault(found[1], Session())
        session.up = found[2] == "up"
        return session.up

    def neighbors(self, lines: Iterable[str]) -> None:
        """Take over the answer to `NEIGHBORS`; who is not in it is configured no more."""
        before, self._all = self._all, {}
        shared: set[str] = set()
        configured: set[str] = set()
        session = Session()
        for line in lines:
            if found := _NEIGHBOR.match(line):
                session = self._all[found[1]] = before.get(found[1], Session())
                shared, configured = set(), set()
            elif found := _STATE.match(line):
                session.up = found[1] == "ESTABLISHED"
            elif found := _FAMILY.match(line):
                configured |= {found[1]} if found[2] == "enabled" else set()
                shared |= {found[1]} if found[2] == found[3] == "enabled" else set()
                session.configured, session.shared = frozenset(configured), frozenset(shared)

    def routes(
        self, lines: Iterable[str], form: Form, wanted: Collection[Address]
    ) -> tuple[set[Address], dict[Address, Form]]:
        """Take over the answer to `INVENTORY`.

        Args:
            lines: The answer.
            form: How routes are written.
            wanted: What each neighbor was to have when it was asked for.

        Returns:
            What some neighbor lacks that could have it, and what some neighbor has of ours, in which form.
        """
        has: defaultdict[str, set[Address]] = defaultdict(set)
        there: dict[Address, Form] = {}
        for line in lines:
            if (of := _OF.match(line)) is not None and (found := form.read(line)) is not None:
                has[of[1]].add(found[0])
                there[found[0]] = found[1]
        again: set[Address] = set()
        for name, session in self._all.items():
            session.lacking = frozenset(wanted) - has[name]
            again.update(one for one in session.lacking if form.family(one) in session.configured)
        return again, there

    def carried(self, told: Mapping[Address, Form]) -> dict[str, tuple[bool, int]]:
        """Whether each session is up, and how many of the routes that ExaBGP was told it carries.

        Cost: some 100 ns a route and session.
        """
        families = [(address, form.family(address)) for address, form in told.items()]
        return {
            name: (
                session.up,
                sum(family in session.shared and address not in session.lacking for address, family in families)
                if session.up
                else 0,
            )
            for name, session in self._all.items()
        }
