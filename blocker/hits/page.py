"""A report as a page, a table and a picture: what stands on it beside the charts."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from blocker.hits import charts
from blocker.hits.calendar import WEEKDAYS

if TYPE_CHECKING:
    from blocker.hits.report import Report


# Characters of the lists' names that a heading has room for; longer ones stand among the notes.
_HEADING_NAMES = 48


def heading(report: Report) -> str:
    """Which lists and weeks."""
    lists = ", ".join(report.lists)
    if len(lists) > _HEADING_NAMES:
        lists = f"{len(report.lists)} lists" if len(report.lists) > 1 else "one list"
    weeks = f"week {report.first}" if report.first == report.last else f"weeks {report.first} to {report.last}"
    what = "Requests that would have been blocked" if report.shadow else "Blocked requests"
    return f"{what}: {lists}, {weeks}"


def notes(report: Report) -> list[str]:
    """What a reader must know, each a sentence or two; the caveat first."""
    said = [charts.CAVEAT]
    names = ", ".join(report.lists)
    if len(names) > _HEADING_NAMES:
        said.append(f"Lists: {names}.")
    if report.preview:
        said.insert(0, "Preview, not for publication.")
    if report.counts:
        said.append(f"Each figure is rounded up to a multiple of {report.bin}.")
    else:
        said.append("Figures are shares of all requests.")
    said.append(f"Figures under {report.threshold} are left out, and so are others from which these could be computed.")
    zones = ", ".join(report.timezones) if len(report.timezones) <= 3 else f"{len(report.timezones)} time zones"
    said.append(f"Hours are those of the clocks of {zones}.")
    if report.clock_changes:
        said.append("Clocks were changed in these weeks, so one hour of a day came twice or not at all.")
    if report.parts > 1:
        how = "the sum" if report.counts else "the mean, each counting alike,"
        said.append(f"This is {how} of {report.parts} reports; a gap in one is a gap here.")
    if report.epsilon is not None:
        said.append(f"Noise was added: differential privacy with epsilon {report.epsilon:g} for each request.")
    return said


def html(report: Report) -> str:
    """One page for itself: no script, nothing from elsewhere."""
    environment = Environment(
        loader=PackageLoader("blocker.hits", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = environment.get_template("report.css.j2").render() + charts.style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    drawn = [Markup(draw(report)) for draw in (charts.by_hour, charts.by_weekday, charts.by_both)]  # noqa: S704 - our own
    return environment.get_template("report.html.j2").render(
        style=Markup(style),  # noqa: S704 - our own
        policy=f"default-src 'none'; style-src 'sha256-{digest}'",
        heading=heading(report),
        report=report,
        caveat=charts.CAVEAT,
        notes=[note for note in notes(report) if note != charts.CAVEAT],
        by_hour=drawn[0],
        by_weekday=drawn[1],
        by_both=drawn[2],
        days=charts.DAYS,
        hours=[f"{hour:02d} to {hour + 1:02d}" for hour in range(24)],
        told=lambda value: charts.percent(report, value),
    )


def table(report: Report) -> str:
    """CSV: weekday, hour (`all` for sums) and the figure, empty where it was left out; the notes as comments first."""
    out = io.StringIO()
    for note in (heading(report), *notes(report)):
        out.write(f"# {note}\n")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("weekday", "hour", "requests" if report.counts else "share"))
    for day, row in zip((*WEEKDAYS, "all"), report.table, strict=True):
        for hour, value in enumerate(row):
            text = "" if value is None else str(int(value)) if report.counts else f"{value:.4f}"
            writer.writerow((day, "all" if hour == 24 else f"{hour:02d}", text))
    return out.getvalue()


def picture(report: Report, scheme: str = "both") -> str:
    """All charts with heading and notes as one SVG file; `scheme` as in `charts.style`."""
    lines = [line for note in notes(report) for line in _folded(note)]
    return charts.together(report, heading(report), lines, scheme)


def _folded(text: str, width: int = 66) -> list[str]:
    """Lines of at most `width` characters, which is what a chart's width holds."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return lines
