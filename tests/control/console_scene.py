"""A console with everything there is to see: a real Redis, a real follower, lists, weeks of hits, and faults."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from redis.asyncio import Redis

from blocker.control.app import create_app
from blocker.control.console import console, gate
from blocker.control.heartbeat import Heartbeat
from blocker.control.office import Office
from blocker.control.server import ControlServer
from blocker.follower import Follower
from blocker.gateways.canaries import CanaryState, Reason
from blocker.gateways.engine import VerdictEngine
from blocker.hits.counters import HitCounter
from blocker.hits.exporter import Exporter
from blocker.ingest.drafts import put_draft
from blocker.ingest.plan import PublishOptions
from blocker.matcher import Policy
from blocker.sections import HitSettings, HttpSettings, PolicySettings
from blocker.settings import Settings
from blocker.snapshot import Snapshot
from blocker.store.audit import INGEST, Actor
from blocker.store.beat import Beat
from blocker.store.keys import Keys
from blocker.store.redis import Store
from blocker.store.sealing import Keyring
from blocker.store.tokens import create_token
from tests.hits.support import Clock
from tests.ingest.checks import rules_of
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from pathlib import Path

    from fastapi import FastAPI

    from blocker.control.shell import Shell
    from blocker.store.token import Role

START = 1_795_989_600.0
DAY = 86_400.0
KEYRING = Keyring(lookup=b"0123456789abcdef", seal=bytes(range(32)))
ADMIN = Actor("cli", "Admin")
ANNA = Actor("token:anna", "Anna Lind")
WEEKS = ("2026-W46", "2026-W47")
BLOCKING = PublishOptions()
LISTED = "http://listed.example/gallery/1.jpg"


@dataclass
class Scene:
    """One console."""

    redis: RedisServer
    store: Store
    follower: Follower
    hits: HitCounter
    clock: Clock
    settings: Settings
    shell: Shell
    server: ControlServer
    canaries: list[CanaryState] = field(default_factory=list)
    limits: dict[str, float] = field(default_factory=dict)

    @property
    def api(self) -> FastAPI:
        """The framework's application."""
        return self.shell.app  # type: ignore[return-value]

    @property
    def address(self) -> str:
        """Where it is served."""
        return f"http://127.0.0.1:{self.server.port}"

    async def token(self, name: str, *roles: Role, person: str = "", lists: Sequence[str] = ("*",)) -> str:
        """The whole text of a fresh token."""
        _, text = await create_token(
            self.store, name=name, person=person or name, roles=roles, lists=tuple(lists), now=self.clock(),
            seconds=DAY, actor=ADMIN,
        )  # fmt: skip
        return text

    async def publish(
        self,
        name: str,
        lines: Iterable[str],
        *,
        base: int = 0,
        reason: str = "",
        actor: Actor = ANNA,
        options: PublishOptions = BLOCKING,
    ) -> str:
        """Take a version to the desk; what became of it."""
        await put_draft(
            self.store, KEYRING, name, options, rules_of(lines), base=base, actor=actor, reason=reason,
            now=self.clock(),
        )  # fmt: skip
        desk = await self.office.desk()
        done = await desk.publish_draft(name, expected=base, actor=actor, reason=reason, now=self.clock())
        await self.follower.sync(self.store)
        return done.status

    @property
    def office(self) -> Office:
        """A desk beside the one that is served."""
        return Office(self._opened, KEYRING, self.settings.guards, self.redis.directory)

    async def _opened(self) -> Store:
        return self.store

    async def fill(self) -> None:
        """Lists as they are on a bad day."""
        now = self.clock.now
        self.clock.now = now - 11 * DAY
        pages = [f"http://site{number}.example/p/{number % 7}.jpg" for number in range(6012)]
        await self.publish("iwf", pages, reason="pull", actor=INGEST)
        await self.publish("police", ["listed.example/gallery/", *pages[:410]], reason="first list")
        await self.publish(
            "exceptions", pages[:12], reason="appeals of October", options=PublishOptions(action="allow")
        )
        self.clock.now = now - 3 * DAY
        await self.publish(
            "interpol", (f"*.bad{number}.example" for number in range(2180)), reason="pull", actor=INGEST
        )
        await self.publish(
            "trial", pages[1000:1900], reason="try the new source", options=PublishOptions(mode="shadow")
        )
        self.clock.now = now - 5400
        await self.publish("iwf", pages[40:], base=1, reason="pull", actor=INGEST)
        assert await self.publish("interpol", ["*.bad1.example"], base=1, reason="monthly file") == "waiting"
        self.limits.update(iwf=14_400.0, police=2 * DAY, interpol=7 * DAY, trial=4 * DAY, bpjm=DAY)
        for name, age in (("iwf", 5400), ("police", 3.2 * DAY), ("interpol", 9000), ("trial", 12 * 3600)):
            await self.store.set_checked(name, now - age)
        detail = "lists.police.example:443: the certificate has expired; tell who runs the source"
        await self.store.set_source_state(
            "police", {"last_status": "failed", "last_detail": detail, "last_at": str(now)}
        )
        self.clock.now = now
        await self.follower.sync(self.store)
        self.canaries += [
            CanaryState(
                name, gateway, Reason.NOT_BLOCKED if (name, gateway) == ("iwf", "icap") else None, now, now, None
            )
            for name in ("iwf", "police")
            for gateway in ("control", "check", "icap", "spoe")
        ]
        await self.fill_hits()
        await self.fill_nodes()

    async def fill_hits(self) -> None:
        """Two weeks that are over."""
        cells = {}
        for name, most in (("iwf", 260), ("police", 34), ("interpol", 910), ("~trial", 120)):
            for week in WEEKS:
                for day in range(1, 8):
                    for hour in range(24):
                        evening = math.exp(-(((hour - 21 + 12) % 24 - 12) ** 2) / 18)
                        count = int(most * evening * (1.3 if day > 5 else 0.8) * (1 + (day * 7 + hour * 3) % 5 / 10))
                        cells[f"{name}|{week}|{day}|{hour}"] = count
        await self.store.flush_hits(self.settings.node, "earlier", 1, {cell: n for cell, n in cells.items() if n})
        assert await self.hits.flush()

    async def fill_nodes(self) -> None:
        """This node and two others, one of which is silent."""
        assert self.follower.matcher is not None
        heartbeat = Heartbeat(self._opened, self.settings.node, self.follower, lambda: (), clock=self.clock)
        await heartbeat.beat()
        serials = {name: serial for name, serial, *_ in self.follower.matcher.table.lists}
        for node, changed, silent in (("gbg-resolver-1", {"iwf": 1}, 0), ("mma-proxy-1", {}, 1260)):
            await self.store.beat(
                Beat(
                    node=node, version="0.1.0", started=self.clock() - 9 * DAY, serials={**serials, **changed},
                    lag_seconds=42.0 if changed else 0.0, canaries_failed=0,
                )
            )  # fmt: skip
            async with Redis.from_url(self.redis.url) as client:
                await client.zincrby(Keys("test").beats, -silent, node)


