"""A whole HTTP response, ready to be sent through ASGI, and the headers that all of them carry."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Send

RawHeaders = list[tuple[bytes, bytes]]

# Nothing here is for caches, frames, other origins or a referrer; pages bring their own, wider policy for their style.
SECURITY_HEADERS: RawHeaders = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


class Reply(NamedTuple):
    """Status, headers as ASGI wants them, and body."""

    status: int
    headers: RawHeaders
    body: bytes

    @classmethod
    def of(cls, status: int, media_type: str, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        """A reply with `headers`, the security headers it does not set itself, and its type and length."""
        own = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]
        names = {name for name, _ in own}
        return cls(
            status,
            [
                (b"content-type", media_type.encode("latin-1")),
                (b"content-length", b"%d" % len(body)),
                *own,
                *(header for header in SECURITY_HEADERS if header[0] not in names),
            ],
            body,
        )

    async def send(self, send: Send, *, head: bool = False) -> None:
        """Send it; without its body in answer to a HEAD."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"" if head else self.body})
