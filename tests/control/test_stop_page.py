"""The stop page of each list: whose texts it says, in which language, and for which request."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import pytest

from blocker import Matcher
from blocker.control.stop_page import StopPage, page_environment
from blocker.control.stop_texts import LANGUAGES
from blocker.gateways.engine import VerdictEngine
from blocker.hits.counters import HitCounter
from blocker.settings import Settings
from blocker.stop_section import StopPageSettings
from tests.hits.support import Clock, Followed, MemoryStore

if TYPE_CHECKING:
    import io

    from tests.control.conftest import ControlNode

MARK = "zqmarkzq"
CONTRAST = 4.5  # WCAG 2.2, 1.4.3, for text of any size


def shown(settings: StopPageSettings, language: str, query: str = "") -> str:
    """The page's own language, as HTML; the others are folded behind it."""
    scope = {"headers": [(b"accept-language", language.encode())], "query_string": query.encode()}
    return StopPage(settings).direct(scope).body.decode().partition("<details")[0]


LEVELS = ("list and language", "list", "general language", "general")


@pytest.mark.parametrize("field", ["reason", "law", "complaint", "help"])
@pytest.mark.parametrize("there", [*itertools.product((False, True), repeat=4)])
def test_each_text_is_the_first_that_there_is(field: str, there: tuple[bool, ...]) -> None:
    """Each field by itself: the other fields, of which the list says all, change nothing."""
    others = {name: f"other {name}" for name in ("reason", "law", "complaint", "help", "authority") if name != field}
    said = {level: {field: f"text of {level}."} if given else {} for level, given in zip(LEVELS, there, strict=True)}
    settings = StopPageSettings.model_validate({
        **said["general"], "languages": {"fr": said["general language"]},
        "lists": {"police": {**others, **said["list"], "languages": {"fr": said["list and language"]}}},
    })  # fmt: skip
    page = shown(settings, "fr", "list=police")
    expected = next((f"text of {level}." for level, given in zip(LEVELS, there, strict=True) if given), None)
    assert [text for text in (f"text of {level}." for level in LEVELS) if text in page] == [expected] * any(there)
    for text in others.values():
        assert text in page
    general = shown(settings, "fr")
    assert "other" not in general
    assert ("text of general language." in general) == there[2]


def test_who_keeps_a_list_is_named_on_its_page_alone() -> None:
    settings = StopPageSettings.model_validate({
        "operator": "Provider", "lists": {
            "police": {
                "authority": "Police & <Court>", "authority_url": "https://police.example/why?a=1&b=2",
                "languages": {"sv": {"authority": "Polisen"}},
            },
            "quiet": {"authority": "Ministry"},
        },
    })  # fmt: skip
    police = shown(settings, "en", "list=police")
    assert 'href="https://police.example/why?a=1&amp;b=2" rel="noreferrer">Police &amp; &lt;Court&gt;</a>' in police
    assert ">Polisen</a>" in shown(settings, "sv-FI", "list=police")
    assert '<p dir="auto">Ministry</p>' in shown(settings, "en", "list=quiet")
    for page in (shown(settings, "en"), shown(settings, "en", "list=none")):
        assert LANGUAGES["en"].authority not in page


def test_addresses_in_texts_are_links_and_markup_is_text() -> None:
    text = 'See https://court.example/appeal, or write to court@court.example. <b>javascript:alert(1)</b> "x"'
    page = shown(StopPageSettings(complaint=text), "en")
    assert '<a href="https://court.example/appeal" rel="noreferrer">https://court.example/appeal</a>,' in page
    assert '<a href="mailto:court@court.example">court@court.example</a>.' in page
    assert "&lt;b&gt;javascript:alert(1)&lt;/b&gt;" in page


def test_a_text_in_another_language_than_the_page_says_so() -> None:
    """WCAG 2.2, 3.1.2: a voice that reads the page must know."""
    settings = StopPageSettings.model_validate(
        {"text_language": "nb", "reason": "Grunn", "law": "Lov", "languages": {"sv": {"law": "Lag"}}}
    )
    page = shown(settings, "sv")
    assert '<p dir="auto" lang="nb">Grunn</p>' in page
    assert '<p dir="auto">Lag</p>' in page
    assert '<p dir="auto" lang="nb">Lov</p>' in shown(settings, "de")
    assert 'lang="sv">Grunn' not in shown(settings.model_copy(update={"text_language": "sv"}), "sv")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_other_language_is_there_folded(language: str) -> None:
    settings = StopPageSettings.model_validate(
        {"lists": {"police": {"languages": {name: {"law": f"law in {name}"} for name in LANGUAGES}}}}
    )
    (body,) = (
        html for name, spoken, _, html in StopPage(settings).as_bytes() if (name, spoken) == ("police", language)
    )
    own, *folded = body.decode().split("<details")
    assert f'<html lang="{language}" dir="ltr">' in own
    assert f"law in {language}" in own
    found = [re.findall(r'^ lang="(..)">\n<summary>(.+)</summary>', part)[0] for part in folded]
    assert found == [(name, texts.name) for name, texts in LANGUAGES.items() if name != language]
    for (name, _), part in zip(found, folded, strict=True):
        assert f"law in {name}" in part
        assert LANGUAGES[name].title in part


