"""The route feed's metrics. Labels are closed: reasons, families and kinds of this program, resolvers as set,
routers as ExaBGP's configuration has them.

| metric                          | labels           | is                                                        |
|---------------------------------|------------------|-----------------------------------------------------------|
| `blocker_routes`                | family           | routes that are announced                                 |
| `blocker_routes_refused`        | reason           | addresses of listed hosts without a route                 |
| `blocker_route_changes_total`   | change           | routes announced and withdrawn                            |
| `blocker_route_hosts`           |                  | hosts whose addresses are looked up                       |
| `blocker_route_hosts_dead`      |                  | those that are nowhere, for dead_after_seconds or longer  |
| `blocker_route_hosts_uncovered` | reason           | those of which no address is to have a route, by why: as  |
|                                 |                  | of addresses, or `unknown` yet, or `absent`: nowhere      |
| `blocker_route_hosts_moved`     | why              | those that came near popular hosts from elsewhere, as     |
|                                 |                  | `blocker routes` names them; counted once a minute        |
| `blocker_route_lookups_total`   | resolver, result | answers of each resolver: answered, absent, failed        |
| `blocker_route_popular_known`   |                  | 1 if it is known where popular names are, else 0          |
| `blocker_route_stopped`         |                  | 1 while somebody has withdrawn all routes, else 0         |
| `blocker_route_filter_up`       |                  | 1 if the URL filter answers, else 0; if it is asked       |
| `blocker_route_retreating`      |                  | 1 while a node without routes has some withdrawn, else 0  |
| `blocker_route_feeds`           |                  | `blocker bgp-feed` processes that are connected           |
| `blocker_route_feed_routes`     |                  | the fewest routes that any of them says ExaBGP has        |
| `blocker_route_feed_errors`     |                  | commands that ExaBGP refused, of the feeds that are there |
| `blocker_route_sessions`        |                  | BGP sessions of all feeds' ExaBGP that are up             |
| `blocker_route_neighbor_up`     | neighbor         | 1 if the session with a router is up, else 0              |
| `blocker_route_neighbor_routes` | neighbor         | routes that it carries; of several feeds, the fewest      |
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from blocker.feeds.resolve import Result
from blocker.feeds.route_report import ABSENT, MOVED, UNKNOWN
from blocker.feeds.route_retreat import retreating
from blocker.feeds.routes import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from blocker.feeds.route_report import Feed
    from blocker.feeds.route_socket import Peer
    from blocker.feeds.routes import Changes


class RouteCounts(Collector):
    """What is scraped of a feed.

    Cost: milliseconds for tens of thousands of hosts.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._changes: Counter[str] = Counter({"announce": 0, "withdraw": 0})

    def changed(self, changes: Changes) -> None:
        """Count changes."""
        self._changes["announce"] += len(changes.announce)
        self._changes["withdraw"] += len(changes.withdraw)

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        yield from self._routes()
        yield from self._hosts()
        yield from self._feeds()

    def _routes(self) -> Iterator[Metric]:
        table = self._feed.table
        routes = GaugeMetricFamily("blocker_routes", "Routes that are announced.", labels=["family"])
        versions: Counter[int] = Counter(address.version for address in table.announced)
        for family, version in (("ipv4", 4), ("ipv6", 6)):
            routes.add_metric([family], versions[version])
        yield routes
        refused = GaugeMetricFamily(
            "blocker_routes_refused", "Addresses of listed hosts without a route.", labels=["reason"]
        )
        waiting = table.waiting()
        for reason in Reason:
            refused.add_metric([reason], table.refused[reason] + waiting[reason])
        yield refused
        changes = CounterMetricFamily("blocker_route_changes", "Routes announced and withdrawn.", labels=["change"])
        for change, count in self._changes.items():
            changes.add_metric([change], count)
        yield changes
        yield GaugeMetricFamily(
            "blocker_route_popular_known", "Whether it is known where popular names are: 1 or 0.",
            value=float(table.popular_known),
        )  # fmt: skip
        yield GaugeMetricFamily(
            "blocker_route_stopped", "Whether somebody has withdrawn all routes: 1 or 0.",
            value=float(self._feed.stopped is not None),
        )  # fmt: skip
        if self._feed.filter.state != "off":
            yield GaugeMetricFamily(
                "blocker_route_filter_up", "Whether the URL filter answers: 1 or 0.",
                value=float(not self._feed.filter.held),
            )  # fmt: skip
        yield retreating(now=False)

    def _hosts(self) -> Iterator[Metric]:
        names, patience = self._feed.table.names, self._feed.settings.dead_after_seconds
        now = self._feed.now()
        dead = sum(seen.absent is not None and now - seen.absent >= patience for seen in names.values())
        yield GaugeMetricFamily("blocker_route_hosts", "Hosts whose addresses are looked up.", value=len(names))
        yield GaugeMetricFamily(
            "blocker_route_hosts_dead", "Hosts that are nowhere, and have been for long.", value=dead
        )
        uncovered = GaugeMetricFamily(
            "blocker_route_hosts_uncovered", "Hosts of which no address is to have a route.", labels=["reason"]
        )
        for reason in (UNKNOWN, ABSENT, *Reason):
            uncovered.add_metric([reason], self._feed.uncovered[reason])
        yield uncovered
        moved = GaugeMetricFamily(
            "blocker_route_hosts_moved", "Hosts that came near popular ones from elsewhere.", labels=["why"]
        )
        for why in MOVED:
            moved.add_metric([why], self._feed.moved[why])
        yield moved
        lookups = CounterMetricFamily(
            "blocker_route_lookups", "Answers of each resolver.", labels=["resolver", "result"]
        )
        for resolver, results in (self._feed.resolvers.results if self._feed.resolvers else {}).items():
            for result in get_args(Result):
                lookups.add_metric([resolver, result], results[result])
        yield lookups

    def _feeds(self) -> Iterator[Metric]:
        feeds = self._feed.socket.feeds
        yield GaugeMetricFamily("blocker_route_feeds", "Connected bgp-feed processes.", value=len(feeds))
        yield GaugeMetricFamily(
            "blocker_route_feed_routes", "Fewest routes that any feed says ExaBGP has.",
            value=min((feed.told for feed in feeds), default=0),
        )  # fmt: skip
        yield GaugeMetricFamily(
            "blocker_route_feed_errors", "Commands that ExaBGP refused, of the feeds that are there.",
            value=sum(feed.errors for feed in feeds),
        )  # fmt: skip
        carried = neighbors(feeds)
        yield GaugeMetricFamily(
            "blocker_route_sessions", "BGP sessions that are up.",
            value=sum(up for feed in feeds for up, _ in feed.neighbors.values()),
        )  # fmt: skip
        ups = GaugeMetricFamily(
            "blocker_route_neighbor_up", "Whether the session with a router is up: 1 or 0.", labels=["neighbor"]
        )
        routes = GaugeMetricFamily(
            "blocker_route_neighbor_routes", "Routes that the session with a router carries.", labels=["neighbor"]
        )
        for name, (up, count) in carried.items():
            ups.add_metric([name], float(up))
            routes.add_metric([name], count)
        yield from (ups, routes)


def neighbors(feeds: Iterable[Peer]) -> Mapping[str, tuple[bool, int]]:
    """Whether the session with each router is up, and how many routes it carries; of several feeds the worst."""
    worst: dict[str, tuple[bool, int]] = {}
    for feed in feeds:
        for name, carried in feed.neighbors.items():
            worst[name] = min(carried, worst.get(name, carried))
    return worst
