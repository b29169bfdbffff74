"""The words of the route table: limits, changes, and the reasons why an address has no route:

| reason | against it |
|---|---|
| `special` | IANA set it apart; nobody's site is there |
| `own` | it is in one of the operator's networks, or this node's own (`infrastructure`) |
| `infrastructure` | it is a root server's, or a large public resolver's |
| `never` | `routes.never_networks` has it, or `never_names` its name |
| `popular` | a popular name is, or was a hold-down ago, at it: all of that name's traffic would be taken along |
| `host-limit` | its name has more addresses than one name may have routes |
| `total-limit` | there are as many routes as there may be |
| `popular-unknown` | where the popular names are is not known yet, or not of those that came to be popular |
| `no-next-hop` | it is of a family for which no next hop is set |
| `rate` | too many changes in the last minute; its turn comes |
| `stopped` | somebody has withdrawn all routes |
| `filter-down` | the URL filter does not answer, or has not yet (`filter_watch`) |
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from blocker.feeds.sightings import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocker.feeds.addresses import Address, Network

#: Of the URL filter. `off`: nobody asked for looks at it. `unproven`: it has not answered yet.
FilterState = Literal["off", "unproven", "up", "down"]
# What is said of it; of the other states nothing needs to be.
_FILTER_SAID: dict[FilterState, str] = {
    "unproven": "has not answered yet; nothing new is announced",
    "down": "does not answer; all routes are withdrawn until it does",
}
#: Names as keyed digests, in hex.
NameId = str


class Reason(StrEnum):
    """Why an address has no route; see above."""

    SPECIAL = "special"
    OWN = "own"
    INFRASTRUCTURE = "infrastructure"
    NEVER = "never"
    POPULAR = "popular"
    NO_NEXT_HOP = "no-next-hop"
    HOST_LIMIT = "host-limit"
    TOTAL_LIMIT = "total-limit"
    POPULAR_UNKNOWN = "popular-unknown"
    RATE = "rate"
    STOPPED = "stopped"
    FILTER_DOWN = "filter-down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds the routes; `blocker/route_section.py` describes each. Times in seconds."""

    per_host: int = 16
    total: int = 10_000
    changes_per_minute: int = 600
    hold_down: float = 86_400.0
    slot_seconds: float = 600.0
    withdraw_seconds: float = 30.0
    families: frozenset[int] = FAMILIES
    never: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """What to do now, in this order."""

    withdraw: tuple[Address, ...] = ()
    announce: tuple[Address, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.withdraw or self.announce)

    def as_message(self) -> dict[str, list[str]]:
        """As feeds are told of them."""
        return {"announce": [str(one) for one in self.announce], "withdraw": [str(one) for one in self.withdraw]}


def filter_said(state: FilterState, unanswered: Sequence[str]) -> str | None:
    """What a person should know of the URL filter; None: nothing.

    Args:
        state: Its state.
        unanswered: The probes that it left unanswered at the last look; none if it has begun to answer again.
    """
    said = _FILTER_SAID.get(state)
    return said and f"the URL filter {said}" + (f": {', '.join(unanswered)}" if unanswered else "")
