"""The report's page in Debian's Chromium: it loads nothing, fits every width, and axe-core finds nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from blocker.hits import page as report_page
from blocker.hits.report import Report, counted, publish
from tests.browser.served import CHROMIUM, CHROMIUM_ARGUMENTS
from tests.browser.test_stop_page import DOUBLED, SCHEMES, SPACED, WIDTHS, Scheme, axe
from tests.hits.synthetic import hits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OVERFLOW = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
# Bars and shades whose colour is not a drawn one: a style sheet that the policy stopped would leave them black.
BLACK = """[...document.querySelectorAll(".chart rect:not(.gap)")].filter(
    (rect) => getComputedStyle(rect).fill === "rgb(0, 0, 0)").length"""


def made(total: int, *, counts: bool) -> Report:
    cells = hits(total, [(2026, week) for week in range(40, 44)], seed=3, name="a-list-with-a-rather-long-name")
    report = publish(
        counted(cells.items(), ["a-list-with-a-rather-long-name"], "2026-W40", "2026-W43", False),
        10,
        8,
        lists=("a-list-with-a-rather-long-name", "police"),
        first="2026-W40",
        last="2026-W43",
        timezones=("Europe/Stockholm",),
        clock_changes=True,
        preview=counts,
    )
    return report if counts else report.as_shares()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=CHROMIUM_ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="module", params=[(60_000, False), (2500, True)], ids=["shares", "gaps"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    total, counts = request.param
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report_page.html(made(total, counts=counts)), "utf-8")
    return path


def opened(browser: Browser, file: Path, width: int, scheme: Scheme) -> tuple[Page, list[str]]:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    told: list[str] = []
    page.on("request", lambda request: told.append(request.url))
    page.on("console", lambda message: told.append(message.text))
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
    return page, told


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_it_loads_nothing_fits_and_is_coloured(browser: Browser, file: Path, width: int, scheme: Scheme) -> None:
    page, told = opened(browser, file, width, scheme)
    assert told == [file.as_uri()]
    assert not page.evaluate(OVERFLOW)
    assert page.evaluate(BLACK) == 0
    assert page.locator("svg").count() == 3
    for css in (SPACED, DOUBLED):
        spread, _ = opened(browser, file, width, scheme)
        # The page's own policy lets no style in; a reader's comes from the browser itself, past it.
        spread.evaluate("(css) => { const s = new CSSStyleSheet(); s.replaceSync(css); "
                        "document.adoptedStyleSheets = [s]; }", css)  # fmt: skip
        assert not spread.evaluate(OVERFLOW)
        spread.close()
    page.close()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_axe_finds_nothing(browser: Browser, file: Path, scheme: Scheme) -> None:
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)  # axe-core is a script of the test
    page = context.new_page()
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
    found = axe(page)
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
    assert len(found["passes"]) > 15
    context.close()


def test_charts_are_named_and_described(browser: Browser, file: Path) -> None:
    page, _ = opened(browser, file, 1280, "light")
    names = [chart.get_attribute("aria-labelledby") for chart in page.get_by_role("img").all()]
    assert names == ["hour-title hour-desc", "weekday-title weekday-desc", "both-title both-desc"]
    told = page.locator("desc").all_text_contents()
    assert all("requests, not people" in text for text in told)
    assert "Highest: Sunday" in told[1]
    assert page.get_by_role("img", name="Requests by weekday and hour").count() == 1
    page.close()
