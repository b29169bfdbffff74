"""Asks the `dns` gateway's upstreams itself, so that it is known whether they answer, also while no client asks.

A question of our own says nothing of anybody, so it may be counted and timed as it is. It goes the same way as clients'
questions do (`upstreams`), from the node's own process, and changes nothing of the order in which clients'
questions are asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from blocker._native import DnsQuestion
from blocker.gateways.upstreams import NS, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocker.sections import DnsSettings

#: How a look ended: it answered, it said that it cannot, it said nothing.
Result = Literal["answered", "failed", "silent"]
#: Between two looks, in seconds: an outage is known within a quarter of a minute, and resolvers hardly notice.
LOOK_SECONDS = 5.0
# Looks in a row without an answer after which a resolver counts as down: a datagram may be lost.
_DOWN_AFTER = 2


@dataclass(slots=True)
class UpstreamState:
    """What looks at one resolver found.

    Attributes:
        results: How many ended how.
        seconds: Time of the last answer; None: there was none yet.
        last: How the last look ended; None: there was none yet.
    """

    results: Counter[Result] = field(default_factory=Counter)
    seconds: float | None = None
    last: Result | None = None
    missed: int = 0

    @property
    def up(self) -> bool:
        """Whether it answers, one lost look aside."""
        return self.missed < _DOWN_AFTER

    def found(self, result: Result, seconds: float) -> None:
        """A look has ended."""
        self.results[result] += 1
        self.last = result
        self.missed = 0 if result == "answered" else self.missed + 1
        if result == "answered":
            self.seconds = seconds


class UpstreamWatch:
    """The looks at all of them.

    Args:
        settings: The present ones.

    Attributes:
        states: What is known of those that were looked at, by how they are configured.
    """

    def __init__(self, settings: Callable[[], DnsSettings]) -> None:
        self._settings = settings
        self.states: dict[str, UpstreamState] = {}

    async def run(self) -> None:
        """Look again and again, until it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Ask all of them once. Takes as long as the slowest."""
        settings = self._settings()
        self.states = {text: self.states.get(text) or UpstreamState() for text in settings.upstreams}
        question = DnsQuestion.about(settings.upstream_probe, NS)
        asking = [_look(text, state, question, settings.upstream_seconds) for text, state in self.states.items()]
        await asyncio.gather(*asking)


async def _look(text: str, state: UpstreamState, question: DnsQuestion, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    found = None
    with contextlib.suppress(OSError):  # that this machine has no socket left is heard of elsewhere
        found, _ = await Upstream(text).ask(question, seconds)
    result: Result = "silent" if found is None else "answered" if found.state == "answer" else "failed"
    state.found(result, loop.time() - began)
