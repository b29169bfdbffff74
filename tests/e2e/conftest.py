"""One Redis for the tests of a file, in which each node has a deployment of its own, and one origin of names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.resolvers import Origin
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), aof=True) as running:
        yield running


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    running = Origin(tmp_path_factory.mktemp("origin") / "named")
    yield running
    running.close()
