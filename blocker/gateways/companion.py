"""A companion's side of a node: it decides with the node's table and counts into the node's hits; see `host`.

While the node is away a companion goes on with the table it has, keeps what it counts, and looks for the node every
half second. One that has never met a node has nothing to decide with.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import structlog

from blocker import _native
from blocker.errors import BlockerError, StoreUnavailable
from blocker.gateways import channel
from blocker.gateways.engine import VerdictEngine
from blocker.hits.counters import HitCounter
from blocker.log import describe
from blocker.matcher import Matcher, Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from blocker.gateways.channel import Channel, Message
    from blocker.gateways.dns_load import DnsLoad
    from blocker.gateways.engine import StopPageBytes
    from blocker.gateways.load import Load

log = structlog.get_logger(__name__)

# Between two looks for a node that is away, in seconds.
_RETRY_SECONDS = 0.5
# How long a report may be under way; a node that does not answer for so long is as good as away.
_PATIENCE_SECONDS = 5.0
# Share of the node's flush_seconds after which hits are handed to it; the rest is for its way to the store.
_HANDING_SHARE = 0.6
# Decisions are brought to the node so often, in seconds.
_COUNTS_SECONDS = 1.0

# Verdict and list of a canary; None for the verdict: no answer.
Verdicts = tuple[str | None, str | None]


class Companion:
    """Follows a node. Make it, `await met()`, then use `engine`; `run` must run meanwhile.

    Args:
        path: The node's socket.
        gateway: Whose companion it is: one of `blocker.hits.meters.GATEWAYS`, or `worker` for several.
        policy: The policy that it decides by.
        ask: Decides a canary as a request would be.
    """

    def __init__(self, path: Path, gateway: str, policy: str, ask: Callable[[str], Verdicts]) -> None:
        self.matcher: Matcher | None = None
        self.told: Mapping[str, Any] = {}
        self._path = path
        self._gateway = gateway
        self._policy = policy
        self._ask = ask
        self._channel: Channel | None = None
        self._node: str | None = None  # its boot
        self._engine: VerdictEngine | None = None
        self._hits: HitCounter | None = None
        self._policies: tuple[Policy, ...] = ()
        self._newest: int | None = None  # descriptor of a table that is to be mapped
        self._mapping: asyncio.Task[None] | None = None
        self._met = asyncio.Event()
        self._supplied = asyncio.Event()
        self._ended = asyncio.Event()
        self._stopping = asyncio.Event()
        self._stored: dict[int, asyncio.Future[None]] = {}
        self._sent: tuple[int, str] | None = None  # the last report's number, and the node that may have counted it
        self.load: Load | None = None  # of a companion with gateways
        self.dns: DnsLoad | None = None  # of one with the dns gateway
        self._at_change: list[Callable[[Mapping[str, Any]], object]] = []

    @property
    def engine(self) -> VerdictEngine:
        """Decides and counts; only there once the node was met."""
        if self._engine is None:
            raise StoreUnavailable("the node was not met yet")
        return self._engine

    @property
    def met(self) -> asyncio.Event:
        """Set once the node has said what there is to know."""
        return self._met

    async def supplied(self) -> None:
        """Wait for the first table, unless the node has none either."""
        if self.told.get("supplied"):
            await self._supplied.wait()

    @property
    def pages(self) -> list[StopPageBytes]:
        """The stop page, as gates take it."""
        return [
            (name, language, head.encode("latin-1"), body.encode())
            for name, language, head, body in self.told.get("pages", ())
        ]

    def on_change(self, callback: Callable[[Mapping[str, Any]], object]) -> None:
        """Have `callback` called when the node tells of another configuration."""
        self._at_change.append(callback)

    async def run(self) -> None:
        """Follow the node until `stop`; then bring it what was counted."""
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(self._follow())
            counting = tasks.create_task(self._count())
            await self._stopping.wait()
            if self._hits is not None:
                self._hits.stop()
            await counting
            following.cancel()
        if self._channel is not None:
            self._channel.close()

    def stop(self) -> None:
        """Let `run` end."""
        self._stopping.set()

    async def _follow(self) -> None:
        while True:
            self._ended.clear()
            try:
                self._channel = channel.Channel(channel.connect(self._path), self._message, self._lost)
            except OSError:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            self._channel.send({"hello": self._gateway, "policy": self._policy})
            await self._ended.wait()
            log.warning("the node is away; its last lists stay enforced")
            await asyncio.sleep(_RETRY_SECONDS)

    async def _count(self) -> None:
        """Bring hits and decisions to the node."""
        stopping = asyncio.create_task(self._stopping.wait())
        meeting = asyncio.create_task(self._met.wait())
        await asyncio.wait((stopping, meeting), return_when=asyncio.FIRST_COMPLETED)
        meeting.cancel()
        if self._hits is not None:
            flushing = asyncio.create_task(self._hits.run())
            while not self._stopping.is_set():
                await asyncio.wait((stopping,), timeout=_COUNTS_SECONDS)
                self._send_counts()
            await flushing
            self._send_counts()
        stopping.cancel()

    def _send_counts(self) -> None:
        if self._channel is None or self._node is None:
            return
        taken = self.engine.meters.take()
        if taken:
            self._channel.send({"counts": taken})
        if self.load is not None:
            self._channel.send({"load": self.load.take(), "lag": self.load.lag_seconds})
        if self.dns is not None:
            self._channel.send({"dns": self.dns.take(), "room": self.dns.room})

    def _lost(self) -> None:
        self._channel, self._node = None, None
        for waiting in self._stored.values():
            if not waiting.done():
                waiting.set_exception(StoreUnavailable("the node is away"))
        self._ended.set()

    def _message(self, message: Message, descriptors: Sequence[int]) -> None:
        try:
            match message:
                case {"welcome": dict(told)}:
                    self._welcome(told)
                case {"table": True} if descriptors:
                    self._use(os.dup(descriptors[0]))
                case {"canaries": list(canaries)}:
                    self.engine.canaries = frozenset(canaries)
                case {"stored": int(sequence)}:
                    waiting = self._stored.get(sequence)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(None)
                case {"ask": int(number), "url": str(url)}:
                    verdict, name = self._ask(url)
                    if self._channel is not None:
                        self._channel.send({"answer": number, "verdict": verdict, "list": name})
        finally:
            for one in descriptors:
                os.close(one)

    def _welcome(self, told: Mapping[str, Any]) -> None:
        self.told, self._node = told, told["boot"]
        self._policies = tuple(Policy(**policy) for policy in told["policies"])
        if self._engine is None:
            self._hits = HitCounter(
                self,
                node=self._gateway,
                zone=ZoneInfo(told["timezone"]),
                flush_seconds=told["flush_seconds"] * _HANDING_SHARE,
            )
            self._engine = VerdictEngine(self, self._hits, releases=False)
        if self.matcher is not None:
            self.matcher = Matcher.of(self.matcher.table, self._policies)
        for callback in self._at_change:
            callback(told)
        self._swap()
        self._met.set()

    def _use(self, descriptor: int) -> None:
        if self._newest is not None:
            os.close(self._newest)
        self._newest = descriptor
        if self._mapping is None or self._mapping.done():
            self._mapping = asyncio.create_task(self._map())

    async def _map(self) -> None:
        """Map the newest table, aside: its checksum alone takes milliseconds."""
        while self._newest is not None:
            descriptor, self._newest = self._newest, None
            try:
                table = await asyncio.to_thread(_native.Table.map, descriptor, bytes.fromhex(self.told["key"]))
            except (BlockerError, OSError) as error:
                log.error("a table of the node cannot be used", **describe(error))  # noqa: TRY400 - no values
                continue
            finally:
                os.close(descriptor)
            self.matcher = Matcher.of(table, self._policies)
            self._swap()
            self._supplied.set()

    def _swap(self) -> None:
        if self.matcher is not None:
            try:
                self.engine.swapped(self.matcher)
            except BlockerError as error:
                log.error("this process decides by what it had before", **describe(error))  # noqa: TRY400 - no values

    async def flush_hits(self, _node: str, boot: str, sequence: int, cells: Mapping[str, int]) -> None:
        """Have the node count hits; see `blocker.hits.counters.HitStore`."""
        if self._channel is None or self._node is None:
            raise StoreUnavailable("the node is away")
        if self._sent is not None and self._sent[0] == sequence and self._sent[1] != self._node:
            # Offered to a node that has ended since. Whether that one counted it nobody knows: rather too few than
            # twice.
            log.warning("hits that were on their way when the node ended are not counted", cells=len(cells))
            return
        self._sent = (sequence, self._node)
        self._stored[sequence] = stored = asyncio.get_running_loop().create_future()
        try:
            self._channel.send({"report": boot, "sequence": sequence, "cells": dict(cells)})
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await stored
        except TimeoutError:
            raise StoreUnavailable("the node does not answer") from None
        finally:
            self._stored.pop(sequence, None)

    async def load_hits(self, _node: str) -> Mapping[str, int]:
        """Nothing: the node shows the counts."""
        return {}

    async def folded_hits(self, _node: str) -> Mapping[str, int]:
        """Nothing either."""
        return {}
