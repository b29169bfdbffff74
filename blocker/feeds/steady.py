"""Time for what is kept for long: as the wall clock had it once, and from then on as seconds go by."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Of the time for which a node was away, what counts when it comes back, in seconds: its clock may be wrong by years.
AWAY_SECONDS = 3600.0


class SteadyClock:
    """Unix seconds that never step.

    A clock that is set back by a day would stop all that waits for a time, and one that is set forward would end every
    hold-down at once. So the wall clock is read at the beginning alone.

    Args:
        wall: The wall clock.
        steady: Seconds that only grow.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self._ahead = self._wall() - steady()

    def __call__(self) -> float:
        """Now."""
        return self._steady() + self._ahead

    @property
    def stepped(self) -> float:
        """Whole seconds by which the wall clock was set since the beginning; to be added to times that people read."""
        return float(round(self._wall() - self()))


def moved(saved: float, now: float) -> float:
    """What to add to times that were kept until `saved`, so that they go on at `now`.

    Time in which nobody looked counts as `AWAY_SECONDS` at the most, and none if the clock was set back meanwhile.
    """
    return now - saved - min(max(now - saved, 0.0), AWAY_SECONDS)
