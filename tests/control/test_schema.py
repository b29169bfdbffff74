"""Every operation of the OpenAPI document, asked with whatever fits its description and with much that does not.

No server error, no status and no form of answer that the document does not describe.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from blocker.control.app import create_app
from blocker.control.office import Office
from blocker.control.server import ControlServer
from blocker.gateways.engine import VerdictEngine
from blocker.hits.counters import HitCounter
from blocker.hits.exporter import Exporter
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import publish
from blocker.settings import Settings
from blocker.store.audit import Actor
from blocker.store.redis import Store
from blocker.store.sealing import Keyring
from blocker.store.token import Role
from blocker.store.tokens import create_token
from tests.control.conftest import START
from tests.hits.support import Clock, Followed, MemoryStore
from tests.ingest.checks import pages
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEYRING = Keyring(lookup=b"0123456789abcdef", seal=bytes(range(32)))
# Requests for each operation; there are over twenty.
EXAMPLES = 50


class Running:
    """A control plane in a thread of its own, and an operator's token."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(60)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(60)

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        async with (
            RedisServer(self._directory) as redis,
            await Store.open(redis.url, "test", keyring=KEYRING) as store,
        ):

            async def opened() -> Store:
                return store

            clock, follower, configured = Clock(START), Followed(), Settings()
            hits = HitCounter(MemoryStore(), node="node", zone=ZoneInfo("UTC"), clock=clock, boot="boot")
            engine = VerdictEngine(follower, hits)
            exporter = Exporter(engine.meters, hits, follower, clock=clock)
            office = Office(opened, KEYRING, configured.guards, self._directory)
            _, self.token = await create_token(
                store, name="operator", person="Operator", roles=(Role.OPERATOR,), lists=(), now=START,
                seconds=86_400, actor=Actor("cli", "Admin"),
            )  # fmt: skip
            for name in ("a", "0"):  # names that are tried first
                await publish(store, KEYRING, name, PublishOptions(), pages(range(9)), reason="test", now=START)
            app = create_app(engine, follower, configured, exporter, clock=clock, office=office)
            server = ControlServer(app, "127.0.0.1", 0)
            await server.start()
            self.url = f"http://127.0.0.1:{server.port}"
            self._ready.set()
            await self._stopping.wait()
            await server.stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    node = Running(tmp_path_factory.mktemp("redis"))
    yield node
    node.stop()


CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance,
]  # fmt: skip


def test_the_document_is_true(running: Running) -> None:
    described = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    asked = 0
    for result in described.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()

        @given(case=operation.as_strategy() | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        def ask(case: Case[Any]) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(headers={"Authorization": f"Bearer {running.token}"}, checks=CHECKS)

        ask()
    assert asked > EXAMPLES * 10
