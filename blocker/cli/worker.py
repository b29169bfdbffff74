"""A worker of the stream gateways, started by the node and not by people: `python -m blocker.cli.worker`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from blocker import log
from blocker.cli.background import background_threads, favour_the_loop
from blocker.gateways.companion import Companion
from blocker.gateways.dns_load import DnsLoad
from blocker.gateways.load import Load
from blocker.gateways.streams import Streams
from blocker.sections import GatewaySettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# How long the node may take to hand over its table, in seconds; without one the gateways answer that there is none.
_TABLE_SECONDS = 10.0


def main() -> None:
    """Serve until SIGTERM, or until the node has gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("socket", type=Path)
    parser.add_argument("--listen", action="append", default=[], help="gateway=descriptor,descriptor…")
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--log-format", default="console")
    arguments = parser.parse_args()
    log.configure(arguments.log_level, arguments.log_format)
    log.catch_uncaught()
    listened = {
        name: [int(one) for one in rest.split(",")] for name, _, rest in (a.partition("=") for a in arguments.listen)
    }
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(arguments.socket, listened))


async def serve(path: Path, listened: Mapping[str, Sequence[int]]) -> None:
    """Serve gateways at sockets that the node has opened."""
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    loop.set_default_executor(background_threads())
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    loop.add_reader(sys.stdin.fileno(), lambda: _gone(stopping))
    companion = Companion(path, "worker", "", lambda _url: (None, None))
    running = asyncio.create_task(companion.run())
    meeting = asyncio.create_task(companion.met.wait())
    ending = asyncio.create_task(stopping.wait())
    await asyncio.wait((meeting, ending), return_when=asyncio.FIRST_COMPLETED)
    streams = watching = None
    if not stopping.is_set():
        # A node that has gone hands over nothing, and the next one needs the addresses.
        supplying = asyncio.create_task(companion.supplied())
        await asyncio.wait((supplying, ending), timeout=_TABLE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        supplying.cancel()
    if not stopping.is_set():
        streams = Streams(companion.engine, GatewaySettings.model_validate(companion.told["gateways"]), companion.pages)
        companion.on_change(
            lambda told: streams.configure(GatewaySettings.model_validate(told["gateways"]), companion.pages)
        )
        for name, descriptors in listened.items():
            await streams[name].start([socket.socket(fileno=one) for one in descriptors])
        companion.load = Load(streams)
        companion.dns = None if streams.dns is None else DnsLoad(streams.dns)
        watching = asyncio.create_task(companion.load.watch())
        favour_the_loop()
    await ending
    if streams is not None:
        await streams.stop()
    if watching is not None:
        watching.cancel()
    companion.stop()
    await running
    meeting.cancel()


def _gone(stopping: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stopping.set()


if __name__ == "__main__":
    main()
