"""The kinds of panels and variables that the dashboards are made of, on the types of Grafana's own SDK."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import barchart, common, dashboard, prometheus, stat, statetimeline, table, text
from grafana_foundation_sdk.builders import timeseries as series
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as prometheus_models
from grafana_foundation_sdk.models.text import TextMode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grafana_foundation_sdk.cog.builder import Builder

    PanelBuilder = Builder[models.Panel]

DATASOURCE_UID = "blocker-prometheus"
DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
# Of the grid's 24 columns.
FULL, HALF, THIRD, QUARTER = 24, 12, 8, 6
_LETTERS = "ABCDEFGH"
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"


def target(query: str, legend: str = "", *, letter: str = "A", instant: bool = False) -> prometheus.Dataquery:
    """One query."""
    made = prometheus.Dataquery().expr(query).legend_format(legend or "__auto").ref_id(letter).datasource(DATASOURCE)
    if instant:
        return made.instant().format(prometheus_models.PromQueryFormat.TABLE)
    return made.range()


def thresholds(*steps: tuple[float, str], base: str = GREEN) -> dashboard.ThresholdsConfig:
    """Colours from values on."""
    found = [models.Threshold(value=None, color=base)]
    found += [models.Threshold(value=value, color=color) for value, color in steps]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(found)


def mapping(texts: Mapping[str, tuple[str, str]]) -> list[models.ValueMapping]:
    """Words and colours for values."""
    options = {
        value: models.ValueMappingResult(text=word, color=color, index=index)
        for index, (value, (word, color)) in enumerate(texts.items())
    }
    return [models.ValueMap(options=options)]


class Panels:
    """Makes the panels of one dashboard and numbers them."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def row(self, title: str) -> dashboard.Row:
        """A heading over the panels that follow."""
        return dashboard.Row(title).id(next(self._numbers))

    def note(self, content: str, *, height: int = 3, width: int = FULL) -> PanelBuilder:
        """A text."""
        return (
            text.Panel().id(next(self._numbers)).title("").content(content).mode(TextMode.MARKDOWN)
            .transparent(True).height(height).span(width)
        )  # fmt: skip

    def lines(
        self,
        title: str,
        queries: Sequence[tuple[str, str]],
        *,
        description: str,
        unit: str = "short",
        width: int = HALF,
        limit: float | None = None,
        steps: bool = False,
        bars: bool = False,
        least: float | None = 0,
        decimals: int | None = None,
        log: bool = False,
    ) -> series.Panel:
        """Values over time.

        Args:
            title: The title.
            queries: Each with its legend.
            description: What it means and what to do.
            unit: Grafana's id of the unit.
            width: Of 24 columns.
            limit: Where the threshold is drawn.
            steps: Values stay until the next one.
            bars: Stacked bars instead of lines.
            least: Where the axis begins; None: with the values.
            decimals: After the point.
            log: On a logarithmic axis.
        """
        panel = (
            series.Panel().id(next(self._numbers)).title(title).description(description).datasource(DATASOURCE)
            .unit(unit).height(8).span(width).fill_opacity(60 if bars else 5).line_width(1 if bars else 2)
            .show_points(kinds.VisibilityMode.NEVER)
            .legend(common.VizLegendOptions().display_mode(kinds.LegendDisplayMode.TABLE)
                    .placement(kinds.LegendPlacement.BOTTOM).show_legend(True).calcs(["lastNotNull", "max"]))
            .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI)
                     .sort(kinds.SortOrder.DESCENDING))
        )  # fmt: skip
        for letter, (query, legend) in zip(_LETTERS, queries, strict=False):
            panel.with_target(target(query, legend, letter=letter))
        if least is not None:
            panel.min(least)
        if decimals is not None:
            panel.decimals(decimals)
        if steps:
            panel.line_interpolation(kinds.LineInterpolation.STEP_AFTER)
        if bars:
            panel.draw_style(kinds.GraphDrawStyle.BARS).stacking(
                common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A")
            )
        if log:
            panel.scale_distribution(common.ScaleDistributionConfig().type(kinds.ScaleDistribution.LOG).log(10))
        if limit is not None:
            panel.thresholds(thresholds((limit, RED), base="transparent")).thresholds_style(
                common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED)
            )
        return panel

    def figure(
        self,
        title: str,
        query: str,
        *,
        description: str,
        colors: dashboard.ThresholdsConfig,
        unit: str = "short",
        width: int = 4,
        texts: Mapping[str, tuple[str, str]] | None = None,
    ) -> PanelBuilder:
        """One value in large."""
        panel = (
            stat.Panel().id(next(self._numbers)).title(title).description(description).datasource(DATASOURCE)
            .unit(unit).height(4).span(width).thresholds(colors).color_mode(kinds.BigValueColorMode.BACKGROUND)
            .graph_mode(kinds.BigValueGraphMode.NONE)
            .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
            .with_target(prometheus.Dataquery().expr(query).ref_id("A").datasource(DATASOURCE).instant())
        )  # fmt: skip
        if texts:
            panel.mappings(mapping(texts))
        return panel

    def states(
        self,
        title: str,
        query: str,
        legend: str,
        texts: Mapping[str, tuple[str, str]],
        *,
        description: str,
        width: int = HALF,
    ) -> PanelBuilder:
        """States over time, a band for each series."""
        return (
            statetimeline.Panel().id(next(self._numbers)).title(title).description(description).datasource(DATASOURCE)
            .height(8).span(width).mappings(mapping(texts)).merge_values(True).row_height(0.8)
            .show_value(kinds.VisibilityMode.AUTO).fill_opacity(80).line_width(0)
            .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)).thresholds(thresholds())
            .legend(common.VizLegendOptions().show_legend(False).display_mode(kinds.LegendDisplayMode.LIST)
                    .placement(kinds.LegendPlacement.BOTTOM))
            .with_target(target(query, legend))
        )  # fmt: skip

    def bars(
        self,
        title: str,
        query: str,
        field: str,
        *,
        description: str,
        unit: str = "percentunit",
        width: int = HALF,
    ) -> PanelBuilder:
        """A bar for each value of a label."""
        return (
            barchart.Panel().id(next(self._numbers)).title(title).description(description).datasource(DATASOURCE)
            .unit(unit).height(8).span(width).min(0).x_field(field).fill_opacity(80).show_value(kinds.VisibilityMode.AUTO)
            .legend(common.VizLegendOptions().show_legend(False).display_mode(kinds.LegendDisplayMode.LIST)
                    .placement(kinds.LegendPlacement.BOTTOM))
            .with_target(target(query, instant=True))
            .with_transformation(_transformation("organize", excludeByName={"Time": True},
                                                 renameByName={"Value": title}))
            .with_transformation(_sorted(field))
        )  # fmt: skip

    def matrix(
        self,
        title: str,
        query: str,
        rows: str,
        columns: str,
        *,
        description: str,
        repeat: str = "",
        width: int = FULL,
    ) -> PanelBuilder:
        """A table of two labels whose cells are coloured by their value: a heatmap with words at its sides."""
        panel = (
            table.Panel().id(next(self._numbers)).title(title).description(description).datasource(DATASOURCE)
            .height(9).span(width).unit("short").decimals(0).min(0).no_value("")
            .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.CONTINUOUS_BL_YL_RD))
            .cell_options(kinds.TableColoredBackgroundCellOptions(mode=kinds.TableCellBackgroundDisplayMode.BASIC))
            .cell_height(kinds.TableCellHeight.SM).min_width(40)
            .with_target(target(query, instant=True))
            .with_transformation(_sorted(columns))
            .with_transformation(_transformation("groupingToMatrix", columnField=columns, rowField=rows,
                                                 valueField="Value", emptyValue="zero"))
            .with_transformation(_sorted(f"{rows}\\{columns}"))
            .override_by_name(f"{rows}\\{columns}", [
                models.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "auto"}),
                models.DynamicConfigValue(id_val="displayName", value=rows),
            ])
        )  # fmt: skip
        if repeat:
            panel.repeat(repeat).repeat_direction("h").max_per_row(2)
        return panel

    def overview(
        self,
        title: str,
        key: str,
        columns: Sequence[Column],
        *,
        description: str,
        height: int = 10,
    ) -> PanelBuilder:
        """A table with a line for each value of a label, and a column for each query."""
        panel = (
            table.Panel().id(next(self._numbers)).title(title).description(description).datasource(DATASOURCE)
            .height(height).span(FULL).with_transformation(_transformation("joinByField", byField=key, mode="outer"))
        )  # fmt: skip
        hidden = {f"Time {number}": True for number in range(1, len(columns) + 1)} | {"Time": True}
        names = {f"Value #{letter}": one.title for letter, one in zip(_LETTERS, columns, strict=False)}
        panel.with_transformation(_transformation("organize", excludeByName=hidden, renameByName=names))
        panel.with_transformation(_sorted(key))
        for letter, one in zip(_LETTERS, columns, strict=False):
            panel.with_target(target(one.query, letter=letter, instant=True))
            panel.override_by_name(one.title, one.properties())
        return panel


