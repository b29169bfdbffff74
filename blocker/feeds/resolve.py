"""Where names are: asks several resolvers, when answers run out and no sooner, and never says a name to anybody else.

**United, not voted.** By default an address counts that any resolver says (`quorum` 1). Customers ask different
resolvers and are sent to different servers, so a vote would leave out just what some of them get; and a vote among
answers that each take a few of many addresses finds none at all. What one resolver invents costs little: its traffic is
looked at by the URL filter and passes, and the filters of `routes` hold for it as for any other.

**A resolver that is down changes nothing.** An answer is complete if every resolver gave one, for both families; only
then does a missing address count as gone. One that has answered nothing at all for `give_up_seconds` is left out of
this until it answers again, so that it cannot hold what is old for ever.

Aliases are followed by the resolvers; the addresses at their end count, for the shortest of their times.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import ipaddress
import itertools
import math
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import aiodns
import pycares
import structlog
from aiodns.error import ARES_ENODATA, ARES_ENOTFOUND, DNSError

from blocker.log import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from blocker.feeds.addresses import Address

log = structlog.get_logger(__name__)

Result = Literal["answered", "absent", "failed"]
_FAMILIES: tuple[Literal["A"], Literal["AAAA"]] = ("A", "AAAA")
# Of what a time is lengthened by at most, so that names that came together do not stay together.
_JITTER = 0.1
# After a look that failed, doubled each time: resolvers that come back are asked again within the latter.
_RETRY_SECONDS = 2.0
_RETRY_MOST_SECONDS = 60.0
_K = TypeVar("_K")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the resolvers say of a name.

    Attributes:
        addresses: Where it is.
        ttl: Seconds for which that holds, as they say; infinite for a name that is nowhere.
        complete: Whether all of them said something.
    """

    addresses: frozenset[Address]
    ttl: float
    complete: bool


@dataclass(slots=True)
class _Said:
    """One resolver's word on one name."""

    addresses: frozenset[Address]
    ttl: float
    whole: bool  # for both families


