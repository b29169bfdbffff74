"""`blocker report`, from cells in a real Redis to each kind of file."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import struct
import zlib
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from blocker.hits.publication import last_period
from blocker.store.redis import Store
from tests.hits.synthetic import hits

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine

CAVEAT = "Hits are requests, not people. The charts show search patterns, not exact findings"
SVG = "{http://www.w3.org/2000/svg}"


def period() -> list[tuple[int, int]]:
    """The weeks of the last period that can be released now, in UTC."""
    settled = datetime.now(UTC) - timedelta(hours=1)
    first, last = last_period((settled.date() - timedelta(weeks=1)).isocalendar()[:2])
    weeks = [first]
    while weeks[-1] != last:
        weeks.append((date.fromisocalendar(*weeks[-1], 1) + timedelta(weeks=1)).isocalendar()[:2])
    return weeks


def count_hits(run: CommandLine, *nodes: int, seed: int = 1, weeks: list[tuple[int, int]] | None = None) -> None:
    """So many hits on each node, over the last period."""

    async def write() -> None:
        async with await Store.open(run.settings["redis_url"], run.settings["deployment"]) as store:
            for number, total in enumerate(nodes):
                cells = hits(total, weeks or period(), seed=seed + number)
                fields = {cell.field: count for cell, count in cells.items()}
                await store.flush_hits(f"node{number}", f"boot{seed}", 1, fields)

    asyncio.run(write())


@pytest.fixture
def counting(empty: CommandLine) -> CommandLine:
    count_hits(empty, 20_000, 20_000)
    return empty


def test_a_page_is_whole_and_asks_for_nothing(counting: CommandLine) -> None:
    ran = counting("report", "--output", "report.html")
    assert (ran.code, ran.told) == (0, "written to report.html")
    page = (counting.directory / "report.html").read_text("utf-8")
    assert CAVEAT in page
    assert page.count("<svg") == 3
    for word in ("<script", "javascript:", "<link", "@import", "url(", "<img", "<iframe"):
        assert word not in page
    assert page.count("http") == page.count('xmlns="http://www.w3.org/2000/svg"') + page.count('http-equiv="')
    assert len(page) < 100_000


def test_a_picture_as_svg_has_title_description_and_caveat(counting: CommandLine) -> None:
    root = ET.fromstring(counting("report", "--format", "svg").out)  # noqa: S314 - our own
    assert root.tag == f"{SVG}svg"
    charts = list(root.iter(f"{SVG}svg"))
    assert len(charts) == 4
    for chart in charts:
        title, desc = chart.find(f"{SVG}title"), chart.find(f"{SVG}desc")
        assert title is not None
        assert title.text
        assert desc is not None
        assert desc.text
    text = " ".join("".join(element.itertext()) for element in root.iter(f"{SVG}text"))
    assert CAVEAT in text
    assert not list(root.iter(f"{SVG}script"))


def test_a_picture_as_png_has_text_on_a_machine_without_fonts(counting: CommandLine) -> None:
    assert counting("report", "--output", "report.png").code == 0
    data = (counting.directory / "report.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) > (1900, 1000)
    assert dark_pixels(data, width, 60) > 1000, "the heading: drawn with the font that comes with Blocker"


def dark_pixels(data: bytes, width: int, until: int) -> int:
    """Nearly black pixels in rows above `until`; for 8-bit RGBA without interlacing (PNG specification, 9)."""
    assert data[24:29] == b"\x08\x06\x00\x00\x00"
    packed, place = b"", 8
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        packed += data[place + 8 : place + 8 + length] if kind == b"IDAT" else b""
        place += 12 + length
    raw, stride = zlib.decompress(packed), width * 4
    before, dark = bytearray(stride), 0
    for row in range(until):
        start = row * (stride + 1)
        kind_of_filter, line = raw[start], bytearray(raw[start + 1 : start + 1 + stride])
        for x in range(stride):
            left = line[x - 4] if x >= 4 else 0
            up, corner = before[x], before[x - 4] if x >= 4 else 0
            guess = left + up - corner
            nearest = min((left, up, corner), key=lambda one: abs(guess - one))
            line[x] = (line[x] + (0, left, up, (left + up) // 2, nearest)[kind_of_filter]) & 255
        dark += sum(max(line[x : x + 3]) < 80 and line[x + 3] == 255 for x in range(0, stride, 4))
        before = line
    return dark


def test_the_table_holds_all_figures_and_the_caveat(counting: CommandLine) -> None:
    text = counting("report", "--format", "csv", "--counts").out
    assert f"# {CAVEAT}" in text
    rows = list(csv.DictReader(io.StringIO("".join(line for line in text.splitlines(True) if line[0] != "#"))))
    assert len(rows) == 8 * 25
    by_place = {(row["weekday"], row["hour"]): row["requests"] for row in rows}
    assert 40_000 <= int(by_place["all", "all"]) < 40_008
    assert int(by_place["sun", "all"]) > int(by_place["fri", "all"])
    shares = counting("report", "--format", "csv").out
    assert "weekday,hour,share" in shares
    assert "all,all,1.0000" in shares


def test_shares_unless_counts_are_asked_for_and_both_of_the_same_release(counting: CommandLine) -> None:
    shares, counts = counting("report", "--json").json, counting("report", "--json", "--counts").json
    assert (shares["total"], shares["counts"]) == (1.0, False)
    assert 40_000 <= counts["total"] < 40_008
    assert shares["unit"] == counts["unit"] == "requests, not people"
    count_hits(counting, 7000, seed=9)  # late
    assert counting("report", "--json", "--counts").json == counts
    assert counting("report", "--json").json == shares


def test_small_figures_are_left_out_and_so_in_every_format(empty: CommandLine) -> None:
    count_hits(empty, 2500)
    said = empty("report", "--json", "--counts").json
    gaps = sum(value is None for row in said["cells"] for value in row)
    assert gaps > 20
    assert all(value >= 10 for row in said["cells"] for value in row if value is not None)
    assert empty("report").out.count(">left out</td>") >= gaps
    lines = [line for line in empty("report", "--format", "csv").out.splitlines() if line.endswith(",")]
    assert len(lines) >= gaps
    assert f"{gaps} of 168 are left out" in empty("report", "--format", "svg").out


def test_an_overlapping_report_is_refused_and_a_preview_says_what_it_is(counting: CommandLine) -> None:
    first, last = period()[0], period()[-1]
    whole = ("--from", f"{first[0]}-W{first[1]:02d}", "--to", f"{last[0]}-W{last[1]:02d}")
    assert counting("report", *whole, "--list", "police").code == 0
    part = ("--from", f"{last[0]}-W{last[1]:02d}", "--to", f"{last[0]}-W{last[1]:02d}")
    assert "were released together" in counting.refused("report", *part)
    preview = counting("report", *part, "--preview")
    assert "Preview, not for publication." in preview.out
    assert counting("report", *part, "--preview", "--json").json["preview"] is True
    assert "that cannot be changed" in counting.refused("report", *whole, "--min-count", "20")


def test_noise_is_told_with_its_budget_and_stays_as_it_was_released(counting: CommandLine) -> None:
    first = counting("report", "--epsilon", "0.5", "--counts", "--json")
    assert first.json["epsilon"] == 0.5
    assert counting("report", "--epsilon", "0.5", "--counts", "--json").json == first.json, "drawn once"
    assert "epsilon 0.5 for each request" in counting("report", "--epsilon", "0.5").out
    for other in ((), ("--epsilon", "1")):
        assert "epsilon 0.5; that cannot be changed" in counting.refused("report", *other)
    preview = counting("report", "--preview", "--json", "--counts").json
    assert preview["cells"] == first.json["cells"], "the figures without noise are nowhere to be had"


def test_files_of_several_isps_are_merged(counting: CommandLine) -> None:
    assert counting("report", "--counts", "--output", "a.json").code == 0
    other = {"deployment": f"{counting.settings['deployment']}b"}
    counting.settings.update(other)
    count_hits(counting, 3000, seed=5)
    assert counting("report", "--counts", "--output", "b.json").code == 0
    assert counting("report", "--merge", "a.json", "b.json", "--counts", "--output", "both.json").code == 0
    one, two, both = (json.loads((counting.directory / f"{name}.json").read_text()) for name in ("a", "b", "both"))
    assert both["total"] == one["total"] + two["total"]
    assert both["parts"] == 2
    page = counting("report", "--merge", "a.json", "b.json").out
    assert "of 2 reports; a gap in one is a gap here" in page
    assert "there twice" in counting.refused("report", "--merge", "a.json", "a.json")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "2026-W99"], "expected an ISO week"),
        (["--to", "yesterday"], "expected an ISO week"),
        (["a.json"], "files go with --merge"),
        (["--merge"], "--merge takes"),
        (["--merge", "a.json", "--list", "police"], "--merge takes"),
        (["--min-count", "0"], "min-count"),
        (["--format", "pdf"], "pdf"),
    ],
)
def test_wrong_use_is_told(empty: CommandLine, arguments: list[str], said: str) -> None:
    ran = empty("report", *arguments)
    assert ran.code == 2
    assert said in ran.err.replace("\n", " ")


def test_what_cannot_be_is_told_in_a_line(empty: CommandLine) -> None:
    assert "no hits were counted yet" in empty.refused("report")
    assert "none.json" in empty.refused("report", "--merge", "none.json")
    (empty.directory / "bad.json").write_bytes(b"\xff\xfe secret.example")
    (empty.directory / "other.json").write_text('{"secret.example": 1}')
    for name in ("bad.json", "other.json"):
        told = empty.refused("report", "--merge", name)
        assert "no report of" in told
        assert "secret" not in told
    count_hits(empty, 1000)
    assert "No such file" in empty.refused("report", "--output", "nowhere/report.html")
