"""The addresses that wait for a route, in the order in which they get one. Pure."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

    from blocker.feeds.addresses import Address

# Entries beyond those that are wanted before they are sorted out.
_STALE = 4096


class Waiting:
    """First the first address of each name, then the second of each: none waits for another's hundreds."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, float, int, Address]] = []  # place, since when, order, address
        self._there: set[Address] = set()

    def __len__(self) -> int:
        return len(self._heap)

    def __contains__(self, address: Address) -> bool:
        return address in self._there

    def add(self, address: Address, place: int, now: float) -> None:
        """Add an address at its place among its name's; one that is there stays where it is."""
        if address not in self._there:
            heapq.heappush(self._heap, (place, now, int(address), address))
            self._there.add(address)

    def pop(self) -> Address:
        """Take the first one."""
        address = heapq.heappop(self._heap)[3]
        self._there.discard(address)
        return address

    def tidy(self, wanted: Container[Address], count: int) -> None:
        """Drop what is not wanted, if there is much of it: names that flap while nothing may be announced leave it."""
        if len(self._heap) > 2 * count + _STALE:
            self._heap = [entry for entry in self._heap if entry[3] in wanted]
            heapq.heapify(self._heap)
            self._there = {entry[3] for entry in self._heap}