class Resolvers:
    """Some resolvers, asked together. Belongs to the running event loop.

    Args:
        servers: Their addresses, as `192.0.2.53`, `192.0.2.53:5353` or `[2001:db8::53]:53`.
        quorum: How many of them must say an address.
        seconds: Time for an answer of one, all tries included, roughly.
        tries: Packets sent to one.
        give_up_seconds: See the module.
    """

    def __init__(
        self, servers: Sequence[str], *, quorum: int = 1, seconds: float = 5.0, tries: int = 3,
        give_up_seconds: float = 86_400.0,
    ) -> None:  # fmt: skip
        self.results: dict[str, Counter[Result]] = {server: Counter() for server in servers}
        self._quorum = quorum
        self._give_up = give_up_seconds
        self._loop = asyncio.get_running_loop()
        self._heard = dict.fromkeys(servers, self._loop.time())
        # c-ares doubles the time with each try: so the last ends in time.
        first = seconds / (2**tries - 1)
        self._asked = {
            server: aiodns.DNSResolver(nameservers=[server], timeout=first, tries=tries, flags=pycares.ARES_FLAG_EDNS)
            for server in servers
        }

    async def close(self) -> None:
        """End what is under way."""
        for resolver in self._asked.values():
            await resolver.close()

    async def look_up(self, name: str) -> Answer | None:
        """Where a name is; None if no resolver said anything of use."""
        said = dict(zip(self._asked, await asyncio.gather(*(self._ask(one, name) for one in self._asked)), strict=True))
        now = self._loop.time()
        words = [word for word in said.values() if word is not None]
        if not words:
            return None
        awaited = [server for server in said if now - self._heard[server] < self._give_up]
        complete = all((word := said[server]) is not None and word.whole for server in awaited)
        votes = Counter(address for word in words for address in word.addresses)
        # A quorum of three of which one is down for good is still to be had of the other two.
        needed = max(1, min(self._quorum, len(awaited)))
        addresses = frozenset(address for address, count in votes.items() if count >= needed)
        return Answer(addresses, min(word.ttl for word in words), complete)

    async def _ask(self, server: str, name: str) -> _Said | None:
        found = await asyncio.gather(*(self._ask_family(server, name, family) for family in _FAMILIES))
        good = [part for part in found if part is not None]
        self.results[server][("answered" if any(part[0] for part in good) else "absent") if good else "failed"] += 1
        if not good:
            return None
        self._heard[server] = self._loop.time()
        addresses: frozenset[Address] = frozenset().union(*(part[0] for part in good))
        return _Said(addresses, min(part[1] for part in good), whole=len(good) == len(_FAMILIES))

    async def _ask_family(
        self, server: str, name: str, family: Literal["A", "AAAA"]
    ) -> tuple[frozenset[Address], float] | None:
        try:
            result = await self._asked[server].query_dns(name, family)
        except DNSError as error:
            nowhere = error.args[0] in (ARES_ENODATA, ARES_ENOTFOUND)
            return (frozenset(), math.inf) if nowhere else None
        data = [record.data for record in result.answer]
        addresses = frozenset(
            ipaddress.ip_address(one.addr)
            for one in data
            if isinstance(one, pycares.ARecordData | pycares.AAAARecordData)
        )
        return addresses, min((record.ttl for record in result.answer), default=math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often names are asked for. Seconds.

    Attributes:
        least: Between two looks at a name, however short its answer's time.
        most: The same, however long; also for names that are nowhere.
        per_second: Names in a second.
        at_once: Names under way.
    """

    least: float = 60.0
    most: float = 3600.0
    per_second: float = 100.0
    at_once: int = 64


@dataclass(slots=True, eq=False)
class _Entry(Generic[_K]):
    key: _K
    name: str = field(repr=False)
    tried: bool = False
    failures: int = 0


class Lookups(Generic[_K]):
    """Keeps looking names up. Make it, `want` names, and let `run` run.

    Args:
        resolvers: Who is asked.
        pace: How often.
        heard: Told each answer; None for a look that failed.
    """

    def __init__(self, resolvers: Resolvers, pace: Pace, heard: Callable[[_K, Answer | None], object]) -> None:
        self.pace = pace
        self._resolvers = resolvers
        self._heard = heard
        self._entries: dict[_K, _Entry[_K]] = {}
        self._due: list[tuple[float, int, _Entry[_K]]] = []  # a heap; each entry that is not under way once
        self._order = itertools.count()
        self._wake = asyncio.Event()
        self._asking: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def untried(self) -> int:
        """Names that no answer, good or bad, has come for yet."""
        return sum(not entry.tried for entry in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def want(self, names: Mapping[_K, str]) -> None:
        """The names to look up from now on; those that are new are looked up at once."""
        for key in self._entries.keys() - names.keys():
            del self._entries[key]
        self._due = [due for due in self._due if self._entries.get(due[2].key) is due[2]]
        heapq.heapify(self._due)
        new = [key for key in names if key not in self._entries]
        random.shuffle(new)
        for key in new:
            self._entries[key] = entry = _Entry(key, names[key])
            self._at(self._loop.time(), entry)
        self._wake.set()

    async def run(self) -> None:
        """Look names up until cancelled."""
        try:
            while True:
                entry = await self._next()
                task = asyncio.create_task(self._look(entry))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
                await asyncio.sleep(1 / self.pace.per_second)
                while len(self._asking) >= self.pace.at_once:
                    await asyncio.wait(self._asking, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in self._asking:
                task.cancel()

    async def _next(self) -> _Entry[_K]:
        while True:
            self._wake.clear()
            wait = self._due[0][0] - self._loop.time() if self._due else None
            if wait is not None and wait <= 0:
                return heapq.heappop(self._due)[2]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    async def _look(self, entry: _Entry[_K]) -> None:
        answer = None
        try:
            answer = await self._resolvers.look_up(entry.name)
        except Exception as error:  # noqa: BLE001 - a fault about one name must not end the looking for all
            log.error("a look-up failed in a way that was not foreseen", **describe(error))  # noqa: TRY400 - no values
        if self._entries.get(entry.key) is not entry:
            return
        entry.tried = True
        entry.failures = 0 if answer is not None else min(entry.failures + 1, 16)
        self._at(self._loop.time() + self._wait(entry, answer), entry)
        self._heard(entry.key, answer)

    def _wait(self, entry: _Entry[_K], answer: Answer | None) -> float:
        """Seconds until an entry's next turn."""
        pace = self.pace
        if answer is not None:
            seconds = min(max(answer.ttl, pace.least), pace.most)
        else:
            seconds = min(_RETRY_SECONDS * 2.0 ** (entry.failures - 1), _RETRY_MOST_SECONDS)
        # Not for a secret: it spreads load.
        return seconds * (1 + _JITTER * random.random())  # noqa: S311

    def _at(self, when: float, entry: _Entry[_K]) -> None:
        heapq.heappush(self._due, (when, next(self._order), entry))
        self._wake.set()