class Column:
    """A column of `Panels.overview`.

    Args:
        title: Its title.
        query: One value for each line, with no label but the line's.
        unit: Grafana's id of the unit.
        colors: From which values on which colours; none: plain.
        texts: Words for values.
    """

    def __init__(
        self,
        title: str,
        query: str,
        unit: str = "short",
        colors: dashboard.ThresholdsConfig | None = None,
        texts: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        self.title = title
        self.query = query
        self._unit = unit
        self._colors = colors
        self._texts = texts

    def properties(self) -> list[models.DynamicConfigValue]:
        """As an override by name has them."""
        found = [models.DynamicConfigValue(id_val="unit", value=self._unit)]
        if self._texts:
            found.append(models.DynamicConfigValue(id_val="mappings", value=mapping(self._texts)))
        if self._colors or self._texts:
            found.append(models.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-background"}))
            colors = self._colors or thresholds(base="transparent")
            found.append(models.DynamicConfigValue(id_val="thresholds", value=colors.build()))
        return found


def _transformation(name: str, **options: object) -> models.DataTransformerConfig:
    return models.DataTransformerConfig(id_val=name, options=options)


def _sorted(field: str) -> models.DataTransformerConfig:
    return _transformation("sortBy", sort=[{"field": field, "desc": False}])
