"""The dashboard of when listed pages are asked for: released hits, by hour of the week."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.grafana.board import board, choice
from deploy.grafana.panels import FULL, HALF, Panels, thresholds
from deploy.grafana.queries import HITS, SHADOW_HITS, WEEK, days_in_order, grown, share_of_all

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

NOTE = """**Hits are requests, not people.** One person may make many, and one page may make several at once; no figure here
says how many people there are, and none can.

A hit appears when its hour is over, rounded up to a bin (8 by default) for each node, list and hour: small figures are
too large by up to a bin, and nothing here moves within an hour. Weekdays and hours are those of the nodes' `timezone`,
not of this browser. For publication use `blocker report`, which leaves small figures out; these are for own eyes."""


def hits() -> Dashboard:
    """Make it."""
    made = board(
        "blocker-hits", "Blocker: hits", "Blocked requests by list, weekday and hour. Requests, not people.",
        since="now-28d", refresh="",
    )  # fmt: skip
    made.with_variable(choice("node", "Node", "blocker_build_info", "instance"))
    made.with_variable(choice("list", "List", "blocker_hits_total", "list"))
    panels = Panels()
    made.with_panel(panels.note(NOTE, height=5))
    _figures(made, panels)
    _shares(made, panels)
    _weeks(made, panels)
    made.with_row(panels.row("By weekday and hour, in the time chosen"))
    made.with_panel(panels.matrix(
        "Requests for pages of $list", f"sum by (day, hour) ({days_in_order(grown(HITS, '$__range'))})", "day", "hour",
        description="Requests that were blocked, by the hour of the week in which they came. Requests, not people. Choose "
        "whole weeks, or some hours will have had more days than others.",
        repeat="list",
    ))  # fmt: skip
    shadow = panels.row("Shadow lists: what they would have blocked").collapsed(True)
    shadow.with_panel(panels.matrix(
        "Requests that shadow lists would have blocked",
        f"sum by (day, hour) ({days_in_order(grown(SHADOW_HITS, '$__range'))})", "day", "hour",
        description="All chosen lists that are in shadow mode. Nobody was stopped. Requests, not people.", width=FULL,
    ))  # fmt: skip
    shadow.with_panel(panels.bars(
        "Requests by shadow list", f"sum by (list) ({grown(SHADOW_HITS, '$__range')})", "list",
        description="In the time chosen. Requests, not people.", unit="short", width=FULL,
    ))  # fmt: skip
    made.with_row(shadow)
    return made


def _figures(made: Dashboard, panels: Panels) -> None:
    plain = thresholds(base="blue")
    this, before = f"sum({grown(HITS, WEEK)})", f"sum({grown(HITS, WEEK, WEEK)})"
    for title, query, unit, description in (
        ("Requests blocked, time chosen", f"sum({grown(HITS, '$__range')})", "short", "All chosen lists."),
        ("Last 7 days", this, "short", "The seven days before the end of the time chosen."),
        ("The 7 days before", before, "short", "The seven days before these."),
        ("Change", f"{this} / ({before} > 0) - 1", "percentunit",
         "The last seven days against the seven before; nothing while these had no hit."),
    ):  # fmt: skip
        made.with_panel(panels.figure(
            title, query, unit=unit, colors=plain, width=6, description=f"{description} Requests, not people.",
        ))  # fmt: skip


def _shares(made: Dashboard, panels: Panels) -> None:
    chosen = grown(HITS, "$__range")
    made.with_row(panels.row("Shares, in the time chosen"))
    made.with_panel(panels.bars(
        "Share by hour of the day", share_of_all(chosen, "hour"), "hour",
        description="Of all blocked requests of the chosen lists. Requests, not people.", width=FULL,
    ))  # fmt: skip
    made.with_panel(panels.bars(
        "Share by weekday", share_of_all(days_in_order(chosen), "day"), "day",
        description="Of all blocked requests of the chosen lists. Requests, not people.",
    ))  # fmt: skip
    made.with_panel(panels.bars(
        "Share by list", share_of_all(chosen, "list"), "list",
        description="Of all blocked requests of the chosen lists. A request that several lists know counts for the one "
        "that decided. Requests, not people.",
    ))  # fmt: skip


def _weeks(made: Dashboard, panels: Panels) -> None:
    made.with_row(panels.row("Week over week"))
    made.with_panel(panels.lines(
        "Requests in the seven days before, by list",
        [(f"sum by (list) ({HITS} - {HITS} offset 7d)", "{{list}}")],
        description="At each moment the blocked requests of the seven days before it, so that weekdays cancel out. Begins "
        "a week after Prometheus first saw a list. Requests, not people.",
        width=HALF, decimals=0,
    ).interval("6h"))  # fmt: skip
    made.with_panel(panels.lines(
        "Seven days, and the seven before",
        [(f"sum({HITS} - {HITS} offset 7d)", "seven days"),
         (f"sum({HITS} offset 7d - {HITS} offset 14d)", "the seven before")],
        description="All chosen lists. Where the lines part, there were more or fewer than a week earlier. Requests, not "
        "people.",
        width=HALF, decimals=0,
    ).interval("6h"))  # fmt: skip
