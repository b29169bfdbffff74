"""How many single pages the lists hold on each host: what a new rule for a whole host is compared with."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from blocker.errors import BlockerError, StoreUnavailable
from blocker.ingest.cleartext import read_rules, sealer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocker._native import RuleSet
    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring

# A host with fewer listed pages than this is of no interest to any guard.
LEAST_PATHS = 2

_log = structlog.get_logger("blocker.ingest")


class Neighbours:
    """Counts path rules by host over all lists; each list is read once per serial.

    Args:
        store: Where the lists are.
        keyring: With the seal key.
    """

    def __init__(self, store: Store, keyring: Keyring) -> None:
        self._store = store
        self._keyring = keyring
        self._counted: dict[str, tuple[str, Mapping[str, int]]] = {}

    async def paths_of(self, name: str, before: RuleSet | None, added: RuleSet) -> Mapping[str, int]:
        """Path rules by host, over the other lists and list `name` before the change; hosts with a few only.

        Reads no other list unless `added` has a rule for a whole host.
        """
        paths: Counter[str] = Counter(dict(before.path_hosts(LEAST_PATHS)) if before is not None else {})
        if len(added) == sum(count for _, count in added.path_hosts()):
            return paths
        for other, head in (await self._store.heads()).items():
            if other == name:
                continue
            known = self._counted.get(other)
            if known is None or known[0] != head.digest:
                try:
                    manifest = await self._store.manifest(other, head.serial)
                    rules = await read_rules(self._store, sealer(self._keyring), manifest)
                except StoreUnavailable:
                    raise
                except BlockerError as error:
                    _log.warning("a list cannot be read for the guards", list=other, reason=str(error))
                    continue
                known = (head.digest, dict(await asyncio.to_thread(rules.path_hosts, LEAST_PATHS)))
                self._counted[other] = known
            paths.update(known[1])
        return paths
