"""The stop page: what somebody sees instead of a blocked page (RFC 7725, lists.md in short).

It says that access was stopped, by whom, why, under which law, how to complain and where to get help. It says nothing
about the request, because it knows nothing of it: the page is made once, at the start, and the same for everybody who
reads the same language. No cookie, no script, nothing from elsewhere; nobody logs that it was shown.

Its own words are in `stop_texts.py`, the texts of the settings are the operator's, who may give them in any language of
the page.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from blocker._native import best_language
from blocker.control.reply import Reply
from blocker.control.stop_texts import LANGUAGES
from blocker.sections import StopTexts

if TYPE_CHECKING:
    from starlette.types import Scope

    from blocker.sections import StopPageSettings

UNAVAILABLE_FOR_LEGAL_REASONS = 451


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
        self.configure(settings)

    def configure(self, settings: StopPageSettings) -> None:
        """Make the page anew, with other texts."""
        environment = page_environment()
        style = environment.get_template("style.css.j2").render().strip()
        template = environment.get_template("stop.html.j2")
        replies = {}
        for language, texts in LANGUAGES.items():
            own = next((own for name, own in settings.languages.items() if name == language), StopTexts())
            said = {name: getattr(own, name) or getattr(settings, name) for name in StopTexts.model_fields}
            said["reason"] = said["reason"] or texts.reason
            body = template.render(language=language, texts=texts, page=settings, said=said, style=style).encode()
            headers = {
                "link": f'<{settings.operator_url}>; rel="blocked-by"',
                "content-language": language,
                "vary": "Accept-Language",
                "content-security-policy": page_policy(style),
            }
            reply = Reply.of(UNAVAILABLE_FOR_LEGAL_REASONS, "text/html; charset=utf-8", body, headers)
            replies[language] = reply
        self._replies = replies

    def as_bytes(self) -> list[tuple[str, str, bytes, bytes]]:
        """The page for gateways: list (empty: none in particular), language, header lines, HTML; English first."""
        return [
            ("", language, b"".join(name + b": " + value + b"\r\n" for name, value in reply.headers), reply.body)
            for language, reply in self._replies.items()
        ]

    def direct(self, scope: Scope) -> Reply:
        """Answer any method: a proxy that shows this page in place of another may keep the method of the request."""
        # RFC 9110, section 5.3: lines of one name are one list.
        accepted = b",".join(value for name, value in scope["headers"] if name == b"accept-language")
        return self._replies[chosen_language(accepted)]


def chosen_language(accepted: bytes) -> str:
    """The best language of an Accept-Language header (RFC 9110, section 12.5.4) that the page has, by first subtag."""
    there = [*LANGUAGES]
    return there[best_language(accepted, there)]
