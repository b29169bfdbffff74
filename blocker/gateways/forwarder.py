"""Asks other resolvers what no list has a word on, and hands on what they say byte for byte.

What is asked by several clients at once is asked once. Each query leaves from a socket of its own, so from another
random port, with a random id and random letters' case (`DnsQuestion.exchange`); what comes back without all three is
not looked at. A truncated answer, or one that somebody tries to forge, is asked for again over TCP; a resolver that
does not answer, or cannot, is passed over, and one that was silent is asked last for a while.

Not a library's: what c-ares gives to Python (aiodns, pycares) are the parsed records of thirteen types, without
DNSSEC's, without the sections as they were, and with no way to ask with the DO or CD bit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from blocker.gateways.dns_load import Forwarded
from blocker.log import describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocker._native import DnsExchange, DnsFound, DnsQuestion, DnsService
    from blocker.gateways.dns_load import Fate
    from blocker.sections import DnsSettings

    Done = Callable[[DnsFound | None], Fate | None]

log = structlog.get_logger(__name__)

# What `DnsQuestion.exchange` takes.
_RANDOM_BYTES = 34
# Over the longest answer by datagram.
_READ_BYTES = 65_535
# Answers that are none, after which a question is asked over TCP: somebody guesses.
_MAX_STRANGERS = 8
# Questions in a row that a resolver leaves unanswered before it counts as silent: one may be about a name that is slow.
_SILENT_AFTER = 2
# How long a resolver that was silent is asked last, in seconds.
_SILENT_SECONDS = 5.0
# Resolvers asked about one question, a single one twice.
_LEAST_TRIES = 2
_DNS_PORT = 53


class Upstream:
    """Another resolver.

    Attributes:
        text: As it is configured.
        silent_until: When it may be asked first again, in seconds of the event loop.
    """

    __slots__ = ("_missed", "address", "family", "silent_until", "text")

    def __init__(self, text: str) -> None:
        parts = urlsplit(f"//{text}")
        self.address = (parts.hostname or "", parts.port or _DNS_PORT)
        self.family = socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET
        self.silent_until = 0.0
        self.text = text
        self._missed = 0

    def missed(self, now: float) -> None:
        """It left a question unanswered."""
        self._missed += 1
        if self._missed == _SILENT_AFTER:
            log.warning("a resolver does not answer and is asked last", upstream=self.text)
        if self._missed >= _SILENT_AFTER:
            self.silent_until = now + _SILENT_SECONDS

    def answered(self) -> None:
        """It answered, whatever it said."""
        if self._missed >= _SILENT_AFTER:
            log.info("a resolver answers again", upstream=self.text)
        self._missed, self.silent_until = 0, 0.0


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
        self._asked: dict[bytes, list[tuple[Done, bool]]] = {}  # who waits, and whether that is looked at
        self._tasks: set[asyncio.Task[None]] = set()
        self.waiting = 0
        self.forwarded = Forwarded()
        self.configure(settings)

    def configure(self, settings: DnsSettings) -> None:
        """Ask others, with other limits, from the next question on."""
        self._seconds = settings.upstream_seconds
        self._max_waiting = settings.max_waiting
        self._upstreams = [Upstream(text) for text in settings.upstreams]

    def ask(self, question: DnsQuestion, done: Done) -> None:
        """Ask, and call `done` with what is said, or with None if nobody says anything; at once if too many wait.

        `done` gives back what the client got; None: that cannot be said.
        """
        drawn = self.forwarded.drawn()
        if self.waiting >= self._max_waiting or not self._upstreams:
            self._tell(done, None, drawn=drawn)
            return
        self.waiting += 1
        if drawn:
            self.forwarded.began()
        waiting = self._asked.get(question.key)
        if waiting is not None:
            waiting.append((done, drawn))
            return
        self._asked[question.key] = [(done, drawn)]
        task = asyncio.create_task(self._resolve(question, drawn=drawn))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _resolve(self, question: DnsQuestion, *, drawn: bool) -> None:
        found = None
        try:
            found = await self._first_to_say(question, drawn=drawn)
            if found is not None:
                self._service.keep(question, found, asyncio.get_running_loop().time())
        except Exception as error:  # noqa: BLE001 - whoever waits gets an answer
            log.error("a question could not be forwarded", **describe(error))  # noqa: TRY400 - no values
        finally:
            for done, one_drawn in self._asked.pop(question.key):
                self.waiting -= 1
                if one_drawn:
                    self.forwarded.ended()
                self._tell(done, found, drawn=one_drawn)

    def _tell(self, done: Done, found: DnsFound | None, *, drawn: bool) -> None:
        fate = done(found)
        if drawn and fate is not None:
            self.forwarded.told(fate)

    async def _first_to_say(self, question: DnsQuestion, *, drawn: bool) -> DnsFound | None:
        """What the first resolver says that says something; else what one said that cannot."""
        loop = asyncio.get_running_loop()
        order = sorted(self._upstreams, key=lambda one: one.silent_until > loop.time())
        failed = None
        for upstream in order if len(order) >= _LEAST_TRIES else order * _LEAST_TRIES:
            found, stranger = await ask_one(upstream, question, self._seconds)
            if drawn:
                self.forwarded.asked(upstream.text, found, stranger=stranger)
            if found is None:
                upstream.missed(loop.time())
                continue
            upstream.answered()
            if found.state == "answer":
                return found
            failed = found
        return failed


async def ask_one(upstream: Upstream, question: DnsQuestion, seconds: float) -> tuple[DnsFound | None, bool]:
    """What a resolver says, within so many seconds by datagram and as many over TCP, and whether a stranger spoke, too.

    None: it says nothing.
    """
    exchange, stranger = question.exchange(os.urandom(_RANDOM_BYTES)), False
    try:
        found, stranger = await _by_datagram(upstream, exchange, seconds)
        if found is None or found.state not in ("truncated", "stranger"):
            return found, stranger
        async with asyncio.timeout(seconds):
            found = await _over_tcp(upstream, exchange)
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None, stranger
    return (found if found.state in ("answer", "failed") else None), stranger


async def _by_datagram(upstream: Upstream, exchange: DnsExchange, seconds: float) -> tuple[DnsFound | None, bool]:
    """What comes back, if anything, and whether strangers spoke, whose word it is if nobody else did or too many."""
    loop = asyncio.get_running_loop()
    heard: asyncio.Future[DnsFound | None] = loop.create_future()
    strangers: list[DnsFound] = []

    def readable() -> None:
        while not heard.done():
            try:
                found = exchange.hear(one.recv(_READ_BYTES), False)
            except BlockingIOError:
                return
            except OSError:  # nobody listens there
                heard.set_result(None)
                return
            if found.state != "stranger":
                heard.set_result(found)
                return
            strangers.append(found)
            if len(strangers) >= _MAX_STRANGERS:
                heard.set_result(found)

    def give_up() -> None:
        if not heard.done():
            heard.set_result(None)

    with socket.socket(upstream.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as one:
        # Connected, so that the system drops what others send and picks a random port.
        one.connect(upstream.address)
        one.send(exchange.query)
        loop.add_reader(one.fileno(), readable)
        late = loop.call_later(seconds, give_up)
        try:
            found = await heard
        finally:
            late.cancel()
            loop.remove_reader(one.fileno())
    return found or (strangers[0] if strangers else None), bool(strangers)


async def _over_tcp(upstream: Upstream, exchange: DnsExchange) -> DnsFound:
    reader, writer = await asyncio.open_connection(*upstream.address)
    try:
        writer.write(len(exchange.query).to_bytes(2, "big") + exchange.query)
        length = int.from_bytes(await reader.readexactly(2), "big")
        return exchange.hear(await reader.readexactly(length), True)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
