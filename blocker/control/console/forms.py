"""Forms of the console: where they may come from, and what is in them.

The cookie is `SameSite=Strict`, which already keeps other sites from using it. Beside that a form must say that it
comes from this very site (`Sec-Fetch-Site`, or `Origin` where a browser sends no such field, as over plain HTTP), and
carry what only a page of this session knows. Any one of the three would do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from blocker.control.parameters import parameters
from blocker.control.problems import Problem, invalid_request, too_large

if TYPE_CHECKING:
    from fastapi import Request

# Largest form: an address of 64 KiB with every byte percent-encoded, and room for the rest.
FORM_BYTES = 256 * 1024

_MEDIA_TYPE = "application/x-www-form-urlencoded"


def refuse_foreign(request: Request) -> None:
    """Refuse a form that does not say that it comes from this site.

    Raises:
        Problem: 403.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    # The scheme is the browser's business: a proxy in front may speak https where this node speaks http.
    same = site == "same-origin" if site is not None else _host_of(origin) == request.headers.get("host", "").lower()
    if not same:
        raise Problem(403, "This form did not come from this console; open the console and try again there.")


def came_by_https(request: Request) -> bool:
    """Whether the browser itself spoke https, as it says in `Origin`."""
    return request.headers.get("origin", "").lower().startswith("https://")


async def fields_of(request: Request, *allowed: str) -> dict[str, bytes]:
    """The fields of a form.

    Raises:
        Problem: 413 for one that is too large, 415 for what is no form, 422 for unknown or repeated fields.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _MEDIA_TYPE:
        raise Problem(415, f"The body must be {_MEDIA_TYPE}.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES:
            raise too_large(FORM_BYTES)
    found = parameters(bytes(body), tuple(name.encode() for name in allowed))
    return {name.decode(): value for name, value in found.items()}


def text_of(fields: dict[str, bytes], name: str) -> str:
    """A field as text; empty if it is not there.

    Raises:
        Problem: 422 if it is not UTF-8.
    """
    try:
        return fields.get(name, b"").decode()
    except UnicodeDecodeError:
        raise invalid_request((name, "must be text in UTF-8")) from None


def _host_of(origin: str | None) -> str | None:
    """Host and port of an Origin; None for one that is opaque or missing."""
    try:
        return urlsplit(origin or "").netloc.lower() or None
    except ValueError:
        return None
