"""Heartbeats: who lives, what they say, and that the silent are forgotten."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from blocker.control.heartbeat import Heartbeat
from blocker.errors import FormatError, StoreError, StoreUnavailable
from blocker.gateways.canaries import CanaryState, Reason
from blocker.store.beat import Beat
from blocker.store.keys import Keys
from blocker.store.ledger import BEAT_KEPT_SECONDS
from tests.hits.support import Followed

if TYPE_CHECKING:
    from blocker.store.redis import Store
    from tests.redis_server import RedisServer


def said(node: str, **changed: int) -> Beat:
    return Beat(
        node=node, version="1", started=5.0, serials={"police": 7}, lag_seconds=0.0, canaries_failed=0, **changed
    )


async def test_the_newest_beat_of_each_node_is_known(store: Store) -> None:
    assert await store.beats() == []
    for node in ("two", "one", "two"):
        await store.beat(said(node))
    beats = await store.beats()
    assert [beat for beat, _ in beats] == [said("one"), said("two")]
    assert all(0 <= silent < 60 for _, silent in beats)
    with pytest.raises(StoreError, match="node name"):
        await store.beat(said("No Node"))


async def test_the_silent_are_forgotten(store: Store, server: RedisServer, deployment: str) -> None:
    keys = Keys(deployment)
    async with Redis.from_url(server.url) as client:
        await store.beat(said("gone"))
        await client.zincrby(keys.beats, -BEAT_KEPT_SECONDS - 1, "gone")
        await store.beat(said("here"))
        assert [beat.node for beat, _ in await store.beats()] == ["here"]
        for key in (keys.beats, keys.beat("here")):
            assert 0 < await client.ttl(key) <= BEAT_KEPT_SECONDS


async def test_what_cannot_be_read_is_left_out(store: Store, server: RedisServer, deployment: str) -> None:
    async with Redis.from_url(server.url) as client:
        for node in ("broken", "gone", "newer", "whole"):
            await store.beat(said(node))
        keys = Keys(deployment)
        await client.set(keys.beat("broken"), "{}")
        await client.delete(keys.beat("gone"))
        await client.set(keys.beat("newer"), json.dumps({**json.loads(said("newer").to_json()), "mood": "good"}))
    assert [beat.node for beat, _ in await store.beats()] == ["newer", "whole"]
    for text in ("", "[]", "\xff", "{", '{"node": 1}'):
        with pytest.raises(FormatError):
            Beat.from_json(text)


async def test_a_node_says_how_it_is_in_step(store: Store) -> None:
    async def opened() -> Store:
        return store

    async def away() -> Store:
        raise StoreUnavailable("away")

    followed = Followed()
    looks = [CanaryState("first", "check", reason, 1.0, None, None) for reason in (None, Reason.NO_ANSWER)]
    heartbeat = Heartbeat(opened, "node-1", followed, lambda: looks, clock=lambda: 9.0)
    assert await heartbeat.beat()
    followed.matcher = None
    followed.status.lag_seconds = 2.5
    ((beat, _),) = await store.beats()
    assert (beat.node, beat.started, beat.lag_seconds, beat.canaries_failed) == ("node-1", 9.0, 0.0, 1)
    assert beat.serials == {"first": 7, "second": 1, "quiet": 1, "pardon": 1}
    assert await heartbeat.beat()
    ((beat, _),) = await store.beats()
    assert (beat.serials, beat.lag_seconds) == ({}, 2.5)
    await heartbeat.end()
    await Heartbeat(away, "node-1", followed, lambda: looks).end()
    assert await store.beats() == []
    assert not await Heartbeat(away, "node-1", followed, lambda: looks).beat()
