"""From the settings of routes: what bounds them, and how often names are looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocker.feeds.lookups import Pace
from blocker.feeds.resolve import Resolvers
from blocker.feeds.route_terms import Limits

if TYPE_CHECKING:
    from blocker.route_section import RouteSettings

# Popular names change servers all day and are asked for no oftener than this.
POPULAR_TTL_SECONDS = 300.0


def limits_of(settings: RouteSettings) -> Limits:
    """The limits as configured."""
    return Limits(
        per_host=settings.max_per_host,
        total=settings.max_routes,
        changes_per_minute=settings.changes_per_minute,
        hold_down=settings.hold_down_seconds,
        slot_seconds=settings.slot_seconds,
        withdraw_seconds=settings.withdraw_seconds,
        families=settings.families,
        never=settings.never_networks,
    )


def pace_of(settings: RouteSettings, *, popular: bool = False) -> Pace:
    """The pace of lookups as configured."""
    least = max(settings.min_ttl_seconds, POPULAR_TTL_SECONDS) if popular else settings.min_ttl_seconds
    return Pace(
        least=least,
        most=max(least, settings.max_ttl_seconds),
        per_second=settings.lookups_per_second,
        at_once=settings.lookups_at_once,
    )


def resolvers_of(settings: RouteSettings) -> Resolvers:
    """The resolvers that are asked, as configured."""
    return Resolvers(
        settings.resolvers, quorum=settings.quorum, seconds=settings.lookup_seconds, tries=settings.lookup_tries,
        give_up_seconds=max(settings.hold_down_seconds, settings.max_ttl_seconds),
        fresh_seconds=settings.min_ttl_seconds, https_records=settings.https_records,
    )  # fmt: skip
