"""Makes the pictures of README.md from the real commands and pages: `python docs/pictures.py` after `make setup`."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
WEEKS = [(2026, week) for week in range(45, 49)]
EXPLAIN = ("explain", "http://gallery.example/x/../secret/%61.jpg?size=1")


def blocker(data: str, *arguments: str) -> str:
    """What the command prints, colours included."""
    command = [sys.executable, "-m", "blocker", "--data-dir", data, "--lists-dir", str(ROOT / "lists"), *arguments]
    environment = {"FORCE_COLOR": "1", "COLUMNS": "100", "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout  # noqa: S603


def stop_page() -> None:
    """Write docs/stop-page.png, as Chromium shows the page of the browser tests."""
    sys.path.insert(0, str(ROOT))
    from tests.browser.served import CHROMIUM, CHROMIUM_ARGUMENTS, Served

    served = Served()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(locale="en", viewport={"width": 800, "height": 600})
        page.goto(f"http://127.0.0.1:{served.port}/blocked?list=police")
        page.screenshot(path=ROOT / "docs" / "stop-page.png", full_page=True)
        browser.close()
    served.stop()


def operations_console() -> None:
    """Write docs/console.png: the overview on a bad day, as the browser tests have it."""
    sys.path.insert(0, str(ROOT))
    from blocker.store.token import Role
    from tests.browser.console_served import ServedConsole
    from tests.browser.served import CHROMIUM, CHROMIUM_ARGUMENTS

    served = ServedConsole()
    token = served.run(served.scene.token("bert", Role.OPERATOR, person="Bert Holm"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1060, "height": 600}, color_scheme="light", bypass_csp=True)
        page.goto(f"{served.address}/")
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector("nav")
        page.add_style_tag(content="html { font-size: 87.5%; }")  # a picture of less than 120 kB
        page.screenshot(path=ROOT / "docs" / "console.png", full_page=True)
        browser.close()
    served.stop()


def report() -> None:
    """Write docs/report.svg: the report of synthetic hits with the shape that was published of such systems."""
    sys.path.insert(0, str(ROOT))
    from blocker.hits.page import picture
    from blocker.hits.report import counted, publish
    from tests.hits.synthetic import hits

    cells = counted(hits(60_000, WEEKS, seed=1).items(), ["police"], "2026-W45", "2026-W48", False)
    about = {"lists": ("police",), "first": "2026-W45", "last": "2026-W48", "timezones": ("Europe/Stockholm",)}
    (ROOT / "docs" / "report.svg").write_text(picture(publish(cells, 10, 8, **about).as_shares()), "utf-8")


def main() -> None:
    """Write docs/explain.svg, docs/stop-page.png, docs/console.png and docs/report.svg."""
    stop_page()
    operations_console()
    report()
    with tempfile.TemporaryDirectory() as data:
        blocker(data, "lists", "pull")
        shown = blocker(data, *EXPLAIN)
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    console.print(f"$ blocker {' '.join(EXPLAIN)}", style="bold", highlight=False)
    console.print(Text.from_ansi(shown), soft_wrap=True)
    console.save_svg(str(ROOT / "docs" / "explain.svg"), title="blocker explain")


if __name__ == "__main__":
    main()
