"""The charts as SVG text: hours of the day, weekdays, and both together as a map of shades.

Own small code and not a plotting library: three fixed charts, which must be plain SVG 1.1 without script, font or
image, readable aloud (title and desc), and coloured by one style sheet from outside. Sizes suit a phone's width; where
there is more room the page puts charts beside each other.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from blocker.hits.report import NOTE, UNIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocker.hits.report import Report

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
WIDTH, HEIGHT = 460, 270
MAP_HEIGHT = 232
# Shades of the map, from the least to the most.
SHADES = 7


class _Colours(NamedTuple):
    ground: str
    text: str
    quiet: str
    line: str
    bar: str
    gap: str
    shades: tuple[str, ...]


_LIGHT = _Colours(
    "#ffffff", "#1b2430", "#56606d", "#d8dde3", "#1f5fa8", "#7a8592",
    ("#e3edf8", "#c3d9f0", "#9cc0e4", "#6fa3d5", "#4484c0", "#22629f", "#0e4275"),
)  # fmt: skip
_DARK = _Colours(
    "#12161c", "#e6eaf0", "#a3adba", "#333c48", "#6fb0f2", "#8a95a3",
    ("#1b2a3c", "#1f3c5c", "#245180", "#2f6aa6", "#4587c8", "#6fa9e2", "#a9d0f7"),
)  # fmt: skip
_FONT = "Lato, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 16, 34
_GAP_MARK = 8  # height of the mark where a bar was left out


def style(scheme: str = "both") -> str:
    """The style sheet of the charts: `light`, `dark`, or `both`, by what the reader's system prefers."""
    light, dark = (_colours(colours) for colours in (_LIGHT, _DARK))
    common = f".chart text {{ font-family: {_FONT}; font-size: 13px; }} .chart .strong {{ font-weight: bold; }}"
    if scheme == "both":
        return f"{common} {light} @media (prefers-color-scheme: dark) {{ {dark} }}"
    return f"{common} {light if scheme == 'light' else dark}"


def by_hour(report: Report) -> str:
    """Bars for the 24 hours of the day."""
    labels = [f"{hour:02d}" if hour % 3 == 0 else "" for hour in range(24)]
    names = [f"{hour:02d} to {hour + 1:02d}" for hour in range(24)]
    return _bars(report, "Requests by hour of the day", "hour", report.hours, labels, names)


def by_weekday(report: Report) -> str:
    """Bars for Monday to Sunday."""
    return _bars(report, "Requests by weekday", "weekday", report.weekdays, [day[:3] for day in DAYS], DAYS)


def by_both(report: Report) -> str:
    """A map of shades: weekdays as rows, hours as columns."""
    shown = [value for row in report.cells for value in row if value is not None]
    most = max(shown, default=0.0)
    width, height = (WIDTH - _LEFT - _RIGHT) / 24, 24
    parts = []
    for day, row in enumerate(report.cells):
        top = _TOP + day * height
        parts.append(f'<text class="label" x="{_LEFT - 8}" y="{top + 17}" text-anchor="end">{DAYS[day][:3]}</text>')
        for hour, value in enumerate(row):
            left = _LEFT + hour * width
            box = f'x="{left + 0.75:.2f}" y="{top + 0.75:.2f}" width="{width - 1.5:.2f}" height="{height - 1.5:.2f}"'
            if value is None:
                parts.append(f'<rect class="gap" {box}/>')
            else:
                parts.append(f'<rect class="shade{_shade(value, most)}" {box}/>')
    below = _TOP + 7 * height + 17
    parts += [
        f'<text class="label" x="{_LEFT + (hour + 0.5) * width:.1f}" y="{below}" text-anchor="middle">{hour:02d}</text>'
        for hour in range(0, 24, 3)
    ]
    if most:
        parts.append(_legend(report, most, below + 14))
    lowest = min(shown, default=0.0)
    spread = f"Shown figures lie between {percent(report, lowest)} and {percent(report, most)}." if shown else ""
    text = f"{spread} {sum(value is None for row in report.cells for value in row)} of 168 are left out. {UNIT_TEXT}"
    return _svg("Requests by weekday and hour", "both", text, MAP_HEIGHT, parts)


def together(report: Report, heading: str, notes: Sequence[str], scheme: str = "both") -> str:
    """One picture of all three charts with heading and notes, for a file of its own.

    Args:
        report: What to show.
        heading: Above it.
        notes: Lines below it.
        scheme: See `style`.
    """
    pad, line = 20, 18
    charts = ((by_hour(report), HEIGHT), (by_weekday(report), HEIGHT), (by_both(report), MAP_HEIGHT))
    titles = ("Requests by hour of the day", "Requests by weekday", "Requests by weekday and hour")
    wide = 2 * WIDTH + 3 * pad
    places = ((pad, 62), (2 * pad + WIDTH, 62), (pad, 62 + HEIGHT + 34))
    parts = [f'<rect class="ground" width="{wide}" height="100%"/>', _text(pad, 34, heading, "strong heading")]
    for (text, height), title, (left, top) in zip(charts, titles, places, strict=True):
        parts.append(_text(left, top + 4, title, "strong"))
        nested = text.replace("<svg ", f'<svg x="{left}" y="{top + 10}" width="{WIDTH}" height="{height}" ', 1)
        parts.append(nested)
    left, top = places[1][0], places[2][1] + 34
    parts += [_text(left, top + number * line, note, "label") for number, note in enumerate(notes)]
    high = max(places[2][1] + MAP_HEIGHT, top + len(notes) * line) + pad
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" width="{wide}" height="{high}" '
        f'viewBox="0 0 {wide} {high}" role="img" aria-labelledby="all-title all-desc">'
        f'<title id="all-title">{escape(heading)}</title><desc id="all-desc">{escape(" ".join(notes))}</desc>'
        f"<style>{style(scheme)} .chart .heading {{ font-size: 19px; }}</style>{''.join(parts)}</svg>"
    )


