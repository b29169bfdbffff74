"""What the ingest tests share: a certificate for the session, a server, a Redis and a store for each test."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from blocker.ingest.source import Source
from blocker.store.redis import Store
from blocker.store.sealing import Keyring
from tests.ingest.https_server import Certificate, HttpsServer, make_certificate
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MakeSource = Callable[..., Source]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
async def server(certificate: Certificate) -> AsyncIterator[HttpsServer]:
    async with HttpsServer(certificate) as running:
        yield running


@pytest.fixture
def keyring() -> Keyring:
    return Keyring(lookup=b"0123456789abcdef", seal=bytes(range(32)))


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with RedisServer(tmp_path / "redis", aof=True) as running:
        yield running


@pytest.fixture
async def store(redis: RedisServer, keyring: Keyring) -> AsyncIterator[Store]:
    async with await Store.open(redis.url, "test", keyring=keyring) as opened:
        yield opened


@pytest.fixture
def web_source(server: HttpsServer, certificate: Certificate) -> MakeSource:
    """Makes sources at the test's https server."""

    def make(target: str = "/list", **fields: object) -> Source:
        return Source.model_validate(
            {"name": "web", "format": "url", "url": server.url(target), "ca_file": certificate.authority, **fields}
        )

    return make


@pytest.fixture
def file_source(tmp_path: Path) -> MakeSource:
    """Makes sources of a file with the given contents."""

    def make(data: bytes | str, name: str = "list.txt", **fields: object) -> Source:
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return Source.model_validate({"name": "file", "format": "url", "path": path, **fields})

    return make
