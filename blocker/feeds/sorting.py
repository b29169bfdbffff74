"""What is done with each listed name: looked up, spared, or an address itself."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blocker.feeds.route_hosts import ids_of, literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blocker.feeds.addresses import Address
    from blocker.feeds.route_terms import NameId, Reason
    from blocker.feeds.spared import Spared

# Names sorted between two chances for other threads: a third of a millisecond.
_SLICE = 128


@dataclass(slots=True)
class Sorted:
    """Listed names, sorted.

    Attributes:
        names: All of them.
        asked: Those to look up.
        literal: Those that are addresses.
        refused: Those that get no route, wherever they are, and why.
        looked_up: Those of them whose addresses are spared for all others, so that these are looked up as popular ones.
    """

    names: dict[NameId, str]
    asked: dict[NameId, str] = field(default_factory=dict)
    literal: dict[NameId, Address] = field(default_factory=dict)
    refused: dict[NameId, Reason] = field(default_factory=dict)
    looked_up: dict[NameId, str] = field(default_factory=dict)

    @classmethod
    def of(cls, key: bytes, names: Iterable[str], sparing: Spared) -> Sorted:
        """Sort names. Cost: 5 µs a name, for a thread; others get their turn.

        Args:
            key: For their ids.
            names: All that are listed.
            sparing: Which are spared.
        """
        made = cls(ids_of(key, names))
        for at, (one, name) in enumerate(made.names.items()):
            if at % _SLICE == 0:
                time.sleep(0)
            if (address := literal(name)) is not None:
                made.literal[one] = address
                continue
            made.asked[one] = name
            if (reason := sparing.reason(name)) is not None:
                made.refused[one] = reason
                if sparing.speaks_for_itself(name):
                    made.looked_up[one] = name
        return made
