"""Where popular names are: how many of them at each address, and in each network around one. Pure.

Counts are kept as names come and go, so that a question costs nothing, however many addresses there are.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from blocker.feeds.addresses import neighbourhood

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blocker.feeds.addresses import Address

_K = TypeVar("_K")


class Places:
    """Counts of popular names."""

    def __init__(self) -> None:
        self._at: Counter[Address] = Counter()
        self._around: Counter[int] = Counter()

    def __contains__(self, address: Address) -> bool:
        return address in self._at

    def near(self, address: Address) -> bool:
        """Whether a popular name is in the network around an address."""
        return neighbourhood(address) in self._around

    def came(self, addresses: Iterable[Address]) -> None:
        """A popular name is at these too."""
        for address in addresses:
            self._at[address] += 1
            self._around[neighbourhood(address)] += 1

    def went(self, addresses: Iterable[Address]) -> None:
        """A popular name is no more at these."""
        for address in addresses:
            _less(self._at, address)
            _less(self._around, neighbourhood(address))


def _less(counts: Counter[_K], key: _K) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
