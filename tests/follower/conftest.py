"""A store on a Redis server of its own for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from blocker.store.redis import Store
from tests.follower.support import DEPLOYMENT, KEYRING, Deployment
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    async with (
        RedisServer(tmp_path / "redis", aof=True) as redis,
        await Store.open(redis.url, DEPLOYMENT, keyring=KEYRING) as store,
    ):
        yield Deployment(redis, store, tmp_path / "snapshot")
