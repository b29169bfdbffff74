"""Which addresses of one listed name are to have routes, where it has more than it may have. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blocker.feeds.route_terms import Reason

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from blocker.feeds.addresses import Address
    from blocker.feeds.route_terms import Limits
    from blocker.feeds.sightings import Seen


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to become of a name's addresses.

    Attributes:
        chosen: Those with routes, and each one's place among them.
        refused: The others, and why.
        due: When to choose again though nothing was heard of the name; for ever: then alone.
    """

    chosen: dict[Address, int]
    refused: dict[Address, Reason]
    due: float


def choose(
    seen: Seen, routed: Container[Address], reasons: Mapping[Address, Reason | None], limits: Limits, now: float
) -> Choice:
    """Give the places that a name has to its addresses.

    Those that have one keep it, unless the name has left them for longer than `slot_seconds`; then come those where the
    name is, the first seen first; then those that it left last.

    Args:
        seen: Where the name was seen.
        routed: Which of these have a place.
        reasons: What speaks against each address, or None.
        limits: How many places there are, and for how long.
        now: Seconds of the same clock.
    """

    def place(address: Address) -> tuple[int, float, int]:
        sighting = seen.at[address]
        if address in routed and (sighting.gone is None or now < sighting.gone + limits.slot_seconds):
            return 0, sighting.first, int(address)
        if sighting.gone is None:
            return 1, sighting.first, int(address)
        return 2 if address in routed else 3, -sighting.gone, int(address)

    refused = {address: reason for address, reason in reasons.items() if reason is not None}
    fit = sorted((address for address in seen.at if address not in refused), key=place)
    refused.update((address, Reason.HOST_LIMIT) for address in fit[limits.per_host :])
    ends = [*seen.ends(limits.hold_down)]
    if len(fit) > limits.per_host:
        ends += (end for end in seen.ends(limits.slot_seconds) if end > now)
    chosen = {address: at for at, address in enumerate(fit[: limits.per_host])}
    return Choice(chosen, refused, min(ends, default=math.inf))
