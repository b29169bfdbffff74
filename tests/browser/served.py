"""A control plane that a real browser asks, with realistic texts, and the browser itself."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from blocker.control.app import create_app
from blocker.control.server import ControlServer
from blocker.gateways.engine import VerdictEngine
from blocker.hits.counters import HitCounter
from blocker.hits.exporter import Exporter
from blocker.settings import Settings
from blocker.stop_section import StopPageSettings
from tests.hits.support import Clock, Followed, MemoryStore

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

CHROMIUM = "/usr/bin/chromium"
# No sandbox: tests run as root in containers. The rest keeps the browser from asking its maker for anything.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

STOP_PAGE = StopPageSettings.model_validate({
    "operator": "Nordic Fibre",
    "operator_url": "https://www.nordic-fibre.example/blocking",
    "text_language": "en",
    "help": "If your own thoughts or behaviour worry you, talk to somebody. It is free, and you need not give a name: "
    "0800\u00a0555\u00a00100, https://help.example/",
    "languages": {
        "de": {
            "help": "Wenn Ihre eigenen Gedanken oder Ihr Verhalten Sie beunruhigen, sprechen Sie mit jemandem. Das ist "
            "kostenlos, und Ihren Namen brauchen Sie nicht zu nennen: 0800\u00a0555\u00a00100, https://hilfe.example/"
        },
    },
    "lists": {
        "police": {
            "authority": "National Police, Cybercrime Centre",
            "authority_url": "https://police.example/blocklist",
            "reason": "The page shows sexual abuse of children, or belongs to a site that does. Making, spreading and "
            "looking at such pictures is a crime.",
            "law": "Police Data Act, section 14, and the agreement of 3\u00a0May\u00a02026 between the police and "
            "internet providers",
            "complaint": "Write to appeals@police.example. You need not say who you are.\n"
            "If the site is yours: https://police.example/blocklist/appeal",
            "languages": {
                "de": {
                    "authority": "Nationale Polizei, Zentrum gegen Cyberkriminalität",
                    "reason": "Die Seite zeigt sexuellen Missbrauch von Kindern oder gehört zu einem solchen Angebot. "
                    "Solche Bilder herzustellen, zu verbreiten und anzusehen ist strafbar.",
                    "law": "Polizeidatengesetz, §\u00a014, und Vereinbarung vom 3.\u00a0Mai\u00a02026 zwischen der "
                    "Polizei und den Internetanbietern",
                    "complaint": "Schreiben Sie an appeals@police.example. Ihren Namen brauchen Sie nicht zu nennen.\n"
                    "Wenn die Seite Ihnen gehört: https://police.example/blocklist/appeal",
                }
            },
        }
    },
})  # fmt: skip


class Served:
    """A control plane in a thread of its own, which remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        """The target of each request."""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(60)

    def stop(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(60)

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        clock, follower = Clock(1_795_989_600.0), Followed()
        hits = HitCounter(MemoryStore(), node="node", zone=ZoneInfo("UTC"), clock=clock, boot="boot")
        engine = VerdictEngine(follower, hits)
        exporter = Exporter(engine.meters, hits, follower, clock=clock)
        app = create_app(engine, follower, Settings(stop_page=STOP_PAGE), exporter, clock=clock)

        async def remembering(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                target = scope["path"] + ("?" + scope["query_string"].decode() if scope["query_string"] else "")
                self.asked.append(target)
            await app(scope, receive, send)

        server = ControlServer(remembering, "127.0.0.1", 0)
        await server.start()
        self.port = server.port
        self._ready.set()
        await self._stopping.wait()
        await server.stop()
