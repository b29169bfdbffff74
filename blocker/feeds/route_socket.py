"""The node's socket for its route feeds and for `blocker routes`, over `blocker.gateways.channel`.

Feeds (`{"hello": "bgp"}`) are told all routes when they come, then each change; they tell back what ExaBGP took. Who
asks for the report (`{"show": true}`) gets it if it is the node's own user or root: it has names of listed hosts, which
a feed's user has no need of.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from blocker.errors import ServeError
from blocker.feeds.turns import encoded
from blocker.gateways import channel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from blocker.gateways.channel import Message

_UCRED = struct.Struct("3i")  # pid, uid, gid: unix(7)


class RouteSocket:
    """Listens for feeds and reporters.

    Args:
        path: Where.
        group: Whose members may come too.
        everything: The message with all routes.
        report: Makes the report.
    """

    def __init__(
        self,
        path: Path,
        group: str | None,
        everything: Callable[[], Mapping[str, Any]],
        report: Callable[[], Awaitable[Mapping[str, Any]]],
    ) -> None:
        self.path = path
        self._group = group
        self._everything = everything
        self._report = report
        self._opened: socket.socket | None = None
        self._peers: set[_Peer] = set()
        self._reports: set[asyncio.Task[None]] = set()

    @property
    def feeds(self) -> Sequence[_Peer]:
        """The feeds that are there."""
        return [peer for peer in self._peers if peer.is_feed]

    def start(self) -> None:
        """Bind and accept.

        Raises:
            ServeError: The socket cannot be had, or its group is unknown.
        """
        self._opened = channel.listen_for(self.path, self._group, "routes")
        asyncio.get_running_loop().add_reader(self._opened.fileno(), self._accept)

    def stop(self) -> None:
        """Let all go and remove the socket; may be called twice."""
        if self._opened is not None:
            asyncio.get_running_loop().remove_reader(self._opened.fileno())
            channel.unlisten(self._opened, self.path)
            self._opened = None
        for peer in list(self._peers):
            peer.channel.close()
        self._peers.clear()
        for task in self._reports:
            task.cancel()

    def tell(self, message: Mapping[str, Any]) -> None:
        """Tell all feeds."""
        for peer in self.feeds:
            peer.channel.send(message)

    def tell_everything(self) -> None:
        """Tell all feeds all routes."""
        self.tell(self._everything())

    def _accept(self) -> None:
        if self._opened is not None:
            with contextlib.suppress(OSError):
                accepted, _ = self._opened.accept()
                self._peers.add(_Peer(self, accepted))

    def greet(self, peer: _Peer) -> None:
        """A feed has come."""
        peer.channel.send(self._everything())

    def show(self, peer: _Peer) -> None:
        """Somebody asks for the report."""

        async def answer() -> None:
            pieces = await encoded(await self._report())
            peer.channel.send_pieces([b'{"report":', *pieces, b"}"])

        task = asyncio.get_running_loop().create_task(answer())
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    def gone(self, peer: _Peer) -> None:
        """Forget a peer."""
        self._peers.discard(peer)


class _Peer:
    def __init__(self, host: RouteSocket, opened: socket.socket) -> None:
        self._host = host
        self.is_feed = False
        self.told = 0
        self.errors = 0
        self.pid, user, _ = _UCRED.unpack(opened.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        self._trusted = user in (0, os.geteuid())
        self.channel = channel.Channel(opened, self._message, lambda: host.gone(self))

    def _message(self, message: Message, descriptors: Sequence[int]) -> None:
        for one in descriptors:
            os.close(one)
        match message:
            case {"hello": "bgp"}:
                self.is_feed = True
                self._host.greet(self)
            case {"told": int(told), "errors": int(errors)}:
                self.told, self.errors = told, errors
            case {"show": True} if self._trusted:
                self._host.show(self)
            case {"show": True}:
                self.channel.send({"refused": "only the node's own user and root are shown the routes"})


async def ask_report(path: Path) -> Mapping[str, Any]:
    """The report of a running node.

    Raises:
        ServeError: No node is there, it has no routes, or it does not answer this user.
    """
    answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def heard(message: Message, descriptors: Sequence[int]) -> None:
        for one in descriptors:
            os.close(one)
        if not answer.done():
            answer.set_result(message)

    try:
        opened = channel.connect(path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise ServeError(f"no node with routes answers at {path}: {reason}; see [routes] in blocker.toml") from None
    asking = channel.Channel(opened, heard, lambda: heard({}, ()))
    try:
        asking.send({"show": True})
        async with asyncio.timeout(60):
            message = await answer
    except TimeoutError:
        raise ServeError("the node does not answer") from None
    finally:
        asking.close()
    match message:
        case {"report": dict(report)}:
            return report
        case {"refused": str(reason)}:
            raise ServeError(reason)
    raise ServeError("the node went before it answered; ask again")
