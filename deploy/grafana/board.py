"""What all dashboards have in common: variables, links to each other, and the JSON."""

from __future__ import annotations

import json

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana.panels import DATASOURCE, DATASOURCE_UID

TAG = "blocker"


def board(uid: str, title: str, description: str, *, since: str, refresh: str) -> dashboard.Dashboard:
    """An empty dashboard with the variable `datasource`."""
    links = (
        dashboard.DashboardLink("Blocker").type(models.DashboardLinkType.DASHBOARDS).tags([TAG])
        .as_dropdown(False).include_vars(False).keep_time(False)
    )  # fmt: skip
    source = (
        dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        .current(models.VariableOption(selected=True, text="Blocker", value=DATASOURCE_UID))
    )  # fmt: skip
    return (
        dashboard.Dashboard(title).uid(uid).description(description).tags([TAG]).readonly().time(since, "now")
        .refresh(refresh).timezone("browser").tooltip(models.DashboardCursorSync.CROSSHAIR).week_start("monday")
        .link(links).with_variable(source)
    )  # fmt: skip


def choice(name: str, label: str, metric: str, of: str) -> dashboard.QueryVariable:
    """A variable with the values of a label, all of them by default."""
    return (
        dashboard.QueryVariable(name).label(label).datasource(DATASOURCE)
        .query({"qryType": 1, "query": f"label_values({metric}, {of})", "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True).include_all(True).current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )  # fmt: skip


def as_json(made: dashboard.Dashboard) -> str:
    """The dashboard as Grafana reads it; the same text each time."""
    return json.dumps(made.build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
