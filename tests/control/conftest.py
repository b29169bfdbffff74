"""A control plane on a free port, served by the real server and asked by a real client."""

from __future__ import annotations

import io
import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import httpx
import pytest
import structlog

from blocker import log
from blocker.control.app import create_app
from blocker.control.server import ControlServer
from blocker.gateways.engine import VerdictEngine
from blocker.hits.counters import HitCounter
from blocker.hits.exporter import Exporter
from blocker.sections import HttpSettings
from blocker.settings import Settings
from blocker.stop_section import ListPageSettings, StopPageSettings
from tests.control.console_scene import console_scene
from tests.hits.support import Clock, Followed, MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from blocker.control.shell import Shell
    from tests.control.console_scene import Scene

START = 1_795_989_600.0
MAX_BODY = 2**16


@dataclass
class ControlNode:
    """Everything behind one control plane."""

    clock: Clock
    follower: Followed
    hits: HitCounter
    engine: VerdictEngine
    exporter: Exporter
    app: Shell
    server: ControlServer
    client: httpx.AsyncClient


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """All that is logged, at the lowest level; logging is put back afterwards."""
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in log.NOISY}
    before, hooks = (root.handlers[:], root.level), (sys.excepthook, sys.unraisablehook)
    stream = io.StringIO()
    log.configure("debug", "json", stream)
    yield stream
    root.handlers[:], root.level = before
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(capture=False)
    logging.raiseExceptions = True
    sys.excepthook, sys.unraisablehook = hooks
    structlog.reset_defaults()


@pytest.fixture
def settings() -> Settings:
    """Small limits, and texts that need escaping."""
    return Settings(
        http=HttpSettings(max_batch=1000, max_body_bytes=MAX_BODY),
        stop_page=StopPageSettings(
            operator="A <Provider> & Sons", operator_url="https://operator.example/why?a=1&b=2",
            reason="It is on a list.", law="An Act, section 1", complaint="Write to us.", help="Call 0800.",
            lists={"police": ListPageSettings(reason="Told by the police.")},
        ),
    )  # fmt: skip


@pytest.fixture
async def node(settings: Settings, logged: io.StringIO) -> AsyncIterator[ControlNode]:
    """A running control plane."""
    assert logged is not None
    clock, follower = Clock(START), Followed()
    hits = HitCounter(MemoryStore(), node="node", zone=ZoneInfo("UTC"), clock=clock, boot="boot")
    engine = VerdictEngine(follower, hits)
    exporter = Exporter(engine.meters, hits, follower, clock=clock)
    app = create_app(engine, follower, settings, exporter, stale_after=lambda: {"first": 60.0}, clock=clock)
    server = ControlServer(app, "127.0.0.1", 0)
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
        yield ControlNode(clock, follower, hits, engine, exporter, app, server, client)
    await server.stop()


@pytest.fixture
async def scene(tmp_path: Path, logged: io.StringIO) -> AsyncIterator[Scene]:
    """A console without anything to see."""
    assert logged is not None
    async with console_scene(tmp_path) as made:
        yield made


@pytest.fixture
async def full(scene: Scene) -> Scene:
    """A console with everything there is to see."""
    await scene.fill()
    return scene
