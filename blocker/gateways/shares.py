"""Places of which no part of the network may have more than its share, so that one client cannot take all."""

from __future__ import annotations

from collections import Counter


class Shares:
    """Places taken, by part: an IPv4 /24 or IPv6 /56 as a number that says nothing of it (`DnsService.part`).

    Memory: a number for each part that has a place now.

    Attributes:
        most: Places that one part may have; 0: any number.
    """

    def __init__(self) -> None:
        self.most = 0
        self._taken: Counter[int] = Counter()

    def take(self, part: int | None) -> bool:
        """Take a place, unless the part has its share already; None is of no part, and always gets one."""
        if part is None:
            return True
        if self.most and self._taken[part] >= self.most:
            return False
        self._taken[part] += 1
        return True

    def give_back(self, part: int | None) -> None:
        """Leave a place that was taken."""
        if part is not None:
            self._taken[part] -= 1
            if self._taken[part] <= 0:
                del self._taken[part]

    def __len__(self) -> int:
        """How many parts have one."""
        return len(self._taken)
