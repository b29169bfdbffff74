"""Rows of the operations dashboard about what a node does for others and asks of them: forwarding, zones, routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.grafana import thresholds as limits
from deploy.grafana.panels import GREEN, HALF, QUARTER, RED, THIRD, Panels
from deploy.grafana.queries import NODE

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Row

UP_OR_DOWN = {"1": ("up", GREEN), "0": ("down", RED)}


def forwarding(panels: Panels) -> Row:
    """What the dns gateway asks of others. Nothing in it is finer than a minute but the node's own questions."""
    row = panels.row("DNS forwarding: nodes with [gateways.dns] upstreams").collapsed(True)
    row.with_panel(panels.states(
        "Upstreams", f"min by (upstream, instance) (blocker_dns_upstream_up{{{NODE}}})", "{{upstream}} from {{instance}}",
        UP_OR_DOWN,
        description="Whether each resolver answers the node's own questions, one every five seconds. All down: customers have "
        "no DNS but what is kept.",
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Time of upstreams' answers",
        [(f"blocker_dns_upstream_seconds{{{NODE}}}", "{{upstream}} from {{instance}}")],
        description="To the node's own question, which a resolver answers from its cache, in steps of 5 ms. How long clients' "
        "names took is not shown: blocked ones are not asked, so it would tell of single requests.",
        unit="s",
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Questions that came to nothing",
        [(f"blocker_dns_questions_share{{{NODE}}}", "{{answer}} {{instance}}")],
        description="Of clients' forwarded questions of the last minute, an eighth of which is looked at: `none`: nobody said "
        "anything; `failed`: resolvers said that they cannot; `stale`: an answer of before was used.",
        unit="percentunit", width=THIRD, limit=limits.UNANSWERED_SHARE, steps=True,
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "What came of asking each upstream",
        [(f"blocker_dns_upstream_failing_share{{{NODE}}}", "{{upstream}} {{reason}} {{instance}}")],
        description="Of clients' questions asked of it. `stranger`: answers that are none came as well, forged or with other "
        "letters' case.",
        unit="percentunit", width=THIRD, steps=True,
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Questions waiting, of those that may",
        [(f"blocker_dns_waiting{{{NODE}}} / blocker_dns_waiting_limit{{{NODE}}}", "{{instance}}")],
        description="The most at once within a minute, in steps of 64. Full: further ones fail (`max_waiting`).",
        unit="percentunit", width=THIRD, limit=limits.WAITING_SHARE, steps=True,
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Cache", [(f"blocker_dns_cache_bytes{{{NODE}}}", "{{instance}}"),
                  (f"blocker_dns_cache_limit_bytes{{{NODE}}}", "may be {{instance}}")],
        description="Memory of answers that are kept, of all processes, about. Full is right: the least used leave.",
        unit="bytes", width=HALF, steps=True,
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Datagrams that got no answer",
        [(f"sum by (reason, instance) (rate(blocker_dns_datagrams_refused_total{{{NODE}}}[$__rate_interval]))",
          "{{reason}} {{instance}}")],
        description="`stranger`: of nobody in `networks`. `slipped` and `dropped`: over the rate of their network; slipped ones "
        "are told to come by TCP.",
        unit="pps", width=HALF,
    ))  # fmt: skip
    return row


def zones(panels: Panels) -> Row:
    """Zones and who has them."""
    row = panels.row("Zones for resolvers: nodes with [feeds.rpz]").collapsed(True)
    row.with_panel(panels.lines(
        "Serial of each zone", [(f"blocker_zone_serial{{{NODE}}}", "{{zone}} {{instance}}")],
        description="All nodes give the same; a line that stays below others is a node whose secondaries get old zones.",
        steps=True, least=None, decimals=0,
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Names in each zone", [(f"sum by (zone, effect) (blocker_zone_names{{{NODE}}})", "{{zone}} {{effect}}")],
        description="By what the zone says of them.", width=QUARTER, steps=True, decimals=0,
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Zones not up to date", [(f"1 - blocker_zone_ok{{{NODE}}}", "{{zone}} {{instance}}")],
        description="1: the zone could not be made from the newest lists and stays as it was; the log says why.",
        width=QUARTER, steps=True, decimals=0, limit=1,
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "For how long secondaries have been behind",
        [(f"blocker_zone_secondary_behind_seconds{{{NODE}}}", "{{zone}} {{secondary}} {{instance}}")],
        description="0: the resolver has the newest version. It grows while it asks and gets none; it says nothing on a node "
        "that the resolver no longer asks.",
        unit="s", width=THIRD,
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Since secondaries asked",
        [(f"blocker_zone_secondary_age_seconds{{{NODE}}} or blocker_zone_secondary_expected_seconds{{{NODE}}}",
          "{{zone}} {{secondary}} {{instance}}")],
        description="A resolver asks once a refresh (SOA), a minute by default; of several nodes only one. One that never "
        "came is counted from the node's start.",
        unit="s", width=THIRD, log=True, least=None,
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Since zones were compared with the lists",
        [(f"blocker_zone_check_age_seconds{{{NODE}}}", "{{zone}} {{instance}}")],
        description="Seconds, while the store answers. Over the line: the zone cannot be made, or nobody looks.",
        unit="s", width=THIRD, limit=limits.ZONE_CHECK_AGE_SECONDS,
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Requests and transfers that failed in an hour",
        [(f"sum by (zone, reason) (increase(blocker_zone_failures_total{{{NODE}}}[1h]))", "{{zone}} {{reason}}")],
        description="`signature` and `access` again and again: a resolver with another key since a change. `clear` and "
        "`handshake`: one that does not come over TLS, or not as it must. `busy`: too many transfers at once. `cut`: the "
        "resolver went away.",
        width=QUARTER,
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Notices in an hour",
        [(f"sum by (zone, result) (increase(blocker_zone_notices_total{{{NODE}}}[1h]))", "{{zone}} {{result}}")],
        description="Datagrams that tell of a new version, and what became of them. Without them resolvers learn of it at "
        "their next refresh.",
        width=QUARTER,
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Transfers in an hour",
        [(f"sum by (zone, sent, transport) (increase(blocker_zone_transfers_total{{{NODE}}}[1h]))",
          "{{zone}} {{sent}} {{transport}}")],
        description="Whole zones, differences, and requests of resolvers that had the newest one; over TLS, or in clear text, "
        "which shows the names to whoever reads the network.",
        width=QUARTER,
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Until the zones' certificate ends",
        [(f"blocker_zone_certificate_expiry_seconds{{{NODE}}}", "{{instance}}")],
        description="Of nodes with `tls_certificate`. Under the line: renew it, and send the node SIGHUP. Below 0: resolvers "
        "take no version any more.",
        unit="s", width=QUARTER, limit=limits.ZONE_CERTIFICATE_SECONDS, least=None,
    ))  # fmt: skip
    return row


