"""The node's socket for its route feeds and for `blocker routes`, over `blocker.gateways.channel`.

Feeds (`{"hello": "bgp"}`) are told all routes when they come, then each change; they tell back what ExaBGP took, which
of its neighbors' sessions are up, and how many routes each carries:

    {"told": 2, "errors": 0, "neighbors": {"192.0.2.1": [true, 2]}}

Who asks for the report (`{"show": true}`) gets it if it is the node's own user or root: it has names of listed
hosts, which a feed's user has no need of. The same may give orders (`{"order": "withdraw", "with": "a reason"}`), each
of which is answered with what came of it, or with why it was refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from blocker.errors import ServeError
from blocker.feeds.turns import encoded
from blocker.gateways import channel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from blocker.gateways.channel import Message

    Order = Callable[[object], Awaitable[Mapping[str, Any]]]

#: Its name in the data directory.
SOCKET = "routes.sock"
_UCRED = struct.Struct("3i")  # pid, uid, gid: unix(7)


class RouteSocket:
    """Listens for feeds and reporters.

    Args:
        path: Where.
        group: Whose members may come too.
        everything: The message with all routes.
        report: Makes the report.
        orders: What may be ordered, by name.
    """

    def __init__(
        self,
        path: Path,
        group: str | None,
        everything: Callable[[], Mapping[str, Any]],
        report: Callable[[], Awaitable[Mapping[str, Any]]],
        orders: Mapping[str, Order] | None = None,
    ) -> None:
        self.path = path
        self._group = group
        self._everything = everything
        self._report = report
        self._orders = orders or {}
        self._opened: socket.socket | None = None
        self._peers: set[Peer] = set()
        self._answers: set[asyncio.Task[None]] = set()

    @property
    def feeds(self) -> Sequence[Peer]:
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
        for task in self._answers:
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
                self._peers.add(Peer(self, accepted))

    def greet(self, peer: Peer) -> None:
        """A feed has come."""
        peer.channel.send(self._everything())

    def show(self, peer: Peer) -> None:
        """Somebody asks for the report."""
        self._answer(peer, "report", self._report())

    def order(self, peer: Peer, name: str, given: object) -> None:
        """Somebody gives an order."""
        if (order := self._orders.get(name)) is None:
            peer.channel.send({"refused": "this node has no routes: see [routes] in blocker.toml"})
        else:
            self._answer(peer, "done", order(given))

    def _answer(self, peer: Peer, what: str, work: Awaitable[Mapping[str, Any]]) -> None:
        async def answer() -> None:
            try:
                pieces = await encoded(await work)
            except ServeError as error:
                peer.channel.send({"refused": str(error)})
            else:
                peer.channel.send_pieces([f'{{"{what}":'.encode(), *pieces, b"}"])

        task = asyncio.get_running_loop().create_task(answer())
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    def gone(self, peer: Peer) -> None:
        """Forget a peer."""
        self._peers.discard(peer)


class Peer:
    """Somebody who is connected; if it is a feed, what it last said."""

    def __init__(self, host: RouteSocket, opened: socket.socket) -> None:
        self._host = host
        self.is_feed = False
        self.said = False  # whether it has told back anything yet
        self.told = 0
        self.errors = 0
        self.neighbors: dict[str, tuple[bool, int]] = {}
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
                self.said, self.told, self.errors = True, told, errors
                self.neighbors = dict(_neighbors(message.get("neighbors")))
            case {"show": True} if self._trusted:
                self._host.show(self)
            case {"order": str(name)} if self._trusted:
                self._host.order(self, name, message.get("with"))
            case {"show": True} | {"order": _}:
                self.channel.send({"refused": "only the node's own user and root are shown the routes, or may order"})


def _neighbors(told: object) -> Iterator[tuple[str, tuple[bool, int]]]:
    """What a feed says of ExaBGP's neighbors; only addresses become labels."""
    for name, carried in told.items() if isinstance(told, dict) else ():
        match carried:
            case [bool(up), int(routes)]:
                with contextlib.suppress(ValueError):
                    yield str(ip_address(name)), (up, routes)


async def ask_report(path: Path) -> Mapping[str, Any]:
    """The report of a running node.

    Raises:
        ServeError: No node is there, it has no routes, or it does not answer this user.
    """
    return await _ask(path, {"show": True}, "report")


async def give_order(path: Path, order: str, given: str | None = None) -> Mapping[str, Any]:
    """Have a running node withdraw or resume its routes; what came of it.

    Raises:
        ServeError: As `ask_report`, or it could not be done whole.
    """
    return await _ask(path, {"order": order, "with": given}, "done")


async def _ask(path: Path, question: Message, wanted: str) -> Mapping[str, Any]:
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
        asking.send(question)
        async with asyncio.timeout(60):
            message = await answer
    except TimeoutError:
        raise ServeError("the node does not answer") from None
    finally:
        asking.close()
    if isinstance(found := message.get(wanted), dict):
        return found
    if "refused" in message:
        raise ServeError(str(message["refused"]))
    raise ServeError("the node went before it answered; ask again")
