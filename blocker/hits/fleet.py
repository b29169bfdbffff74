"""What the store holds of nodes' hits: one node's ledger, and what all the other nodes may show.

The figures of the fleet are the sums of what each node's `/metrics` shows, made by the same rules from the same stored
counts; rounding their sum anew would be a second release of the same hours.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from blocker.hits.calendar import HOURS_A_WEEK, Cell, Slot, parse_folded, still_to_come
from blocker.hits.release import Ledger, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import tzinfo

# Cells read between two turns of the event loop: 3 ms.
_LOAD_CELLS = 500
# How long after an hour's end its hits may still be on their way to the store, in seconds.
SETTLED_SECONDS = 120.0

log = structlog.get_logger(__name__)

Released = dict[Series, tuple[int, ...]]


class StoredHits(Protocol):
    """What is read of the store."""

    async def load_hits(self, node: str) -> Mapping[str, int]:
        """All cells of the node.

        Raises:
            StoreError: Redis cannot be read now.
        """

    async def folded_hits(self, node: str) -> Mapping[str, int]:
        """What is left of the node's cells that were too old to be kept; read after `load_hits`.

        Raises:
            StoreError: Redis cannot be read now.
        """


class FleetStore(StoredHits, Protocol):
    """The same, of all nodes."""

    async def hit_nodes(self) -> list[str]:
        """The nodes that ever flushed hits."""


class Others(NamedTuple):
    """What the other nodes released: how many nodes, and their sums by series (168, Monday 00 first)."""

    nodes: int
    released: Released


class Fleet:
    """The other nodes' released hits, read from the store once an hour.

    Args:
        node: This node's own name; it is left out.
        zone: Whose wall clock names the hours.
        bin: Released cells are rounded up to a multiple of this.
        clock: Unix seconds now.
    """

    def __init__(self, *, node: str, zone: tzinfo, bin: int, clock: Callable[[], float]) -> None:  # noqa: A002 - as `Ledger`
        self._node = node
        self._zone = zone
        self._bin = bin
        self._clock = clock
        self._task: asyncio.Task[Others] | None = None
        self._read_in: Slot | None = None

    async def others(self, store: FleetStore) -> Others:
        """What the other nodes released of the hours that were over a while ago.

        A caller that gives up does not end the reading; the next one finds it done. Cost: about 6 µs a stored cell,
        once an hour.

        Raises:
            StoreError: Redis cannot be read now.
        """
        current, _ = still_to_come(self._clock() - SETTLED_SECONDS, self._zone)
        task = self._task
        if task is None or self._read_in != current or (task.done() and (task.cancelled() or task.exception())):
            task = self._task = asyncio.create_task(self._read(store), name="fleet-hits")
            self._read_in = current
        return await asyncio.shield(task)

    async def _read(self, store: FleetStore) -> Others:
        current, to_come = still_to_come(self._clock() - SETTLED_SECONDS, self._zone)
        others = [node for node in await store.hit_nodes() if node != self._node]
        found: list[Mapping[Series, tuple[int, ...]]] = []
        for node in others:
            ledger = await load_ledger(store, node, self._bin)
            ledger.release(lambda slot: slot < current and slot not in to_come)
            found.append(ledger.released)
        return Others(len(others), added(found))


def added(released: Iterable[Mapping[Series, tuple[int, ...]]]) -> Released:
    """The sums of several nodes' figures."""
    sums: defaultdict[Series, tuple[int, ...]] = defaultdict(lambda: (0,) * HOURS_A_WEEK)
    for one in released:
        for series, cells in one.items():
            sums[series] = tuple(map(int.__add__, sums[series], cells))
    return dict(sums)


async def load_ledger(store: StoredHits, node: str, bin: int) -> Ledger:  # noqa: A002 - as `Ledger`
    """What is stored of a node; nothing of it is released yet but what is folded.

    Raises:
        StoreError: Redis cannot be read now.
    """
    ledger = Ledger(bin)
    unreadable = 0
    cells: list[tuple[Cell, int]] = []
    stored, left = await _stored(store, node)
    for number, (field, hits) in enumerate(stored.items(), start=1):
        try:
            cells.append((Cell.parse(field), hits))
        except ValueError:
            unreadable += 1
        if number % _LOAD_CELLS == 0:
            ledger.add(cells)
            cells.clear()
            await asyncio.sleep(0)
    ledger.add(cells)
    folded: list[tuple[Series, int, int]] = []
    for field, figure in left.items():
        try:
            name, shadow, place = parse_folded(field)
        except ValueError:
            unreadable += 1
        else:
            folded.append((Series(name, shadow), place, figure))
    ledger.add_folded(folded)
    if unreadable:
        log.warning("stored hit cells of an unknown form are left out", cells=unreadable)
    return ledger


async def _stored(store: StoredHits, node: str) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Cells and folded cells, between whose reading nothing was folded."""
    left = await store.folded_hits(node)
    while True:
        stored = await store.load_hits(node)
        before, left = left, await store.folded_hits(node)
        if before == left:
            return stored, left
