"""The committed dashboards, read as Grafana reads them: panels, queries, and the variables in these."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"
DIRECTORY = GRAFANA / "provisioning" / "dashboards" / "blocker"
NAMES = ("hits", "lists", "operations")
Panel = dict[str, Any]


@cache
def load(name: str) -> dict[str, Any]:
    """A dashboard."""
    found: dict[str, Any] = json.loads((DIRECTORY / f"{name}.json").read_text("utf-8"))
    return found


def all_panels(board: Mapping[str, Any]) -> Iterator[Panel]:
    """Rows and panels, also those within collapsed rows."""
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", ())


def panels(board: Mapping[str, Any]) -> list[Panel]:
    """Those with queries."""
    return [panel for panel in all_panels(board) if panel.get("targets")]


def repeated_by(board: Mapping[str, Any], panel: Panel) -> str:
    """The variable for each of whose values a panel is there, by itself or with its row; else nothing."""
    if panel.get("repeat"):
        return str(panel["repeat"])
    variable = ""
    for one in board["panels"]:
        if one["type"] == "row":
            variable = one.get("repeat") or ""
        if one is panel or panel in one.get("panels", ()):
            return variable
    return ""


@dataclass(frozen=True, kw_only=True)
class Window:
    """What is looked at: the values of the variables, the time, and how often Prometheus scrapes.

    Attributes:
        end: Unix seconds.
        seconds: From when on.
        values: Of each variable all that there are.
        scrape: Seconds between two scrapes, as the data source says.
        points: Across the panel.
    """

    end: float
    seconds: int
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    scrape: int = 1
    points: int = 60

    def step(self, panel: Panel) -> int:
        """`$__interval` in seconds: the time by the points, and no less than the panel's own."""
        least = re.fullmatch(r"(\d+)([smhd])", panel.get("interval") or "1s")
        assert least
        own = int(least[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[least[2]]
        return max(own, self.scrape, self.seconds // self.points)

    def filled(self, text: str, panel: Panel, one: Mapping[str, str] | None = None) -> str:
        """A query with its variables as Grafana's Prometheus data source fills them in.

        Args:
            text: The query.
            panel: Whose it is.
            one: The value of a repeated variable.
        """
        interval = self.step(panel)
        built_in = {
            "__range": f"{self.seconds}s",
            "__rate_interval": f"{max(interval + self.scrape, 4 * self.scrape)}s",
            "__interval": f"{interval}s",
        }

        def value(found: re.Match[str]) -> str:
            name = found[1]
            if name in built_in:
                return built_in[name]
            chosen = [one[name]] if one and name in one else list(self.values[name])
            escaped = [escape(each) for each in chosen]
            return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"

        return re.sub(r"\$(\w+)", value, text)


def escape(value: str) -> str:
    r"""As `prometheusSpecialRegexEscape` of Grafana: for a regular expression within a PromQL string."""
    return re.sub(r"[$^*{}\[\]'+?.()|]", r"\\\\\g<0>", value.replace("\\", "\\\\\\\\"))
