"""The half of a node that people, monitoring and other machines use: control plane, metrics, canaries, zones, routes.

Only wiring. It is loaded beside a `Front` that answers already.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from blocker.cli.context import usable_sources
from blocker.cli.watching import Watching
from blocker.control.app import create_app
from blocker.control.canary_probe import HttpProbe
from blocker.control.heartbeat import Heartbeat
from blocker.control.office import Office
from blocker.control.server import ControlServer
from blocker.gateways.canaries import Canaries
from blocker.gateways.host import HelperProbe
from blocker.gateways.streams import PROBES
from blocker.hits.exporter import Exporter
from blocker.matcher import DEFAULT_POLICY
from blocker.sections import Role
from blocker.sockets import when_free

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from blocker.cli.context import Context
    from blocker.cli.front import Front
    from blocker.cli.late_store import LateStore
    from blocker.feeds.route_feed import RouteFeed
    from blocker.feeds.route_retreat import Retreat
    from blocker.feeds.rpz import RpzFeed
    from blocker.gateways.canaries import Probe
    from blocker.gateways.dns import DnsListener
    from blocker.gateways.envoy import EnvoyListener
    from blocker.ingest.worker import IngestWorker
    from blocker.settings import Settings


class Management:
    """Make it, in a thread if need be; then `start` and `stop` it, and run what is in it.

    Args:
        context: The run.
        store: The node's store.
        front: What decides.
        worker: The ingest worker, if this node has one by now.

    Raises:
        KeyMaterialError: Zones or routes are to be served, and there is no seal key, or a TSIG key cannot be used.
        UnknownPolicy: A gateway names a policy that is not there.
    """

    def __init__(
        self, context: Context, store: LateStore, front: Front, worker: Callable[[], IngestWorker | None]
    ) -> None:
        self._context, self._store, self._front = context, store, front
        self._stale: dict[str, float] = {}
        settings, engine, follower = context.settings, front.engine, front.follower
        self.canaries = Canaries(engine, follower, settings, more=self._source_canaries)
        self.exporter = Exporter(
            engine.meters,
            front.hits,
            follower,
            shadow_lists=settings.shadow_lists,
            canaries=lambda: self.canaries.states,
        )
        self.office = Office(store.opened, context.keyring, settings.guards, settings.lists_dir, context.policies)
        self.heartbeat = Heartbeat(store.opened, settings.node, follower, lambda: self.canaries.states)
        app = create_app(
            engine,
            follower,
            settings,
            self.exporter,
            stop_page=front.stop_page,
            stale_after=self._stale_after,
            office=self.office,
            canaries=lambda: self.canaries.states,
        )
        self.server = ControlServer(app, settings.http.host, settings.http.port)
        self.http_probe = HttpProbe(self.server, sorted({DEFAULT_POLICY, *settings.policies}))
        probes: list[Probe] = [self.http_probe, HelperProbe(front.host)]
        for probe in probes + [PROBES[one.name](one) for one in front.streams]:
            self.canaries.register(probe)
        self.envoy = self._envoy()
        self.routes = self._routes()
        self.rpz = self._rpz()
        self.join_zones()
        self.watching = Watching(front, store, self.exporter, worker, self._stale_after)

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Serve.

        Args:
            sockets: Those of the control plane, bound.

        Raises:
            ServeError: An address cannot be had.
        """
        await self.server.start(sockets)
        if self.routes is not None:
            self.routes.start()
        for one in (self.envoy, self.rpz):
            if one is not None:
                await when_free(one.start)

    async def stop(self) -> None:
        """Answer what is under way and no more; may be called twice."""
        await asyncio.gather(*(one.stop() for one in (self.envoy, self.rpz) if one is not None))

    def close(self) -> None:
        """Let go of what outlives a stop: the routes' feeds, which are told of the last changes."""
        if self.routes is not None:
            self.routes.close()

    def prepare(self, settings: Settings) -> None:
        """Read what `configure` with these needs, so that it cannot fail then.

        Raises:
            BlockerError: A key or a certificate of the zones cannot be used; nothing has changed.
        """
        if self.rpz is not None:
            self.rpz.prepare(settings.feeds.rpz)

    def configure(self, settings: Settings) -> None:
        """Take over another configuration."""
        policies = self._context.policies
        if self.envoy is not None:
            self.envoy.configure(settings.gateways.envoy, self._front.stop_page.as_bytes())
        if self.rpz is not None:
            self.rpz.configure(settings.feeds.rpz, policies, settings.poll_seconds)
            self.join_zones()
        self.exporter.shadow_lists(settings.shadow_lists)
        self.office.configure(settings.guards, policies)
        self.http_probe.policies = tuple(sorted({DEFAULT_POLICY, *settings.policies}))
        self.canaries.configure(settings)
        self._configure_routes(settings)

    def join_zones(self) -> None:
        """Have the dns gateway answer about the zones that there are, if it is to."""
        if self.rpz is not None and self._context.settings.feeds.rpz.on_dns_gateway:
            cast("DnsListener", self._front.streams["dns"]).hand_over(self.rpz.listener)

    def _envoy(self) -> EnvoyListener | None:
        settings = self._context.settings.gateways.envoy
        if not settings.enabled:
            return None
        from blocker.gateways.envoy import EnvoyProbe, envoy_listener  # loads gRPC

        made = envoy_listener(self._front.engine, settings, self._front.stop_page.as_bytes())
        self.canaries.register(EnvoyProbe(made))
        return made

    async def run_routes(self) -> None:
        """Run the route feed, and after it what takes its routes back if they are turned off."""
        routes = self.routes
        while routes is not None:
            await routes.run()
            if routes is self.routes:
                return
            routes.close()
            routes = self.routes
            if routes is not None:
                routes.start()

    def _configure_routes(self, settings: Settings) -> None:
        if self.routes is None:
            return
        from blocker.feeds.route_retreat import Retreat

        if isinstance(self.routes, Retreat):
            return
        if settings.routes.enabled:
            from blocker.feeds.infrastructure import own_addresses

            policy = self._context.policy(settings.routes.policy)
            self.routes.configure(settings.routes, settings.guards, policy, own_addresses(settings))
            return
        self.routes.leave()
        self.exporter.unregister(self.routes.counts)
        self.routes = Retreat(settings.routes, settings.data_dir)
        self.exporter.register(self.routes)

    def _routes(self) -> RouteFeed | Retreat | None:
        settings = self._context.settings
        if not settings.routes.enabled:
            from blocker.feeds.route_retreat import Retreat
            from blocker.feeds.route_state import STATE_FILE

            if not (settings.data_dir / STATE_FILE).exists():
                return None
            retreat = Retreat(settings.routes, settings.data_dir)
            self.exporter.register(retreat)
            return retreat
        from blocker.feeds.infrastructure import own_addresses
        from blocker.feeds.route_feed import RouteFeed  # loads aiodns

        policy = self._context.policy(settings.routes.policy)
        keyring, data_dir, own = self._context.keyring, settings.data_dir, own_addresses(settings)
        feed = RouteFeed(settings.routes, settings.guards, data_dir, keyring, policy, self._store.opened, own)
        self._front.follower.on_swap(feed.swapped)
        if self._front.follower.matcher is not None:  # as it was on disk
            feed.swapped(self._front.follower.matcher)
        self.exporter.register(feed.counts)
        return feed

    def _rpz(self) -> RpzFeed | None:
        settings = self._context.settings
        if not settings.feeds.rpz.enabled:
            return None
        from blocker.feeds.rpz import RpzFeed  # loads dnspython

        feed = RpzFeed(
            settings.feeds.rpz, self._context.policies, self._context.open_store, self._context.keyring,
            settings.data_dir / "zones", settings.poll_seconds,
        )  # fmt: skip
        self.exporter.add(feed)
        self.exporter.register(feed.counts)
        return feed

    def _source_canaries(self) -> Mapping[str, Sequence[str]]:
        """The canaries that the sources of this node name; read anew each time, since maintainers change them."""
        settings = self._context.settings
        if Role.INGEST not in settings.roles:
            return {}
        return {source.name: source.canaries for source in usable_sources(settings.lists_dir)}

    def _stale_after(self) -> Mapping[str, float]:
        """From which age each list is stale; read once, since sources say it and rarely change."""
        if not self._stale:
            sources = usable_sources(self._context.settings.lists_dir)
            self._stale = {source.name: source.stale_after_seconds for source in sources}
        return self._stale