async def test_a_page_is_found_by_its_lists_name_and_nothing_else(node: ControlNode, logged: io.StringIO) -> None:
    plain = (await node.client.get("/blocked")).content
    police = await node.client.get("/blocked?list=police")
    assert police.status_code == 451
    assert b"Told by the police." in police.content
    assert b"Told by the police." not in plain
    for query in ("list=police&url=http://x.example/", "a=b&list=police", "list=police&listing=x"):
        assert (await node.client.get(f"/blocked?{query}")).content == police.content, query
    odd = [
        "list", "list=", "list=unknown", f"list={MARK}", "list=police&list=police", f"list=police&list={MARK}",
        "list=Police", "list=pol%69ce", "list=police%00", "list=%ff%fe", "list=police;", "List=police", "list[]=police",
        f"list={MARK * 2000}", "list=../police", "list=%zz", "&&==&", f"{MARK}=police", "list=police+", "list= police",
    ]  # fmt: skip
    for query in odd:
        answer = await node.client.get(f"/blocked?{query}")
        assert (answer.status_code, answer.content) == (451, plain), query
        assert MARK not in str(answer.headers)
    for method in ("HEAD", "POST", "PUT", "PROPFIND"):
        answer = await node.client.request(method, "/blocked?list=police")
        assert answer.status_code == 451
        assert answer.content == (b"" if method == "HEAD" else police.content)
    assert logged.getvalue() == "", "nobody logs who was shown which page"


def test_other_settings_make_other_pages() -> None:
    scope = {"headers": [], "query_string": b"list=police"}
    page = StopPage(StopPageSettings.model_validate({"lists": {"police": {"reason": "before"}}}))
    assert b"before" in page.direct(scope).body
    page.configure(StopPageSettings.model_validate({"lists": {"quiet": {"reason": "after"}}}))
    assert b"before" not in page.direct(scope).body
    assert {name for name, *_ in page.as_bytes()} == {"", "quiet"}


def test_gateways_show_the_page_of_the_list_that_blocks() -> None:
    police = {"reason": "of the police", "languages": {"de": {"reason": "der Polizei"}}}
    settings = StopPageSettings.model_validate({"reason": "general", "lists": {"police": police}})
    pages = StopPage(settings).as_bytes()
    assert [(name, language) for name, language, _, _ in pages] == [*itertools.product(("", "police"), LANGUAGES)]
    hits = HitCounter(MemoryStore(), node="node", zone=Settings().zone, clock=Clock(1_795_989_600.0), boot="boot")
    engine = VerdictEngine(Followed(Matcher.build({"police": ["http://listed.example/"]})), hits)
    gate = engine.gate("check", "default", pages)
    for name, language, text in (
        ("police", b"en", b"of the police"), ("police", b"de-AT", b"der Polizei"), ("police", b"it", b"of the police"),
        ("other", b"en", b"general"), ("", b"en", b"general"),
    ):  # fmt: skip
        head, body = gate.page(name, language)
        assert text in body.partition(b"<details")[0], (name, language)
        assert b'rel="blocked-by"' in head


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2, definition)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """Contrast ratio, 1 to 21."""
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_every_text_stands_out_in_light_dark_and_print() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    style = page_environment().get_template("style.css.j2").render()
    rules = re.findall(r":root \{([^}]*)\}", style)
    schemes = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", rule)) for rule in rules]
    assert len(schemes) == 3
    pairs = [("ink", "paper"), ("soft", "paper"), ("link", "paper"), ("ink", "code"), ("link", "code")]
    for scheme in schemes:
        colours = {**schemes[0], **scheme}
        for text, ground in pairs:
            assert contrast(colours[text], colours[ground]) >= CONTRAST, (text, ground, colours)
    used = set(re.findall(r"(?<![-\w])color: ([^;]+);", style))
    assert used == {"var(--ink)", "var(--soft)", "var(--link)"}, "no text has a colour that is not looked at"
    assert set(re.findall(r"background: ([^;]+);", style)) == {"var(--paper)", "var(--code)"}


@pytest.mark.parametrize("name", ["", "Police", "a/b", "-a", "x" * 64])
def test_a_list_is_named_as_lists_are(name: str) -> None:
    with pytest.raises(ValueError, match="lists"):
        StopPageSettings.model_validate({"lists": {name: {}}})
