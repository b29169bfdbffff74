"""When names are looked up: as their answers run out and no sooner, at a bounded rate."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog

from blocker.log import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from blocker.feeds.resolve import Answer, Failing, Resolvers

log = structlog.get_logger(__name__)

# Of what a time is lengthened by at most, so that names that came together do not stay together.
_JITTER = 0.1
# After a look that failed, doubled each time: resolvers that come back are asked again within the latter. A name that
# fails while they answer others waits up to the pace's most, as one that is nowhere, so that thousands of such names,
# each holding a look until its time is over, do not keep the others waiting.
_RETRY_SECONDS = 2.0
_RETRY_MOST_SECONDS = 60.0
# Names taken over between two turns of the event loop: a third of a millisecond.
_SLICE = 256
_K = TypeVar("_K")


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
        failing: Since when names fail, as an earlier process left it; None: these are popular names, see `look_up`.
    """

    def __init__(
        self, resolvers: Resolvers, pace: Pace, heard: Callable[[_K, Answer | None], object],
        failing: dict[_K, Failing] | None = None,
    ) -> None:  # fmt: skip
        self.pace = pace
        self._failing = failing
        self._resolvers = resolvers
        self._heard = heard
        self._entries: dict[_K, _Entry[_K]] = {}
        # A heap: each entry that is not under way once, and some that are wanted no more.
        self._due: list[tuple[float, int, _Entry[_K]]] = []
        self._untried = 0
        self._order = itertools.count()
        self._wake = asyncio.Event()
        self._asking: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def untried(self) -> int:
        """Names that no answer, good or bad, has come for yet."""
        return self._untried

    def failed(self) -> Iterator[tuple[_K, list[tuple[str, int, float]]]]:
        """For how long names fail, by name, for another process: see `Resolvers.failed_for`."""
        for key, failing in tuple((self._failing or {}).items()):
            if failing:
                yield key, self._resolvers.failed_for(failing)

    def __len__(self) -> int:
        return len(self._entries)

    def want(self, names: Mapping[_K, str]) -> None:
        """The names to look up from now on; those that are new are looked up at once, in no order.

        Cost: 2 µs a name. For who cannot stop for so long there is `wanting`.
        """
        for _ in self.wanting(names):
            pass

    def wanting(self, names: Mapping[_K, str]) -> Iterator[None]:
        """As `want`, in parts: stops after each."""
        for at, key in enumerate((*self._entries, *(self._failing or ()))):
            if key not in names:
                if (entry := self._entries.pop(key, None)) is not None:
                    self._untried -= not entry.tried
                if self._failing is not None:
                    self._failing.pop(key, None)
            if at % _SLICE == 0:
                yield
        for at, (key, name) in enumerate(names.items()):
            if key not in self._entries:
                self._entries[key] = entry = _Entry(key, name)
                self._untried += 1
                # At once: whatever was due in the last second is. Not for a secret: it spreads load.
                self._at(self._loop.time() - random.random(), entry)  # noqa: S311
            if at % _SLICE == 0:
                yield

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
                entry = heapq.heappop(self._due)[2]
                if self._entries.get(entry.key) is entry:
                    return entry
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    async def _look(self, entry: _Entry[_K]) -> None:
        answer = None
        failing = None if self._failing is None else self._failing.setdefault(entry.key, {})
        try:
            answer = await self._resolvers.look_up(entry.name, failing)
        except Exception as error:  # noqa: BLE001 - a fault about one name must not end the looking for all
            log.error("a look-up failed in a way that was not foreseen", **describe(error))  # noqa: TRY400 - no values
        if self._entries.get(entry.key) is not entry:
            return
        self._untried -= not entry.tried
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
            most = pace.most if self._resolvers.silence < _RETRY_MOST_SECONDS else _RETRY_MOST_SECONDS
            seconds = min(_RETRY_SECONDS * 2.0 ** (entry.failures - 1), most)
        # Not for a secret: it spreads load.
        return seconds * (1 + _JITTER * random.random())  # noqa: S311

    def _at(self, when: float, entry: _Entry[_K]) -> None:
        heapq.heappush(self._due, (when, next(self._order), entry))
        self._wake.set()
