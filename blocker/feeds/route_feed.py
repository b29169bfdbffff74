"""The node's side of the route feed: lists → hosts → addresses → routes → the socket that `blocker bgp-feed` reads.

Everything is kept in `routes.RouteTable`; here are its clock, its lookups, its file and its socket. What fails changes
nothing: lists that cannot be read leave their hosts as they were, resolvers that do not answer leave the addresses,
and a node that ends without order leaves the routes where they are.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import structlog

from blocker.errors import BlockerError, ServeError, StoreUnavailable
from blocker.feeds import route_report, route_state
from blocker.feeds.bgp import Form
from blocker.feeds.filter_watch import FilterWatch
from blocker.feeds.lookups import Lookups
from blocker.feeds.popular import PopularNames
from blocker.feeds.route_lists import RoutedLists
from blocker.feeds.route_metrics import RouteCounts
from blocker.feeds.route_paces import limits_of, pace_of, resolvers_of
from blocker.feeds.route_socket import SOCKET, RouteSocket
from blocker.feeds.route_state import STATE_FILE, StateFile
from blocker.feeds.route_stop import STOP_FILE, Stop, StopFile
from blocker.feeds.routes import Reason, RouteTable
from blocker.feeds.sightings import FAMILIES
from blocker.feeds.sorting import Sorted
from blocker.feeds.spared import Spared
from blocker.feeds.steady import SteadyClock
from blocker.feeds.turns import Young, in_turns, made_to_stay
from blocker.ingest.cleartext import sealer
from blocker.log import describe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from blocker.feeds.addresses import Network
    from blocker.feeds.resolve import Answer, Failing, Resolvers
    from blocker.feeds.route_report import Why
    from blocker.feeds.routes import Changes, NameId
    from blocker.matcher import Matcher, Policy
    from blocker.route_section import RouteSettings
    from blocker.sections import GuardSettings
    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring

log = structlog.get_logger(__name__)

# Seconds between two looks at what is due. Changes are told at most so late; a minute has sixty of them.
TICK_SECONDS = 1.0
# Names looked at between two turns of the event loop: a millisecond.
REVIEW_SLICE = 10
# Seconds between two writings of the state: what a kill forgets, of sightings and not of routes that are announced.
# More of them where it is large, so that no more is written than this many bytes a second.
SAVE_SECONDS = 10.0
SAVE_BYTES_PER_SECOND = 100_000
# Seconds between two counts of hosts without a route: a scrape's interval. Those that moved take longer to count, and
# are counted with each fourth.
COUNT_SECONDS = 15.0
COUNTS = 4
# Seconds until lists that could not be read are tried again.
RETRY_SECONDS = 5.0


class RouteFeed:
    """One node's routes. Make it, `start` it, let `run` run; `stop` ends it.

    Args:
        settings: Of the routes.
        guards: For popular domains and own networks.
        data_dir: Where the state is, and the socket unless the settings say otherwise.
        keyring: The deployment's keys.
        policy: Whose lists; None for the default.
        open_store: The store, or StoreUnavailable.
        own: The operator's own beside `guards.own_networks`: see `infrastructure.own_addresses`.

    Raises:
        KeyMaterialError: This node has no seal key.
    """

    def __init__(
        self,
        settings: RouteSettings,
        guards: GuardSettings,
        data_dir: Path,
        keyring: Keyring,
        policy: Policy | None,
        open_store: Callable[[], Awaitable[Store]],
        own: Sequence[Network] = (),
    ) -> None:
        self._settings, self._guards, self._policy, self._more_own = settings, guards, policy, own
        self._key = keyring.lookup
        self._sealer = sealer(keyring)
        self._state = data_dir / STATE_FILE
        self._stop_file = StopFile(data_dir / STOP_FILE, self._sealer)
        self.table = self._new_table()
        self._kept = StateFile(self._state, self._sealer, self.table)
        self.socket = RouteSocket(
            settings.unix or data_dir / SOCKET, settings.group, self._everything, self._report,
            {"withdraw": self._withdraw_all, "resume": self._resume},
        )  # fmt: skip
        self.now = SteadyClock()
        self.counts = RouteCounts(self)
        self.resolvers: Resolvers | None = None
        self.names: dict[NameId, str] = {}
        self.ports: dict[NameId, frozenset[int]] = {}
        self.excepted: frozenset[str] = frozenset()
        self.moved: Counter[Why] = Counter()
        self.uncovered: Counter[str] = Counter()
        self.settled = False
        self.stopped: Stop | None = None  # somebody wants no routes
        self.filter = FilterWatch(lambda: self._settings, self._filter_changed)
        self._listed_once = False
        self._listing = False  # names are being handed over
        self._young = Young()
        self._popular_changed = True  # nothing was read yet
        self._popular = PopularNames(self, keyring.lookup)
        self._lists = RoutedLists(open_store, self._sealer)
        self._matcher: Matcher | None = None
        self._swapped = asyncio.Event()
        self._stopping = asyncio.Event()
        self._lookups: Lookups[NameId] | None = None

    @property
    def settings(self) -> RouteSettings:
        """As in use."""
        return self._settings

    def start(self) -> None:
        """Bind the socket.

        Raises:
            ServeError: The socket cannot be had.
        """
        self.socket.start()

    async def run(self) -> None:
        """Run until `stop`."""
        settings = self._settings
        self.stopped = await asyncio.to_thread(self._stop_file.load)
        self.table.halted = self._halt()
        failing = await self._restore()
        self.resolvers = resolvers_of(settings)
        self._lookups = Lookups(self.resolvers, pace_of(settings), self._heard, failing)
        popular = self._popular.looked_up(self.resolvers, settings)
        self._swapped.set()
        try:
            looking = (self._lookups.run(), popular.run())
            work = (*looking, self.filter.run(), self._follow(), self._tick(), self._save(), self._count())
            tasks = [asyncio.create_task(one) for one in work]
            stopping = asyncio.create_task(self._stopping.wait())
            done, _ = await asyncio.wait((*tasks, stopping), return_when=asyncio.FIRST_COMPLETED)
            for task in (*tasks, stopping):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for task in done:
                if not task.cancelled() and (error := task.exception()) is not None:
                    raise error
        finally:
            await self.resolvers.close()
            await self._write_state()

    async def _restore(self) -> dict[NameId, Failing]:
        """Take over what an earlier process left; since when names fail."""
        with made_to_stay():
            try:
                state = await asyncio.to_thread(route_state.load, self._state, self._sealer, self.now())
            except (BlockerError, OSError) as error:
                log.error("routes begin anew", **describe(error))  # noqa: TRY400 - no values
                return {}
            if state is None:
                return {}
            known, failing = state
            table = self._new_table()
            await asyncio.to_thread(table.restore, *known)
        table.configure(limits_of(self._settings), self._own(), self._settings.trial_networks)  # as it is by now
        table.halted = self.table.halted
        if self.stopped:  # by now, or since before
            table.everything_left(self.now())
        self.table, self._kept = table, StateFile(self._state, self._sealer, table)
        log.info("routes restored", routes=len(self.table.announced))
        self.socket.tell_everything()
        return failing

    async def _withdraw_all(self, reason: object) -> Mapping[str, Any]:
        """Withdraw all routes, and announce none until `_resume`; at once, whatever the disk says."""
        count = len(self.table.announced)
        self.stopped = Stop(time.time(), str(reason or ""))
        self._nothing_more()
        log.warning("all routes are withdrawn by hand", routes=count)
        try:
            await asyncio.to_thread(self._stop_file.save, self.stopped)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ServeError(f"{count} routes withdrawn; but a restart would announce them again: {reason}") from None
        return {"routes": count}

    async def _resume(self, _: object) -> Mapping[str, Any]:
        """Announce again, as fast as changes_per_minute lets it."""
        try:
            await asyncio.to_thread(self._stop_file.remove)
        except OSError as error:
            raise ServeError(f"nothing is announced: {error.strerror or type(error).__name__}") from None
        was, self.stopped = self.stopped, None
        self._go_on()
        log.warning("routes are announced again")
        return {"since": None if was is None else was.since, "routes": sum(self.table.waiting().values())}

    def _halt(self) -> Reason | None:
        """Why nothing may be announced at all."""
        if self.stopped is not None:
            return Reason.STOPPED
        return Reason.FILTER_DOWN if self.filter.held else None

    def _nothing_more(self) -> None:
        """Withdraw all routes."""
        self.table.halted = self._halt()
        self.counts.changed(self.table.everything_left(self.now()))
        self.socket.tell_everything()

    def _go_on(self) -> None:
        """Announce again what can be, as far as nothing else halts it."""
        self.table.halted = self._halt()
        self.settled = False
        self.socket.tell_everything()

    def _filter_changed(self) -> None:
        if self.filter.state == "down":
            self._nothing_more()
        else:
            self._go_on()

    async def stop(self) -> None:
        """Keep or withdraw the routes, as configured, and let the feeds go; may be called twice."""
        if not self._stopping.is_set() and self._settings.when_stopped == "withdraw":
            self._tell(self.table.everything_left(self.now()))
        self._stopping.set()

    def leave(self) -> None:
        """Withdraw all routes and end: this node is to have none any more."""
        self.table.halted = Reason.STOPPED
        self._tell(self.table.everything_left(self.now()))
        self._stopping.set()

    def close(self) -> None:
        """Let the feeds go."""
        self.socket.stop()

    def configure(
        self, settings: RouteSettings, guards: GuardSettings, policy: Policy | None, own: Sequence[Network] = ()
    ) -> None:
        """Take over another configuration; resolvers and socket are those of the start."""
        self._settings, self._guards, self._policy, self._more_own = settings, guards, policy, own
        self.table.configure(limits_of(settings), self._own(), settings.trial_networks)
        if self.resolvers is not None and self._lookups is not None:
            self.resolvers.fresh_seconds = settings.min_ttl_seconds
            self.resolvers.https_records = settings.https_records
            self._lookups.pace = pace_of(settings)
            self._popular.configure(settings)
        self._popular_changed = True
        self._swapped.set()
        self.socket.tell_everything()

    def swapped(self, matcher: Matcher) -> None:
        """There are other lists; a callback of the follower."""
        self._matcher = matcher
        self._swapped.set()

    def _new_table(self) -> RouteTable:
        return RouteTable(limits_of(self._settings), self._own(), self._settings.trial_networks)

    def _own(self) -> list[Network]:
        return [*self._guards.own_networks, *self._more_own]

    async def _follow(self) -> None:
        while True:
            await self._swapped.wait()
            self._swapped.clear()
            if self._popular_changed:
                self._popular_changed = False
                await self._popular.read(self._guards, self._settings)
                if self._listed_once:
                    await self._list(self.names.values())
                else:
                    await self._popular.spare({}, self._settings)
            if self._matcher is None:
                continue
            try:
                hosts = await self._lists.read(self._matcher.table, self._policy, whole=self._settings.whole_hosts)
                if hosts is not None:
                    self._listed_once, self.excepted = True, hosts.excepted
                    await self._list(hosts.routed)
            except BlockerError as error:
                level = log.warning if isinstance(error, StoreUnavailable) else log.error
                level("hosts of lists stay as they were", **describe(error))
                self._swapped.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def _list(self, names: Iterable[str]) -> None:
        """Have these hosts routed from now on; in turns, since there may be very many."""
        self._listing, self.settled = True, False
        exempt, never = frozenset(self._settings.popular_exempt), frozenset(self._settings.never_names)
        sparing = Spared(popular=self._popular.names, exempt=exempt, never=never)
        found = await asyncio.to_thread(Sorted.of, self._key, names, sparing)
        await self._popular.spare(found.looked_up, self._settings)
        self.names = found.names
        await in_turns(self.table.listing(found.names, self.now(), found.refused))
        for key, address in found.literal.items():
            self.table.answered(key, [address], self.now(), complete=FAMILIES)
        self.ports = {key: ports for key, ports in self.ports.items() if key in found.asked}
        if self._lookups is not None:
            await in_turns(self._lookups.wanting(found.asked))
        self._listing = False

    def _heard(self, key: NameId, answer: Answer | None) -> None:
        if answer is not None:
            self.table.answered(key, answer.addresses, self.now(), complete=answer.complete)
            self.ports.pop(key, None)
            if answer.ports:
                self.ports[key] = answer.ports

    async def _tick(self) -> None:
        while not self._stopping.is_set():
            self._popular.pass_gate()
            self._young.look(0 if self._lookups is None else self._lookups.untried)
            more = True
            while more:
                more = self.table.review(self.now(), REVIEW_SLICE)
                await asyncio.sleep(0)
            self._tell(self.table.step(self.now()))
            if not self.settled and self._is_settled():
                self.settled = True
                log.info("routes settled", routes=len(self.table.announced))
                self.socket.tell_everything()
            await asyncio.sleep(TICK_SECONDS)

    def _is_settled(self) -> bool:
        """Whether all is announced that can be: lists read, names tried, and no change held back by the minute."""
        tried = self._lookups is not None and self._lookups.untried == 0
        proven = self.filter.state != "unproven"
        if not (self._listed_once and tried and proven and self.table.popular_known) or self._listing:
            return False
        return self.table.waiting()[Reason.RATE] == 0

    def _tell(self, changes: Changes) -> None:
        if changes:
            self.counts.changed(changes)
            self.socket.tell(changes.as_message())

    def _everything(self) -> Mapping[str, Any]:
        form = asdict(Form.of(self._settings))
        settled = self.settled or self.stopped is not None or self.filter.state == "down"
        return {"form": form, "routes": [str(one) for one in self.table.announced], "settled": settled}

    async def _report(self) -> Mapping[str, Any]:
        return await route_report.report(self, self.now(), self.now.stepped)

    async def _save(self) -> None:
        while True:
            await asyncio.sleep(max(SAVE_SECONDS, self._kept.size / SAVE_BYTES_PER_SECOND))
            await self._write_state()

    async def _count(self) -> None:
        for turn in itertools.count():
            self.uncovered = await route_report.count_uncovered(self)
            if turn % COUNTS == 0:
                self.moved = await route_report.count_moved(self)
            await asyncio.sleep(COUNT_SECONDS)

    async def _write_state(self) -> None:
        failed = () if self._lookups is None else self._lookups.failed()
        try:
            await self._kept.save(failed, self.now())
        except OSError as error:
            log.error("the state of routes was not written", **describe(error))  # noqa: TRY400 - no values
