"""What a node without routes does for feeds that still have some: it has them withdraw all.

A node that was configured without routes, by its file or while it ran, leaves routes in ExaBGP that nobody keeps any
more: they would stay as they are for ever, since a feed whose node has gone withdraws nothing. So where the state of
routes is on disk the socket is there, and who comes is told that there are none. Once a feed has said that ExaBGP has
none either, the state is removed, and with it the reason to listen at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from blocker.errors import ServeError
from blocker.feeds.bgp import Form
from blocker.feeds.route_socket import SOCKET, RouteSocket
from blocker.feeds.route_state import STATE_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from blocker.route_section import RouteSettings

log = structlog.get_logger(__name__)

# Between two looks whether feeds have withdrawn everything, in seconds.
_LOOK_SECONDS = 0.5


class Retreat(Collector):
    """Make it, `start` it, let `run` run; `stop` ends it. Needs no key.

    Args:
        settings: As they are now: how routes are written.
        data_dir: Where the state is, and the socket unless the settings say otherwise.
    """

    def __init__(self, settings: RouteSettings, data_dir: Path) -> None:
        self._state = data_dir / STATE_FILE
        self._form = asdict(Form.of(settings))
        self._socket = RouteSocket(settings.unix or data_dir / SOCKET, settings.group, self._nothing, self._refuse)
        self._stopping = asyncio.Event()

    def start(self) -> None:
        """Bind the socket.

        Raises:
            ServeError: The socket cannot be had.
        """
        self._socket.start()
        log.warning("routes are off, and feeds that come withdraw theirs", socket=str(self._socket.path))

    async def run(self) -> None:
        """Run until `stop`."""
        while not self._stopping.is_set():
            if (
                self._state.exists()
                and (feeds := self._socket.feeds)
                and all(one.said and not one.told for one in feeds)
            ):
                self._state.unlink(missing_ok=True)
                log.info("all routes are withdrawn")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._stopping.wait()

    async def stop(self) -> None:
        """End; may be called twice."""
        self._stopping.set()

    def close(self) -> None:
        """Let the feeds go."""
        self._socket.stop()

    def collect(self) -> Iterator[Metric]:
        """None is wanted, and for how long there may be some: so that nobody takes the metrics' end for theirs."""
        routes = GaugeMetricFamily("blocker_routes", "Routes that are announced.", labels=["family"])
        for family in ("ipv4", "ipv6"):
            routes.add_metric([family], 0.0)
        yield routes
        yield retreating(now=self._state.exists())

    def _nothing(self) -> Mapping[str, Any]:
        return {"form": self._form, "routes": [], "settled": True}

    async def _refuse(self) -> Mapping[str, Any]:
        raise ServeError("routes are off: routes.enabled")


def retreating(*, now: bool) -> Metric:
    """Whether this node has feeds withdraw what they have."""
    return GaugeMetricFamily(
        "blocker_route_retreating", "Whether a node without routes has some withdrawn: 1 or 0.", value=float(now)
    )
