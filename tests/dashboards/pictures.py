"""Draws what each panel of the dashboards would show, from the real Prometheus of `scene`, for people to look at.

    python -m tests.dashboards.pictures DIRECTORY

Grafana itself is not run: the queries, variables and layout are the dashboards' own, the drawing is matplotlib's.
"""

from __future__ import annotations

import math
import re
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from tests.dashboards.boards import NAMES, Panel, Window, all_panels, load, repeated_by
from tests.dashboards.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

    from tests.dashboards.prometheus_server import PrometheusServer, Series

mpl.use("Agg")
from matplotlib import pyplot as plt

# Inches of a column and a row of Grafana's grid.
COLUMN, ROW = 0.75, 0.36


class Painter:
    """Draws one dashboard.

    Args:
        prometheus: Whose answers.
        window: The variables and the time.
    """

    def __init__(self, prometheus: PrometheusServer, window: Window) -> None:
        self._prometheus = prometheus
        self._window = window

    def draw(self, name: str, path: Path) -> None:
        """Draw all panels at their places; repeated ones for their first value."""
        board = load(name)
        found = list(all_panels(board))
        height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in found) + 1
        figure = plt.figure(figsize=(24 * COLUMN, height * ROW))
        for panel in found:
            place = panel["gridPos"]
            left, top = place["x"] / 24, 1 - place["y"] / height
            if panel["type"] == "row":
                figure.text(0.01, top - 0.6 / height, panel["title"], fontsize=12, weight="bold")
                continue
            if panel["type"] == "text":
                figure.text(0.01, top - 0.5 / height, panel["options"]["content"], fontsize=9, va="top", wrap=True)
                continue
            box = (left + 0.03, top - (place["h"] - 1.2) / height, place["w"] / 24 - 0.045, (place["h"] - 2.6) / height)
            axes = figure.add_axes(box)
            variable = repeated_by(board, panel)
            one = {variable: self._window.values[variable][0]} if variable else {}
            title = re.sub(r"\$(\w+)", lambda name, one=one: one.get(name[1], name[0]), panel["title"])  # type: ignore[misc]
            axes.set_title(title, fontsize=8, loc="left")
            axes.tick_params(labelsize=6)
            self._panel(panel, axes, one)
        figure.savefig(path, dpi=80)
        plt.close(figure)

    def _panel(self, panel: Panel, axes: Axes, one: Mapping[str, str]) -> None:
        answers = []
        for query in panel["targets"]:
            text = self._window.filled(query["expr"], panel, one)
            if query.get("instant"):
                found = self._prometheus.instant(text, self._window.end)
            else:
                found = self._prometheus.range(text, self._window.end, self._window.seconds, self._window.step(panel))
            answers.append((query, found))
        kind = panel["type"]
        if kind == "timeseries":
            _lines(panel, axes, answers)
        elif kind == "state-timeline":
            _states(panel, axes, answers[0])
        elif kind == "stat":
            axes.axis("off")
            text = f"{answers[0][1][0].last:g}" if answers[0][1] else "no data"
            axes.text(0.5, 0.4, text, ha="center", va="center", fontsize=20)
        elif kind == "barchart":
            [label] = [panel["options"]["xField"]]
            bars = sorted((series.labels[label], series.last) for series in answers[0][1])
            axes.bar([name for name, _ in bars], [value for _, value in bars])
        elif len(answers) == 1:
            _matrix(panel, axes, answers[0][1])
        else:
            _table(axes, answers)


def _legend(text: str, labels: Mapping[str, str]) -> str:
    if text == "__auto":
        return ", ".join(labels.values())
    return re.sub(r"\{\{(\w+)\}\}", lambda name: labels.get(name[1], ""), text)


def _lines(panel: Panel, axes: Axes, answers: list[tuple[Any, list[Series]]]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults.get("custom", {})
    for query, found in answers:
        for series in found:
            times, values = zip(*series.values, strict=True)
            stepped = custom.get("lineInterpolation") == "stepAfter"
            label = _legend(query["legendFormat"], series.labels)
            axes.plot(times, values, label=label, linewidth=1.2, drawstyle="steps-post" if stepped else "default")
    if custom.get("scaleDistribution", {}).get("type") == "log":
        axes.set_yscale("symlog", linthresh=1e-7 if defaults.get("unit") == "s" else 1)
    if "min" in defaults:
        axes.set_ylim(bottom=defaults["min"])
    if "thresholdsStyle" in custom:
        axes.axhline(defaults["thresholds"]["steps"][1]["value"], color="red", linestyle="--", linewidth=1)
    axes.set_xticks([])
    axes.set_ylabel(defaults.get("unit", ""), fontsize=6)
    if sum(len(found) for _, found in answers):
        axes.legend(fontsize=5, loc="upper left")
    else:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center")


def _states(panel: Panel, axes: Axes, answer: tuple[Any, list[Series]]) -> None:
    query, found = answer
    words = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    for row, series in enumerate(found):
        for (start, value), (end, _) in zip(series.values, [*series.values[1:], series.values[-1]], strict=True):
            word = words.get(f"{value:g}", {"color": "gray"})
            axes.barh(row, end - start, left=start, color=word["color"], height=0.8)
        last = words.get(f"{series.last:g}", {"text": f"{series.last:g}"})
        axes.text(series.values[-1][0], row, f" {last['text']}", fontsize=6, va="center")
    axes.set_yticks(range(len(found)), [_legend(query["legendFormat"], series.labels) for series in found])
    axes.set_xticks([])


def _matrix(panel: Panel, axes: Axes, found: list[Series]) -> None:
    [options] = [one["options"] for one in panel["transformations"] if one["id"] == "groupingToMatrix"]
    cells = {
        (series.labels[options["rowField"]], series.labels[options["columnField"]]): series.last for series in found
    }
    rows, columns = sorted({row for row, _ in cells}), sorted({column for _, column in cells})
    grid = [[cells.get((row, column), math.nan) for column in columns] for row in rows]
    axes.imshow(grid, aspect="auto", cmap="YlOrRd")
    for y, row in enumerate(grid):
        for x, value in enumerate(row):
            axes.text(x, y, f"{value:g}", ha="center", va="center", fontsize=6)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), columns)


def _table(axes: Axes, answers: list[tuple[Any, list[Series]]]) -> None:
    lines: dict[str, dict[str, str]] = defaultdict(dict)
    for query, found in answers:
        for series in found:
            [name] = series.labels.values()
            lines[name][query["refId"]] = f"{series.last:.4g}"
    letters = [query["refId"] for query, _ in answers]
    axes.axis("off")
    axes.table([[name, *(lines[name].get(one, "") for one in letters)] for name in sorted(lines)],
               colLabels=["list", *letters], loc="upper center")  # fmt: skip


def main() -> None:
    """Make the scene, wait until there is something to see, draw."""
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, Scene(Path(directory)) as scene:
        ends = time.monotonic() + 40
        while time.monotonic() < ends:
            scene.ask(20)
        for name in NAMES:
            Painter(scene.prometheus, scene.window(name, seconds=60)).draw(name, target / f"{name}.png")


if __name__ == "__main__":
    main()
