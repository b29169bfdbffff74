"""The node's side of its companions: processes of this machine that decide with the node's table and count into its
hits.

Companions are the workers of the stream gateways, and the helpers that a Squid starts. Over `channel` each is given

- `welcome`: the lookup key, the policies, the zone of the hours, the gateways' settings and the stop page; again when
  the configuration was read anew
- `table`: the node table as a sealed memory file, which all of them map: twenty helpers cost one table
- `canaries`: the canonical forms that count as nothing
- `ask`: a canary to be decided as a request would be

and sends `hello`, `report` (hits, under a number of its own; answered by `stored`), `counts` (decisions), `load` (its
connections, see there), `dns` (what it forwards, see `dns_load`) and `answer`.

A report is counted once: the node remembers the last number of each companion. A companion whose report was under way
when the node ended does not know whether it was counted and never offers it to the next node, so that nothing is
counted twice; what may be lost is what a kill of the node may lose.

The socket is the way to the lookup key: its mode and group say who may be a companion.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import socket
import struct
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, cast

import structlog

from blocker.gateways import channel
from blocker.gateways.canaries import Answer, NoAnswer
from blocker.gateways.dns_load import DnsCounts, DnsRoom, added
from blocker.gateways.load import Connections
from blocker.hits.calendar import Cell
from blocker.log import describe
from blocker.rules import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from blocker.gateways.channel import Channel, Message
    from blocker.gateways.engine import MatcherSource, VerdictEngine
    from blocker.hits.counters import HitCounter
    from blocker.hits.meters import Counts
    from blocker.sections import CompanionSettings

log = structlog.get_logger(__name__)

# Companions whose last number is remembered after they have gone: more than a machine starts in a day.
_REMEMBERED = 4096
# A companion reports at least once a second; a released hour waits so long for the last of it, in seconds.
SETTLE_SECONDS = 3.0
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class CompanionHost:
    """Listens for companions.

    Args:
        settings: Where, and who may come.
        path: The socket, if the settings name none.
        welcome: What each companion is told first; called for each.
        source: Whose matcher they use.
        engine: Whose canaries and meters are theirs too.
        hits: Counts what they count.
        lookup_key: The deployment's.
    """

    def __init__(
        self,
        settings: CompanionSettings,
        path: Path,
        welcome: Callable[[], Mapping[str, Any]],
        *,
        source: MatcherSource,
        engine: VerdictEngine,
        hits: HitCounter,
        lookup_key: bytes,
    ) -> None:
        self.path = settings.unix or path
        self._settings = settings
        self._welcome = welcome
        self._source = source
        self._engine = engine
        self._hits = hits
        self._lookup_key = lookup_key
        self._boot = secrets.token_hex(8)
        self._opened: socket.socket | None = None
        self._companions: set[_Companion] = set()
        self._last: OrderedDict[str, int] = OrderedDict()
        self._ended: dict[str, Connections] = {}  # connections that companions refused and cut
        self._forwarded: dict[int, DnsCounts] = {}  # process id → what it said since it was last taken
        self._table: int | None = None  # descriptor of the present one, once somebody needs it
        self._publishing: asyncio.Task[None] | None = None
        self._again = False
        engine.on_canaries(self._tell_canaries)

    def count(self, gateway: str) -> int:
        """How many companions of a gateway are there."""
        return sum(one.gateway == gateway for one in self._companions)

    def loads(self) -> list[tuple[int, float, Mapping[str, Connections]]]:
        """See `blocker.gateways.load_metrics.Companions`."""
        return [(one.pid, one.lag, one.connections) for one in self._companions if one.connections]

    def take_ended(self) -> Mapping[str, Connections]:
        """See `blocker.gateways.load_metrics.Companions`."""
        ended, self._ended = self._ended, {}
        return ended

    def rooms(self) -> list[DnsRoom]:
        """See `blocker.gateways.dns_metrics.Companions`."""
        return [one.room for one in self._companions if one.room is not None]

    def take_dns(self) -> list[DnsCounts]:
        """See `blocker.gateways.dns_metrics.Companions`."""
        taken, self._forwarded = list(self._forwarded.values()), {}
        return taken

    def forwarded_more(self, pid: int, counts: DnsCounts) -> None:
        """Add what became of a companion's questions."""
        before = self._forwarded.get(pid)
        self._forwarded[pid] = counts if before is None else added((before, counts))

    def ended_more(self, connections: Mapping[str, Connections]) -> None:
        """Add what a companion refused and cut."""
        for name, one in connections.items():
            before = self._ended.get(name, Connections(0, 0, 0, 0))
            self._ended[name] = Connections(0, 0, before.refused + one.refused, before.cut + one.cut)

    def start(self) -> None:
        """Bind and accept.

        Raises:
            ServeError: The socket cannot be had, or its group is unknown.
        """
        self._opened = channel.listen_for(self.path, self._settings.group, "companions")
        asyncio.get_running_loop().add_reader(self._opened.fileno(), self._accept)

    def stop(self) -> None:
        """Let all go and remove the socket; may be called twice."""
        if self._opened is not None:
            asyncio.get_running_loop().remove_reader(self._opened.fileno())
            channel.unlisten(self._opened, self.path)
            self._opened = None
        for companion in list(self._companions):
            companion.channel.close()
        self._companions.clear()
        if self._publishing is not None:
            self._publishing.cancel()
        self._forget_table()

    def reconfigured(self) -> None:
        """Tell all what has changed in the configuration."""
        for companion in self._companions:
            self._greet(companion)

    def swapped(self, _matcher: object = None) -> None:
        """Give all the new table, soon; it costs nothing while there is no companion."""
        self._forget_table()
        if not self._companions:
            return
        if self._publishing is not None and not self._publishing.done():
            self._again = True
            return
        self._publishing = asyncio.create_task(self._publish())

    async def ask(self, gateway: str, policy: str, url: str) -> Answer:
        """What the companions of a gateway and policy do with a canary; the worst of their answers.

        Raises:
            NoAnswer: There is none, or one of them does not say.
        """
        asked = [one for one in self._companions if (one.gateway, one.policy) == (gateway, policy)]
        if not asked:
            raise NoAnswer(f"no {gateway} is there")
        answers = await asyncio.gather(*(one.ask(url) for one in asked))
        return next((answer for answer in answers if answer.verdict is not Verdict.BLOCK), answers[0])

    def policies(self, gateway: str) -> Sequence[str]:
        """The policies that the companions of a gateway decide by."""
        return sorted({one.policy for one in self._companions if one.gateway == gateway})

    def _accept(self) -> None:
        if self._opened is None:
            return
        with contextlib.suppress(OSError):
            accepted, _ = self._opened.accept()
            companion = _Companion(self, accepted)
            self._companions.add(companion)
            self._hits.settle_seconds = SETTLE_SECONDS
            self._greet(companion)
            companion.channel.send({"canaries": sorted(self._engine.canaries)})
            if self._table is not None:
                companion.channel.send({"table": True}, [self._table])
            elif self._publishing is None or self._publishing.done():  # else it gets that one
                self.swapped()

    def _greet(self, companion: _Companion) -> None:
        companion.channel.send(
            {
                "welcome": {
                    **self._welcome(),
                    "boot": self._boot,
                    "supplied": self._source.matcher is not None,
                    "key": self._lookup_key.hex(),
                }
            }
        )

    def _tell_canaries(self, canaries: frozenset[str]) -> None:
        for companion in self._companions:
            companion.channel.send({"canaries": sorted(canaries)})

    async def _publish(self) -> None:
        while True:
            self._again = False
            matcher = self._source.matcher
            if matcher is None:
                return
            try:
                table = await asyncio.to_thread(_sealed, matcher.table)
            except OSError as error:
                log.error("companions stay with the lists they have", **describe(error))  # noqa: TRY400 - no values
                return
            if self._again:  # it is an old one already
                os.close(table)
                continue
            self._table = table
            for companion in self._companions:
                companion.channel.send({"table": True}, [table])
            return

    def _forget_table(self) -> None:
        if self._table is not None:
            os.close(self._table)
            self._table = None

    def gone(self, companion: _Companion) -> None:
        """Forget a companion."""
        self._companions.discard(companion)

    def report(self, boot: str, sequence: int, cells: Mapping[str, int]) -> None:
        """Count a report, unless it was counted before."""
        if self._last.get(boot, 0) >= sequence:
            return
        self._last[boot] = sequence
        self._last.move_to_end(boot)
        while len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)
        self._hits.credit_cells({Cell.parse(field): count for field, count in cells.items()})

    def decided(self, counts: Mapping[str, Counts]) -> None:
        """Add decisions."""
        for gateway, more in counts.items():
            self._engine.meters[gateway].add(cast("Counts", tuple(more)))


