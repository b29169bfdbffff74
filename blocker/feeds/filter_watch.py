"""Asks the URL filter whether it lives: while it does not, routes to it would lead listed hosts' traffic into nothing.

BGP says that a next hop can be reached and not that anybody serves there. So with `routes.filter_probes` each is asked
every `filter_probe_seconds`. Three looks in a row that one of them leaves unanswered take all routes back: innocent
pages of those hosts are reached again, and so are the listed ones, which is what the alert is for. Three that all
answer bring the routes again. At the start routes that are there stay, and none is added before the first answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocker.feeds.route_terms import FilterState
    from blocker.route_section import RouteSettings

log = structlog.get_logger(__name__)

# Looks in a row without an answer until it is down, and with one until it is up again: more than a lost packet, or the
# moment between the end of one process and the start of another.
_FALLS = 3
_RISES = 3


class FilterWatch:
    """The looks at the URL filter of one feed.

    Args:
        settings: The present ones.
        changed: Called after each change of `state`.
    """

    def __init__(self, settings: Callable[[], RouteSettings], changed: Callable[[], object]) -> None:
        self.state: FilterState = "unproven" if settings().filter_probes else "off"
        self.unanswered: tuple[str, ...] = ()  # probes, at the last look
        self._settings, self._changed = settings, changed
        self._falls = self._rises = 0
        # httpx reads the system's authorities otherwise, which takes 20 ms; nothing here is spoken but plain HTTP.
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    @property
    def held(self) -> bool:
        """Whether nothing may be announced on its account."""
        return self.state in ("unproven", "down")

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            settings, began = self._settings(), loop.time()
            probes, seconds = settings.filter_probes, settings.filter_probe_seconds
            if not probes:
                self._become("off")
            else:
                answers = await asyncio.gather(*(self._answers(one, seconds) for one in probes))
                self.unanswered = tuple(one for one, answered in zip(probes, answers, strict=True) if not answered)
                self._heard(answered=not self.unanswered)
            await asyncio.sleep(max(0.0, began + seconds - loop.time()))

    def _heard(self, *, answered: bool) -> None:
        self._falls, self._rises = (0, self._rises + 1) if answered else (self._falls + 1, 0)
        if answered and (self.state in ("off", "unproven") or self._rises >= _RISES):
            self._become("up")
        elif self._falls >= _FALLS:
            self._become("down")
        elif self.state == "off":  # probes are new
            self._become("unproven")

    def _become(self, state: FilterState) -> None:
        if state == self.state:
            return
        self.state = state
        self._falls = self._rises = 0
        if state == "down":
            log.error("the URL filter does not answer; all routes are withdrawn")
        elif state == "up":
            log.info("the URL filter answers")
        self._changed()

    async def _answers(self, probe: str, seconds: float) -> bool:
        parts = urlsplit(probe)
        with contextlib.suppress(OSError, TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(seconds):
                if parts.scheme == "tcp":
                    _, writer = await asyncio.open_connection(parts.hostname, parts.port)
                    writer.close()
                    return True
                return await self._serves(probe)
        return False

    async def _serves(self, address: str) -> bool:
        """Whether an HTTP request gets any answer that is not the server's own fault."""
        # What the environment says of proxies would ask somebody else.
        client = httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=None)  # noqa: S113 - the caller has one
        async with client, client.stream("GET", address) as answer:
            return not answer.is_server_error
