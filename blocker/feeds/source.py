"""From the store to a zone: which lists are in it, their rules in clear text, and its serial.

A serial is given by the store, to whichever node asks first; all nodes that see the same lists then use the same one.
It grows with every change, also when a list goes back to what it was: seconds since 1970, or one more than the last.
A store that forgot what it gave is told by whoever still serves it, and leaps a day ahead, see `scripts.ZONE_SERIAL`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from blocker._native import Zone
from blocker.errors import KeyMaterialError, StoreError
from blocker.feeds.zone import Plan, Version
from blocker.ingest.cleartext import read_rules, sealer

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from blocker._native import RuleSet
    from blocker.matcher import Policy
    from blocker.store.manifest import Head, Manifest
    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring


@dataclass(frozen=True, slots=True)
class Basis:
    """Of what a zone is made: equal ones make equal zones.

    Attributes:
        plan: The zone.
        lists: Each list that may count, with its head and what the policy does with it.
    """

    plan: Plan
    lists: tuple[tuple[str, Head, str | None], ...]

    @classmethod
    def of(cls, plan: Plan, policy: Policy, heads: Mapping[str, Head]) -> Basis:
        """What a zone would be made of now."""
        modes = dict.fromkeys(sorted(heads)) if policy.lists is None else policy.lists
        return cls(plan, tuple((name, heads[name], mode) for name, mode in modes.items() if name in heads))

    @property
    def names(self) -> frozenset[str]:
        """Those of its lists."""
        return frozenset(name for name, _, _ in self.lists)


def lost(names: Collection[str], policy: Policy, heads: Mapping[str, Head]) -> list[str]:
    """Lists that a policy still wants and that left the store: it was emptied, and says nothing about them."""
    return [name for name in names if name not in heads and (policy.lists is None or name in policy.lists)]


class ZoneSource:
    """Reads zones from a store.

    Raises:
        KeyMaterialError: This process holds no seal key.
    """

    def __init__(self, keyring: Keyring) -> None:
        if keyring.seal is None:
            raise KeyMaterialError(
                "zones hold names in clear text, and this node has no seal key: copy seal.key to it, or set "
                "feeds.rpz.enabled to false"
            )
        self.sealer = sealer(keyring)
        self._seal = keyring.seal

    async def read(self, store: Store, basis: Basis) -> Zone:
        """The zone of these lists. Cost: 2 to 3 µs a rule, in threads.

        Raises:
            StoreError: A list or one of its parts is not there.
            FormatError: What is stored is damaged.
        """
        lists = []
        for name, head, mode in basis.lists:
            manifest = await store.manifest(name, head.serial)
            if not manifest.retired and (mode or manifest.mode) == "enforce":
                lists.append((manifest, await read_rules(store, self.sealer, manifest)))
        return await asyncio.to_thread(_built, basis.plan, lists)

    async def version(
        self,
        store: Store,
        plan: Plan,
        zone: Zone,
        heads: Mapping[str, Head],
        *,
        before: Version | None = None,
        forced: bool = False,
    ) -> Version | None:
        """The zone with its serial; None: another node has read newer lists meanwhile.

        Args:
            store: Gives the serial.
            plan: The zone.
            zone: Its names.
            heads: What it was made from.
            before: What this node has served so far; secondaries have it, whatever the store has forgotten.
            forced: See `Store.zone_serial`.

        Raises:
            StoreError: The store cannot be written.
        """
        said = await asyncio.to_thread(plan.digest, zone)
        # Keyed: of a zone with few names a bare digest could be tried out.
        mark = hmac.new(self._seal, b"blocker zone " + said, hashlib.sha256).hexdigest()
        served = None if before is None else (before.serial, before.mark)
        found = await store.zone_serial(
            plan.name, mark, rank_of(heads), served=served, forced=forced, at_least=plan.settings.serial_at_least
        )
        if found is None:
            return None
        return Version(plan=plan, serial=found.serial, zone=zone, mark=mark, since=found.since)


async def confirmed(
    store: Store, version: Version, heads: Mapping[str, Head], *, forced: bool = False
) -> Version | None:
    """A version that is still what the lists say, with the serial that it has by now; None: see `ZoneSource.version`.

    It is another one where the store has forgotten this one, or where other nodes have gone on and come back to it.

    Raises:
        StoreError: The store cannot be written.
    """
    found = await store.zone_serial(
        version.plan.name, version.mark, rank_of(heads), served=(version.serial, version.mark), forced=forced,
        kept=True, at_least=version.plan.settings.serial_at_least,
    )  # fmt: skip
    return None if found is None else replace(version, serial=found.serial, since=found.since)


def _built(plan: Plan, lists: Sequence[tuple[Manifest, RuleSet]]) -> Zone:
    made = [(rules, manifest.action == "allow", manifest.www_alias) for manifest, rules in lists]
    return Zone.build(made, len(plan.wire_origin), inspect=plan.inspect)


def rank_of(heads: Mapping[str, Head]) -> int:
    """Grows with every publish."""
    return sum(head.serial for head in heads.values())


async def read_version(store: Store, keyring: Keyring, plan: Plan, policy: Policy) -> Version:
    """The present version of a zone, for exports.

    Raises:
        StoreError: None of its lists is in the store, or one cannot be read.
        KeyMaterialError: This process holds no seal key.
    """
    source = ZoneSource(keyring)
    for _ in range(3):
        heads = await store.heads()
        basis = Basis.of(plan, policy, heads)
        if not basis.lists:
            raise StoreError(f"zone {plan.name}: none of its policy's lists is in the store yet")
        found = await source.version(store, plan, await source.read(store, basis), heads)
        if found is not None:
            return found
    raise StoreError(f"zone {plan.name}: its lists change faster than they can be read; try again")
