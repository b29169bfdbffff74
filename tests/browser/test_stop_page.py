"""The stop page, and in short `/docs`, in Debian's Chromium: what it loads, how it fits, and what axe-core finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from blocker.control.stop_texts import LANGUAGES
from tests.browser.served import CHROMIUM, CHROMIUM_ARGUMENTS, Served

if TYPE_CHECKING:
    from collections.abc import Iterator

DESKTOP, PHONE, NARROW = 1280, 390, 320  # 320: WCAG 2.2, 1.4.10; the same as 400 % zoom on a desktop
WIDTHS = (DESKTOP, PHONE, NARROW)
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
# best-practice: one main landmark, all content in it, headings in order.
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PATH = "/blocked?list=police"
# What must not be lost when a reader sets it (WCAG 2.2, 1.4.12), and text of twice the size (1.4.4).
SPACED = "* { line-height: 1.5 !important; letter-spacing: 0.12em !important; word-spacing: 0.16em !important; }"
DOUBLED = "html { font-size: 200%; }"
OVERFLOW = """() => [...document.querySelectorAll("*")].filter(
    (element) => element.scrollWidth > element.clientWidth && getComputedStyle(element).display !== "inline"
        && element.clientWidth > 0).map((element) => element.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    running = Served()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=CHROMIUM_ARGUMENTS)
        yield launched
        launched.close()


def axe(page: Page) -> Any:  # noqa: ANN401
    """What axe-core finds: violations, passes and what it cannot tell, as JSON."""
    return Axe().run(page, options={"runOnly": {"type": "tag", "values": TAGS}}).response


def unfold(page: Page) -> None:
    """Open every other language."""
    opened = page.evaluate("[...document.querySelectorAll('details')].map((details) => details.open = true).length")
    assert opened == len(LANGUAGES) - 1


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_loads_nothing_and_fits(served: Served, browser: Browser, language: str, scheme: Scheme) -> None:
    url = f"http://127.0.0.1:{served.port}{PATH}"
    with browser.new_context(locale=language, color_scheme=scheme) as context:
        page = context.new_page()
        told: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        served.asked.clear()
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            answer = page.goto(url)
            assert answer is not None
            assert answer.status == 451
            assert answer.headers["content-language"] == language
            assert page.title() == LANGUAGES[language].title
            unfold(page)
            assert page.evaluate(OVERFLOW) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
        assert asked == [url] * len(WIDTHS)
        assert served.asked == [PATH] * len(WIDTHS)
        assert context.cookies() == []
        # The status itself is told; anything that the policy forbids would be as well.
        assert [text for text in told if "status of 451" not in text] == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_axe_finds_nothing(served: Served, browser: Browser, language: str, scheme: Scheme) -> None:
    """With the policy set aside, since axe is a script."""
    with browser.new_context(locale=language, color_scheme=scheme, bypass_csp=True) as context:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{served.port}{PATH}")
        unfold(page)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            found = axe(page)
            assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found["violations"]] == []
            assert [rule["id"] for rule in found["incomplete"]] == []
            looked_at = {rule["id"] for rule in found["passes"]}
            assert {
                "color-contrast", "document-title", "heading-order", "html-has-lang", "landmark-one-main", "link-name",
                "region", "target-size", "valid-lang",
            } <= looked_at  # fmt: skip


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_documentation_passes_as_well(served: Served, browser: Browser, scheme: Scheme) -> None:
    with browser.new_context(color_scheme=scheme, bypass_csp=True) as context:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{served.port}/docs")
        page.set_viewport_size({"width": NARROW, "height": 800})
        assert [rule["id"] for rule in axe(page)["violations"]] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW


def test_axe_would_find_something(browser: Browser) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.set_content('<h1>x</h1><h3>y</h3><p style="color: #999999">pale</p><a href="/"></a>')
        found = {rule["id"] for rule in axe(page)["violations"]}
    assert {"color-contrast", "heading-order", "html-has-lang", "landmark-one-main", "link-name", "region"} <= found


@pytest.mark.parametrize("language", LANGUAGES)
def test_readers_own_spacing_and_larger_text_lose_nothing(served: Served, browser: Browser, language: str) -> None:
    with browser.new_context(locale=language, bypass_csp=True) as context:
        page = context.new_page()
        for style, width in ((SPACED, NARROW), (DOUBLED, DESKTOP // 2), (DOUBLED, NARROW)):
            page.set_viewport_size({"width": width, "height": 800})
            page.goto(f"http://127.0.0.1:{served.port}{PATH}")
            page.add_style_tag(content=style)
            unfold(page)
            assert page.evaluate(OVERFLOW) == [], (style, width)
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_every_link_and_language_is_reached_by_keyboard_and_seen(served: Served, browser: Browser) -> None:
    with browser.new_context(locale="en") as context:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{served.port}{PATH}")
        there = page.locator("main > p a, summary").count()
        assert there == 5 + len(LANGUAGES) - 1
        reached = []
        for _ in range(there):
            page.keyboard.press("Tab")
            name, outline, width, colour = page.evaluate(
                "(({outlineStyle, outlineWidth, outlineColor}) => [document.activeElement.textContent, outlineStyle,"
                " parseFloat(outlineWidth), outlineColor])(getComputedStyle(document.activeElement))"
            )
            assert (outline, width) == ("solid", 3), name
            assert colour == page.evaluate("getComputedStyle(document.querySelector('a')).color")
            reached.append(name)
        assert len(set(reached)) == there, reached
        assert reached[-4:] == ["Svenska", "Deutsch", "Français", "Español"]
        page.keyboard.press("Enter")
        assert page.locator("details[open]").get_attribute("lang") == "es"
        assert page.get_by_text(LANGUAGES["es"].stopped).is_visible()


def test_on_paper_there_is_one_language_with_the_addresses_of_links(served: Served, browser: Browser) -> None:
    with browser.new_context(locale="en", color_scheme="dark") as context:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{served.port}{PATH}")
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not page.locator("summary").first.is_visible()
        after = page.evaluate("getComputedStyle(document.querySelector('main > p > .named'), '::after').content")
        assert "nordic-fibre.example" in after
