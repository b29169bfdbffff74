"""Accepting connections over TLS, with a look at who comes before any of it is spoken.

asyncio's own server (`create_server` with `ssl`) makes a connection known once its handshake is over: until then it
takes a descriptor and is in no limit, and a handshake costs more than many answers.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from blocker.gateways.connection import StreamConnection

# Connections that are accepted before others have a turn.
_AT_ONCE = 16
# After which accepting goes on where there was no descriptor left, in seconds.
_PAUSE_SECONDS = 0.5


class TlsServer:
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
        enter: Callable[[object], int | None],
        leave: Callable[[int], None],
        protocol: Callable[[int], StreamConnection],
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

    async def _shake_hands(self, accepted: socket.socket, place: int) -> None:
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
