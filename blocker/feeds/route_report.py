"""The report of a route feed: each address and why it is or is not announced, and what a person should look at.

Hosts to look at, by `why`:

- `dead`: in no resolver's answer for `dead_after_seconds`; the entry of the list may be out of date
- `many`: more addresses at once than one host may have routes; routes do not hold it, a rule for resolvers does
- `flux`: more in a hold-down than one host may have routes, though not at once; as little held
- `moved-address`, `moved-network`: came, a hold-down ago or less, from elsewhere to an address of a popular host, or to
  the network around one (/24, /48): its owner may want somebody else to be stopped, or it has gone behind a content
  network
- `port`: an HTTPS record names a port for it that is not among `flow_ports`: FlowSpec does not redirect it, and where
  all traffic of the address comes to the URL filter, that must take this port too
- `popular`: a popular host itself, or one under it (`spared`). It has no route, so its traffic is not taken; pages
  there need a filter that bears it, and `routes.popular_exempt`
- `excepted`: the policy's exceptions let all of its listed pages through, so it is not looked up and has no route
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, Protocol

from blocker.feeds.routes import Reason
from blocker.feeds.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blocker.feeds.filter_watch import FilterWatch
    from blocker.feeds.resolve import Resolvers
    from blocker.feeds.route_socket import RouteSocket
    from blocker.feeds.route_stop import Stop
    from blocker.feeds.routes import NameId, RouteTable
    from blocker.feeds.sightings import Seen
    from blocker.feeds.steady import SteadyClock
    from blocker.route_section import RouteSettings

State = Literal["announced", "held", "waiting", "refused"]
Why = Literal["dead", "many", "flux", "moved-address", "moved-network", "port", "popular", "excepted"]
#: Why a host has no address that could have a route, beside what speaks against addresses: nobody has said anything of
#: it yet, or it is nowhere.
UNKNOWN, ABSENT = "unknown", "absent"
#: What an address waits for that will have a route.
WAITING = (Reason.RATE, Reason.POPULAR_UNKNOWN, Reason.TOTAL_LIMIT, Reason.STOPPED, Reason.FILTER_DOWN)
#: Those of them that say that a host has moved.
MOVED: tuple[Why, ...] = ("moved-address", "moved-network")
# Addresses looked at between two turns of the event loop: half a millisecond.
_SLICE = 64


class Feed(Protocol):
    """What the report needs of a feed."""

    table: RouteTable
    names: dict[NameId, str]
    ports: dict[NameId, frozenset[int]]
    excepted: frozenset[str]
    moved: Counter[Why]
    uncovered: Counter[str]
    settled: bool
    stopped: Stop | None
    filter: FilterWatch
    socket: RouteSocket
    resolvers: Resolvers | None
    now: SteadyClock

    @property
    def settings(self) -> RouteSettings:
        """As in use."""


async def report(feed: Feed, now: float, stepped: float = 0.0) -> Mapping[str, Any]:
    """Everything that `blocker routes` shows, as JSON values; times in Unix seconds, with `stepped` added.

    `addresses` has one entry for each address of each listed host: `state` is `announced`, `held` (announced although
    the host has moved), `waiting` or `refused`; `until` is when a hold-down ends.
    """
    table = feed.table
    addresses: list[dict[str, Any]] = []
    hosts: list[dict[str, Any]] = []
    turns = Turns(_SLICE)
    for key in table.ids:
        if (seen := table.seen(key)) is None:
            continue  # it has left the list meanwhile
        shown = feed.names.get(key, key)
        for entries, to in (
            (_addresses(table, key, seen, feed.settings), addresses),
            (_looks(feed, key, seen, now), hosts),
        ):
            for entry in entries:
                times = {name: entry[name] + stepped for name in ("since", "until") if entry.get(name) is not None}
                to.append({"host": shown, **entry, **times})
        await turns.spend(1 + len(seen.at))
    for name in sorted(feed.excepted):
        hosts.append({"host": name, **_look("excepted", 0)})
        await turns.spend()
    return {
        "settled": feed.settled,
        "popular_known": table.popular_known,
        "stopped": None if feed.stopped is None else {"since": feed.stopped.since, "reason": feed.stopped.reason},
        "filter": {"state": feed.filter.state, "unanswered": feed.filter.unanswered},
        "routes": len(table.announced),
        "listed": len(table.ids),
        "uncovered": dict(await count_uncovered(feed)),
        "addresses": addresses,
        "hosts": hosts,
        "feeds": [
            {"told": peer.told, "errors": peer.errors, "pid": peer.pid, "neighbors": dict(peer.neighbors)}
            for peer in feed.socket.feeds
        ],
        "resolvers": {} if feed.resolvers is None else {k: dict(v) for k, v in feed.resolvers.results.items()},
    }


async def count_uncovered(feed: Feed) -> Counter[str]:
    """Hosts of which no address has a route or waits for one, by what speaks against most of them.

    Cost: some microseconds an address, in turns of the event loop.
    """
    table, turns = feed.table, Turns(_SLICE)
    found: Counter[str] = Counter()
    for key in table.ids:
        if (seen := table.seen(key)) is None:
            continue  # it has left the list meanwhile
        reasons = Counter(table.reason(address, key) for address in seen.at)
        if (spared := table.spared(key)) is not None:
            found[str(spared)] += 1
        elif not reasons:
            found[UNKNOWN if seen.absent is None else ABSENT] += 1
        elif not any(reason is None or reason in WAITING for reason in reasons):
            found[str(reasons.most_common(1)[0][0])] += 1
        await turns.spend(1 + len(seen.at))
    return found


async def count_moved(feed: Feed) -> Counter[Why]:
    """How many hosts came near popular ones from elsewhere; popular ones themselves are not counted.

    Cost: that of a report's part, in turns of the event loop.
    """
    table, turns = feed.table, Turns(_SLICE)
    found: Counter[Why] = Counter()
    for key in table.ids:
        if (seen := table.seen(key)) is None:
            continue  # it has left the list meanwhile
        if table.spared(key) is not Reason.POPULAR and (moved := _moved(table, seen)) is not None:
            found[moved[0]] += 1
        await turns.spend(1 + len(seen.at))
    return found


def _addresses(table: RouteTable, key: NameId, seen: Seen, settings: RouteSettings) -> Iterator[dict[str, Any]]:
    for address, sighting in seen.at.items():
        reason = table.reason(address, key)
        state: State
        if reason is None:
            state = "announced" if sighting.gone is None else "held"
        else:
            state = "waiting" if reason in WAITING else "refused"
        yield {
            "address": str(address),
            "state": state,
            "reason": reason,
            "since": table.announced.get(address) if reason is None else sighting.first,
            "until": None if sighting.gone is None else sighting.gone + settings.hold_down_seconds,
            "listed_hosts": len(table.claimed_by(address)),
        }


def _looks(feed: Feed, key: NameId, seen: Seen, now: float) -> Iterator[dict[str, Any]]:
    settings = feed.settings
    if feed.table.spared(key) is Reason.POPULAR:
        yield _look("popular", seen.most)
    elif (moved := _moved(feed.table, seen)) is not None:
        yield _look(moved[0], seen.most, since=moved[1])
    if feed.ports.get(key, frozenset()).difference(settings.flow_ports):
        yield _look("port", seen.most)
    if seen.absent is not None and now - seen.absent >= settings.dead_after_seconds:
        yield _look("dead", 0, since=seen.absent)
    if seen.most > settings.max_per_host:
        yield _look("many", seen.most)
    elif any(feed.table.reason(address, key) is Reason.HOST_LIMIT for address in seen.at):
        yield _look("flux", len(seen.at))


def _look(why: Why, addresses: int, since: float | None = None) -> dict[str, Any]:
    return {"why": why, "since": since, "addresses": addresses}


def _moved(table: RouteTable, seen: Seen) -> tuple[Why, float] | None:
    """Whether a host came to where popular ones are from elsewhere; how near, and since when."""
    near: dict[Why, list[float]] = {"moved-address": [], "moved-network": []}
    elsewhere = math.inf
    for address, sighting in seen.at.items():
        if table.refusal(address) is Reason.POPULAR:
            near["moved-address"].append(sighting.first)
        elif table.places.near(address):
            near["moved-network"].append(sighting.first)
        else:
            elsewhere = min(elsewhere, sighting.first)
    for why, since in near.items():
        if later := [first for first in since if first > elsewhere]:
            return why, min(later)
    return None
