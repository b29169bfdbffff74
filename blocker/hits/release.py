"""What of the counted hits may be seen, and when: the rules by which a cell is released.

The threat. Somebody holds flow logs with times exact to the second (who sent a packet to which address) and reads every
scrape of `/metrics`, forever; perhaps he also sends requests of his own to learn how the counters answer. If a counter
moved when a request is blocked, one look at the flow log would tell whose request it was. So:

1. A cell is released only when its hour is over (`calendar.is_over`): a repeated hour after its second run.
2. What is released is its count **rounded up** to a multiple of a bin (0 stays 0), so one request more or less usually
   changes nothing, and a first request looks the same as the eighth.
3. A cell is held back while any hit of its hour still waits for the store; what is released is what is stored. A
   counter therefore never takes back at a restart what it once said.
4. Between two releases nothing changes, so scraping more often tells nothing. Once released a cell changes only by a
   late flush: hits of its hour that were counted after all, as happens when the machine's clock was set back. That,
   too, waits for the end of an hour.
5. Each week's cell is rounded by itself before the weeks are summed: the sum moves in whole bins.
6. The same holds for `blocker_decisions_total{verdict="block"}`. A block is not missing elsewhere meanwhile, or a
   request in the flow log that moves no counter would be one that was blocked: it counts as `allow` and as a decision
   of usual time until its hour is over (`meters.Meter.shown`).

Not covered: who can read the Redis itself at any moment, or the memory of this process, sees unreleased counts.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from blocker.hits.calendar import HOURS_A_WEEK, Cell, Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

DEFAULT_BIN = 8  # as in settings: a power of two, well under the report's threshold of 10 for a whole cell

_NONE = (0,) * HOURS_A_WEEK


class Series(NamedTuple):
    """What one counter with its 168 cells is about: a list, and whether it blocks or only would."""

    list: str
    shadow: bool


def rounded_up(count: int, bin: int) -> int:  # noqa: A002 - the setting's own name
    """`count` rounded up to a multiple of `bin`; 0 stays 0."""
    return -(-count // bin) * bin


class Ledger:
    """The stored counts of one node, and the sums that are released of them.

    Sums only grow, except that a store which lost data shows at the next start. Memory: 1.4 kB for each list and week
    in which it hit, about 0.4 MB a year for five lists.
    """

    def __init__(self, bin: int = DEFAULT_BIN) -> None:  # noqa: A002 - the setting's own name
        self._bin = bin
        self._counts: defaultdict[tuple[Series, int, int], array[int]] = defaultdict(
            lambda: array("Q", bytes(8 * HOURS_A_WEEK))
        )
        # What changed since its last release: each cell's count as it is contained in the sums.
        self._open: defaultdict[Slot, dict[Series, int]] = defaultdict(dict)
        self._released: dict[Series, tuple[int, ...]] = {}

    @property
    def released(self) -> Mapping[Series, tuple[int, ...]]:
        """Released hits by series: 168 sums over all weeks, Monday 00 first.

        Both the mapping and its tuples are replaced when a sum in them changes, and the same objects as long as none
        does.
        """
        return self._released

    @property
    def open_slots(self) -> Collection[Slot]:
        """The slots of which counts wait for their release."""
        return self._open.keys()

    def add(self, cells: Iterable[tuple[Cell, int]]) -> None:
        """Take over counts that are stored now. Cost: about 1 µs a cell."""
        for cell, count in cells:
            slot = cell.slot
            series = Series(cell.list, cell.shadow)
            week = self._counts[series, cell.iso_year, cell.iso_week]
            self._open[slot].setdefault(series, week[slot.place])
            week[slot.place] += count

    def add_folded(self, figures: Iterable[tuple[Series, int, int]]) -> None:
        """Take over released figures of weeks that are not kept: series, place within the week, figure."""
        sums: dict[Series, list[int]] = {}
        for series, place, figure in figures:
            sums.setdefault(series, list(self._released.get(series, _NONE)))[place] += figure
        self._released = {**self._released, **{series: tuple(more) for series, more in sums.items()}}

    def release(self, over: Callable[[Slot], bool], held: Collection[Slot] = ()) -> bool:
        """Release every cell whose hour is over.

        Args:
            over: Whether the wall clock has passed a slot for good.
            held: Slots of which hits still wait for the store; they stay back whole.

        Returns:
            Whether any sum changed.
        """
        changed: dict[Series, list[int]] = {}
        for slot in [slot for slot in self._open if slot not in held and over(slot)]:
            for series, contained in self._open.pop(slot).items():
                count = self._counts[series, slot.iso_year, slot.iso_week][slot.place]
                more = rounded_up(count, self._bin) - rounded_up(contained, self._bin)
                if more:
                    sums = changed.setdefault(series, list(self._released.get(series, _NONE)))
                    sums[slot.place] += more
        if changed:
            self._released = {**self._released, **{series: tuple(sums) for series, sums in changed.items()}}
        return bool(changed)
