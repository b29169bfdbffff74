"""The dashboard of the lists: what is enforced, what changed, what waits, and whether the sources are good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.grafana import thresholds as limits
from deploy.grafana.board import board, choice
from deploy.grafana.panels import BLUE, GREEN, RED, THIRD, YELLOW, Column, Panels, thresholds
from deploy.grafana.queries import LIST, NODE

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

CHOSEN = f"{NODE}, {LIST}"
# As a number, so that one band shows it; the worst is the greatest.
RESULTS = ("published", "unchanged", "not_modified", "waiting", "refused", "failed")
WORDS = {
    "0": ("published", BLUE),
    "1": ("unchanged", GREEN),
    "2": ("not modified", GREEN),
    "3": ("waiting", YELLOW),
    "4": ("refused", RED),
    "5": ("failed", RED),
}
WAITING = {"1": ("waiting", YELLOW), "0": ("none", GREEN)}
CANARIES = {"1": ("ok", GREEN), "0": ("failed", RED)}


def lists() -> Dashboard:
    """Make it."""
    made = board(
        "blocker-lists", "Blocker: lists", "Entries, changes, sources, guards and canaries of each list.",
        since="now-7d", refresh="1m",
    )  # fmt: skip
    made.with_variable(choice("node", "Node", "blocker_build_info", "instance"))
    # It also has lists that were never published.
    made.with_variable(choice("list", "List", "blocker_proposals_waiting", "list"))
    panels = Panels()
    made.with_panel(panels.overview(
        "Lists", "list", _columns(),
        description="Of nodes that differ, the greatest figure, and the worst canary. Approve or reject what waits: `blocker lists proposals`. "
        "A refused version is explained by `blocker lists pull NAME`.",
    ))  # fmt: skip
    _versions(made, panels)
    _sources(made, panels)
    _people(made, panels)
    return made


def last_result() -> str:
    """How the last look at each list's source ended, as a number of `WORDS`."""
    numbered = (
        f'max by (list) (blocker_pull_result{{{CHOSEN}, result="{result}"}}) * {number}'
        for number, result in enumerate(RESULTS)
    )
    return " + ".join(numbered)


def _columns() -> list[Column]:
    stale = f"max by (list) (blocker_list_age_seconds{{{CHOSEN}}}) / on (list) max by (list) (blocker_list_age_limit_seconds{{{CHOSEN}}})"
    return [
        Column("Entries", f"max by (list) (blocker_list_entries{{{CHOSEN}}})", "locale"),
        Column("Serial", f"max by (list) (blocker_list_serial{{{CHOSEN}}})", "none"),
        Column("Age", f"max by (list) (blocker_list_age_seconds{{{CHOSEN}}})", "s"),
        Column(
            "Age of its limit",
            stale,
            "percentunit",
            thresholds((limits.AGE_SHARE, YELLOW), (1, RED), base="transparent"),
        ),
        Column("Last look", last_result(), texts=WORDS),
        Column("Approval", f"max by (list) (blocker_proposals_waiting{{{CHOSEN}}})", texts=WAITING),
        Column("Canaries", f"min by (list) (blocker_canary_ok{{{CHOSEN}}})", texts=CANARIES),
        Column("Next rules end in", f"min by (list) (blocker_list_expiry_seconds{{{CHOSEN}}})", "s"),
    ]


def _versions(made: Dashboard, panels: Panels) -> None:
    made.with_row(panels.row("Versions"))
    made.with_panel(panels.lines(
        "Entries", [(f"max by (list) (blocker_list_entries{{{CHOSEN}}})", "{{list}}")],
        description="Rules in the enforced version. A step that nobody expected is a reason to look: `blocker lists diff`.",
        width=THIRD, steps=True, decimals=0, log=True, least=None,
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Rules added and removed by the newest serial",
        [(f'max by (list) (blocker_list_changed_rules{{{CHOSEN}, change="added"}})', "{{list}} added"),
         (f'-max by (list) (blocker_list_changed_rules{{{CHOSEN}, change="removed"}})', "{{list}} removed")],
        description="Above 0 what was added, below what was removed.",
        width=THIRD, steps=True, decimals=0, least=None,
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Serials published in a day", [(f"max by (list) (blocker_list_head_serial{{{CHOSEN}}}) "
                                        f"- max by (list) (blocker_list_head_serial{{{CHOSEN}}} offset 1d)", "{{list}}")],
        description="In the 24 hours before. None at all: does the authority still publish?",
        width=THIRD, steps=True, decimals=0,
    ))  # fmt: skip


def _sources(made: Dashboard, panels: Panels) -> None:
    made.with_row(panels.row("Sources"))
    made.with_panel(panels.states(
        "Last look at each source", last_result(), "{{list}}", WORDS,
        description="waiting: a guard asks for a second person. refused: a guard, a signature or the file itself said no. "
        "failed: it could not be fetched. In each of these the list stays as it is.",
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Age of its limit",
        [(f"max by (list) (blocker_list_age_seconds{{{CHOSEN}}}) / on (list) "
          f"max by (list) (blocker_list_age_limit_seconds{{{CHOSEN}}})", "{{list}}")],
        description="Since the source was last found good, as a share of `stale_after_seconds`. At 100 % it is stale.",
        unit="percentunit", limit=1,
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Since the last look", [(f"max by (list) (blocker_pull_age_seconds{{{CHOSEN}}})", "{{list}}")],
        description="Whatever came of it. Growing over the source's interval: does a node with the role `ingest` run?",
        unit="s", width=THIRD,
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Until the next rules end", [(f"min by (list) (blocker_list_expiry_seconds{{{CHOSEN}}})", "{{list}}")],
        description="Rules with a last day leave their list by themselves when it is over (UTC), under a new serial.",
        unit="s", width=THIRD,
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Files of sources that cannot be used", [(f"blocker_source_errors{{{NODE}}}", "{{instance}}")],
        description="The log names each with its reason; its list stays as it is.",
        width=THIRD, steps=True, decimals=0, limit=1,
    ))  # fmt: skip


def _people(made: Dashboard, panels: Panels) -> None:
    made.with_row(panels.row("Guards and canaries"))
    made.with_panel(panels.states(
        "Waiting for a second person", f"max by (list) (blocker_proposals_waiting{{{CHOSEN}}})", "{{list}}", WAITING,
        description="A guard found something that may be a mistake. The present version stays enforced meanwhile.",
        width=THIRD,
    ))  # fmt: skip
    made.with_panel(panels.lines(
        "Waiting since", [(f"max by (list) (blocker_proposal_age_seconds{{{CHOSEN}}})", "{{list}}")],
        description="`blocker lists proposals` shows what the guards said.",
        unit="s", width=THIRD, limit=limits.PROPOSAL_SECONDS,
    ))  # fmt: skip
    made.with_panel(panels.states(
        "Canaries of each list", f"min by (list) (blocker_canary_ok{{{CHOSEN}}})", "{{list}}", CANARIES,
        description="Of all gateways and chosen nodes. failed: it does not stop what it must, or more.", width=THIRD,
    ))  # fmt: skip