class HelperProbe:
    """A `blocker.gateways.canaries.Probe` of all the Squid helpers that are there."""

    gateway = "squid-helper"

    def __init__(self, host: CompanionHost) -> None:
        self._host = host

    @property
    def policies(self) -> Sequence[str]:
        """See `Probe`."""
        return self._host.policies(self.gateway)

    async def ask(self, url: str, policy: str) -> Answer:
        """See `Probe`; the time limit is the caller's."""
        return await self._host.ask(self.gateway, policy, url)


class _Companion:
    """One companion, as the host sees it."""

    def __init__(self, host: CompanionHost, opened: socket.socket) -> None:
        self._host = host
        self.gateway = ""
        self.policy = ""
        self.lag = 0.0
        self.connections: dict[str, Connections] = {}
        self.room: DnsRoom | None = None
        # Of who connected (unix(7)): process, user, group.
        self.pid, _, _ = struct.unpack("3i", opened.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self.channel: Channel = channel.Channel(opened, self._message, self._gone)

    async def ask(self, url: str) -> Answer:
        """Have it decide a canary; see `CompanionHost.ask`."""
        number = max(self._asked, default=0) + 1
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            self.channel.send({"ask": number, "url": url})
            return await answer
        finally:
            self._asked.pop(number, None)

    def _message(self, message: Message, descriptors: Sequence[int]) -> None:
        for one in descriptors:
            os.close(one)
        match message:
            case {"hello": str(gateway), "policy": str(policy)}:
                self.gateway, self.policy = gateway, policy
            case {"report": str(boot), "sequence": int(sequence), "cells": dict(cells)}:
                self._host.report(boot, sequence, cells)
                self.channel.send({"stored": sequence})
            case {"counts": dict(counts)}:
                self._host.decided(counts)
            case {"load": dict(connections), "lag": float(lag)}:
                self.connections = {name: Connections(*one) for name, one in connections.items()}
                self.lag = lag
                self._host.ended_more(self.connections)
            case {"dns": list(counts), "room": list(room)}:
                self.room = DnsRoom(*room)
                self._host.forwarded_more(self.pid, DnsCounts(*counts))
            case {"answer": int(number), "verdict": verdict, "list": name}:
                waiting = self._asked.get(number)
                if waiting is not None and not waiting.done():
                    if verdict is None:
                        waiting.set_exception(NoAnswer("a companion gave no verdict"))
                    else:
                        waiting.set_result(Answer(Verdict(verdict), name))

    def _gone(self) -> None:
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_exception(NoAnswer("a companion ended"))
        self._host.gone(self)


def _sealed(table: Any) -> int:  # noqa: ANN401 - a native table
    """Descriptor of a memory file that holds the table and cannot be changed any more (memfd_create(2))."""
    descriptor = os.memfd_create("blocker-table", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        table.write(descriptor)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
