"""The stop page: what somebody sees instead of a blocked page (RFC 7725, lists.md in short).

It says that access was stopped, by whom, why, under which law, how to complain and where to get help. It says nothing
about the request, because it knows nothing of it: the page is made once, at the start, and the same for everybody who
reads the same language. No cookie, no script, nothing from elsewhere; nobody logs that it was shown.

Another language is one more entry in `LANGUAGES`; the texts of the settings are the operator's own.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from blocker.control.reply import Reply

if TYPE_CHECKING:
    from starlette.types import Scope

    from blocker.settings import StopPageSettings

UNAVAILABLE_FOR_LEGAL_REASONS = 451
DEFAULT_LANGUAGE = "en"


@dataclass(frozen=True, slots=True)
class Texts:
    """What the page says of itself in one language."""

    title: str
    stopped: str
    by: str
    why: str
    law: str
    complaint: str
    help: str
    privacy: str


LANGUAGES = {
    "en": Texts(
        title="This page is blocked",
        stopped="Access to the page you asked for was stopped.",
        by="Who stopped it",
        why="Why",
        law="Under which law",
        complaint="If you think this is a mistake",
        help="Where to get help",
        privacy="It is not recorded that you saw this notice. It sets no cookie and loads nothing from elsewhere.",
    ),
}


def page_environment() -> Environment:
    """Templates of the control plane, with everything escaped."""
    return Environment(
        loader=PackageLoader("blocker.control", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page_policy(style: str) -> str:
    """A Content-Security-Policy that allows this one style sheet and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class StopPage:
    """The page in every language.

    Args:
        settings: The operator's texts.
    """

    def __init__(self, settings: StopPageSettings) -> None:
        environment = page_environment()
        style = environment.get_template("style.css.j2").render().strip()
        template = environment.get_template("stop.html.j2")
        self._replies = {}
        for language, texts in LANGUAGES.items():
            body = template.render(language=language, texts=texts, page=settings, style=style).encode()
            headers = {
                "link": f'<{settings.operator_url}>; rel="blocked-by"',
                "content-language": language,
                "vary": "Accept-Language",
                "content-security-policy": page_policy(style),
            }
            reply = Reply.of(UNAVAILABLE_FOR_LEGAL_REASONS, "text/html; charset=utf-8", body, headers)
            self._replies[language] = reply

    def as_bytes(self) -> list[tuple[str, str, bytes, bytes]]:
        """The page for gateways: list (empty: none in particular), language, header lines, HTML; English first."""
        return [
            ("", language, b"".join(name + b": " + value + b"\r\n" for name, value in reply.headers), reply.body)
            for language, reply in self._replies.items()
        ]

    def direct(self, scope: Scope) -> Reply:
        """Answer any method: a proxy that shows this page in place of another may keep the method of the request."""
        for name, value in scope["headers"]:
            if name == b"accept-language":
                return self._replies[chosen_language(value.decode("latin-1"))]
        return self._replies[DEFAULT_LANGUAGE]


def chosen_language(accepted: str) -> str:
    """The best language of an Accept-Language header (RFC 9110, section 12.5.4) that the page has, by first subtag."""
    best, best_weight = DEFAULT_LANGUAGE, 0.0
    for part in accepted.split(","):
        tag, _, parameter = part.partition(";")
        language = tag.strip().lower().partition("-")[0]
        weight = _weight(parameter)
        if language in LANGUAGES and weight > best_weight:
            best, best_weight = language, weight
    return best


def _weight(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