def percent(report: Report, value: float | None) -> str:
    """A figure as people read it: `4.2 %` of all, or `1,234`; a gap as `left out`."""
    if value is None:
        return "left out"
    if report.counts:
        return f"{value:,.0f}"
    return f"{value * 100:.1f}\u00a0%"


UNIT_TEXT = f"Figures are {UNIT}."
CAVEAT = f"Hits are {UNIT}. {NOTE}"


def _bars(
    report: Report,
    title: str,
    name: str,
    values: Sequence[float | None],
    labels: Sequence[str],
    names: Sequence[str],
) -> str:
    most = max((value for value in values if value is not None), default=0.0)
    step = _step(most, counts=report.counts)
    top = max(step, math.ceil(most / step - 1e-9) * step)
    high, wide = HEIGHT - _TOP - _BOTTOM, WIDTH - _LEFT - _RIGHT
    base, slot = _TOP + high, wide / len(values)
    parts = []
    for number in range(round(top / step) + 1):
        y = base - high * number * step / top
        parts.append(f'<line class="line" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 8, y + 4.5, _tick(report, number * step, step), "label", "end"))
    for place, value in enumerate(values):
        left, width = _LEFT + place * slot + slot * 0.14, slot * 0.72
        height = _GAP_MARK if value is None else high * value / top
        kind = "gap" if value is None else "bar"
        parts.append(
            f'<rect class="{kind}" x="{left:.1f}" y="{base - height:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
        )
        if labels[place]:
            parts.append(_text(_LEFT + (place + 0.5) * slot, base + 20, labels[place], "label", "middle"))
    return _svg(title, name, _told(report, values, names), HEIGHT, parts)


def _told(report: Report, values: Sequence[float | None], names: Sequence[str]) -> str:
    """What somebody needs to hear who does not see the bars."""
    shown = [(value, name) for value, name in zip(values, names, strict=True) if value is not None]
    if not shown:
        return f"All are left out. {UNIT_TEXT}"
    most, least = max(shown, key=lambda one: one[0]), min(shown, key=lambda one: one[0])
    left_out = len(values) - len(shown)
    gaps = f" {left_out} of {len(values)} left out." if left_out else ""
    return (
        f"Highest: {most[1]}, {percent(report, most[0])}. Lowest: {least[1]}, {percent(report, least[0])}.{gaps} "
        f"{UNIT_TEXT}"
    )


def _step(most: float, *, counts: bool) -> float:
    """Between two lines of the grid, so that there are three to six: 1, 2 or 5 times a power of ten."""
    if most <= 0:
        return 1.0 if counts else 0.01
    power = 10.0 ** math.floor(math.log10(most / 3))
    step = next(factor * power for factor in (1, 2, 5, 10) if most / (factor * power) <= 6)
    return max(1.0, step) if counts else step


def _tick(report: Report, value: float, step: float) -> str:
    if report.counts:
        return f"{value:,.0f}" if value < 100_000 else f"{value / 1000:,.0f}k"
    digits = max(0, -math.floor(math.log10(step * 100) + 1e-9))
    return f"{value * 100:.{digits}f}\u00a0%"


def _shade(value: float, most: float) -> int:
    return min(SHADES - 1, int(value / most * SHADES)) if most else 0


def _legend(report: Report, most: float, top: float) -> str:
    wide = 16
    start = WIDTH - _RIGHT - SHADES * wide - 60
    boxes = "".join(
        f'<rect class="shade{shade}" x="{start + shade * wide}" y="{top}" width="{wide - 1.5}" height="11"/>'
        for shade in range(SHADES)
    )
    gap = f'<rect class="gap" x="{_LEFT + 0.75}" y="{top}" width="14" height="11"/>'
    left_out = gap + _text(_LEFT + 22, top + 10, "left out", "label") if report.gaps else ""
    return (
        left_out + _text(start - 6, top + 10, "0", "label", "end") + boxes
        + _text(start + SHADES * wide + 6, top + 10, percent(report, most), "label")
    )  # fmt: skip


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(title: str, name: str, told: str, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-labelledby="{name}-title {name}-desc"><title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(told.strip())}</desc>{"".join(parts)}</svg>'
    )


def _colours(colours: _Colours) -> str:
    rules = [
        f".chart .ground {{ fill: {colours.ground}; }}",
        f".chart text {{ fill: {colours.text}; }}",
        f".chart .label {{ fill: {colours.quiet}; }}",
        f".chart .line {{ stroke: {colours.line}; stroke-width: 1; }}",
        f".chart .bar {{ fill: {colours.bar}; }}",
        f".chart .gap {{ fill: none; stroke: {colours.gap}; stroke-width: 1; stroke-dasharray: 2 2; }}",
        *(f".chart .shade{number} {{ fill: {shade}; }}" for number, shade in enumerate(colours.shades)),
    ]
    return " ".join(rules)
