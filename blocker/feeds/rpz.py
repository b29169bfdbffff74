"""The RPZ feed of a node: keeps every zone at what the store has, serves it, and tells secondaries of new versions.

A zone that cannot be made stays what it was, over restarts too: lists that cannot be read, a store that is away or was
emptied change nothing. Before its first version a zone is answered SERVFAIL, so that a secondary keeps what it has.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from blocker.errors import BlockerError, StoreError
from blocker.feeds.history import History
from blocker.feeds.listener import ZoneListener
from blocker.feeds.notify import Notifier
from blocker.feeds.shelf import Kept, Shelf
from blocker.feeds.signing import load_keys
from blocker.feeds.source import Basis, ZoneSource, confirmed, lost, rank_of
from blocker.feeds.transfer import Served, ZoneServer
from blocker.feeds.zone import Plan, is_newer
from blocker.feeds.zone_metrics import ZoneCounts
from blocker.hits.families import Family
from blocker.matcher import DEFAULT_POLICY, Policy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from blocker._native import ZoneDelta
    from blocker.feed_section import RpzSettings
    from blocker.feeds.zone import Version
    from blocker.store.manifest import Head
    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring

# Seconds between attempts to use a store that cannot be used.
RETRY_SECONDS = 1.0

log = structlog.get_logger(__name__)


class RpzFeed:
    """The zones of one node.

    Args:
        settings: [feeds.rpz].
        policies: The configured policies.
        connect: Opens the store; called again after each failure.
        keyring: With the seal key.
        directory: Where zones are kept over restarts.
        poll_seconds: Longest time between two looks at the store.

    Raises:
        KeyMaterialError: There is no seal key, or a TSIG key cannot be used.
        ServeError: The certificate cannot be used.
    """

    name = "rpz"

    def __init__(
        self,
        settings: RpzSettings,
        policies: Iterable[Policy],
        connect: Callable[[], Awaitable[Store]],
        keyring: Keyring,
        directory: Path,
        poll_seconds: float = 5.0,
    ) -> None:
        self._connect = connect
        self._source = ZoneSource(keyring)
        self._shelf = Shelf(directory, self._source.sealer)
        self.server = ZoneServer(settings.max_transfers, settings.request_seconds)
        self.listener = ZoneListener(self.server, settings)
        self.notifier = Notifier()
        self.counts = ZoneCounts(lambda: self._zones.values(), lambda: self.listener.expires)
        self._zones: dict[str, Served] = {}
        self._made: dict[str, Basis] = {}
        self._lists: dict[str, frozenset[str]] = {}  # of the versions that are served
        self._last: dict[str, Version] = {}  # served by an earlier process, where the zone is another one by now
        self._saving: asyncio.Task[None] | None = None
        self._sought: set[str] = set()  # zones that the disk was asked for
        self._told: dict[str, str] = {}
        self._behind: dict[str, int] = {}
        self._changed = asyncio.Event()
        self.configure(settings, policies, poll_seconds)

    @property
    def addresses(self) -> list[str]:
        """Where it listens, once started; those for TLS come last."""
        return [*self.listener.addresses, *self.listener.tls_addresses]

    def prepare(self, settings: RpzSettings) -> None:
        """Read what `configure` with these needs, so that it cannot fail then.

        Raises:
            KeyMaterialError: A TSIG key cannot be used; nothing has changed.
            ServeError: The certificate cannot be used; nothing has changed.
        """
        load_keys(settings.keys)
        self.listener.prepare(settings)

    def configure(self, settings: RpzSettings, policies: Iterable[Policy], poll_seconds: float) -> None:
        """Use other zones, keys, secondaries and limits, and the certificate that was prepared, from now on.

        A zone that stays keeps its version meanwhile.

        Raises:
            KeyMaterialError: A TSIG key cannot be used; nothing has changed.
        """
        self._keys = load_keys(settings.keys)
        self._policies = {DEFAULT_POLICY: Policy(), **{policy.name: policy for policy in policies}}
        self._poll_seconds = poll_seconds
        self.listener.configure(settings)
        zones = {}
        for name, one in settings.zones.items():
            plan, known = Plan.of(name, one), self._zones.get(name)
            if known is not None and known.plan.origin == plan.origin:
                # Who may have it changes at once, what is in it with its next version.
                zones[name] = Served(plan, known.history, known.version, known.tally)
            else:
                self._made.pop(name, None)
                self._sought.discard(name)
                zones[name] = Served(plan, History(settings.history))
        self._zones = zones
        self.server.configure(zones.values(), self._keys)
        self._changed.set()

    def families(self) -> Iterator[Family]:
        """`blocker_zone_serial{zone}`, `blocker_zone_names{zone,effect}`, `blocker_zone_ok{zone}`; see `Exporter.add`.

        Zones have the names of the configuration.
        """
        serial = Family("blocker_zone_serial", "gauge", "Serial of the zone that is served.", ["zone"])
        names = Family("blocker_zone_names", "gauge", "Names in the zone that is served.", ["zone", "effect"])
        good = Family("blocker_zone_ok", "gauge", "Whether the zone is what its lists say: 1 or 0.", ["zone"])
        for name, served in sorted(self._zones.items()):
            made = served.version is not None and name in self._made
            good.add(made and not self._told.get(name) and not self._told.get(""), name)
            if served.version is not None:
                serial.add(served.version.serial, name)
                for effect, count in zip(("block", "inspect", "pass"), served.version.zone.counts[1:], strict=True):
                    names.add(count, name, effect)
        yield from (serial, names, good)

    async def start(self) -> None:
        """Listen, with the zones of before.

        Raises:
            ServeError: An address cannot be had.
        """
        await self._restore()
        await self.listener.start()

    async def run(self) -> None:
        """Follow the store until it is cancelled."""
        while True:
            store: Store | None = None
            try:
                store = await self._connect()
                while True:
                    after = await store.last_commit()
                    self._changed.clear()
                    await self._sync(store)
                    await self._wait(store, after)
            except BlockerError as error:
                self._tell("", str(error))
            except Exception as error:  # noqa: BLE001 - told; the zones must outlive any fault of ours
                self._unexpected("", error)
            finally:
                if store is not None:
                    await store.abort()
            await asyncio.sleep(RETRY_SECONDS)

    async def stop(self) -> None:
        """Serve and tell nothing more; may be called twice."""
        await self.listener.stop()
        await self.notifier.stop()
        if self._saving is not None:
            await self._saving

    async def _restore(self) -> None:
        """Take zones from the disk that were not looked for there yet."""
        await asyncio.to_thread(self._shelf.keep_only, tuple(self._zones))
        for name, served in list(self._zones.items()):
            if name in self._sought:
                continue
            self._sought.add(name)
            kept = await asyncio.to_thread(self._shelf.load, served.plan)
            if kept is None or self._zones.get(name) is not served or served.version is not None:
                continue
            self._lists[name] = kept.lists
            if kept.current:
                served.version = kept.version
                served.history.restore(kept.steps, kept.version)
                log.info("zone as before", zone=name, serial=kept.version.serial, versions=len(served.history))
            else:
                self._last[name] = kept.version

    async def _wait(self, store: Store, after: str) -> None:
        """Until there may be something new."""
        commit = asyncio.create_task(store.wait_for_commit(after, self._poll_seconds))
        changed = asyncio.create_task(self._changed.wait())
        try:
            done, _ = await asyncio.wait((commit, changed), return_when=asyncio.FIRST_COMPLETED)
            if commit in done:
                commit.result()
        finally:
            commit.cancel()
            changed.cancel()
            await asyncio.gather(commit, changed, return_exceptions=True)

    async def _sync(self, store: Store) -> None:
        await store.epoch()
        heads = await store.heads()
        await self._restore()
        for name, served in list(self._zones.items()):
            detail = ""
            try:
                await self._bring_up(store, served, heads)
            except BlockerError as error:
                detail = str(error)
            except Exception as error:  # noqa: BLE001 - told; and one zone any fault in making another
                self._unexpected(name, error)
                continue
            if not detail:
                served.tally.checked = time.time()
            self._tell(name, detail)
        self._tell("", "")

    async def _bring_up(self, store: Store, served: Served, heads: Mapping[str, Head]) -> None:
        """Make a zone what its lists say.

        Raises:
            BlockerError: What keeps it from being so.
        """
        name, policy = served.plan.name, self._policies.get(served.plan.settings.policy)
        if policy is None:
            raise StoreError(f"zone {name}: its policy is gone; the last version stays")
        basis, before = Basis.of(served.plan, policy, heads), served.version
        # Another node may have read newer lists, which this one sees at its next look; unless they are no more.
        rank = rank_of(heads)
        forced = self._behind.get(name) == rank
        known = before is not None and basis == self._made.get(name)
        if before is not None and known:
            version = await confirmed(store, before, heads, forced=forced)
        else:
            version = await self._made_anew(store, served, basis, policy, heads, forced=forced)
        if version is None:
            self._behind[name] = rank
            return
        self._behind.pop(name, None)
        if before is not None and known and version.serial == before.serial:
            return
        delta = None if before is None else await asyncio.to_thread(before.zone.diff, version.zone)
        if self._zones.get(name) is served:  # otherwise it was configured anew meanwhile, and is made anew
            self._made[name], self._lists[name] = basis, basis.names
            if self._publish(served, version, delta):
                kept = Kept(version=version, steps=served.history.steps, lists=basis.names, current=True)
                self._saving = asyncio.create_task(asyncio.to_thread(self._shelf.save, kept))
                await asyncio.shield(self._saving)  # an end waits for it, see `stop`

    async def _made_anew(
        self, store: Store, served: Served, basis: Basis, policy: Policy, heads: Mapping[str, Head], *, forced: bool
    ) -> Version | None:
        name = served.plan.name
        if not basis.lists:
            raise StoreError(f"zone {name}: none of its lists is in the store")
        if gone := lost(self._lists.get(name, ()), policy, heads):
            raise StoreError(f"zone {name}: {len(gone)} of its lists left the store; its last version stays")
        zone = await self._source.read(store, basis)
        last = served.version or self._last.get(name)
        return await self._source.version(store, served.plan, zone, heads, before=last, forced=forced)

    def _publish(self, served: Served, version: Version, delta: ZoneDelta | None) -> bool:
        """Put a version in place, in one step with what changed since the last; whether it is another one."""
        before, first = served.version, served.tally.built is None
        served.tally.built = time.time()
        if before is not None and before.serial == version.serial:
            served.version = version
            if first:  # secondaries that found nobody here meanwhile come back when they are told (RFC 1996)
                self.notifier.announce(version, self._keys, served.tally)
            return False
        if before is not None and delta is not None:
            if version.since is not None and is_newer(version.since, before.serial):
                log.warning("zone: the store had forgotten its serials; it is sent whole", zone=version.plan.name)
            if not is_newer(version.serial, before.serial):
                log.error("zone: its serial went back, so secondaries keep what they have", zone=version.plan.name)
        served.publish(version, delta)
        addresses, digests, names = version.zone.left_out
        said = dict(zip(("block", "inspect", "pass"), version.zone.counts[1:], strict=True))
        log.info("zone", zone=version.plan.name, serial=version.serial, **said)
        if addresses or digests or names:
            log.warning(
                "zone: rules that DNS cannot say are left out", zone=version.plan.name, addresses=addresses,
                digests=digests, names=names,
            )  # fmt: skip
        self.notifier.announce(version, self._keys, served.tally)
        return True

    def _unexpected(self, zone: str, error: Exception) -> None:
        """Say what nobody thought of, once, with its place."""
        detail = f"failed unexpectedly: {type(error).__name__}"
        if self._told.get(zone) != detail:
            log.error("zones: following failed unexpectedly", exc_info=error)
        self._tell(zone, detail)

    def _tell(self, zone: str, detail: str) -> None:
        """Say once what is wrong, and once that it is over."""
        if detail and self._told.get(zone) != detail:
            log.warning("zones not brought up to date", detail=detail)
        self._told[zone] = detail
