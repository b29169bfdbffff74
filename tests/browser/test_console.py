"""The operations console in Debian's Chromium: what it loads, how it fits, what axe-core finds, and an approval."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from blocker.store.keys import Keys
from blocker.store.token import Role
from tests.browser.console_served import ServedConsole
from tests.browser.test_stop_page import DESKTOP, DOUBLED, NARROW, SCHEMES, SPACED, WIDTHS, Scheme, axe, browser
from tests.control.console_scene import LISTED
from tests.e2e.node import Node
from tests.e2e.processes import until
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["browser"]
expect.set_options(timeout=60_000)
PATHS = ("/", "/console/proposals", "/console/changes", "/console/hits", "/console/explain")
SIGNED_IN = 'header form[action="/console/logout"]'


@pytest.fixture(scope="module")
def served() -> Iterator[ServedConsole]:
    running = ServedConsole()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def token(served: ServedConsole) -> str:
    return served.run(served.scene.token("bert", Role.OPERATOR, person="Bert Holm"))


def signed_in(context: BrowserContext, address: str, token: str) -> Page:
    """A page of somebody who came in by the front door."""
    page = context.new_page()
    page.goto(f"{address}/")
    assert page.url == f"{address}/console/login"
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_selector(SIGNED_IN)
    assert page.url == f"{address}/"
    return page


def ask(page: Page, url: str) -> None:
    """Test an address."""
    page.get_by_label("Address").fill(url)
    page.get_by_role("button", name="Test").click()
    page.wait_for_selector("#verdict, #fault")


def every_page(page: Page, address: str) -> Iterator[str]:
    """Each page in turn, that with an explanation, unfolded, as the last."""
    for path in PATHS:
        page.goto(f"{address}{path}")
        yield path
    ask(page, LISTED)
    page.locator("summary").click()
    yield "explained"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_pages_load_nothing_and_fit(served: ServedConsole, browser: Browser, token: str, scheme: Scheme) -> None:
    with browser.new_context(color_scheme=scheme) as context:
        told: list[str] = []
        asked: list[str] = []
        page = signed_in(context, served.address, token)
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            for path in every_page(page, served.address):
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
                ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
                assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
                columns = page.evaluate(
                    "[...document.querySelectorAll('.cards td:not(.none)')].map((e) => e.clientWidth)"
                )
                assert all(wide >= 20 for wide in columns), path
        assert {url.removeprefix(served.address) for url in asked} == {*PATHS}
        assert told == []
        (cookie,) = context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["expires"]) == (True, "Strict", -1)
        assert page.evaluate("document.cookie") == ""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_axe_finds_nothing(served: ServedConsole, browser: Browser, token: str, scheme: Scheme) -> None:
    with browser.new_context(color_scheme=scheme, bypass_csp=True) as context:
        page = context.new_page()
        page.goto(f"{served.address}/console/login")
        assert found(page) == []
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector("#fault")
        assert found(page) == []
        page = signed_in(context, served.address, token)
        for width in (DESKTOP, NARROW):
            page.set_viewport_size({"width": width, "height": 800})
            for path in every_page(page, served.address):
                assert found(page) == [], (path, width)


def found(page: Page) -> list[Any]:
    """What axe-core finds; that it looked at all is sure too."""
    told = axe(page)
    assert {"color-contrast", "heading-order", "region", "target-size"} <= {one["id"] for one in told["passes"]}
    return [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in told["violations"]]


def test_readers_own_spacing_and_larger_text_lose_nothing(served: ServedConsole, browser: Browser, token: str) -> None:
    with browser.new_context(bypass_csp=True) as context:
        page = signed_in(context, served.address, token)
        for style, width in ((SPACED, NARROW), (DOUBLED, DESKTOP // 2)):
            page.set_viewport_size({"width": width, "height": 800})
            for path in every_page(page, served.address):
                page.add_style_tag(content=style)
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)


def test_everything_is_reached_by_keyboard_and_seen(served: ServedConsole, browser: Browser, token: str) -> None:
    with browser.new_context() as context:
        page = signed_in(context, served.address, token)
        page.goto(f"{served.address}/console/proposals")
        there = page.locator("a, button, input:not([type=hidden])").count()
        reached = []
        for _ in range(there):
            page.keyboard.press("Tab")
            name, outline, width, seen = page.evaluate(
                "(([e, s]) => [e.textContent || e.name, s.outlineStyle, parseFloat(s.outlineWidth),"
                " e.getBoundingClientRect().left >= 0])([document.activeElement,"
                " getComputedStyle(document.activeElement)])"
            )
            assert (outline, width, seen) == ("solid", 3, True), name
            reached.append(name)
        assert reached[0] == "Skip to the content"
        assert reached[-4:] == ["read", "Approve and publish interpol", "reason", "Reject interpol"]
        page.keyboard.press("Shift+Tab")
        page.get_by_role("button", name="Approve and publish interpol").press("Enter")
        assert page.url == f"{served.address}/console/proposals", "the box must be ticked first"
        page.goto(f"{served.address}/")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"


def test_tables_keep_their_meaning_on_a_phone(served: ServedConsole, browser: Browser, token: str) -> None:
    with browser.new_context(viewport={"width": 390, "height": 800}) as context:
        page = signed_in(context, served.address, token)
        table = page.get_by_role("table", name="Lists")
        assert table.get_by_role("columnheader").all_inner_texts() == [
            "List", "State", "Mode", "Rules", "Serial", "Age", "Canaries",
        ]  # fmt: skip
        row = table.get_by_role("row").filter(has=page.get_by_role("rowheader", name="iwf"))
        expect(row.get_by_role("cell").filter(has_text="5\u202f972")).to_be_visible()
        labels = "[...document.querySelectorAll('#list-iwf td')].map((e) => getComputedStyle(e, '::before').content)"
        assert [label.partition('"')[2].partition('"')[0] for label in page.evaluate(labels)] == [
            "State", "Mode", "Rules", "Serial", "Age", "Canaries",
        ]  # fmt: skip


def test_paper_and_stillness(served: ServedConsole, browser: Browser, token: str) -> None:
    with browser.new_context(color_scheme="dark", reduced_motion="reduce") as context:
        page = signed_in(context, served.address, token)
        assert page.evaluate("getComputedStyle(document.querySelector('nav a')).transitionDuration") == "0s"
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
        assert not page.locator("nav").is_visible()
        assert page.get_by_role("table", name="Lists").is_visible()


def test_a_tested_address_is_in_no_address_bar_and_no_history(
    served: ServedConsole, browser: Browser, token: str
) -> None:
    with browser.new_context() as context:
        page = signed_in(context, served.address, token)
        sent: list[tuple[str, dict[str, str]]] = []
        page.on("request", lambda request: sent.append((request.url, request.all_headers())))
        page.goto(f"{served.address}/console/explain")
        ask(page, f"{LISTED}?zqmarkqz")
        assert page.url == f"{served.address}/console/explain"
        assert "zqmarkqz" not in page.title()
        page.get_by_role("link", name="Overview").click()
        page.wait_for_url(f"{served.address}/")
        assert "zqmarkqz" not in json.dumps(sent)
        assert context.storage_state()["origins"] == []


def test_signing_out_takes_the_pages_away(served: ServedConsole, browser: Browser, token: str) -> None:
    with browser.new_context() as context:
        page = signed_in(context, served.address, token)
        page.goto(f"{served.address}/console/changes")
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url(re.compile("/console/login$"))
        assert context.cookies() == []
        page.go_back()
        page.wait_for_selector("#token")  # nothing was kept that could be shown again


def test_another_site_cannot_send_a_form(served: ServedConsole, browser: Browser, token: str) -> None:
    """From another origin that is the same site, so that even the strict cookie goes along."""
    with browser.new_context() as context:
        page = signed_in(context, served.address, token)
        key = page.locator(f"{SIGNED_IN} input").get_attribute("value")
        page.route("http://127.0.0.1:1/", lambda route: route.fulfill(
            content_type="text/html",
            body=f'<form method="post" action="{served.address}/console/logout"><input name="form_key" value="{key}">'
            "<button>go</button></form>",
        ))  # fmt: skip
        page.goto("http://127.0.0.1:1/")
        with page.expect_navigation() as navigation:
            page.get_by_role("button", name="go").click()
        assert navigation.value.status == 403
        page.goto(f"{served.address}/")
        assert page.locator(SIGNED_IN).is_visible()


def test_a_second_person_approves_on_a_real_node(browser: Browser, tmp_path: Path) -> None:
    """A node in a process of its own, with its Redis; what Anna proposed, Bert publishes, and the verdict changes."""
    with RedisServer(tmp_path / "redis", aof=True) as redis:
        node = Node(tmp_path, redis)
        try:
            many = [f"http://site{number}.example/x" for number in range(2000)]
            node.push_list("police", many)
            until(lambda: node.ask() == "allow")
            address = f"http://127.0.0.1:{node.process.port}"
            bert = str(node.command("tokens", "create", "bert", "--person", "Bert", "--role", "approver")["token"])
            anna = str(
                node.command("tokens", "create", "anna", "--person", "Anna", "--role", "maintainer", "--list", "*")[
                    "token"
                ]
            )
            headers = {"authorization": f"Bearer {anna}", "if-match": '"1"'}
            with httpx.Client(base_url=address, headers=headers, timeout=60) as api:
                lines = "http://listed.example/gallery/\n"
                api.put("/v1/lists/police/draft", params={"format": "url"}, content=lines).raise_for_status()
                assert api.post("/v1/lists/police/publish", json={"reason": "new file"}).status_code == 202
            assert node.ask() == "allow"
            with browser.new_context() as context:
                page = signed_in(context, address, bert)
                page.get_by_role("link", name="Approvals").click()
                expect(page.get_by_text("2000 rules become 1")).to_be_visible()
                page.get_by_label("I have read what the guards say").check()
                page.get_by_role("button", name="Approve and publish police").click()
                expect(page.get_by_role("status")).to_have_text("police is at serial 2 with 1 rule.")
                expect(page.get_by_text("Nothing waits for approval.")).to_be_visible()
                page.goto(f"{address}/")
                expect(page.get_by_role("table", name="Nodes").get_by_text("this one")).to_be_visible()
            until(lambda: node.ask() == "block")
            assert b"node-under-test" in redis.command("ZRANGE", Keys(node.deployment).beats, "0", "-1")
        finally:
            node.process.stop()
        assert b"node-under-test" not in redis.command("ZRANGE", Keys(node.deployment).beats, "0", "-1")
    assert "listed.example" not in node.process.log()