@contextlib.asynccontextmanager
async def console_scene(directory: Path, **http: float) -> AsyncIterator[Scene]:
    """A served console without anything to see."""
    # A busy machine is no store that is away; what it is patient for has a test of its own.
    with pytest.MonkeyPatch.context() as patch:
        for module in (gate, console):
            patch.setattr(module, "PATIENCE_SECONDS", 60.0)
        async with _scene(directory, **http) as scene:
            yield scene


@contextlib.asynccontextmanager
async def _scene(directory: Path, **http: float) -> AsyncIterator[Scene]:
    async with RedisServer(directory / "redis", aof=True) as redis:
        clock = Clock(START)
        settings = Settings(
            node="sto-proxy-1", timezone="Europe/Stockholm", hits=HitSettings(bin=8), http=HttpSettings(**http),
            policies={"school": PolicySettings()},
        )  # fmt: skip
        store = await Store.open(redis.url, "test", keyring=KEYRING)

        async def opened() -> Store:
            return store

        policies = (Policy(name="school"),)
        follower = Follower(
            opened, Snapshot(directory / "snapshot", KEYRING.lookup), KEYRING.lookup, policies=policies, clock=clock
        )
        hits = HitCounter(store, node=settings.node, zone=ZoneInfo("Europe/Stockholm"), clock=clock)
        engine = VerdictEngine(follower, hits)
        exporter = Exporter(engine.meters, hits, follower, clock=clock)
        canaries: list[CanaryState] = []
        limits: dict[str, float] = {}
        shell = create_app(
            engine, follower, settings, exporter, clock=clock, stale_after=lambda: limits, canaries=lambda: canaries,
            office=Office(opened, KEYRING, settings.guards, directory, policies),
        )  # fmt: skip
        server = ControlServer(shell, "127.0.0.1", 0)
        await server.start()
        yield Scene(redis, store, follower, hits, clock, settings, shell, server, canaries, limits)
        await server.stop()
        await store.close()
