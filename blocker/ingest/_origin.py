"""What a file and an https address have in common once open: bytes, a state to remember, faults, a deadline."""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from blocker.errors import FetchError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from blocker.ingest.source import Source

# Large enough that the hop to a parser thread is lost in the parsing, small enough to hold several at once.
CHUNK_BYTES = 2**20

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Origin:
    """An open source that is not known to be unchanged.

    Attributes:
        total: Bytes that will come, unpacked; None when that is not known before the end.
        state: What to remember so that the next look can ask whether anything changed; holds no address.
        chunks: The bytes, in pieces of at most 1 MiB. Raises `FetchError` when they are cut or come too slowly.
    """

    total: int | None
    state: dict[str, str]
    chunks: AsyncIterator[bytes]


class Deadline:
    """The one time limit of a whole look at a source, counted from its making."""

    __slots__ = ("_at", "_source")

    def __init__(self, source: Source) -> None:
        self._source = source
        self._at = asyncio.get_running_loop().time() + source.timeout_seconds

    async def wait(self, step: Awaitable[_T]) -> _T:
        """Await one step.

        Raises:
            FetchError: The time is over; the step is cancelled.
        """
        try:
            async with asyncio.timeout_at(self._at):
                return await step
        except TimeoutError:
            raise fault(self._source, f"took longer than timeout_seconds = {self._source.timeout_seconds:g}") from None


def fault(source: Source, what: str) -> FetchError:
    """An error that names the list and, for an address, its host; never the rest of the address."""
    return FetchError(f"{source.name}: {what}" if source.host is None else f"{source.name}: {source.host}: {what}")


def check_address(address: str) -> None:
    """Refuse what is no safe address of a download; the message never holds it.

    Raises:
        ValueError: It is no https URL, or http to another machine.
    """
    try:
        parts = urlsplit(address)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is no URL") from None
    if not host or parts.fragment:
        raise ValueError("must be an https URL with a host and without a fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ValueError("must begin with https://; http:// is allowed to this machine only")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: localhost, 127.0.0.0/8 or ::1."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
