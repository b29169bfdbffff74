"""Where names are: asks several resolvers together, and never says a name to anybody else.

**United, not voted.** By default an address counts that any resolver says (`quorum` 1). Customers ask different
resolvers and are sent to different servers, so a vote would leave out just what some of them get; and a vote among
answers that each take a few of many addresses finds none at all. What one resolver invents costs little: its traffic is
looked at by the URL filter and passes, and the filters of `routes` hold for it as for any other.

**Popular names are never voted on.** They protect third parties, and content networks tell each resolver other
addresses of theirs: with a quorum of two nearly none would be known, and all be routed for whoever points there.

**A resolver that is down changes nothing.** An answer is complete for a family (A, AAAA) if every resolver gave one;
only then does a missing address of it count as gone. A resolver that has answered nothing at all for `give_up_seconds`
is left out of this until it answers again, so that it cannot hold what is old for ever.

**A name that fails is one that is nowhere, in the end.** Whose servers answer for A and fail for AAAA, or fail
altogether, would else keep its old addresses for ever. So a resolver that fails for one family of a name for
`give_up_seconds`, while it answers others, counts as having said that there is none. The time is taken from a clock of
that resolver that goes only while it answers: in an outage, however long, it goes on by a tenth of `give_up_seconds` at
the most. Popular names are never given up: they protect third parties, who do not come to harm by what is kept.

**HTTPS records only add.** Where they lead (`https_records`) the name is too, as any resolver or a quorum says. A
resolver that fails for them, or for the names that they lead to, takes nothing from what A and AAAA say and neither
makes an answer incomplete nor counts as heard: else whoever lets them fail could keep what a name has left, and a
resolver that makes up answers for this type would seem to live. What they said is then gone, and its hold-down begins.
A resolver that answers none of them is soon waited for no longer than a moment, and asked all the same.

Aliases are followed by the resolvers, and again here: what an answer says of names that the aliases do not lead to does
not count. The addresses at their end do, for the shortest of their times.

c-ares keeps answers by itself: that a name has no address of a family even for an hour, whatever the answer says, so
that one which comes would be seen so much later. It cannot be told not to; so each resolver is asked through a channel
that is left for a new one after `fresh_seconds`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import aiodns
import pycares
from aiodns.error import ARES_ENODATA, ARES_ENOTFOUND, DNSError

from blocker.feeds.https_records import Led

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from blocker.feeds.addresses import Address
    from blocker.feeds.https_records import Kind

Result = Literal["answered", "absent", "failed"]
#: For each resolver and family that fails for a name: since when, by that resolver's own clock, which begins at 0.
Failing = dict[tuple[str, int], float]
_KINDS: dict[int, Literal["A", "AAAA"]] = {4: "A", 6: "AAAA"}
# Of give_up_seconds: what a silence of a resolver adds to its clock at most.
_SILENCE = 0.1
# RFC 2181 section 8: a time with its highest bit set means none.
_TTL_END = 2**31
# A resolver that left so many names in a row without an answer about HTTPS records is waited for so many seconds: more
# than one takes that has the answer by now.
_DEAF = 32
_DEAF_SECONDS = 0.25
# Of the time for an answer: for all that HTTPS records lead to, one question after the other.
_LED = 2.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the resolvers say of a name.

    Attributes:
        addresses: Where it is.
        ttl: Seconds for which that holds, as they say; infinite for a name that is nowhere, 0 if nobody said anything
            of one family.
        complete: The families, 4 and 6, of which all of them said something.
        ports: Those that HTTPS records of it name.
    """

    addresses: frozenset[Address]
    ttl: float
    complete: frozenset[int]
    ports: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Word:
    """What one resolver says to one question about a name: A, AAAA or HTTPS."""

    addresses: frozenset[Address] = frozenset()
    ttl: float = math.inf
    services: tuple[pycares.HTTPSRecordData, ...] = ()


@dataclass(slots=True, eq=False)
class _Channel:
    """To one resolver."""

    asked: aiodns.DNSResolver
    opened: float
    queries: int = 0  # under way


