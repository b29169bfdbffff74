"""The half of a node that decides and answers: follower, hit counter, stream gateways and their companions.

It is there before the other half is even loaded. A node that starts with its copy of the lists on disk answers after
the third of its start, and nothing that only people, monitoring or other machines need is imported here.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import structlog

from blocker.errors import ServeError
from blocker.gateways.engine import VerdictEngine
from blocker.gateways.host import CompanionHost
from blocker.gateways.streams import Streams
from blocker.gateways.workers import Workers
from blocker.hits.counters import HitCounter
from blocker.sockets import when_free

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blocker.cli.context import Context
    from blocker.cli.late_store import LateStore
    from blocker.control.stop_page import StopPage
    from blocker.follower import Follower
    from blocker.gateways.engine import StopPageBytes
    from blocker.settings import Settings

log = structlog.get_logger(__name__)


class Front:
    """Make it, `start` it; `stop` ends what answers, and leaves follower and hits to who runs them.

    Args:
        context: The run.
        store: Where hits go.

    Raises:
        KeyMaterialError: There are no usable keys.
        UnknownPolicy: A gateway names a policy that is not there.
    """

    def __init__(self, context: Context, store: LateStore) -> None:
        self._context = context
        self._stop_page: StopPage | None = None
        settings = context.settings
        self.follower: Follower = context.follower()
        self.hits = HitCounter(
            store,
            node=settings.node,
            zone=settings.zone,
            bin=settings.hits.bin,
            flush_seconds=settings.hits.flush_seconds,
        )
        self.engine = VerdictEngine(self.follower, self.hits)
        self.streams = Streams(self.engine, settings.gateways, self._pages(settings))
        self.host = CompanionHost(
            settings.companions,
            settings.data_dir / "node.sock",
            self._welcome,
            source=self.follower,
            engine=self.engine,
            hits=self.hits,
            lookup_key=context.keyring.lookup,
        )
        self.workers: Workers | None = None
        self.follower.on_swap(self.engine.swapped)
        self.follower.on_swap(self.host.swapped)

    @property
    def wanted_workers(self) -> int:
        """How many workers there are to be."""
        return self._context.settings.gateways.workers

    @property
    def stop_page(self) -> StopPage:
        """The stop page, made when it is first wanted."""
        if self._stop_page is None:
            from blocker.control.stop_page import StopPage  # loads Jinja2

            self._stop_page = StopPage(self._context.settings.stop_page)
        return self._stop_page

    async def start(self) -> None:
        """Take the copy of the lists that is on disk, and answer.

        Raises:
            ServeError: An address cannot be had.
        """
        await self.follower.load_snapshot()
        settings = self._context.settings
        count = self.wanted_workers
        try:
            self.host.start()
        except ServeError as error:
            if count or settings.companions.unix is not None:
                raise
            log.warning("no companions can come", detail=str(error))
        if count:
            options = ["--log-level", settings.log_level, "--log-format", settings.log_format]
            self.workers = Workers(count, list(self.streams), self.host.path, options)
            await when_free(self.workers.start)
        else:
            for listener in self.streams:
                await when_free(listener.start)

    async def stop(self) -> None:
        """Answer what is under way and no more; may be called twice."""
        await (self.workers or self.streams).stop()
        self.host.stop()

    def configure(self, settings: Settings) -> None:
        """Take over another configuration; policies count from the next swap of the matcher on."""
        if self._stop_page is not None:
            self._stop_page.configure(settings.stop_page)
        self.streams.configure(settings.gateways, self._pages(settings))

    def _pages(self, settings: Settings) -> Sequence[StopPageBytes]:
        """The stop page, if a gateway is there that shows it."""
        shown = settings.gateways.check.enabled or settings.gateways.icap.enabled
        return self.stop_page.as_bytes() if shown else ()

    def _welcome(self) -> Mapping[str, object]:
        """What companions are told; see `Companion`."""
        settings = self._context.settings
        pages = self._pages(settings)
        return {
            "timezone": settings.timezone,
            "flush_seconds": settings.hits.flush_seconds,
            "policies": [asdict(policy) for policy in self._context.policies],
            "gateways": settings.gateways.model_dump(mode="json"),
            "pages": [(name, language, head.decode("latin-1"), body.decode()) for name, language, head, body in pages],
        }
