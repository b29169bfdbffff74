"""Where HTTPS records (RFC 9460) lead: browsers that ask for them may connect where A and AAAA of the name never show.

An alias (priority 0) sends them to what is at another name, that name's own HTTPS records among it; a service sends
them to the addresses of its target; hints are used before the target's addresses are there, or without them. A name is
taken to be at all of these, since browsers differ in what they heed. Parameters that are not as they should be are read
as far as they go.

A hostile answer leads no further than so many records, hints and questions; of records that are too many, those count
that browsers try first. No question is asked twice, so loops end.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
from typing import TYPE_CHECKING, Literal

import aiodns
import pycares

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from blocker.feeds.addresses import Address
    from blocker.feeds.resolve import Word

Kind = Literal["A", "AAAA", "HTTPS"]

# pycares knows the type; the table by which aiodns turns names into numbers lacks it.
aiodns.query_type_map.setdefault("HTTPS", pycares.QUERY_TYPE_HTTPS)

# What counts of one answer, and the hints of each family of one record: more than anybody means well with.
_RECORDS = 16
_HINTS = 32
# Questions about a name and those that it leads to: an alias makes three, the target of a service two.
_QUESTIONS = 24
# Keys of parameters (RFC 9460 section 14.3.2), and the length of an address.
_PORT = 3
_HINT_KEYS = {4: 4, 6: 16}


class Led:
    """Where one resolver's HTTPS records lead from a name; grows while `follow` runs.

    Args:
        ask: Asks the resolver; None for a question that fails.

    Attributes:
        addresses: All hints, and all addresses of targets.
        ports: Those that services name.
        ttl: Seconds for which that holds; infinite for nothing.
        heard: Whether there was an answer to any question for HTTPS records, be it that there are none.
    """

    def __init__(self, ask: Callable[[str, Kind], Awaitable[Word | None]]) -> None:
        self.addresses: set[Address] = set()
        self.ports: set[int] = set()
        self.ttl = math.inf
        self.heard = False
        self._question = ask
        self._asked: set[tuple[str, Kind]] = set()

    async def follow(self, name: str) -> None:
        """Follow the records of a name; its own A and AAAA are the caller's. Cancelled, it keeps what it has found."""
        own = name.lower().removesuffix(".")
        self._asked |= {(own, "A"), (own, "AAAA")}
        await self._ask(own, ("HTTPS",))

    async def _ask(self, name: str, kinds: Sequence[Kind]) -> None:
        new = [kind for kind in kinds if (name, kind) not in self._asked][: _QUESTIONS - len(self._asked)]
        self._asked.update((name, kind) for kind in new)

        async def one(kind: Kind) -> None:
            word = await self._question(name, kind)
            if word is None:
                return
            self.ttl = min(self.ttl, word.ttl)
            if kind != "HTTPS":
                self.addresses |= word.addresses
                return
            self.heard = True
            services = sorted(word.services, key=lambda service: service.priority)[:_RECORDS]
            targets = [self._take(service) for service in services]
            await asyncio.gather(*(self._ask(target, more) for target, more in targets if target))

        await asyncio.gather(*map(one, new))

    def _take(self, service: pycares.HTTPSRecordData) -> tuple[str, Sequence[Kind]]:
        """Take what a record says by itself; the name that it leads to (empty: its own) and what to ask of that."""
        for key, value in service.params:
            if (size := _HINT_KEYS.get(key)) is not None:
                whole = range(0, min(len(value), size * _HINTS) - size + 1, size)
                self.addresses.update(ipaddress.ip_address(value[at : at + size]) for at in whole)
            elif key == _PORT:
                self.ports.add(int.from_bytes(value[:2], "big"))
        return service.target.lower(), ("A", "AAAA", "HTTPS") if service.priority == 0 else ("A", "AAAA")
