"""Asks other resolvers what no list has a word on, and hands on what they say byte for byte.

What is asked by several clients at once is asked once. A resolver that does not answer, or cannot, is passed over, and
one that is silent is asked last until it answers again, which no client has to find out. That nobody answers is kept
for a moment (RFC 9520), and who waits too long is given what was right before, if that is kept (RFC 8767). No part of
the network, an IPv4 /24 or IPv6 /56, has more than its share of the places.

Not a library's: what c-ares gives to Python (aiodns, pycares) are the parsed records of thirteen types, without
DNSSEC's, without the sections as they were, and with no way to ask with the DO or CD bit.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, NamedTuple

import structlog

from blocker._native import DnsQuestion
from blocker.gateways.dns_load import Forwarded
from blocker.gateways.shares import Shares
from blocker.gateways.upstreams import NS, Upstream, in_order
from blocker.log import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from blocker._native import DnsFound, DnsService
    from blocker.gateways.dns_load import Fate
    from blocker.sections import DnsSettings

    Done = Callable[[DnsFound | None], Fate | None]

log = structlog.get_logger(__name__)

# Resolvers asked about one question, a single one twice.
_LEAST_TRIES = 2
# Clients may wait together for what is asked already, this many times more than there may be questions.
_TOGETHER = 4
# After so many seconds a client gets what is kept though its time is over (RFC 8767, section 5).
_LATE_SECONDS = 1.8


class _Client(NamedTuple):
    """Who waits, in which part of the network, and whether it is looked at what becomes of it (`dns_load`)."""

    done: Done
    part: int | None
    drawn: bool


class Forwarder:
    """Questions under way to other resolvers.

    Args:
        service: Keeps what they answer.
        settings: Who they are, and how long they have.

    Attributes:
        waiting: Clients' questions that have no answer yet.
        forwarded: What became of those that were drawn.
    """

    def __init__(self, service: DnsService, settings: DnsSettings) -> None:
        self._service = service
        self._upstreams: list[Upstream] = []
        self._asked: dict[bytes, list[_Client]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._shares = Shares()
        self.waiting = 0
        self.forwarded = Forwarded()
        self.configure(settings)

    def configure(self, settings: DnsSettings) -> None:
        """Ask others, with other limits, from the next question on."""
        self._seconds = settings.upstream_seconds
        self._max_waiting = settings.max_waiting
        self._shares.most = settings.share_of(settings.max_waiting)
        self._late = settings.stale_seconds > 0
        self._probe = DnsQuestion.about(settings.upstream_probe, NS)
        known = {one.text: one for one in self._upstreams}
        self._upstreams = [known.get(text) or Upstream(text) for text in settings.upstreams]

    def ask(self, question: DnsQuestion, part: int | None, done: Done) -> None:
        """Ask, and call `done` with what is said, or with None if nobody says anything; at once if too many wait.

        Args:
            question: A client's.
            part: The part of the network that the client is in; None: one that needs no bound.
            done: Called once; gives back what the client got, or None if that cannot be said.
        """
        client = _Client(done, part, self.forwarded.drawn())
        waiting = self._asked.get(question.key)
        most = self._max_waiting * (1 if waiting is None else _TOGETHER)
        if self.waiting >= most or not self._upstreams or not self._shares.take(part):
            self._tell(client, None)
            return
        self.waiting += 1
        if client.drawn:
            self.forwarded.began()
        if waiting is not None:
            waiting.append(client)
            return
        self._asked[question.key] = [client]
        self._start(self._resolve(question, drawn=client.drawn))

    async def stop(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _resolve(self, question: DnsQuestion, *, drawn: bool) -> None:
        loop = asyncio.get_running_loop()
        found = None
        late = loop.call_later(_LATE_SECONDS, self._give_late, question) if self._late else None
        try:
            found = await self._first_to_say(question, drawn=drawn)
            self._service.keep(question, found, loop.time())
        except OSError as error:  # nothing that the name is to blame for
            log.error("other resolvers cannot be asked", reason=os.strerror(error.errno or 0))  # noqa: TRY400 - no values
        except Exception as error:  # noqa: BLE001 - whoever waits gets an answer
            log.error("a question could not be forwarded", **describe(error))  # noqa: TRY400 - no values
        finally:
            if late is not None:
                late.cancel()
            self._hand_out(self._asked.pop(question.key), found)

    def _give_late(self, question: DnsQuestion) -> None:
        """Have nobody wait longer for whom there is an answer, though its time is over; others go on waiting."""
        now = asyncio.get_running_loop().time()
        if self._service.has_late(question, now):
            self._service.keep(question, None, now)  # who asks next need not wait at all
            waiting, self._asked[question.key] = self._asked[question.key], []
            self._hand_out(waiting, None)

    def _hand_out(self, waiting: list[_Client], found: DnsFound | None) -> None:
        for client in waiting:
            self.waiting -= 1
            self._shares.give_back(client.part)
            if client.drawn:
                self.forwarded.ended()
            self._tell(client, found)

    def _tell(self, client: _Client, found: DnsFound | None) -> None:
        fate = client.done(found)
        if client.drawn and fate is not None:
            self.forwarded.told(fate)

    async def _first_to_say(self, question: DnsQuestion, *, drawn: bool) -> DnsFound | None:
        """What the first resolver says that says something; else what one said that cannot."""
        order = in_order(self._upstreams)
        failed = None
        for upstream in order if len(order) >= _LEAST_TRIES else order * _LEAST_TRIES:
            found, stranger = await upstream.ask(question, self._seconds)
            if drawn:
                self.forwarded.asked(upstream.text, found, stranger=stranger)
            if found is not None and found.state == "answer":
                return found
            failed = found or failed
            if upstream.suspect:
                self._start(upstream.watch(self._probe, self._seconds))
        return failed
