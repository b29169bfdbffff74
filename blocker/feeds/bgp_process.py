"""`blocker bgp-feed`: the process that ExaBGP runs. Brings the node's routes to ExaBGP and holds nothing of its own.

While the node is away the routes stay: what is routed still reaches the URL filter, which decides by itself. A node
that comes back tells all of its routes; until it says that they are all, none is withdrawn. The process ends when
ExaBGP closes its input, and withdraws nothing then: the session ends with ExaBGP.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import sys
from typing import TYPE_CHECKING

import structlog

from blocker.feeds.bgp import Form, Speaker
from blocker.gateways import channel
from blocker.log import describe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from blocker.gateways.channel import Channel, Message

log = structlog.get_logger(__name__)

# Between two looks for a node that is away, in seconds.
_RETRY_SECONDS = 0.5
# ExaBGP acknowledges within milliseconds, but starts its processes before it listens to them; then `ack` may be off.
_PATIENCE_SECONDS = 30.0
# Between two looks at what each neighbor has; when a session comes up there is one besides. Ten thousand routes of two
# neighbors take ExaBGP some seconds to say.
_LOOK_SECONDS = 60.0


class BgpFeed:
    """One run of the process.

    Args:
        path: The node's socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._speaker = Speaker()
        self._channel: Channel | None = None
        self._lost = asyncio.Event()
        self._stopping = asyncio.Event()
        self._moved = asyncio.Event()
        self._reported: Message = {}

    async def run(self) -> None:
        """Run until ExaBGP closes standard input, or SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        reader = asyncio.StreamReader()
        inward, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        tasks = [asyncio.create_task(work) for work in (self._read(reader), self._meet(), self._write(), self._look())]
        await self._stopping.wait()
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("a part of the feed ended", **describe(result))
        if self._channel is not None:
            self._channel.close()
        inward.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                self._speaker.read(line.decode("ascii", "replace").strip())
                self._moved.set()
        self._stopping.set()

    async def _write(self) -> None:
        """Write what there is to say, in a thread: ExaBGP may take its time to read."""
        while True:
            self._moved.clear()
            if lines := self._speaker.lines():
                text = "".join(f"{line}\n" for line in lines).encode("ascii")
                try:
                    await asyncio.to_thread(_write_all, text)
                except OSError:  # ExaBGP has gone
                    self._stopping.set()
                    return
                continue
            self._report()
            try:
                async with asyncio.timeout(None if self._speaker.idle else _PATIENCE_SECONDS):
                    await self._moved.wait()
            except TimeoutError:
                log.warning("ExaBGP does not acknowledge commands; is exabgp.api.ack off?")
                self._speaker.silent()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._speaker.look()
            self._moved.set()

    async def _meet(self) -> None:
        while True:
            try:
                opened = channel.connect(self._path)
            except OSError:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            self._lost.clear()
            self._reported = {}
            self._channel = channel.Channel(opened, self._message, self._lost.set)
            self._channel.send({"hello": "bgp"})
            await self._lost.wait()
            self._channel = None
            log.warning("the node has gone; its routes stay")
            await asyncio.sleep(_RETRY_SECONDS)

    def _message(self, message: Message, descriptors: Sequence[int]) -> None:
        for one in descriptors:
            os.close(one)
        match message:
            case {"form": dict(form), "routes": list(routes), "settled": bool(settled)}:
                self._speaker.want(Form.load(form), map(ipaddress.ip_address, routes), settled=settled)
            case {"announce": list(announce), "withdraw": list(withdraw)}:
                self._speaker.change(map(ipaddress.ip_address, announce), map(ipaddress.ip_address, withdraw))
        self._moved.set()

    def _report(self) -> None:
        """Tell the node how far ExaBGP and its neighbors are."""
        if self._channel is None or not self._speaker.idle:
            return
        told = self._speaker.told
        neighbors = {name: list(carried) for name, carried in self._speaker.sessions.carried(told).items()}
        now = {"told": len(told), "errors": self._speaker.errors, "neighbors": neighbors}
        if now != self._reported:
            self._reported = now
            self._channel.send(now)


def _write_all(text: bytes) -> None:
    while text:
        text = text[os.write(sys.stdout.fileno(), text) :]
