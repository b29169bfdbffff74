"""The stop page: what somebody sees instead of a blocked page (RFC 7725).

It says that access was stopped, by whom, why, under which law, how to complain and where to get help. It says nothing
about the request, because it knows nothing of it: the pages are made once, at the start, one for each language and each
list with texts of its own. No cookie, no script, nothing from elsewhere; nobody logs that it was shown.

Its own words are in `stop_texts.py`, the texts of the settings are the operator's, who may give them in any language of
the page. A page carries the other languages folded, for a reader whose browser asks for the wrong one: a link to
another page would lead to the host that was asked for, since that is where the browser believes to be.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from blocker._native import best_language
from blocker.control.reply import Reply
from blocker.control.stop_texts import LANGUAGES
from blocker.stop_section import ListTexts, StopTexts

if TYPE_CHECKING:
    from starlette.types import Scope

    from blocker.control.stop_texts import Texts
    from blocker.stop_section import ListPageSettings, StopPageSettings

UNAVAILABLE_FOR_LEGAL_REASONS = 451


# What the page of no list in particular is kept and handed out under; no list has this name.
_GENERAL = ""


def page_environment() -> Environment:
    """Templates of the control plane, with everything escaped."""
    environment = Environment(
        loader=PackageLoader("blocker.control", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["urlize.rel"] = "noreferrer"
    return environment


def page_policy(style: str, *, form_action: str = "'none'") -> str:
    """A Content-Security-Policy that allows this one style sheet and the empty icon, and nothing else.

    Args:
        style: The style sheet.
        form_action: Where forms may go, as the policy has it.

    The icon is there for browsers that look for one past the policy, at the host that was asked for: it would be one
    more hit for one visit.
    """
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; "
        f"form-action {form_action}; frame-ancestors 'none'"
    )


class Said(NamedTuple):
    """A text, empty where there is none; `language` is empty where it is that of the page around it."""

    text: str
    language: str


class Notice(NamedTuple):
    """The notice in one language, for the template."""

    language: str
    texts: Texts
    said: dict[str, Said]

    def explained(self) -> list[tuple[str, Said]]:
        """Headings and texts, as they follow who stopped it."""
        texts, said = self.texts, self.said
        headings = {"reason": texts.why, "law": texts.law, "complaint": texts.complaint, "help": texts.help}
        return [(heading, said[field]) for field, heading in headings.items()]


class StopPage:
    """The pages: of each list with texts of its own and of all others, in every language.

    Args:
        settings: The operator's texts.
    """

    def __init__(self, settings: StopPageSettings) -> None:
        self.configure(settings)

    def configure(self, settings: StopPageSettings) -> None:
        """Make the pages anew, with other texts."""
        environment = page_environment()
        style = environment.get_template("style.css.j2").render().strip()
        template = environment.get_template("stop.html.j2")
        replies: dict[str, dict[str, Reply]] = {}
        for name, listed in {_GENERAL: None, **settings.lists}.items():
            notices = [
                Notice(language, texts, _said(settings, listed, language)) for language, texts in LANGUAGES.items()
            ]
            replies[name] = {}
            for notice in notices:
                others = [other for other in notices if other is not notice]
                body = template.render(notice=notice, others=others, page=settings, listed=listed, style=style)
                headers = {
                    "link": f'<{settings.operator_url}>; rel="blocked-by"',
                    "content-language": notice.language,
                    "vary": "Accept-Language",
                    "content-security-policy": page_policy(style),
                }
                reply = Reply.of(UNAVAILABLE_FOR_LEGAL_REASONS, "text/html; charset=utf-8", body.encode(), headers)
                replies[name][notice.language] = reply
        self._replies = replies

    def as_bytes(self) -> list[tuple[str, str, bytes, bytes]]:
        """The pages for gateways: list (empty: none in particular), language, header lines, HTML; English first."""
        return [
            (name, language, b"".join(name + b": " + value + b"\r\n" for name, value in reply.headers), reply.body)
            for name, replies in self._replies.items()
            for language, reply in replies.items()
        ]

    def direct(self, scope: Scope) -> Reply:
        """Answer any method: a proxy that shows this page in place of another may keep the method of the request."""
        # RFC 9110, section 5.3: lines of one name are one list.
        accepted = b",".join(value for name, value in scope["headers"] if name == b"accept-language")
        return self._replies[self._named(scope["query_string"])][chosen_language(accepted)]

    def _named(self, query: bytes) -> str:
        """The list that a query names once, as it is written; the general page's name for everything else."""
        values = [part[5:] for part in query.split(b"&") if part.startswith(b"list=")]
        name = values[0].decode("latin-1") if len(values) == 1 else _GENERAL
        return name if name in self._replies else _GENERAL


def _said(settings: StopPageSettings, listed: ListPageSettings | None, language: str) -> dict[str, Said]:
    """The operator's texts for a page: the list's before the general ones, each in this language first."""
    levels: list[tuple[StopTexts, str]] = []
    for table in (listed, settings) if listed else (settings,):
        levels += [(texts, "") for name, texts in table.languages.items() if name == language]
        levels.append((table, "" if settings.text_language == language else settings.text_language))
    levels.append((StopTexts(reason=LANGUAGES[language].reason), ""))
    said = {}
    for field in ListTexts.model_fields:
        found = (Said(getattr(texts, field, ""), spoken) for texts, spoken in levels)
        said[field] = next((text for text in found if text.text), Said("", ""))
    return said


def chosen_language(accepted: bytes) -> str:
    """The best language of an Accept-Language header (RFC 9110, section 12.5.4) that the page has, by first subtag."""
    there = [*LANGUAGES]
    return there[best_language(accepted, there)]
