"""Servers and stores for these tests. A test gets a deployment of its own on a server that many tests share."""

from __future__ import annotations

import secrets
import shutil
from typing import TYPE_CHECKING

import pytest

from blocker.store.embedded import EmbeddedRedis
from blocker.store.redis import Store
from tests.redis_server import LASTING, RedisServer, server_binaries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session", params=list(server_binaries()))
def binary(request: pytest.FixtureRequest) -> Path:
    """Each Redis server of this machine in turn."""
    return server_binaries()[request.param]


@pytest.fixture(scope="session")
def server(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A running server; tests on it must leave it running and as it was."""
    with RedisServer(tmp_path_factory.mktemp("redis"), binary=binary) as running:
        LASTING.add(running)
        yield running


@pytest.fixture
def deployment() -> str:
    """A deployment that no other test uses."""
    return f"t{secrets.token_hex(8)}"


@pytest.fixture
async def store(server: RedisServer, deployment: str) -> AsyncIterator[Store]:
    """An empty store."""
    async with await Store.open(server.url, deployment) as opened:
        yield opened


@pytest.fixture
async def make() -> AsyncIterator[Callable[[Path], EmbeddedRedis]]:
    """Makes embedded servers that are stopped after the test."""
    made: list[EmbeddedRedis] = []

    def one(data_dir: Path) -> EmbeddedRedis:
        made.append(EmbeddedRedis(data_dir))
        return made[-1]

    yield one
    for server in made:
        await server.stop()


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Leaves nothing on PATH but these programs."""

    def restrict(**programs: Path | str | None) -> None:
        place = tmp_path / "bin"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for name, program in {"setpriv": shutil.which("setpriv"), **programs}.items():
            if program:
                (place / name.replace("_", "-")).symlink_to(program)
        monkeypatch.setenv("PATH", str(place))

    return restrict
