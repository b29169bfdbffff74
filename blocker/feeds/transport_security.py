"""Transfers over TLS (RFC 9103): what a node shows for it, and whether a connection is as it must be.

TLS 1.3 alone (section 7.2), and the secondary says by ALPN that it speaks DNS (section 7.1). Who may have the zone is
told by its certificate, where `tls_client_ca` asks for one, and by its key or network (section 7.5). Sessions are taken
up again (RFC 7858 section 3.4), but where certificates must be shown; nothing is read before a handshake is over, so
early data does not exist.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from blocker.errors import ServeError
from blocker.tls_server import DOT, Guest, expiry, server_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blocker.feed_section import RpzSettings

_OF = "feeds.rpz"
_Place = TypeVar("_Place")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a node shows.

    Attributes:
        context: For new connections.
        expires: When the first certificate ends, in Unix seconds.
    """

    context: ssl.SSLContext
    expires: float


def credentials(settings: RpzSettings) -> Credentials | None:
    """What the files of the configuration hold by now; None: transfers go without TLS.

    Raises:
        ServeError: A file cannot be used, or the key is not the certificate's.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None or key is None:
        return None
    context = server_context(certificate, key, of=_OF, minimum=ssl.TLSVersion.TLSv1_3, client_ca=settings.tls_client_ca)
    try:
        return Credentials(context, expiry(certificate))
    except ServeError as error:
        raise ServeError(f"{_OF}: {error}") from None


def is_protected(link: ssl.SSLObject | None, settings: RpzSettings) -> bool:
    """Whether a connection is as a transfer's must be; the dns gateway's clients may come with less.

    Args:
        link: Its TLS; None: it is clear text.
        settings: What must be shown.
    """
    if link is None or link.version() != "TLSv1.3":
        return False
    if settings.tls_client_ca is not None and not link.getpeercert():  # which was checked in the handshake
        return False
    return not settings.tls_alpn or link.selected_alpn_protocol() == DOT


class ZoneGuest(asyncio.StreamReaderProtocol, Guest, Generic[_Place]):
    """A connection whose reader and writer are there once its handshake is over.

    Args:
        connected: Serves it; the place is then its own to leave.
        place: What `TlsServer` took for it.
    """

    def __init__(
        self, connected: Callable[[_Place, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], place: _Place
    ) -> None:
        super().__init__(asyncio.StreamReader(), partial(connected, place))
        self.connected = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self.connected = True
        super().connection_made(transport)
