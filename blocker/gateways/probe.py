"""Asks a stream gateway about a canary over a connection of its own, at the address that it is bound to."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from blocker.gateways.canaries import NoAnswer
from blocker.sockets import reachable

if TYPE_CHECKING:
    from blocker.gateways.canaries import Answer
    from blocker.gateways.listener import Listener


class StreamProbe(ABC):
    """A `blocker.gateways.canaries.Probe`; a subclass speaks the protocol.

    Args:
        listener: Asked at the first address that it is bound to.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.gateway = listener.name
        self.policies = (listener.limits.policy,)

    async def ask(self, url: str, policy: str) -> Answer:
        """See `Probe`; the time limit is the caller's."""
        if policy not in self.policies or not self._listener.addresses:
            raise NoAnswer(f"the {self.gateway} gateway does not listen")
        host, _, port = reachable(self._listener.addresses[0]).rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            return await self.converse(reader, writer, url)
        except asyncio.IncompleteReadError:
            raise NoAnswer(f"the {self.gateway} gateway ended the connection") from None
        finally:
            writer.close()

    @abstractmethod
    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, url: str) -> Answer:
        """Ask over an open connection.

        Raises:
            NoAnswer: What comes back is no verdict. An IncompleteReadError is taken for the same.
        """