def routes(panels: Panels) -> Row:
    """Routes and who has them."""
    row = panels.row("Routes: nodes with [routes]").collapsed(True)
    row.with_panel(panels.lines(
        "Routes", [(f"sum by (instance) (blocker_routes{{{NODE}}})", "wanted {{instance}}"),
                   (f"blocker_route_feed_routes{{{NODE}}}", "ExaBGP has {{instance}}")],
        description="What the node wants announced, and what ExaBGP says it was told.", width=THIRD, steps=True, decimals=0,
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Addresses without a route", [(f"sum by (reason) (blocker_routes_refused{{{NODE}}})", "{{reason}}")],
        description="Addresses of listed hosts that are not announced, and why: `blocker routes` names them.",
        width=THIRD, steps=True, decimals=0,
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Failing share of each resolver",
        [(f'sum by (resolver) (rate(blocker_route_lookups_total{{{NODE}, result="failed"}}[15m])) / '
          f"sum by (resolver) (rate(blocker_route_lookups_total{{{NODE}}}[15m]))", "{{resolver}}")],
        description="Of the node's own look-ups of listed hosts. More than half: BlockerRoutesResolverDown.",
        unit="percentunit", width=THIRD, limit=0.5,
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Hosts", [(f"blocker_route_hosts{{{NODE}}}", "looked up {{instance}}"),
                  (f"blocker_route_hosts_dead{{{NODE}}}", "nowhere {{instance}}")],
        description="Listed hosts whose addresses are looked up, and those that have had none for long.",
        width=THIRD, steps=True, decimals=0,
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Changes", [(f"sum by (change) (rate(blocker_route_changes_total{{{NODE}}}[$__rate_interval]))", "{{change}}")],
        description="Routes announced and withdrawn.", unit="ops", width=THIRD,
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Feeds", [(f"blocker_route_feeds{{{NODE}}}", "connected {{instance}}"),
                  (f"blocker_route_feed_errors{{{NODE}}}", "refused commands {{instance}}"),
                  (f"blocker_route_popular_known{{{NODE}}}", "popular names known {{instance}}")],
        description="`blocker bgp-feed` processes that are connected (0: nothing changes any more), commands that ExaBGP "
        "refused, and whether it is known where popular names are (0: nothing new is announced).",
        width=THIRD, steps=True, decimals=0,
    ))  # fmt: skip
    row.with_panel(panels.states(
        "Sessions with routers", f"blocker_route_neighbor_up{{{NODE}}}", "{{neighbor}} {{instance}}", UP_OR_DOWN,
        description="A router without a session has no routes: listed hosts are reached through it without the filter.",
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Routes that each router does not get",
        [(f"sum by (instance) (blocker_routes{{{NODE}}}) - on (instance) group_right () "
          f"blocker_route_neighbor_routes{{{NODE}}}", "{{neighbor}} {{instance}}")],
        description="Of those that the node wants. Above 0 for long: no session, or a family is missing at one end.",
        width=HALF, steps=True, decimals=0,
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Hosts without any route",
        [(f"sum by (reason) (blocker_route_hosts_uncovered{{{NODE}}})", "{{reason}}"),
         (f"sum by (why) (blocker_route_hosts_moved{{{NODE}}})", "{{why}}")],
        description="Listed hosts of which no address is to be announced, and why. Beside them those that came near popular "
        "hosts from elsewhere (moved): `blocker routes --hosts` names them.",
        width=THIRD, steps=True, decimals=0,
    ))  # fmt: skip
    row.with_panel(panels.lines(
        "Withdrawn altogether",
        [(f"blocker_route_stopped{{{NODE}}}", "until resumed {{instance}}"),
         (f"1 - blocker_route_filter_up{{{NODE}}}", "no answer of the filter {{instance}}"),
         (f"blocker_route_retreating{{{NODE}}}", "routes are off {{instance}}")],
        description="1: somebody has withdrawn all routes (`blocker routes withdraw`), the URL filter does not answer, or the "
        "node has none any more and waits until ExaBGP has withdrawn what it had.",
        width=THIRD, steps=True, decimals=0, limit=1,
    ))  # fmt: skip
    return row
