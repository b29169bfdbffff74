"""One connection of the `dns` gateway: a client's, or one about a zone, which goes to the zones' server."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from blocker._native import DnsSession

if TYPE_CHECKING:
    from blocker._native import DnsFound, DnsQuestion
    from blocker.gateways.connection import Connection
    from blocker.gateways.dns import DnsListener
    from blocker.gateways.dns_load import Fate


def address_of(peer: object) -> str | None:
    """A peer's address; None: it came over a unix socket, whose mode says who may."""
    return str(peer[0]).partition("%")[0] if isinstance(peer, tuple) else None


class StreamSession:
    """One connection; see `blocker.gateways.connection.WaitingSession`."""

    def __init__(self, listener: DnsListener) -> None:
        self._listener = listener
        self._session = DnsSession(listener.service, False)
        self._connection: Connection | None = None
        self._waiting = 0
        self._draining = False
        self._unknown = False
        self._part: int | None = None  # of the network that the client is in
        self._first = b""  # of a connection that may be about a zone
        self._undecided = listener.zones is not None

    def attach(self, connection: Connection, peer: object, encrypted: bool) -> None:
        """See `WaitingSession`."""
        self._connection = connection
        self._session = DnsSession(self._listener.service, encrypted)
        address = address_of(peer)
        self._unknown = address is not None and not self._listener.service.knows(address)
        self._part = None if address is None else self._listener.service.part(address)
        if self._unknown and not self._undecided:
            connection.close()

    def feed(self, data: bytes) -> bytes:
        """See `Session`."""
        if self._undecided and not (data := self._decided(data)):
            return b""
        if self._unknown:
            return b""
        answers, questions = self._session.feed(data, asyncio.get_running_loop().time())
        for question in questions:
            self._waiting += 1
            self._listener.forwarder.ask(question, self._part, partial(self._answered, question))
        return answers

    def _decided(self, data: bytes) -> bytes:
        """What was read, once it shows that it is not about a zone; a connection that is goes to the zones' server."""
        self._first += data
        zones, connection = self._listener.zones, self._connection
        end = 2 + int.from_bytes(self._first[:2], "big")
        about = self._listener.service.names_zone(self._first[2:end])
        whole = len(self._first) >= max(2, end)
        if (about is None and not whole) or zones is None or connection is None:
            return b""
        data, self._first, self._undecided = self._first, b"", False
        if not about:
            return data
        transport, rest = connection.hand_over()
        zones.connection(transport, data + rest)
        return b""

    def _answered(self, question: DnsQuestion, found: DnsFound | None) -> Fate | None:
        self._waiting -= 1
        if self._connection is None:
            return None
        answer, fate = self._listener.service.answer(question, found, asyncio.get_running_loop().time())
        self._connection.answered(answer)
        return fate

    def drain(self) -> None:
        """See `Session`; there is no way to tell a client, which simply opens another connection."""
        self._draining = True
        if self.closing and self._connection is not None:
            self._connection.close()

    @property
    def closing(self) -> bool:
        """See `Session`."""
        stranger = self._unknown and not self._undecided
        return self._session.closing or stranger or (self._draining and not self.unfinished)

    @property
    def unfinished(self) -> bool:
        """See `Session`."""
        return self._waiting > 0 or bool(self._first) or self._session.unfinished
