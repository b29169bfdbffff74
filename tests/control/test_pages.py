from __future__ import annotations

import base64
import hashlib
import html
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, get_args

import pytest

from blocker.control.stop_page import StopPage, chosen_language
from blocker.control.stop_texts import LANGUAGES, Texts
from blocker.stop_section import Language, StopPageSettings, StopTexts
from tests.control.support import raw

if TYPE_CHECKING:
    from tests.control.conftest import ControlNode

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """A page's tags, attributes and texts; complains about tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_self_contained(html: str, policy: str) -> Page:
    """No script, nothing loaded from anywhere, and a policy that allows just this style."""
    page = Page(html)
    assert not {"script", "img", "iframe", "object", "form", "base", "svg"} & set(page.tags)
    assert [value for tag, name, value in page.attributes if (tag, name) == ("link", "href")] == ["data:,"]
    assert not [name for _, name, _ in page.attributes if name in ("src", "srcset", "style") or name.startswith("on")]
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert ("html", "lang", "en") in page.attributes
    assert {"title", "h1", "main"} <= set(page.tags)
    assert "prefers-color-scheme: dark" in style
    return page


async def test_the_stop_page_says_who_why_and_what_to_do(node: ControlNode) -> None:
    answer = await node.client.get("/blocked")
    assert answer.status_code == 451
    assert answer.headers["link"] == '<https://operator.example/why?a=1&b=2>; rel="blocked-by"'
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-language"] == "en"
    assert answer.headers["vary"] == "Accept-Language"
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "set-cookie" not in answer.headers
    page = assert_self_contained(answer.text, answer.headers["content-security-policy"])
    for text in ("A <Provider> & Sons", "It is on a list.", "An Act, section 1", "Write to us.", "Call 0800."):
        assert text in page.text
    assert "<Provider>" not in answer.text
    links = {value for tag, name, value in page.attributes if (tag, name) == ("a", "href")}
    assert links == {"https://operator.example/why?a=1&b=2"}


async def test_the_stop_page_is_the_same_whatever_was_asked(node: ControlNode) -> None:
    """A proxy keeps the method, the headers and the body of the request it shows this page for."""
    plain = await node.client.get("/blocked")
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"):
        answer = await node.client.request(
            method, "/blocked?url=http://zzmarkzz.example/", headers={"cookie": "zzmarkzz", "referer": "http://zzmarkzz/"},
            content=b"zzmarkzz" * 20_000,
        )  # fmt: skip
        assert (answer.status_code, answer.content) == (451, plain.content)
        assert "zzmarkzz" not in str(answer.headers)


async def test_the_stop_page_does_not_wait_for_a_body(node: ControlNode) -> None:
    request = b"POST /blocked HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 99999999\r\n\r\n"
    assert (await raw(node.server.port, request)).startswith(b"HTTP/1.1 451 ")


def test_empty_texts_leave_their_heading_out() -> None:
    reply = StopPage(StopPageSettings()).direct({"headers": [], "query_string": b""})
    page = Page(reply.body.decode()).text
    for texts in LANGUAGES.values():
        assert texts.why in page
        assert not [text for text in (texts.law, texts.complaint, texts.help, texts.authority) if text in page]


def test_languages_are_chosen_by_the_client() -> None:
    page = StopPage(StopPageSettings())
    reply = page.direct({"headers": [(b"accept-language", b"it, de-AT;q=0.7, en;q=0.3")], "query_string": b""})
    assert (b"content-language", b"de") in reply.headers
    assert b'<html lang="de" ' in reply.body
    lines = [(b"accept-language", b"it"), (b"accept-language", b"fr;q=0.2")]
    split = page.direct({"headers": lines, "query_string": b""})
    assert (b"content-language", b"fr") in split.headers
    for accepted, language in (
        ("", "en"), ("it", "en"), ("DE", "de"), ("en, de;q=0.9", "en"), ("de;q=0, en;q=0.1", "en"), ("*", "en"),
        ("de;q=x", "en"), ("de ; q=0.5", "de"), (";,;", "en"), ("de;q=nan", "en"), ("de;q=inf", "en"),
        ("sv;x=1;q=0.1, es;q=0.2", "es"), ("fr;q=2, sv;q=0.5", "sv"), ("fr-CA", "fr"), ("sv;q=0.999, es;q=1.000", "es"),
    ):  # fmt: skip
        assert chosen_language(accepted.encode()) == language, accepted


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_everything_in_its_own_words(language: str) -> None:
    texts = StopTexts(reason="own reason", law="own law", complaint="own complaint", help="own help")
    settings = StopPageSettings(operator="Provider", law="general law")
    for said, expected in ((settings, "general law"), (_with(settings, language, texts), "own law")):
        scope = {"headers": [(b"accept-language", language.encode())], "query_string": b""}
        page = StopPage(said).direct(scope).body.decode().partition("<details")[0]
        assert expected in page
        assert LANGUAGES[language].privacy in html.unescape(page)
    assert "own help" in page
    assert "general law" not in page
    others = [getattr(LANGUAGES[language], name) for name in Texts.__slots__]
    assert all(others)
    english = [getattr(LANGUAGES["en"], name) for name in Texts.__slots__]
    assert language == "en" or not set(others) & set(english), "nothing is left in English"


def _with(settings: StopPageSettings, language: str, texts: StopTexts) -> StopPageSettings:
    return settings.model_copy(update={"languages": {language: texts}})


def test_the_languages_of_the_settings_are_those_of_the_page() -> None:
    assert get_args(Language) == tuple(LANGUAGES)


async def test_the_documentation_needs_nothing_from_elsewhere(node: ControlNode) -> None:
    answer = await node.client.get("/docs")
    page = assert_self_contained(answer.text, answer.headers["content-security-policy"])
    anchors = {value for _, name, value in page.attributes if name == "id"}
    for _, name, value in page.attributes:
        if name == "href" and value and value.startswith("#"):
            assert value[1:] in anchors
        elif name == "href":
            assert value in ("/openapi.json", "data:,")
    api = (await node.client.get("/openapi.json")).json()
    for path, methods in api["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in page.text
    assert {"invalid-request", "not-ready"} <= anchors, "the types of problems are explained"
    assert (await node.client.get("/")).headers["location"] == "/docs"


async def test_the_openapi_document_has_an_example_for_every_route(node: ControlNode) -> None:
    api = (await node.client.get("/openapi.json")).json()
    shown = {path for path in api["paths"] if "{name}" not in path}
    assert shown == {
        "/v1/check", "/v1/hosts/{host}", "/v1/lists", "/healthz", "/readyz", "/metrics", "/blocked", "/v1/proposals",
        "/v1/audit", "/v1/whoami", "/v1/explain",
    }  # fmt: skip
    for path, methods in api["paths"].items():
        for operation in methods.values():
            assert operation["summary"]
            assert operation["description"]
            for status, response in operation["responses"].items():
                assert response["description"]
                for media_type, content in response["content"].items():
                    assert "example" in content or media_type == "text/html", (path, status)
            assert set(operation["responses"]["default"]["content"]) == {"application/problem+json"}
            assert "422" not in operation["responses"], "the framework's own form of errors"
    assert_references_resolve(api, api)
    answers = {path: methods["get"]["responses"]["200"]["content"] for path, methods in api["paths"].items()
               if path.startswith("/v1/") and "get" in methods and "{name}" not in path}  # fmt: skip
    assert answers["/v1/check"]["application/json"]["example"]["verdict"] == "block"
    assert answers["/v1/hosts/{host}"]["application/json"]["example"]["canonical"] == "listed.example"


def assert_references_resolve(part: Any, api: dict[str, Any]) -> None:  # noqa: ANN401
    """Every $ref names something."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref":
                assert value.split("/")[-1] in api["components"]["schemas"], value
            assert_references_resolve(value, api)
    elif isinstance(part, list):
        for value in part:
            assert_references_resolve(value, api)
