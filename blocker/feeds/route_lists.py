"""The hosts of a policy's lists, read from the store again only where a list has changed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from blocker.feeds.route_exceptions import Exceptions
from blocker.feeds.route_hosts import Hosts, excepting_lists, hosts_of, routed_lists
from blocker.ingest.cleartext import read_rules

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from blocker._native import RuleSet, Table
    from blocker.matcher import Policy
    from blocker.store.manifest import Manifest
    from blocker.store.redis import Store
    from blocker.store.sealing import Sealer


class RoutedLists:
    """Reads them.

    Args:
        open_store: The store, or StoreUnavailable.
        sealer: Opens the lists' clear text.
    """

    def __init__(self, open_store: Callable[[], Awaitable[Store]], sealer: Sealer) -> None:
        self._open_store = open_store
        self._sealer = sealer
        # By list: its serial, whether whole hosts were asked for, the lists of exceptions, and what came of it.
        self._read: dict[str, tuple[int, bool, Mapping[str, int], Hosts]] | None = None

    async def read(self, table: Table, policy: Policy | None, *, whole: bool) -> Hosts | None:
        """The hosts of all lists together; None if they are what they were.

        Args:
            table: The lists at their serials.
            policy: Which of them; None for all.
            whole: Whether hosts that are listed whole are routed too.

        Raises:
            StoreUnavailable: The store is away.
            BlockerError: A list cannot be read. Then all stays as it was.

        Cost: 3 s for a million rules, in threads; after a change of exceptions for all lists.
        """
        excepting = excepting_lists(table, policy)
        exceptions: Exceptions | None = None
        hosts = {}
        for name, serial in routed_lists(table, policy).items():
            kept = (self._read or {}).get(name)
            if kept is not None and kept[:3] == (serial, whole, excepting):
                hosts[name] = kept
                continue
            if exceptions is None:
                exceptions = await self._exceptions(excepting)
            rules, manifest = await self._rules(name, serial)
            found = await asyncio.to_thread(
                hosts_of, rules, www_alias=manifest.www_alias, whole_hosts=whole,
                fold=manifest.path_case == "insensitive", exceptions=exceptions,
            )  # fmt: skip
            hosts[name] = (serial, whole, excepting, found)
        if hosts == self._read:
            return None
        self._read = hosts
        return await asyncio.to_thread(Hosts.together, [found for *_, found in hosts.values()])

    async def _exceptions(self, lists: Mapping[str, int]) -> Exceptions:
        found = Exceptions()
        for name, serial in lists.items():
            rules, manifest = await self._rules(name, serial)
            fold = manifest.path_case == "insensitive"
            await asyncio.to_thread(found.add, rules, www_alias=manifest.www_alias, fold=fold)
        return found

    async def _rules(self, name: str, serial: int) -> tuple[RuleSet, Manifest]:
        store = await self._open_store()
        manifest = await store.manifest(name, serial)
        return await read_rules(store, self._sealer, manifest), manifest
