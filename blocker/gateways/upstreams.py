"""Other resolvers: which of them answer, and how one question gets to one of them and back.

Each query leaves from a socket of its own, so from another random port, with a random id and random letters' case
(`DnsQuestion.exchange`); what comes back without all three is not looked at. A truncated answer, or one that somebody
tries to forge, is asked for again over TCP.

A name may be slow without any fault of the resolver that is asked for it. So one that leaves questions unanswered,
while nothing else is heard of it, is asked last from then on, and asked for what every resolver knows, the root's
servers; only if that is not answered either it counts as silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blocker._native import DnsExchange, DnsFound, DnsQuestion

log = structlog.get_logger(__name__)

#: The type of records of name servers (RFC 1035, section 3.2.2).
NS = 2
# What `DnsQuestion.exchange` takes.
_RANDOM_BYTES = 34
# Over the longest answer by datagram.
_READ_BYTES = 65_535
# Answers that are none, after which a question is asked over TCP: somebody guesses.
_MAX_STRANGERS = 8
# Questions that are left unanswered, while nothing at all is heard, before a resolver is suspected to be silent.
_SUSPECT_AFTER = 2
# Between two looks at whether one answers again, in seconds.
_PAUSE_SECONDS = 5.0
# How long another answer is waited for after one that has the right id and other letters' case, in seconds.
_RECASED_SECONDS = 0.05
# What this machine lacks, and no other resolver can help.
_OWN_FAULTS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
_DNS_PORT = 53


class Upstream:
    """Another resolver.

    Args:
        text: Its address and port, as configured.

    Attributes:
        last: Whether it is asked last: it may be silent.
        silent: Whether it is.
    """

    __slots__ = ("_heard_at", "_missed", "_recased", "address", "family", "last", "silent", "text")

    def __init__(self, text: str) -> None:
        parts = urlsplit(f"//{text}")
        self.text = text
        self.address = (parts.hostname or "", parts.port or _DNS_PORT)
        self.family = socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET
        self.last = self.silent = False
        self._heard_at = -math.inf
        self._missed = 0
        self._recased = False

    async def ask(self, question: DnsQuestion, seconds: float) -> tuple[DnsFound | None, bool]:
        """What it says: an answer, or that it failed; None: nothing. And whether a stranger spoke, too.

        Args:
            question: Of a client.
            seconds: Time for it, and as much again where TCP is needed.

        Raises:
            OSError: This machine has no socket for it.
        """
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        found: DnsFound | None = None
        strangers: list[DnsFound] = []
        try:
            found = await self._ask(question, seconds, strangers)
        except (TimeoutError, asyncio.IncompleteReadError):
            pass
        except OSError as error:
            if error.errno in _OWN_FAULTS:
                raise
        if found is not None:
            self._hear(loop.time())
        elif self._heard_at < asked_at:
            self._missed += 1
        return found, bool(strangers)

    @property
    def suspect(self) -> bool:
        """Whether it is time to `watch` it."""
        return self._missed >= _SUSPECT_AFTER and not self.last

    async def watch(self, probe: DnsQuestion, seconds: float) -> None:
        """Have it asked last until it answers; `probe`: a question that every resolver answers at once."""
        self.last = True
        while self.last:
            try:
                found, _ = await self.ask(probe, seconds)
                if found is None and self.last and not self.silent:
                    self.silent = True
                    log.warning("a resolver does not answer and is asked last", upstream=self.text)
            except OSError:
                self._hear(self._heard_at)  # nobody knows; others will find out
                return
            if self.last:
                await asyncio.sleep(_PAUSE_SECONDS)

    def _hear(self, now: float) -> None:
        if self.silent:
            log.info("a resolver answers again", upstream=self.text)
        self._heard_at, self._missed = now, 0
        self.last = self.silent = False

    async def _ask(self, question: DnsQuestion, seconds: float, strangers: list[DnsFound]) -> DnsFound | None:
        exchange = question.exchange(os.urandom(_RANDOM_BYTES))
        found = await self._by_datagram(exchange, seconds, strangers)
        if found is None or found.state in ("answer", "failed"):
            return found
        if found.state == "recased" and not self._recased:
            self._recased = True
            log.warning("a resolver changes the case of letters and is asked over TCP", upstream=self.text)
        async with asyncio.timeout(seconds):
            found = await self._over_tcp(exchange)
        return found if found.state in ("answer", "failed") else None

    async def _by_datagram(self, exchange: DnsExchange, seconds: float, strangers: list[DnsFound]) -> DnsFound | None:
        """What comes back; None: nothing. A stranger's word (all are added) if nobody else spoke, or too many."""
        loop = asyncio.get_running_loop()
        heard: asyncio.Future[DnsFound | None] = loop.create_future()

        def settle() -> None:
            if not heard.done():
                heard.set_result(strangers[-1] if strangers else None)

        def readable() -> None:
            while not heard.done():
                try:
                    found = exchange.hear(one.recv(_READ_BYTES), False)
                except BlockingIOError:
                    return
                except OSError:  # nobody listens there
                    heard.set_result(None)
                    return
                if found.state not in ("stranger", "recased"):
                    heard.set_result(found)
                    return
                strangers.append(found)
                if len(strangers) >= _MAX_STRANGERS:
                    settle()
                elif found.state == "recased":  # the answer itself, or somebody who has guessed all but this
                    timers.append(loop.call_later(_RECASED_SECONDS, settle))

        with socket.socket(self.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as one:
            # Connected, so that the system drops what others send and picks a random port.
            one.connect(self.address)
            one.send(exchange.query)
            loop.add_reader(one.fileno(), readable)
            timers = [loop.call_later(seconds, settle)]
            try:
                return await heard
            finally:
                for timer in timers:
                    timer.cancel()
                loop.remove_reader(one.fileno())

    async def _over_tcp(self, exchange: DnsExchange) -> DnsFound:
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            writer.write(len(exchange.query).to_bytes(2, "big") + exchange.query)
            length = int.from_bytes(await reader.readexactly(2), "big")
            return exchange.hear(await reader.readexactly(length), True)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def in_order(upstreams: Iterable[Upstream]) -> list[Upstream]:
    """As they are asked one after the other."""
    return sorted(upstreams, key=lambda one: one.last)
