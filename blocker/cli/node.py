"""A node: what answers, what manages it, and the ingest worker, in one event loop.

Only wiring. Order matters three times: the ports are bound before anything else is started, so that a second node on
one machine fails at once; what answers comes before the rest is loaded, so that a restart is short for who asks; and
what stops last is what others still need, the store's connections and the embedded Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog

from blocker.cli.background import background_threads, favour_the_loop
from blocker.cli.context import usable_sources
from blocker.cli.front import Front
from blocker.cli.late_store import LateStore
from blocker.cli.service_manager import ServiceManager
from blocker.errors import BlockerError, StoreUnavailable
from blocker.sections import Role
from blocker.sockets import bind, when_free

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from blocker.cli.context import Context
    from blocker.cli.management import Management
    from blocker.ingest.worker import IngestWorker
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
        self.front = Front(context, self.store)
        self.management: Management | None = None  # once it is loaded
        self.worker: IngestWorker | None = None
        self._manager = manager or ServiceManager({})
        self._stopping = asyncio.Event()
        self._announced = asyncio.Event()
        self._reload_wanted = False
        self._http: list[socket.socket] = []

    @property
    def _settings(self) -> Settings:
        return self.context.settings

    async def run(self, ready: Callable[[Sequence[str]], None] = lambda _addresses: None) -> None:
        """Run until `stop`, SIGINT or SIGTERM.

        Args:
            ready: Called once, when the node decides, with the addresses of its control plane.

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
                await self._start()
            await self._first_store()
            async with asyncio.TaskGroup() as tasks:
                looking: list[asyncio.Task[None]] = []
                if self.management is not None:
                    looking = self._run_control(tasks, self.management, ready)
                else:
                    self._manager.ready("looks after the lists")
                if Role.INGEST in roles:
                    tasks.create_task(self._ingest())
                tasks.create_task(self._fold_hits())
                if self._settings.redis_url is None:
                    tasks.create_task(self._watch_redis())
                await self._stopping.wait()
                log.info("stopping")
                self._manager.stopping()
                for one in looking:
                    one.cancel()  # canaries before the gateways that they ask
                await self._stop()
                self.front.hits.stop()
                await self.front.follower.stop()
        finally:
            await self._stop()
            if self.management is not None:
                self.management.close()
            for opened in self._http:
                opened.close()
            await self.store.close()
            telling.cancel()
            self._manager.close()

    async def _start(self) -> None:
        """Answer, and be managed."""
        http = self._settings.http

        async def bound() -> list[socket.socket]:
            return bind(http.host, http.port, "BLOCKER_HTTP__PORT")

        self._http = await when_free(bound)
        rpz = self._settings.feeds.rpz
        if rpz.enabled and rpz.on_dns_gateway:  # whose first answer may be about a zone
            self.management = await self._load()
        await self.front.start()
        favour_the_loop()
        if self.management is None:
            self.management = await self._load()
        await self.management.start(self._http)
        favour_the_loop()
        if self._reload_wanted:
            self.reload()

    async def _load(self) -> Management:
        """Beside the loop: it takes longer than all that came before."""

        def make() -> Management:
            from blocker.cli.management import Management  # loads FastAPI, httpx, Redis' client

            return Management(self.context, self.store, self.front, lambda: self.worker)

        with ThreadPoolExecutor(1) as executor:
            return await asyncio.get_running_loop().run_in_executor(executor, make)

    def _run_control(
        self, tasks: asyncio.TaskGroup, management: Management, ready: Callable[[Sequence[str]], None]
    ) -> list[asyncio.Task[None]]:
        """Run what is not only there to end by itself; those that are to be cancelled at the end."""
        for work in (
            self.front.follower.run(), self.front.hits.run(), self._announce(management, ready),
            self._watch_server(management), self._beat(management),
        ):  # fmt: skip
            tasks.create_task(work)
        if management.routes is not None:
            tasks.create_task(management.run_routes())
        looking = [management.watching.run(), self._look_at_canaries(management)]
        if management.rpz is not None:
            looking.append(management.rpz.run())
        return [tasks.create_task(one) for one in looking]

    async def _stop(self) -> None:
        """Answer what is under way and no more; may be called twice."""
        if self.management is None:
            await self.front.stop()
            return
        if self.management.routes is not None:
            await self.management.routes.stop()
        await asyncio.gather(self.front.stop(), self.management.stop())
        await self.management.server.stop()

    def stop(self) -> None:
        """Answer what is under way, store what was counted, and end."""
        self._stopping.set()

    async def _fold_hits(self) -> None:
        from blocker.hits.retention import keep_folding

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
            if self.front.follower.matcher is None and self._settings.redis_url is None:
                raise
            log.warning("started without the store", detail=str(error))

    def reload(self) -> None:
        """Read the configuration anew; one that is faulty is told and changes nothing."""
        if self.management is None and Role.CONTROL in self._settings.roles:
            self._reload_wanted = True  # it is being loaded
            return
        from blocker.cli import reload

        self._manager.reloading()
        reload.reload(self)
        self._manager.reloaded()

    async def _announce(self, management: Management, ready: Callable[[Sequence[str]], None]) -> None:
        front = self.front
        listening = [*front.streams, *(one for one in (management.envoy, management.rpz) if one is not None)]
        log.info("listening", http=management.server.addresses, **{one.name: one.addresses for one in listening})
        ingests = Role.INGEST in self._settings.roles
        awaited = {source.name for source in usable_sources(self.context.settings.lists_dir)} if ingests else set()
        patience = asyncio.get_running_loop().time() + FIRST_LISTS_SECONDS
        while not self._stopping.is_set():
            matcher = front.follower.matcher
            late = asyncio.get_running_loop().time() > patience
            served = front.host.count("worker") >= self._settings.gateways.workers
            if matcher is not None and (late or (served and awaited <= {name for name, *_ in matcher.table.lists})):
                self._announced.set()
                self._manager.ready(f"decides with {len(matcher.table.lists)} lists")
                ready(management.server.addresses)
                return
            await self._pause(0.05)

    async def _look_at_canaries(self, management: Management) -> None:
        """From when the node decides; if it does not in good time, that is what the canaries show."""
        await self._announced_or_late()
        await management.canaries.run()

    async def _announced_or_late(self) -> None:
        """Until the node decides, is late to, or ends."""
        waiting = [asyncio.create_task(one.wait()) for one in (self._announced, self._stopping)]
        try:
            await asyncio.wait(waiting, timeout=FIRST_LISTS_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()

    async def _ingest(self) -> None:
        from blocker.ingest.worker import IngestWorker  # loads httpx

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

    async def _watch_server(self, management: Management) -> None:
        """A node whose listener ended by itself must not go on as if it were there."""
        try:
            await management.server.wait()
        finally:
            self.stop()

    async def _watch_redis(self) -> None:
        """Start the embedded Redis again if it died; whoever uses it reconnects by itself."""
        while not self._stopping.is_set():
            with contextlib.suppress(BlockerError):
                await self.context.embedded.ensure()
            await self._pause(WATCH_SECONDS)

    async def _beat(self, management: Management) -> None:
        """Tell the consoles of all nodes that this one lives, from when it decides."""
        await self._announced_or_late()
        while not self._stopping.is_set():
            await management.heartbeat.beat()
            await self._pause(management.heartbeat.seconds)
        await management.heartbeat.end()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
