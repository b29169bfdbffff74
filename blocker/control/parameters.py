"""Query strings, read strictly: an unknown or repeated parameter is refused, since it usually is the rest of an URL.

`/v1/check?url=http://h/a?b=1&c=2` asks for `http://h/a?b=1`, not for what was meant; a quiet wrong answer would be the
worst one. Nothing of the query is repeated in the refusal.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from blocker.control.problems import invalid_request

_ENCODE = "percent-encode an address before it goes into a query string"


def parameters(query: bytes, allowed: tuple[bytes, ...]) -> dict[bytes, bytes]:
    """The parameters of a query string (application/x-www-form-urlencoded), decoded to bytes.

    Raises:
        Problem: One is unknown or given twice.
    """
    found: dict[bytes, bytes] = {}
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        if not part:
            continue
        if name not in allowed:
            known = ", ".join(known.decode() for known in allowed)
            raise invalid_request(("query", f"unknown parameter; known are: {known}; {_ENCODE}"))
        if name in found:
            raise invalid_request((name.decode(), f"given twice; {_ENCODE}"))
        found[name] = unquote_to_bytes(value.replace(b"+", b" "))
    return found


def policy_of(found: dict[bytes, bytes]) -> str:
    """The policy's name; what is no text names no policy and is refused by the engine."""
    return found.get(b"policy", b"default").decode("utf-8", "replace")
