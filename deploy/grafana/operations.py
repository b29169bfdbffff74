"""The dashboard of who is woken: do the nodes decide, do they agree, are they in time, have they room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.grafana import thresholds as limits
from deploy.grafana.board import board, choice
from deploy.grafana.panels import (
    GREEN,
    HALF,
    QUARTER,
    RED,
    THIRD,
    YELLOW,
    Panels,
    thresholds,
)  # fmt: skip
from deploy.grafana.queries import GATEWAY, NODE, quantile

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

OK_OR_NOT = {"1": ("ok", GREEN), "0": ("failed", RED)}
UP_OR_DOWN = {"1": ("up", GREEN), "0": ("down", RED)}
ONLY_GATEWAY = 'instance=~"$node", gateway=~"$gateway"'


def operations() -> Dashboard:
    """Make it."""
    made = board(
        "blocker-operations", "Blocker: operations", "Decisions, lists, store, canaries and load of the nodes.",
        since="now-6h", refresh="30s",
    )  # fmt: skip
    made.with_variable(choice("node", "Node", "blocker_build_info", "instance"))
    made.with_variable(choice("gateway", "Gateway", "blocker_decisions_total", "gateway"))
    panels = Panels()
    _now(made, panels)
    _decisions(made, panels)
    _lists(made, panels)
    _canaries(made, panels)
    _load(made, panels)
    _gateway(made, panels)
    _feeds(made, panels)
    return made


def _now(made: Dashboard, panels: Panels) -> None:
    alarm = thresholds((1, RED))
    for title, query, description, colors, unit in (
        ("Nodes scraped", f"count(blocker_build_info{{{NODE}}})",
         "Nodes that Prometheus reaches. Fewer than you run: see `up`, and the process.", thresholds(base="blue"), "short"),
        ("Nodes without store", f"count(blocker_store_up{{{NODE}}} == 0) or vector(0)",
         "They go on with the lists they have.", alarm, "short"),
        ("Canaries failing", f"count(blocker_canary_ok{{{NODE}}} == 0) or vector(0)",
         "Looks, by list and gateway, that were not as they must be: a list may stop nothing.", alarm, "short"),
        ("Lists nodes disagree on",
         f"count(max by (list) (blocker_list_serial{{{NODE}}}) != min by (list) (blocker_list_serial{{{NODE}}})) or vector(0)",
         "Lists of which not all nodes enforce the same serial.", thresholds((1, YELLOW)), "short"),
        ("Stale lists",
         f"count(max by (list) (blocker_list_age_seconds{{{NODE}}}) > on (list) "
         f"max by (list) (blocker_list_age_limit_seconds{{{NODE}}})) or vector(0)",
         "Lists whose source has not been good for longer than it may.", alarm, "short"),
        ("Versions waiting", f"count(max by (list) (blocker_proposals_waiting{{{NODE}}}) == 1) or vector(0)",
         "Versions that a guard holds until a second person has looked: `blocker lists proposals`.",
         thresholds((1, YELLOW)), "short"),
    ):  # fmt: skip
        made.with_panel(panels.figure(title, query, description=description, colors=colors, unit=unit))


def _decisions(made: Dashboard, panels: Panels) -> None:
    made.with_row(panels.row("Decisions"))
    made.with_panel(panels.lines(
        "Decisions by gateway",
        [(f"sum by (gateway) (rate(blocker_decision_seconds_count{{{NODE}, {GATEWAY}}}[$__rate_interval]))", "{{gateway}}")],
        description="All decisions, whatever the verdict, at the moment they are made.", unit="reqps",
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Decisions in the hour before, by verdict",
        [(f"sum by (verdict) (increase(blocker_decisions_total{{{NODE}, {GATEWAY}}}[1h]))", "{{verdict}}")],
        description="Blocks are shown when their hour is over, rounded up to a bin, and are among `allow` until then. So "
        "`block` moves once an hour, and only whole hours say something. Decisions are requests, not people.",
        steps=True, log=True, least=None,
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Time of a decision",
        [(quantile(0.5), "p50"), (quantile(0.99), "p99"), (quantile(0.999), "p99.9")],
        description="Estimated from the histogram's buckets (200 ns to 10 ms). A block has the time of some other decision.",
        unit="s", width=THIRD, limit=limits.DECISION_SECONDS, log=True, least=None,
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "p99 by gateway", [(quantile(0.99, "gateway"), "{{gateway}}")],
        description="99 of 100 decisions take no longer.",
        unit="s", width=THIRD, limit=limits.DECISION_SECONDS, log=True, least=None,
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Requests that are no URL",
        [(f"sum by (gateway) (rate(blocker_invalid_urls_total{{{NODE}, {GATEWAY}}}[$__rate_interval])) / "
          f"sum by (gateway) (rate(blocker_decision_seconds_count{{{NODE}, {GATEWAY}}}[$__rate_interval]) > 0)",
          "{{gateway}}")],
        description="Their share. Much of it usually means that a proxy asks in the wrong form.",
        unit="percentunit", width=THIRD,
    ))  # fmt: skip


def _lists(made: Dashboard, panels: Panels) -> None:
    made.with_row(panels.row("Lists and store"))
    made.with_panel(panels.matrix(
        "Serial of each list on each node", f"max by (instance, list) (blocker_list_serial{{{NODE}}})", "list", "instance",
        description="A line whose numbers differ is a list that nodes do not agree on. 0: the node has no such list.",
        width=HALF,
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Serials behind the store",
        [(f"blocker_list_head_serial{{{NODE}}} - on (instance, list) blocker_list_serial{{{NODE}}}", "{{list}} {{instance}}")],
        description="How many published serials a node does not enforce yet. Above 0 for seconds only.",
        steps=True, decimals=0,
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Age of lists",
        [(f"max by (list) (blocker_list_age_seconds{{{NODE}}})", "{{list}}")],
        description="Since the source was last found good; for lists that are pushed, since the last publish. Each source "
        "has a limit of its own: see the dashboard of lists.",
        unit="s", width=THIRD,
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Follower lag", [(f"blocker_follower_lag_seconds{{{NODE}}}", "{{instance}}")],
        description="For how long a node has not enforced all that is in the store; 0 while it does. While the store is "
        "away it grows, and decisions go on.",
        unit="s", width=THIRD, limit=limits.FOLLOWER_LAG_SECONDS,
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Hours of hits that the store lacks", [(f"blocker_hits_waiting_hours{{{NODE}}}", "{{instance}}")],
        description="Hours that are over and whose hits wait in the node's memory for a store that is away. They are lost "
        "if the node ends. What waits of the present hour is shown nowhere: it would tell when somebody was blocked.",
        steps=True, decimals=0, width=THIRD, limit=1,
    ))  # fmt: skip
    made.with_panel(panels.states(
        "Store", f"blocker_store_up{{{NODE}}}", "{{instance}}", UP_OR_DOWN,
        description="Whether the store answered the node last time.",
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Failed looks at the store",
        [(f"sum by (instance) (rate(blocker_store_failures_total{{{NODE}}}[$__rate_interval]))", "{{instance}}")],
        description="Looks for new lists that failed. A restart of Redis is a few; more is a network or a Redis in need.",
        unit="ops",
    ))  # fmt: skip


def _canaries(made: Dashboard, panels: Panels) -> None:
    made.with_row(panels.row("Canaries"))
    made.with_panel(panels.states(
        "Canaries", f"min by (list, gateway) (blocker_canary_ok{{{NODE}, {GATEWAY}}})", "{{list}} by {{gateway}}", OK_OR_NOT,
        description="Pages that lists carry for testing, asked for as a client would. `failed`: the list does not stop what "
        "it must, or more. The node's log has the reason at \"canary failed\".",
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Since canaries were looked at",
        [(f"max by (list) (blocker_canary_age_seconds{{{NODE}, {GATEWAY}}})", "{{list}}")],
        description="The oldest look of any gateway and node. Over the line nobody looks any more.",
        unit="s", limit=limits.CANARY_AGE_SECONDS,
    ))  # fmt: skip


def _load(made: Dashboard, panels: Panels) -> None:
    made.with_row(panels.row("Load"))
    made.with_panel(panels.lines(
        "Connections of those that may be",
        [(f"max by (gateway) (blocker_connections{{{NODE}, {GATEWAY}}} / blocker_connections_limit{{{NODE}, {GATEWAY}}})",
          "{{gateway}}")],
        description="The fullest node. Full: further connections are refused (`max_connections`).",
        unit="percentunit", width=THIRD, limit=limits.CONNECTIONS_SHARE,
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Connections refused and cut off",
        [(f"sum by (gateway) (rate(blocker_connections_refused_total{{{NODE}, {GATEWAY}}}[$__rate_interval]))",
          "{{gateway}} refused"),
         (f"sum by (gateway) (rate(blocker_connections_cut_total{{{NODE}, {GATEWAY}}}[$__rate_interval]))", "{{gateway}} cut")],
        description="Refused: one too many. Cut off: a request did not arrive whole, or an answer was not read, in time.",
        unit="cps", width=THIRD,
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Worst delay of an event loop", [(f"blocker_loop_lag_seconds{{{NODE}}}", "{{instance}} {{process}}")],
        description="Within a minute, in steps of 5 ms. All clients of the process waited so long.",
        unit="s", width=THIRD, limit=limits.LOOP_LAG_SECONDS,
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Processor", [(f"rate(blocker_cpu_seconds_total{{{NODE}}}[5m])", "{{instance}} {{process}}")],
        description="Cores that a process uses, over five minutes. One process uses at most about one.",
        unit="short", width=THIRD, limit=0.9,
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Memory", [(f"blocker_memory_bytes{{{NODE}}}", "{{instance}} {{process}}")],
        description="Resident memory in steps of 16 MiB. Workers map the node's table; it counts for each of them.",
        unit="bytes", width=THIRD,
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Workers missing",
        [(f'blocker_workers_configured{{{NODE}}} - on (instance) blocker_companions{{{NODE}, kind="worker"}}', "{{instance}}")],
        description="A worker that ends is started again within a second or so.",
        width=THIRD, steps=True, decimals=0, limit=1,
    ))  # fmt: skip


def _gateway(made: Dashboard, panels: Panels) -> None:
    made.with_row(panels.row("Gateway $gateway").repeat("gateway"))
    made.with_panel(panels.lines(
        "$gateway: decisions by node",
        [(f"sum by (instance) (rate(blocker_decision_seconds_count{{{ONLY_GATEWAY}}}[$__rate_interval]))", "{{instance}}")],
        description="A node that decides much less than others is asked by fewer proxies, or is out of rotation.",
        unit="reqps", width=THIRD,
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "$gateway: time of a decision",
        [(quantile(0.5, selector=ONLY_GATEWAY), "p50"), (quantile(0.99, selector=ONLY_GATEWAY), "p99"),
         (quantile(0.999, selector=ONLY_GATEWAY), "p99.9")],
        description="Of this gateway. How long names took that were asked of other resolvers is not shown: blocked ones are "
        "not asked, so it would tell of single requests.",
        unit="s", width=THIRD, limit=limits.DECISION_SECONDS, log=True, least=None,
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "$gateway: connections", [(f"sum by (instance) (blocker_connections{{{ONLY_GATEWAY}}}) or 0 * sum by (instance) "
                         f"(blocker_decision_seconds_count{{{ONLY_GATEWAY}}})", "{{instance}}")],
        description="Open ones. None are known of `control`, `envoy` and `squid-helper`, and DNS by UDP has none.",
        width=THIRD, steps=True, decimals=0,
    ))  # fmt: skip


def _feeds(made: Dashboard, panels: Panels) -> None:
    zones = panels.row("Zones for resolvers: nodes with [feeds.rpz]").collapsed(True)
    zones.with_panel(panels.lines(
        "Serial of each zone", [(f"blocker_zone_serial{{{NODE}}}", "{{zone}} {{instance}}")],
        description="All nodes give the same; a line that stays below others is a node whose secondaries get old zones.",
        steps=True, least=None, decimals=0,
    ))  # fmt: skip
    zones.with_panel(panels.lines(
        "Names in each zone", [(f"sum by (zone, effect) (blocker_zone_names{{{NODE}}})", "{{zone}} {{effect}}")],
        description="By what the zone says of them.", width=QUARTER, steps=True, decimals=0,
    ))  # fmt: skip
    zones.with_panel(panels.lines(
        "Zones not up to date", [(f"1 - blocker_zone_ok{{{NODE}}}", "{{zone}} {{instance}}")],
        description="1: the zone could not be made from the newest lists and stays as it was; the log says why.",
        width=QUARTER, steps=True, decimals=0, limit=1,
    ))  # fmt: skip
    made.with_row(zones)
    routes = panels.row("Routes: nodes with [routes]").collapsed(True)
    routes.with_panel(panels.lines(
        "Routes", [(f"sum by (instance) (blocker_routes{{{NODE}}})", "wanted {{instance}}"),
                   (f"blocker_route_feed_routes{{{NODE}}}", "ExaBGP has {{instance}}")],
        description="What the node wants announced, and what ExaBGP says it was told.", width=THIRD, steps=True, decimals=0,
    ))  # fmt: skip
    routes.with_panel(panels.lines(
        "Addresses without a route", [(f"sum by (reason) (blocker_routes_refused{{{NODE}}})", "{{reason}}")],
        description="Addresses of listed hosts that are not announced, and why: `blocker routes` names them.",
        width=THIRD, steps=True, decimals=0,
    ))  # fmt: skip
    routes.with_panel(panels.lines(
        "Failing share of each resolver",
        [(f'sum by (resolver) (rate(blocker_route_lookups_total{{{NODE}, result="failed"}}[15m])) / '
          f"sum by (resolver) (rate(blocker_route_lookups_total{{{NODE}}}[15m]))", "{{resolver}}")],
        description="Of the node's own look-ups of listed hosts. More than half: BlockerRoutesResolverDown.",
        unit="percentunit", width=THIRD, limit=0.5,
    ))  # fmt: skip
    routes.with_panel(panels.lines(
        "Hosts", [(f"blocker_route_hosts{{{NODE}}}", "looked up {{instance}}"),
                  (f"blocker_route_hosts_dead{{{NODE}}}", "nowhere {{instance}}")],
        description="Listed hosts whose addresses are looked up, and those that have had none for long.",
        width=THIRD, steps=True, decimals=0,
    ))  # fmt: skip
    routes.with_panel(panels.lines(
        "Changes", [(f"sum by (change) (rate(blocker_route_changes_total{{{NODE}}}[$__rate_interval]))", "{{change}}")],
        description="Routes announced and withdrawn.", unit="ops", width=THIRD,
    ))  # fmt: skip
    routes.with_panel(panels.lines(
        "Feeds", [(f"blocker_route_feeds{{{NODE}}}", "connected {{instance}}"),
                  (f"blocker_route_feed_errors{{{NODE}}}", "refused commands {{instance}}"),
                  (f"blocker_route_popular_known{{{NODE}}}", "popular names known {{instance}}")],
        description="`blocker bgp-feed` processes that are connected (0: nothing changes any more), commands that ExaBGP "
        "refused, and whether it is known where popular names are (0: nothing new is announced).",
        width=THIRD, steps=True, decimals=0,
    ))  # fmt: skip
    routes.with_panel(panels.states(
        "Sessions with routers", f"blocker_route_neighbor_up{{{NODE}}}", "{{neighbor}} {{instance}}", UP_OR_DOWN,
        description="A router without a session has no routes: listed hosts are reached through it without the filter.",
    ))  # fmt: skip
    routes.with_panel(panels.lines(
        "Routes that each router does not get",
        [(f"sum by (instance) (blocker_routes{{{NODE}}}) - on (instance) group_right () "
          f"blocker_route_neighbor_routes{{{NODE}}}", "{{neighbor}} {{instance}}")],
        description="Of those that the node wants. Above 0 for long: no session, or a family is missing at one end.",
        width=HALF, steps=True, decimals=0,
    ))  # fmt: skip
    routes.with_panel(panels.lines(
        "Hosts without any route",
        [(f"sum by (reason) (blocker_route_hosts_uncovered{{{NODE}}})", "{{reason}}"),
         (f"sum by (why) (blocker_route_hosts_moved{{{NODE}}})", "{{why}}")],
        description="Listed hosts of which no address is to be announced, and why. Beside them those that came near popular "
        "hosts from elsewhere (moved): `blocker routes --hosts` names them.",
        width=THIRD, steps=True, decimals=0,
    ))  # fmt: skip
    routes.with_panel(panels.lines(
        "Withdrawn by hand or for good",
        [(f"blocker_route_stopped{{{NODE}}}", "until resumed {{instance}}"),
         (f"blocker_route_retreating{{{NODE}}}", "routes are off {{instance}}")],
        description="1: somebody has withdrawn all routes (`blocker routes withdraw`), or the node has none any more and "
        "waits until ExaBGP has withdrawn what it had.",
        width=THIRD, steps=True, decimals=0, limit=1,
    ))  # fmt: skip
    made.with_row(routes)
