"""Pages of the console: templates filled in, with headers that let nothing be loaded, framed, kept or run.

`Referrer-Policy: same-origin` and not `no-referrer`: under the latter browsers send `Origin: null` with a form, and the
console could not tell its own forms from others.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastapi import Response

from blocker.control.stop_page import page_environment, page_policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import tzinfo

_HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
}
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


class Pages:
    """Renders.

    Args:
        zone: Whose wall clock times are told by.
        clock: Unix seconds now.
    """

    def __init__(self, zone: tzinfo, clock: Callable[[], float]) -> None:
        self._zone = zone
        self._clock = clock
        environment = page_environment()
        environment.filters.update(number=number, duration=duration, moment=self.moment, iso=iso)
        self._style = environment.get_template("console/style.css.j2").render().strip()
        self._policy = page_policy(self._style, form_action="'self'")
        self._environment = environment

    def page(self, template: str, status: int = 200, **values: Any) -> Response:  # noqa: ANN401 - what templates show
        """A page."""
        text = self._environment.get_template(f"console/{template}.html.j2").render(
            style=self._style, now=self._clock(), **values
        )
        headers = {**_HEADERS, "content-security-policy": self._policy}
        return Response(text, status, headers=headers, media_type="text/html; charset=utf-8")

    def moment(self, seconds: float) -> str:
        """A time on the wall clock, with its zone."""
        return datetime.fromtimestamp(seconds, self._zone).strftime("%Y-%m-%d %H:%M %Z")


def iso(seconds: float) -> str:
    """A time for machines."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def number(value: int) -> str:
    """With a thin space between thousands, which no reader takes for a decimal point."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def duration(seconds: float) -> str:
    """In its two largest units, such as `3 h 12 min`; `47 s` under a minute."""
    left, parts = int(seconds), []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}\N{NO-BREAK SPACE}{unit}")
    return " ".join(parts[:2]) or f"{left}\N{NO-BREAK SPACE}s"


def redirect(path: str) -> Response:
    """To another page of the console, with GET."""
    return Response(status_code=303, headers={**_HEADERS, "location": path})
