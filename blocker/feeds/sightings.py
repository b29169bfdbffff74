"""Where a name was seen, and for how long that counts. Pure; times are Unix seconds and the caller's."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import nsmallest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from blocker.feeds.addresses import Address

#: The families of addresses.
FAMILIES = frozenset((4, 6))


@dataclass(slots=True)
class Sighting:
    """A name at an address.

    Attributes:
        first: When it was first there.
        gone: When an answer first lacked it; None while it is there.
    """

    first: float
    gone: float | None = None


@dataclass(slots=True)
class Seen:
    """All addresses of one name.

    Attributes:
        at: The addresses: those of its last answers, and those it had a hold-down ago or less.
        absent: Since when the name is in no resolver's answer; None while it is.
        most: Addresses in the last answer, also those that were too many to be kept.
    """

    at: dict[Address, Sighting] = field(default_factory=dict)
    absent: float | None = None
    most: int = 0

    def answered(
        self,
        addresses: Iterable[Address],
        now: float,
        *,
        complete: Collection[int],
        keep: int,
        useless: Callable[[Address], bool] = lambda _: False,
    ) -> bool:
        """Take over what resolvers said; whether anything is other than it was.

        Args:
            addresses: All that they said; none if the name is not there.
            now: When.
            complete: The families of which all of them said something; of the others nothing counts as gone, since it
                may be what the silent one would have said.
            keep: Remember so many addresses. Known ones come first, then those present, so that an answer of hundreds
                does not push out what is known.
            useless: Whether an address is of no use; such ones are forgotten first, so that junk pushes out nothing.
        """
        present = set(addresses)
        before = self.most, self.absent
        self.most = len(present)
        if present:
            self.absent = None
        elif self.absent is None and FAMILIES.issubset(complete):
            self.absent = now
        moved = before != (self.most, self.absent)
        for address, sighting in self.at.items():
            if (address in present) is (sighting.gone is None):
                continue
            if address in present:
                sighting.gone, moved = None, True
            elif address.version in complete:
                sighting.gone, moved = now, True
        new = present - self.at.keys()
        self.at.update((address, Sighting(now)) for address in new)
        if len(self.at) > keep:
            self.at = dict(nsmallest(keep, self.at.items(), key=lambda item: (useless(item[0]), *_worth(*item))))
            moved = True
        return moved or bool(new)

    def forget(self, now: float, hold_down: float) -> None:
        """Drop the addresses that it left a hold-down ago."""
        for address in [one for one, sighting in self.at.items() if _over(sighting, now, hold_down)]:
            del self.at[address]

    def move(self, by: float) -> None:
        """Move all times by so many seconds."""
        self.absent = None if self.absent is None else self.absent + by
        for sighting in self.at.values():
            sighting.first += by
            sighting.gone = None if sighting.gone is None else sighting.gone + by

    def ends(self, hold_down: float) -> Iterator[float]:
        """When the hold-downs under way end."""
        return (sighting.gone + hold_down for sighting in self.at.values() if sighting.gone is not None)


def _worth(address: Address, sighting: Sighting) -> tuple[bool, float, float, int]:
    """Least for what is kept: what is there, the longest first, then what went, the latest first."""
    return sighting.gone is not None, -(sighting.gone or 0.0), sighting.first, int(address)


def _over(sighting: Sighting, now: float, hold_down: float) -> bool:
    return sighting.gone is not None and now >= sighting.gone + hold_down
