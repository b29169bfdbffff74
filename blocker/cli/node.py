"""A node: follower, hit counter, control plane and ingest worker in one event loop.

Only wiring. Order matters twice: the ports are bound before anything else is started, so that a second node on one
machine fails at once; and what stops last is what others still need, the store's connections and the embedded Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

import structlog

from blocker.cli import reload
from blocker.cli.background import background_threads, favour_the_loop
from blocker.cli.context import usable_sources
from blocker.cli.late_store import LateStore
from blocker.cli.service_manager import ServiceManager
from blocker.cli.watching import Watching
from blocker.control.app import create_app
from blocker.control.canary_probe import HttpProbe
from blocker.control.heartbeat import BEAT_SECONDS, Heartbeat
from blocker.control.office import Office
from blocker.control.server import ControlServer
from blocker.control.stop_page import StopPage
from blocker.errors import BlockerError, ServeError, StoreUnavailable
from blocker.gateways.canaries import Canaries
from blocker.gateways.engine import VerdictEngine
from blocker.gateways.host import CompanionHost, HelperProbe
from blocker.gateways.streams import PROBES, Streams
from blocker.gateways.workers import Workers
from blocker.hits.counters import HitCounter
from blocker.hits.exporter import Exporter
from blocker.hits.retention import keep_folding
from blocker.ingest.worker import IngestWorker
from blocker.matcher import DEFAULT_POLICY
from blocker.sections import Role
from blocker.sockets import when_free

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from blocker.cli.context import Context
    from blocker.feeds.route_feed import RouteFeed
    from blocker.feeds.rpz import RpzFeed
    from blocker.follower import Follower
    from blocker.gateways.canaries import Probe
    from blocker.gateways.dns import DnsListener
    from blocker.gateways.envoy import EnvoyListener
    from blocker.settings import Settings

log = structlog.get_logger(__name__)

#: Seconds between two looks whether the embedded Redis answers; a look costs 0.3 ms.
WATCH_SECONDS = 1.0

#: Seconds after which a node is announced without those of its own lists that are not there yet.
FIRST_LISTS_SECONDS = 10.0


class Node:
    """One running node. Make it, `run` it; `stop` ends it."""

    def __init__(self, context: Context, manager: ServiceManager | None = None) -> None:
        self.context = context
        self.store = LateStore(context)
        self._manager = manager or ServiceManager({})
        self._stopping = asyncio.Event()
        self._announced = asyncio.Event()
        self._stale: dict[str, float] = {}
        self.worker: IngestWorker | None = None
        self.follower: Follower = context.follower()
        self.hits = HitCounter(
            self.store,
            node=self._settings.node,
            zone=self._settings.zone,
            bin=self._settings.hits.bin,
            flush_seconds=self._settings.hits.flush_seconds,
        )
        self.engine = engine = VerdictEngine(self.follower, self.hits)
        self.canaries = Canaries(engine, self.follower, self._settings, more=self._source_canaries)
        self.exporter = Exporter(
            engine.meters,
            self.hits,
            self.follower,
            shadow_lists=self._settings.shadow_lists,
            canaries=lambda: self.canaries.states,
        )
        self.office = Office(
            self.store.opened, context.keyring, self._settings.guards, self._settings.lists_dir, context.policies
        )
        self.heartbeat = Heartbeat(self.store.opened, self._settings.node, self.follower, lambda: self.canaries.states)
        self.stop_page = StopPage(self._settings.stop_page)
        self.streams = Streams(engine, self._settings.gateways, self.stop_page.as_bytes())
        self.envoy: EnvoyListener | None = None
        self.routes: RouteFeed | None = None
        self.follower.on_swap(engine.swapped)
        self.host = CompanionHost(
            self._settings.companions,
            self._settings.data_dir / "node.sock",
            self._welcome,
            source=self.follower,
            engine=engine,
            hits=self.hits,
            lookup_key=context.keyring.lookup,
        )
        self.follower.on_swap(self.host.swapped)
        self.workers: Workers | None = None
        app = create_app(
            engine,
            self.follower,
            self._settings,
            self.exporter,
            stop_page=self.stop_page,
            stale_after=self._stale_after,
            office=self.office,
            canaries=lambda: self.canaries.states,
        )
        self.server = ControlServer(app, self._settings.http.host, self._settings.http.port)
        self.http_probe = HttpProbe(self.server, sorted({DEFAULT_POLICY, *self._settings.policies}))
        probes: list[Probe] = [self.http_probe, HelperProbe(self.host)]
        for probe in probes + [PROBES[one.name](one) for one in self.streams]:
            self.canaries.register(probe)
        if self._settings.gateways.envoy.enabled:
            from blocker.gateways.envoy import EnvoyProbe, envoy_listener  # loads gRPC

            self.envoy = envoy_listener(engine, self._settings.gateways.envoy, self.stop_page.as_bytes())
            self.canaries.register(EnvoyProbe(self.envoy))
        if self._settings.routes.enabled and Role.CONTROL in self._settings.roles:
            self.routes = self._route_feed()

        self.rpz: RpzFeed | None = None
        if self._settings.feeds.rpz.enabled:
            from blocker.feeds.rpz import RpzFeed  # loads dnspython

            self.rpz = RpzFeed(
                self._settings.feeds.rpz, context.policies, context.open_store, context.keyring,
                self._settings.data_dir / "zones", self._settings.poll_seconds,
            )  # fmt: skip
            self.exporter.add(self.rpz)
            self.exporter.register(self.rpz.counts)
        self.join_zones()

        self.watching = Watching(self, self._stale_after)

    @property
    def _settings(self) -> Settings:
        return self.context.settings

    async def run(self, ready: Callable[[Node], None] = lambda _node: None) -> None:
        """Run until `stop`, SIGINT or SIGTERM.

        Args:
            ready: Called once, when the node decides.

        Raises:
            ServeError: An address cannot be had.
            SettingsError: The Redis URL is malformed.
            BlockerError: There is neither a usable Redis nor a snapshot to start from.
        """
        loop = asyncio.get_running_loop()
        loop.set_default_executor(background_threads())
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        roles = self._settings.roles
        telling = asyncio.create_task(self._manager.keep_telling())
        try:
            if Role.CONTROL in roles:
                await self.follower.load_snapshot()
                await when_free(self.server.start)
                await self._start_gateways()
                favour_the_loop()
                if self.rpz is not None:
                    await when_free(self.rpz.start)
            await self._first_store()
            async with asyncio.TaskGroup() as tasks:
                canaries = zones = watching = None
                if Role.CONTROL in roles:
                    tasks.create_task(self.follower.run())
                    tasks.create_task(self.hits.run())
                    tasks.create_task(self._announce(ready))
                    tasks.create_task(self._watch_server())
                    tasks.create_task(self._beat())
                    watching = tasks.create_task(self.watching.run())
                    if self.routes is not None:
                        tasks.create_task(self.routes.run())
                    canaries = tasks.create_task(self._look_at_canaries())
                    if self.rpz is not None:
                        zones = tasks.create_task(self.rpz.run())
                if Role.INGEST in roles:
                    tasks.create_task(self._ingest())
                if Role.CONTROL not in roles:
                    self._manager.ready("looks after the lists")
                tasks.create_task(self._fold_hits())
                if self._settings.redis_url is None:
                    tasks.create_task(self._watch_redis())
                await self._stopping.wait()
                log.info("stopping")
                self._manager.stopping()
                for one in (canaries, zones, watching):
                    if one is not None:
                        one.cancel()  # canaries before the gateways that they ask
                if self.routes is not None:
                    await self.routes.stop()
                if Role.CONTROL in roles:
                    await self._stop_gateways()
                    await self.server.stop()
                self.hits.stop()
                await self.follower.stop()
        finally:
            await self._stop_gateways()
            await self.server.stop()
            if self.routes is not None:
                self.routes.close()
            await self.store.close()
            telling.cancel()
            self._manager.close()

    def stop(self) -> None:
        """Answer what is under way, store what was counted, and end."""
        self._stopping.set()
        self._announced.set()  # whoever waits for it has nothing to wait for

    async def _fold_hits(self) -> None:
        settings = self._settings
        await keep_folding(
            self.store.opened,
            None if Role.INGEST in settings.roles else settings.node,
            keep_weeks=settings.hits.keep_weeks,
            bin=settings.hits.bin,
            zone=settings.zone,
            clock=time.time,
            pause=self._pause,
            stopping=self._stopping,
        )

    async def _first_store(self) -> None:
        """Open the store. A node with a snapshot starts without it; one without has nothing to decide with."""
        try:
            store = await self.store.opened()
            await store.epoch()
        except StoreUnavailable as error:
            if self.follower.matcher is None and self._settings.redis_url is None:
                raise
            log.warning("started without the store", detail=str(error))

    def reload(self) -> None:
        """Read the configuration anew; one that is faulty is told and changes nothing."""
        self._manager.reloading()
        reload.reload(self)
        self._manager.reloaded()

    def _route_feed(self) -> RouteFeed:
        from blocker.feeds.route_feed import RouteFeed  # loads aiodns

        settings, policy = self._settings, self.context.policy(self._settings.routes.policy)
        keyring, data_dir = self.context.keyring, settings.data_dir
        feed = RouteFeed(settings.routes, settings.guards, data_dir, keyring, policy, self.store.opened)
        self.follower.on_swap(feed.swapped)
        self.exporter.register(feed.counts)
        return feed

    def join_zones(self) -> None:
        """Have the dns gateway answer about the zones that there are, if it is to."""
        if self.rpz is not None and self._settings.feeds.rpz.on_dns_gateway:
            cast("DnsListener", self.streams["dns"]).hand_over(self.rpz.listener)

    async def _start_gateways(self) -> None:
        if self.routes is not None:
            self.routes.start()
        count = self._settings.gateways.workers
        try:
            self.host.start()
        except ServeError as error:
            if count or self._settings.companions.unix is not None:
                raise
            log.warning("no companions can come", detail=str(error))
        if count:
            options = ["--log-level", self._settings.log_level, "--log-format", self._settings.log_format]
            self.workers = Workers(count, list(self.streams), self.host.path, options)
            await when_free(self.workers.start)
        else:
            for listener in self.streams:
                await when_free(listener.start)
        if self.envoy is not None:
            await when_free(self.envoy.start)

    async def _stop_gateways(self) -> None:
        """May be called twice."""
        others = self.workers or self.streams
        more = [one for one in (self.envoy, self.rpz) if one is not None]
        await asyncio.gather(others.stop(), *(one.stop() for one in more))
        self.host.stop()

    def _welcome(self) -> Mapping[str, object]:
        """What companions are told; see `Companion`."""
        settings = self._settings
        pages = self.stop_page.as_bytes()
        return {
            "timezone": settings.timezone,
            "flush_seconds": settings.hits.flush_seconds,
            "policies": [asdict(policy) for policy in self.context.policies],
            "gateways": settings.gateways.model_dump(mode="json"),
            "pages": [(name, language, head.decode("latin-1"), body.decode()) for name, language, head, body in pages],
        }

    async def _announce(self, ready: Callable[[Node], None]) -> None:
        listening = [*self.streams, *(one for one in (self.envoy, self.rpz) if one is not None)]
        log.info("listening", http=self.server.addresses, **{one.name: one.addresses for one in listening})
        ingests = Role.INGEST in self._settings.roles
        awaited = {source.name for source in usable_sources(self.context.settings.lists_dir)} if ingests else set()
        patience = asyncio.get_running_loop().time() + FIRST_LISTS_SECONDS
        while not self._stopping.is_set():
            matcher = self.follower.matcher
            late = asyncio.get_running_loop().time() > patience
            served = self.host.count("worker") >= self._settings.gateways.workers
            if matcher is not None and (late or (served and awaited <= {name for name, *_ in matcher.table.lists})):
                self._announced.set()
                self._manager.ready(f"decides with {len(matcher.table.lists)} lists")
                ready(self)
                return
            await self._pause(0.05)

    async def _look_at_canaries(self) -> None:
        """From when the node decides; if it does not in good time, that is what the canaries show."""
        await self._announced_or_late()
        await self.canaries.run()

    async def _announced_or_late(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LISTS_SECONDS):
                await self._announced.wait()

    async def _ingest(self) -> None:
        store = None
        while store is None:
            try:
                store = await self.store.opened()
            except StoreUnavailable:
                await self._pause(WATCH_SECONDS)
            if self._stopping.is_set():
                return
        settings = self._settings
        self.worker = IngestWorker(
            settings.lists_dir, store, self.context.keyring, keep_serials=settings.keep_serials, guards=settings.guards
        )
        running = asyncio.create_task(self.worker.run())
        await self._stopping.wait()
        self.worker.stop()
        await running

    async def _watch_server(self) -> None:
        """A node whose listener ended by itself must not go on as if it were there."""
        try:
            await self.server.wait()
        finally:
            self.stop()

    async def _watch_redis(self) -> None:
        """Start the embedded Redis again if it died; whoever uses it reconnects by itself."""
        while not self._stopping.is_set():
            with contextlib.suppress(BlockerError):
                await self.context.embedded.ensure()
            await self._pause(WATCH_SECONDS)

    async def _beat(self) -> None:
        """Tell the consoles of all nodes that this one lives, from when it decides."""
        await self._announced_or_late()
        while not self._stopping.is_set():
            await self.heartbeat.beat()
            await self._pause(BEAT_SECONDS)
        await self.heartbeat.end()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _source_canaries(self) -> Mapping[str, Sequence[str]]:
        """The canaries that the sources of this node name; read anew each time, since maintainers change them."""
        if Role.INGEST not in self._settings.roles:
            return {}
        return {source.name: source.canaries for source in usable_sources(self._settings.lists_dir)}

    def _stale_after(self) -> Mapping[str, float]:
        """From which age each list is stale; read once, since sources say it and rarely change."""
        if not self._stale:
            sources = usable_sources(self._settings.lists_dir)
            self._stale = {source.name: source.stale_after_seconds for source in sources}
        return self._stale
