"""What changed between the last versions of a zone, so that secondaries need not fetch it whole (RFC 1995).

Bounded in number and in size: differences that together are larger than the zone are of no use, since the zone itself
is sent sooner. What is not known here is sent whole. `shelf` keeps it over restarts.
"""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blocker.feeds.zone import is_newer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from blocker._native import ZoneDelta
    from blocker.feeds.zone import Version


# Owner names that are not worth a thought: some 30 kB.
_SMALL = 1024


@dataclass(frozen=True, slots=True)
class Step:
    """What changed from the version of a serial to the next one."""

    serial: int
    delta: ZoneDelta


class History:
    """The differences that lead to the present version.

    Args:
        limit: Versions before the present one that can be had.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._steps: deque[Step] = deque()

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, older: Version, newer: Version, delta: ZoneDelta) -> None:
        """Keep what changed from the present version to the one that takes its place.

        A version that says its names otherwise (another action, TTL or SOA) has no differences but everything; so has
        one after a version that the store knows nothing of, since somebody may have something else by the same serial.
        """
        doubtful = newer.since is not None and is_newer(newer.since, older.serial)
        if doubtful or older.plan.said != newer.plan.said:
            self._steps.clear()
            return
        self._steps.append(Step(older.serial, delta))
        self._trim(newer)

    @property
    def steps(self) -> Sequence[Step]:
        """All that is known, the oldest first."""
        return tuple(self._steps)

    def restore(self, steps: Iterable[Step], version: Version) -> None:
        """Start with what led to a version."""
        self._steps = deque(steps)
        self._trim(version)

    def _trim(self, newer: Version) -> None:
        size = sum(len(step.delta) for step in self._steps)
        while self._steps and (len(self._steps) > self._limit or size > _owners(newer)):
            size -= len(self._steps.popleft().delta)

    def since(self, serial: int) -> tuple[ZoneDelta, ...]:
        """What changed from a version to the present one, step by step; nothing: it is not known."""
        at = next((at for at, step in enumerate(self._steps) if step.serial == serial), len(self._steps))
        return tuple(step.delta for step in list(self._steps)[at:])


def condensed(steps: Sequence[ZoneDelta]) -> ZoneDelta:
    """Several changes as one (RFC 1995 section 5). CPU-bound: for a thread."""
    return functools.reduce(lambda first, second: first.then(second), steps)


def _owners(version: Version) -> int:
    return max(_SMALL, sum(version.zone.counts[1:]))
