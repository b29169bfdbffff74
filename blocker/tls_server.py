"""TLS for listening sockets: what is shown to peers, and a look at who comes before any of it is spoken.

asyncio's own server (`create_server` with `ssl`) makes a connection known once its handshake is over: until then it
takes a descriptor and is in no limit, and a handshake costs more than many answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Generic, TypeVar

from blocker.errors import ServeError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

# Connections that are accepted before others have a turn.
_AT_ONCE = 16
# After which accepting goes on where there was no descriptor left, in seconds.
_PAUSE_SECONDS = 0.5
#: What DNS is called in a handshake (ALPN; RFC 7858, RFC 9103 section 7.1).
DOT = "dot"

_Place = TypeVar("_Place")


class Guest(asyncio.BaseProtocol):
    """A protocol that knows of its peer.

    Attributes:
        connected: Whether it has one, or had; its place is then its own to leave.
    """

    __slots__ = ()
    connected: bool


class TlsServer(Generic[_Place]):
    """A listening socket.

    Args:
        listening: Listens already, and does not block.
        enter: Given a peer's address, a place for it; None: there is none for it.
        leave: Takes back the place of one whose handshake failed.
        protocol: Makes the protocol of one with such a place, once its handshake is over; the place is then its own.
        context: The certificate of the moment.
        handshake_seconds: Time for a handshake.
    """

    def __init__(
        self,
        listening: socket.socket,
        *,
        enter: Callable[[object], _Place | None],
        leave: Callable[[_Place], None],
        protocol: Callable[[_Place], Guest],
        context: Callable[[], ssl.SSLContext],
        handshake_seconds: Callable[[], float],
    ) -> None:
        self._socket = listening
        self._enter = enter
        self._leave = leave
        self._protocol = protocol
        self._context = context
        self._handshake_seconds = handshake_seconds
        self._shaking: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._later: asyncio.TimerHandle | None = None
        self._listen()

    def close(self) -> None:
        """Accept nothing more, and give up handshakes that are under way."""
        self._loop.remove_reader(self._socket.fileno())
        if self._later is not None:
            self._later.cancel()
        for task in self._shaking:
            task.cancel()
        self._socket.close()

    def _listen(self) -> None:
        self._later = None
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                accepted, peer = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # no descriptor is left; the socket stays readable
                self._loop.remove_reader(self._socket.fileno())
                self._later = self._loop.call_later(_PAUSE_SECONDS, self._listen)
                return
            place = self._enter(peer)
            if place is None:
                accepted.close()
                continue
            accepted.setblocking(False)
            task = self._loop.create_task(self._shake_hands(accepted, place))
            self._shaking.add(task)
            task.add_done_callback(self._shaking.discard)

    async def _shake_hands(self, accepted: socket.socket, place: _Place) -> None:
        connection = self._protocol(place)
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection, accepted, ssl=self._context(), ssl_handshake_timeout=self._handshake_seconds()
            )
        except (OSError, asyncio.CancelledError):
            if not connection.connected:
                with contextlib.suppress(OSError):
                    accepted.close()
                self._leave(place)


def server_context(
    certificate: Path, key: Path, *, of: str, minimum: ssl.TLSVersion, client_ca: Path | None = None
) -> ssl.SSLContext:
    """What is shown to peers: a new one each time, since one that is in use would be left with half of what fails.

    Args:
        certificate: PEM file with the certificates.
        key: PEM file with the private key, without a password.
        of: The section of the configuration, for errors.
        minimum: The oldest version of TLS that is spoken.
        client_ca: PEM file with the authorities of which a peer must show a certificate; None: it shows none.

    Raises:
        ServeError: A file cannot be used; says which, and nothing of what is in it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = minimum
    context.set_alpn_protocols([DOT])
    try:
        context.load_cert_chain(certificate, key, password=str)  # nobody is there to be asked for one
    except (OSError, ssl.SSLError) as error:
        raise ServeError(f"{of}: tls_certificate and tls_key cannot be used: {type(error).__name__}") from None
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except (OSError, ssl.SSLError) as error:
            raise ServeError(f"{of}: tls_client_ca cannot be used: {type(error).__name__}") from None
        context.verify_mode = ssl.CERT_REQUIRED
        # A session that is taken up again shows no certificate, whatever has become of it since.
        context.num_tickets = 0
    return context


def named(certificate: Path) -> tuple[list[str], list[IPv4Address | IPv6Address]]:
    """The names, in lower case, and the addresses that the first of a file's certificates is for.

    Raises:
        ServeError: There is none in it.
    """
    from cryptography import x509  # only where there is TLS

    try:
        extensions = x509.load_pem_x509_certificates(certificate.read_bytes())[0].extensions
        found = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [], []
    except (OSError, ValueError) as error:
        raise ServeError(f"tls_certificate cannot be read: {type(error).__name__}") from None
    addresses = [one for one in found.get_values_for_type(x509.IPAddress) if isinstance(one, IPv4Address | IPv6Address)]
    return [name.lower() for name in found.get_values_for_type(x509.DNSName)], addresses


def expiry(certificate: Path) -> float:
    """When the first of a file's certificates ends, in Unix seconds.

    Raises:
        ServeError: There is none in it.
    """
    from cryptography.x509 import load_pem_x509_certificates  # only where there is TLS

    try:
        return min(one.not_valid_after_utc.timestamp() for one in load_pem_x509_certificates(certificate.read_bytes()))
    except (OSError, ValueError) as error:
        raise ServeError(f"tls_certificate cannot be read: {type(error).__name__}") from None
