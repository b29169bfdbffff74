"""Whatever the store forgets: one serial has one content in the end, and a secondary of all nodes has the right one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import dns.rrset
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis import Redis

from blocker.feeds.rpz import RpzFeed
from blocker.feeds.zone import is_newer
from tests.feeds.support import KEYRING, ORIGIN, query, records
from tests.feeds.test_feed import KEYS_OF_DEPLOYMENT, World, described, names, serial
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocker.store.redis import Store

FILLER = [f"http://filler{at}.example/" for at in range(20)]
NODES = range(2)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


class Secondary:
    """Takes the zone from whichever node it is pointed to, and believes every serial and every difference."""

    def __init__(self) -> None:
        self.serial = 0
        self.names: set[str] = set()

    async def refresh(self, feed: RpzFeed) -> None:
        asked: Any = query("IXFR", key=None)
        soa = f"localhost. x.localhost. {self.serial} 1 1 1 1"
        asked.authority = [dns.rrset.from_text(ORIGIN, 0, "IN", "SOA", soa)]
        asked.use_tsig(KEYRING)
        async with contextlib.aclosing(feed.server.respond(asked.to_wire(), tcp=True, peer=None)) as messages:
            wires = [one async for one in messages]
        if serial(feed) == 0:
            return
        found = records(wires, asked)
        newest = int(found[0][2].split()[2])
        if len(found) == 1 or (self.names and not is_newer(newest, self.serial)):
            return
        owners = [None if kind == "SOA" else owner for owner, kind, _ in found[1:-1] if kind != "NS"]
        if found[1][1] == "SOA":
            at = owners.index(None, 1)
            self.names = self.names - {*owners[1:at]} | {owner for owner in owners[at + 1 :] if owner}
        else:
            self.names = {owner for owner in owners if owner}
        self.serial = newest


class Scene:
    """Two nodes, their store, a secondary."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.feeds = [
            RpzFeed(described(), (), world.connect, KEYS_OF_DEPLOYMENT, world.directory / f"{world.deployment}{at}")
            for at in NODES
        ]
        self.secondary = Secondary()
        self.key = f"{{blocker:{world.deployment}}}:zone:police"
        self.copy: dict[Any, Any] = {}

    async def do(self, store: Store, client: Redis, step: tuple[str, int]) -> None:
        what, which = step
        feed = self.feeds[which % len(self.feeds)]
        if what == "publish":
            await self.world.put("police", *FILLER, f"http://turn{which}.example/")
        elif what == "look":
            await feed._sync(store)
        elif what == "refresh":
            await self.secondary.refresh(feed)
        elif what == "copy":
            self.copy = client.hgetall(self.key)
        else:  # the store loses the zone, or goes back to what it was
            client.delete(self.key)
            if what == "restore" and self.copy:
                client.hset(self.key, mapping=self.copy)


STEPS = st.tuples(
    st.sampled_from(["publish", "publish", "look", "look", "look", "refresh", "refresh", "lose", "copy", "restore"]),
    st.integers(0, 3),
)
# The second node is behind; what the first one gave is forgotten, within the same second.
BEHIND = [
    ("publish", 0), ("look", 0), ("look", 1), ("publish", 1), ("look", 0), ("refresh", 0), ("lose", 0), ("publish", 2),
    ("look", 1),
]  # fmt: skip
# An earlier copy of the store takes its place, and a node that has not seen what was after it goes on from there.
COPIED = [
    ("publish", 0), ("look", 0), ("look", 1), ("copy", 0), ("publish", 1), ("look", 0), ("refresh", 0), ("restore", 0),
    ("publish", 2), ("look", 1), ("look", 0), ("publish", 3),
]  # fmt: skip


@given(st.lists(STEPS, max_size=24), st.sampled_from(NODES))
@example(BEHIND, 1)
@example(COPIED, 1)
@settings(max_examples=60, deadline=None)
async def test_nodes_and_their_secondary_agree_in_the_end(
    redis: RedisServer, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], last: int
) -> None:
    scene = Scene(World(redis, tmp_path_factory.mktemp("nodes")))
    served: list[int] = [0 for _ in NODES]
    with Redis.from_url(redis.url) as client:
        async with await scene.world.connect() as store:
            for step in [("publish", 9), *steps, *[("look", at) for _ in range(3) for at in NODES]]:
                await scene.do(store, client, step)
                for at, feed in enumerate(scene.feeds):
                    assert serial(feed) == served[at] or is_newer(serial(feed), served[at]) or not served[at]
                    served[at] = serial(feed)
            await scene.secondary.refresh(scene.feeds[last])
    assert len({*served, scene.secondary.serial}) == 1
    turn = next(which for what, which in reversed([("publish", 9), *steps]) if what == "publish")
    expected = {f"turn{turn}.example", *(f"filler{at}.example" for at in range(20))}
    assert names(scene.feeds[0]) == names(scene.feeds[1]) == expected
    assert {name.removesuffix(f".{ORIGIN}") for name in scene.secondary.names} == expected
