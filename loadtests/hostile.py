"""Peers of the check gateway that mean no good: `hostile.py PORT COUNT`, started by `swaps.py`, ended by its death.

In turns one is slow (a byte now and then), never ends its request, sends garbage, or asks and never reads. One that is
cut off comes back at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
from typing import TYPE_CHECKING

import uvloop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

QUESTION = b"GET /nginx HTTP/1.1\r\nHost: blocker\r\nX-Original-URL: http://other.example/\r\n\r\n"
# Between two bytes of a slow one, and between two connections of one that is cut off at once, in seconds.
_PAUSE_SECONDS = 0.2


async def slow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte now and then."""
    for byte in itertools.cycle(QUESTION):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(_PAUSE_SECONDS)


async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A header after the other."""
    writer.write(QUESTION[:-2])
    while True:
        writer.write(b"X-More: more\r\n")
        await writer.drain()
        await asyncio.sleep(_PAUSE_SECONDS / 10)


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes that mean nothing."""
    writer.write(os.urandom(2048) + b"\r\n\r\n")
    await reader.read()


async def deaf(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Question upon question, and no answer is read."""
    writer.transport.pause_reading()  # type: ignore[attr-defined] # every stream transport has it
    while True:
        writer.write(QUESTION * 100)
        await writer.drain()


async def again_and_again(port: int, one: Callable[..., Awaitable[None]]) -> None:
    """Come back whenever it is cut off."""
    while True:
        with contextlib.suppress(OSError, RuntimeError):  # uvloop raises the latter where a transport is closed
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(writer.transport):
                await one(reader, writer)
        await asyncio.sleep(_PAUSE_SECONDS)


async def main(port: int, count: int) -> None:
    """All of them."""
    kinds = itertools.islice(itertools.cycle((slow, endless, garbage, deaf)), count)
    peers = [asyncio.create_task(again_and_again(port, kind)) for kind in kinds]
    await asyncio.sleep(1)
    print("connected", flush=True)
    await asyncio.gather(*peers)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
