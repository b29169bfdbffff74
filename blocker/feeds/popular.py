"""Where no route may go: popular names, names never to be routed, and listed names that are spared (`spared`), kept
looked up beside the listed ones. Until it is known, nothing new is announced.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import structlog

from blocker.errors import BlockerError
from blocker.feeds.lookups import Lookups
from blocker.feeds.route_hosts import ids_of, with_www
from blocker.feeds.route_paces import pace_of
from blocker.feeds.spared import Gate
from blocker.feeds.turns import in_turns
from blocker.ingest.never_block import read_popular
from blocker.log import describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blocker.feeds.resolve import Answer, Resolvers
    from blocker.feeds.routes import NameId, RouteTable
    from blocker.feeds.steady import SteadyClock
    from blocker.route_section import RouteSettings
    from blocker.sections import GuardSettings

log = structlog.get_logger(__name__)


class Feed(Protocol):
    """What is needed of the feed."""

    table: RouteTable
    now: SteadyClock


class PopularNames:
    """The popular names of one feed, and the others that are looked up with them.

    Args:
        feed: Whose.
        key: The lookup key, of the names' ids.
    """

    def __init__(self, feed: Feed, key: bytes) -> None:
        self.names: frozenset[str] = frozenset()
        self._feed, self._key = feed, key
        self._ids: dict[NameId, str] = {}
        self._known = False  # whether it is known which names these are
        self._gate = Gate()
        self._lookups: Lookups[NameId] | None = None

    def looked_up(self, resolvers: Resolvers, settings: RouteSettings) -> Lookups[NameId]:
        """What looks them up from now on, once it runs."""
        self._lookups = Lookups(resolvers, pace_of(settings, popular=True), self._heard)
        return self._lookups

    def configure(self, settings: RouteSettings) -> None:
        """Take over another pace."""
        if self._lookups is not None:
            self._lookups.pace = pace_of(settings, popular=True)

    async def read(self, guards: GuardSettings, settings: RouteSettings) -> None:
        """Read which names are popular; a file that cannot be read changes nothing."""
        path, top = guards.popular_domains, settings.popular_top
        names: Iterable[str] = ()
        try:
            if path is not None and top:
                names = await asyncio.to_thread(read_popular, path, top)
        except BlockerError as error:
            log.error("popular domains stay as they were", **describe(error))  # noqa: TRY400 - no values
            return
        self.names = frozenset(names) - set(settings.popular_exempt)
        self._ids = await asyncio.to_thread(ids_of, self._key, with_www(self.names))
        self._known = True

    async def spare(self, listed: Mapping[NameId, str], settings: RouteSettings) -> None:
        """Look up popular names, those never to be routed, and these listed ones from now on, and no others."""
        others = {**listed, **ids_of(self._key, with_www(settings.never_names))}
        spared = {**others, **self._ids}
        if self._known:
            self._gate.want(self._ids, others, self._feed.table.popular)
        self.pass_gate()
        await in_turns(self._feed.table.popular_naming(spared))
        if self._lookups is not None:
            await in_turns(self._lookups.wanting(spared))

    def pass_gate(self) -> None:
        """Let new routes be announced, or no more until it is known where they may not go."""
        table = self._feed.table
        if self._gate.open is not table.popular_known:
            table.popular_known = known = self._gate.open
            log.info("addresses of popular names are known" if known else "addresses of popular names are to be known")

    def _heard(self, key: NameId, answer: Answer | None) -> None:
        self._gate.heard(key, answered=answer is not None)
        if answer is not None:
            self._feed.table.popular_answered(key, answer.addresses, self._feed.now(), complete=answer.complete)
