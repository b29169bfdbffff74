"""Binding sockets, with errors that say what to do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import TYPE_CHECKING, TypeVar

import structlog

from blocker.errors import AddressInUse, ServeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

# What a socket that listens everywhere is called, and how it is reached from here.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - nothing is bound
# Connections waiting to be accepted, as nginx has it.
BACKLOG = 511
# How long a start waits for an address that is in use, in seconds. What is left of a killed node ends in a fraction
# of one; who waits longer waits for a program that means to stay.
PATIENCE_SECONDS = 3.0
_LOOK_SECONDS = 0.05
# From which address a datagram was meant for (ip(7)); Python has no name for it yet.
_IP_PKTINFO = 8


def bind(
    host: str,
    port: int,
    setting: str,
    *,
    reuse_port: bool = False,
    kind: socket.SocketKind = socket.SOCK_STREAM,
) -> list[socket.socket]:
    """Listen on every address that `host` stands for.

    Args:
        host: A name or an address, or several with commas between; `::` is IPv6 alone.
        port: TCP or UDP port; 0 takes a free one, the same for all addresses.
        setting: Name of the setting or variable that chose the port, for the error.
        reuse_port: Share the addresses with the other sockets of this user that do so too (SO_REUSEPORT, socket(7)):
            each has a queue of its own, among which the kernel spreads connections.
        kind: SOCK_STREAM for TCP, SOCK_DGRAM for UDP.

    Raises:
        AddressInUse: An address is in use; says what to do.
        ServeError: The name is unknown, or an address is foreign or not allowed; says what to do.
    """
    found = []
    for one in map(str.strip, host.split(",")):
        there = []
        if one:  # nothing is everywhere for the system
            with contextlib.suppress(OSError):
                there = socket.getaddrinfo(one, port, type=kind, flags=socket.AI_PASSIVE)
        if not there:
            raise ServeError(f"no address for the host {one!r}; set an address such as 127.0.0.1")
        found += there
    sockets: list[socket.socket] = []
    for family, _kind, protocol, _name, address in dict.fromkeys(found):
        try:
            sockets.append(_listen(family, kind, protocol, (address[0], port, *address[2:]), reuse_port=reuse_port))
        except OSError as error:
            for opened in sockets:
                opened.close()
            kind_of_fault = AddressInUse if error.errno == errno.EADDRINUSE else ServeError
            raise kind_of_fault(_reason(error, shown(str(address[0]), port), setting)) from None
        port = sockets[0].getsockname()[1]
    return sockets


def bind_both(host: str, port: int, setting: str) -> list[tuple[socket.socket, socket.socket]]:
    """Listen by TCP, and by UDP at the same addresses and port.

    Args:
        host: See `bind`, as the rest.
        port: See `bind`.
        setting: See `bind`.

    Raises:
        ServeError: An address cannot be had; says what to do.
    """
    streams = bind(host, port, setting)
    both: list[tuple[socket.socket, socket.socket]] = []
    try:
        both.extend((one, _beside(one)) for one in streams)
    except OSError:
        address = shown(*streams[0].getsockname()[:2])
        for one in streams:
            one.close()
        for _, datagrams in both:
            datagrams.close()
        raise ServeError(f"address {address} cannot be had for UDP; set {setting} or stop the other program") from None
    return both


def close_both(both: Iterable[tuple[socket.socket, socket.socket]]) -> None:
    """Close what `bind_both` gave."""
    for pair in both:
        for one in pair:
            one.close()


async def when_free(start: Callable[[], Awaitable[_T]], patience: float = PATIENCE_SECONDS) -> _T:
    """Start something that binds; wait a little for an address that processes of an ended node may still hold.

    Returns:
        What `start` does.

    Raises:
        AddressInUse: It was not let go in time.
        ServeError: As `start` raises it.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    told = False
    while True:
        try:
            return await start()
        except AddressInUse as error:
            if loop.time() > end:
                raise
            if not told:
                log.warning("waiting for an address that is in use", detail=str(error), seconds=patience)
            told = True
            await asyncio.sleep(_LOOK_SECONDS)


def _listen(
    family: int, kind: socket.SocketKind, protocol: int, address: tuple[str | int, ...], *, reuse_port: bool
) -> socket.socket:
    opened = socket.socket(family, kind, protocol)
    try:
        if kind == socket.SOCK_STREAM:  # of UDP it would let others take the port too
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(address)
        if kind == socket.SOCK_STREAM:
            opened.listen(BACKLOG)
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened


def _beside(stream: socket.socket) -> socket.socket:
    """A UDP socket at the address of a TCP one."""
    opened = socket.socket(stream.family, socket.SOCK_DGRAM)
    try:
        if stream.family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(stream.getsockname())
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened


def answer_from_asked(one: socket.socket) -> None:
    """Have a UDP socket that listens everywhere say at which address each datagram came: answers leave there."""
    address = str(one.getsockname()[0])
    if address == "0.0.0.0":  # noqa: S104 - nothing is bound
        one.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    elif address == "::":
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)


def shown(host: str, port: int) -> str:
    """An address as people write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: OSError, address: str, setting: str) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"address {address} is in use; set {setting} or stop the other program"
        case errno.EADDRNOTAVAIL:
            return f"address {address} is not one of this machine; set an address that is, or 0.0.0.0 for all"
        case errno.EACCES:
            return (
                f"address {address} is not allowed to this user; set {setting} to 1024 or more, or give the "
                "program CAP_NET_BIND_SERVICE (deploy/systemd/low-ports.conf)"
            )
        case _:
            return f"address {address} cannot be listened on ({errno.errorcode.get(error.errno or 0, 'unknown')})"


def reachable(address: str) -> str:
    """Where a listening socket is reached from this machine: `0.0.0.0:80` at `127.0.0.1:80`."""
    host, _, port = address.rpartition(":")
    return f"{_EVERYWHERE.get(host, host)}:{port}"