class Resolvers:
    """Some resolvers, asked together. Belongs to the running event loop.

    Args:
        servers: Their addresses, as `192.0.2.53`, `192.0.2.53:5353` or `[2001:db8::53]:53`.
        quorum: How many of them must say an address.
        seconds: Time for an answer of one, all tries included, roughly.
        tries: Packets sent to one.
        give_up_seconds: See the module.
        fresh_seconds: No answer is older than this. No name is looked up oftener.
        https_records: Whether HTTPS records are asked for.
        clock: Seconds that only grow; None for the event loop's.
    """

    def __init__(
        self, servers: Sequence[str], *, quorum: int = 1, seconds: float = 5.0, tries: int = 3,
        give_up_seconds: float = 86_400.0, fresh_seconds: float = 1.0, https_records: bool = True,
        clock: Callable[[], float] | None = None,
    ) -> None:  # fmt: skip
        self.results: dict[str, Counter[Result]] = {server: Counter() for server in servers}
        self.fresh_seconds = fresh_seconds
        self.https_records = https_records
        self._quorum = quorum
        self._seconds = seconds
        self._give_up = give_up_seconds
        self._now = clock or asyncio.get_running_loop().time
        self._heard = dict.fromkeys(servers, self._now())
        self._clocks = dict.fromkeys(servers, 0.0)  # each resolver's own
        self._unheard = dict.fromkeys(servers, 0)  # names in a row without an answer about HTTPS records
        # c-ares doubles the time with each try: so the last ends in time.
        first = seconds / (2**tries - 1)
        self._open = partial(aiodns.DNSResolver, timeout=first, tries=tries, flags=pycares.ARES_FLAG_EDNS)
        self._channels: dict[str, _Channel] = {}

    @property
    def silence(self) -> float:
        """Seconds since any of them answered anything."""
        return self._now() - max(self._heard.values())

    def failed_for(self, failing: Failing) -> list[tuple[str, int, float]]:
        """What is remembered of a name, for another process: resolver, family, seconds for which it has failed."""
        return [(*pair, self._clocks[pair[0]] - since) for pair, since in failing.items() if pair[0] in self._clocks]

    async def close(self) -> None:
        """End what is under way."""
        for channel in self._channels.values():
            await channel.asked.close()

    async def look_up(self, name: str, failing: Failing | None = None) -> Answer | None:
        """Where a name is; None if no resolver said anything of use.

        Args:
            name: The name.
            failing: What is remembered from look to look at this name; empty at first. None: it is a popular name,
                which is not given up, and of which any resolver's word counts.
        """
        quorum = 1 if failing is None else self._quorum
        failing = {} if failing is None else failing
        pairs = list(itertools.product(self.results, _KINDS))
        found, led = await asyncio.gather(
            asyncio.gather(*(self._ask(server, name, _KINDS[family]) for server, family in pairs)),
            asyncio.gather(*(self._lead(server, name) for server in self.results)),
        )
        words = {pair: word for pair, word in zip(pairs, found, strict=True) if word is not None}
        self._hear(words)
        for pair in pairs:
            clock = self._clocks[pair[0]]
            if pair in words:
                failing.pop(pair, None)
            elif clock - failing.setdefault(pair, clock) >= self._give_up:
                words[pair] = Word()
        said = {server: set(one.addresses) for server, one in zip(self.results, led, strict=True)}
        for (server, _), word in words.items():
            said[server] |= word.addresses
        if not words and not any(said.values()):
            return None
        awaited = [server for server, heard in self._heard.items() if self._now() - heard < self._give_up]
        complete = frozenset(one for one in _KINDS if all((server, one) in words for server in awaited))
        votes = Counter(itertools.chain.from_iterable(said.values()))
        # A quorum of three of which one is down for good is still to be had of the other two.
        needed = max(1, min(quorum, len(awaited)))
        addresses = frozenset(address for address, count in votes.items() if count >= needed)
        times = [min((word.ttl for (_, of), word in words.items() if of == one), default=0.0) for one in _KINDS]
        ttl = min(*times, *(one.ttl for one in led))
        return Answer(addresses, ttl, complete, frozenset().union(*(one.ports for one in led)))

    def _hear(self, words: Mapping[tuple[str, int], Word]) -> None:
        """Note who answered."""
        now = self._now()
        for server, results in self.results.items():
            good = [word for (of, _), word in words.items() if of == server]
            results[("answered" if any(word.addresses for word in good) else "absent") if good else "failed"] += 1
            if good:
                self._clocks[server] += min(now - self._heard[server], _SILENCE * self._give_up)
                self._heard[server] = now

    async def _lead(self, server: str, name: str) -> Led:
        """Where a resolver's HTTPS records lead from a name."""
        led = Led(partial(self._ask, server))
        if self.https_records:
            seconds = _DEAF_SECONDS if self._unheard[server] >= _DEAF else _LED * self._seconds
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await led.follow(name)
            self._unheard[server] = 0 if led.heard else self._unheard[server] + 1
        return led

    async def _ask(self, server: str, name: str, kind: Kind) -> Word | None:
        channel = await self._channel(server)
        channel.queries += 1
        try:
            result = await channel.asked.query_dns(name, kind)
        except DNSError as error:
            return Word() if error.args[0] in (ARES_ENODATA, ARES_ENOTFOUND) else None
        finally:
            channel.queries -= 1
            if channel is not self._channels[server] and not channel.queries:
                await channel.asked.close()
        return _follow(name, result.answer)

    async def _channel(self, server: str) -> _Channel:
        channel, now = self._channels.get(server), self._now()
        if channel is None or now - channel.opened >= self.fresh_seconds:
            self._channels[server] = _Channel(self._open([server]), now)
            if channel is not None and not channel.queries:
                await channel.asked.close()
        return self._channels[server]


def _follow(name: str, records: Iterable[pycares.DNSRecord]) -> Word:
    """What records lead to from a name; of loops and of records beside the way there is nothing."""
    owned = defaultdict(list)
    for record in records:
        owned[record.name.lower()].append(record)
    at: str | None = name.lower().removesuffix(".")
    addresses, services, ttl = set(), [], math.inf
    while at is not None and (here := owned.pop(at, None)) is not None:
        ttl = min(ttl, *(record.ttl if record.ttl < _TTL_END else 0 for record in here))
        at = None
        for data in (record.data for record in here):
            if isinstance(data, pycares.ARecordData | pycares.AAAARecordData):
                addresses.add(ipaddress.ip_address(data.addr))
            elif isinstance(data, pycares.CNAMERecordData):
                at = data.cname.lower()
            elif isinstance(data, pycares.HTTPSRecordData):
                services.append(data)
    return Word(frozenset(addresses), ttl, tuple(services))
