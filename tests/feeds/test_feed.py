"""A feed follows a real store: versions, serials, what must not unblock anything, and notices until they are heard."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import dns.flags
import dns.message
import pytest
from redis import Redis

from blocker.errors import KeyMaterialError
from blocker.feed_section import RpzSettings
from blocker.feeds.rpz import RpzFeed
from blocker.feeds.tally import Notice
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import publish
from blocker.ingest.rollback import rollback
from blocker.matcher import Policy
from blocker.store.redis import Store
from blocker.store.sealing import Keyring
from tests.e2e import processes
from tests.feeds.support import KEYRING, KEYS, ORIGIN, rule_set
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from blocker.feeds.zone import Version

KEYS_OF_DEPLOYMENT = Keyring(lookup=b"0123456789abcdef", seal=bytes(range(32)))


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


class World:
    """A deployment, and feeds that follow it."""

    def __init__(self, redis: RedisServer, directory: Path) -> None:
        self.redis = redis
        self.directory = directory
        self.deployment = f"t{secrets.token_hex(8)}"

    async def connect(self) -> Store:
        return await Store.open(self.redis.url, self.deployment, keyring=KEYS_OF_DEPLOYMENT)

    async def put(self, name: str, *lines: str, action: str = "block", mode: str = "enforce") -> None:
        options = PublishOptions(action=action, mode=mode)  # type: ignore[arg-type]
        async with await self.connect() as store:
            await publish(store, KEYS_OF_DEPLOYMENT, name, options, rule_set(lines), reason="test", now=time.time())

    async def back(self, name: str, serial: int) -> None:
        async with await self.connect() as store:
            await rollback(store, KEYS_OF_DEPLOYMENT, name, serial, reason="test", now=time.time())

    async def retire(self, name: str) -> None:
        async with await self.connect() as store:
            head = await store.manifest(name)
            await store.commit(
                replace(head, serial=head.serial + 1, retired=True, entries=0, layers=()), expected=head.serial
            )

    def empty(self) -> None:
        """All that the store has is gone."""
        with Redis.from_url(self.redis.url) as client:
            client.flushall()

    @contextlib.asynccontextmanager
    async def feed(
        self, policies: tuple[Policy, ...] = (), *, directory: str = "", **zone: Any  # noqa: ANN401
    ) -> AsyncIterator[RpzFeed]:  # fmt: skip
        """A feed; its zones are kept in a directory of its own, unless one is named."""
        kept = self.directory / (directory or secrets.token_hex(8))
        feed = RpzFeed(described(**zone), policies, self.connect, KEYS_OF_DEPLOYMENT, kept, 0.2)
        await feed.start()
        running = asyncio.create_task(feed.run())
        try:
            yield feed
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await feed.stop()


def described(**zone: Any) -> RpzSettings:  # noqa: ANN401 - any field's own type
    fields = {"origin": ORIGIN, "keys": ["resolver"], **zone}
    return RpzSettings.model_validate({"enabled": True, "port": 0, "keys": KEYS, "zones": {"police": fields}})


@pytest.fixture
def world(redis: RedisServer, tmp_path: Path) -> World:
    return World(redis, tmp_path)


def version(feed: RpzFeed) -> Version | None:
    return feed._zones["police"].version


def names(feed: RpzFeed) -> set[str]:
    found = version(feed)
    return set() if found is None else {name for name, _, _ in found.zone.names(0, 1000)}


def heard(feed: RpzFeed) -> int:
    """Notices that were acknowledged."""
    return feed._zones["police"].tally.notices[Notice.ACKNOWLEDGED]


def serial(feed: RpzFeed) -> int:
    found = version(feed)
    return 0 if found is None else found.serial


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(processes.until, condition)


async def test_a_secondary_is_behind_from_a_new_version_on_until_it_has_it(world: World) -> None:
    port = free_port()
    secondaries = [{"address": "127.0.0.1", "port": port}]
    async with world.feed(networks=["127.0.0.0/8"], secondaries=secondaries) as feed:

        async def takes_it() -> None:
            asked = dns.message.make_query(ORIGIN, "AXFR").to_wire()
            looks = dns.message.make_query(ORIGIN, "SOA").to_wire()
            for wire in (asked, looks, looks):  # that it took it shows when it leaves it at that
                async for _ in feed.server.respond(wire, tcp=True, peer=ip_address("127.0.0.1")):
                    pass

        await world.put("police", "http://a.example/")
        await until(lambda: serial(feed) > 0)
        contact = feed._zones["police"].tally.contacts[f"127.0.0.1:{port}"]
        assert contact.behind is None, "what it has is not known"
        await takes_it()
        assert (contact.serial, contact.behind) == (serial(feed), None)
        await world.put("police", "http://a.example/", "http://b.example/")
        await until(lambda: contact.behind is not None)
        await takes_it()
        assert (contact.serial, contact.behind) == (serial(feed), None)


async def test_nodes_agree_and_a_rollback_goes_forward(world: World) -> None:
    async with world.feed() as one, world.feed() as other:
        await world.put("police", "http://a.example/")
        await until(lambda: names(one) == names(other) == {"a.example"})
        first = serial(one)
        await world.put("police", "http://a.example/", "http://b.example/")
        await until(lambda: names(one) == names(other) == {"a.example", "b.example"})
        second = serial(one)
        await world.back("police", 1)
        await until(lambda: names(one) == names(other) == {"a.example"})
        assert first < second < serial(one) == serial(other)
        third = serial(one)
    async with world.feed() as late:
        await until(lambda: names(late) == {"a.example"})
        assert serial(late) == third, "a start is no change"


async def test_only_what_the_policy_enforces_is_there(world: World) -> None:
    await world.put("police", "http://*.a.example", "http://page.example/listed/")
    await world.put("trial", "http://trial.example/", mode="shadow")
    await world.put("pardon", "http://x.a.example/", action="allow")
    async with world.feed() as feed:
        await until(lambda: names(feed) == {"a.example", "x.a.example"})
    chosen = Policy(name="family", lists={"police": None, "trial": "enforce"})
    async with world.feed((chosen,), policy="family") as feed:
        await until(lambda: names(feed) == {"a.example", "trial.example"})
        before = serial(feed)
        feed.configure(described(policy="family", action="nodata"), (chosen,), 0.2)
        await until(lambda: serial(feed) > before)
        assert names(feed) == {"a.example", "trial.example"}, "another action is a new version"
        await world.retire("trial")
        await until(lambda: names(feed) == {"a.example"})


async def test_an_emptied_store_unblocks_nothing(world: World) -> None:
    async with world.feed() as fresh:
        await until(lambda: "none of its lists" in fresh._told.get("police", ""))
        assert version(fresh) is None, "not an empty zone"
    await world.put("police", "http://a.example/")
    async with world.feed() as feed:
        await until(lambda: names(feed) == {"a.example"})
        before = serial(feed)
        world.empty()
        await until(lambda: bool(feed._told.get("police")))
        assert names(feed) == {"a.example"}
        await world.put("other", "http://b.example/")
        await until(lambda: "left the store" in feed._told["police"])
        assert names(feed) == {"a.example"}
        await world.put("police", "http://c.example/")
        await until(lambda: names(feed) == {"b.example", "c.example"})
        assert serial(feed) > before


async def test_a_zone_taken_over_goes_on_above_the_serials_of_its_old_primary(world: World) -> None:
    least = 2_026_112_802
    await world.put("police", "http://a.example/")
    async with world.feed() as feed, world.feed(serial_at_least=least) as other:
        await until(lambda: serial(other) == least)
        await until(lambda: serial(feed) == least)
        assert names(feed) == names(other) == {"a.example"}
        await world.put("police", "http://b.example/")
        await until(lambda: names(feed) == names(other) == {"b.example"})
        assert serial(feed) == serial(other) == least + 1
    async with world.feed() as late:
        await until(lambda: names(late) == {"b.example"})
        before = serial(late)
        late.configure(described(serial_at_least=least + 9), (), 0.2)
        await until(lambda: serial(late) == least + 9)
        assert before == least + 1


async def test_a_fault_that_nobody_thought_of_shows_in_the_metrics(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def good(feed: RpzFeed) -> float:
        return next(family.rows[0][1] for family in feed.families() if family.name == "blocker_zone_ok")

    await world.put("police", "http://a.example/")
    for broken in ("_restore", "_bring_up"):
        async with world.feed() as feed:
            await until(lambda: good(feed) == 1)
            calls = 0
            with monkeypatch.context() as patched:

                async def fail(*_: object) -> None:
                    nonlocal calls
                    calls += 1
                    # Never right in between: what failed is wrong until it went well.
                    assert calls == 1 or good(feed) == 0
                    raise ZeroDivisionError

                patched.setattr(feed, broken, fail)
                await until(lambda: calls > 2 or "AssertionError" in str(feed._told))  # noqa: B023
                assert {*feed._told.values()} - {""} == {"failed unexpectedly: ZeroDivisionError"}
                assert good(feed) == 0
            await until(lambda: good(feed) == 1)


async def test_without_the_seal_key_it_says_so(world: World) -> None:
    with pytest.raises(KeyMaterialError, match=r"copy seal\.key"):
        RpzFeed(described(), (), world.connect, Keyring(lookup=b"0123456789abcdef", seal=None), world.directory)


class Secondary(asyncio.DatagramProtocol):
    """A secondary that misses the first notice, answers the second with a forgery first."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, address: Any) -> None:  # noqa: ANN401 - asyncio's own
        notice = dns.message.from_wire(data, keyring=KEYRING)
        assert notice.had_tsig
        assert notice.flags & dns.flags.AA
        self.heard.append(notice.answer[0][0].serial)
        if len(self.heard) > 1:
            answer = dns.message.make_response(notice)
            forged = dns.message.Message(notice.id)
            forged.flags = answer.flags
            forged.question = notice.question
            self.transport.sendto(forged.to_wire(), address)
            self.transport.sendto(answer.to_wire(), address)


async def test_notices_are_repeated_until_they_are_heard(world: World) -> None:
    loop = asyncio.get_running_loop()
    transport, secondary = await loop.create_datagram_endpoint(Secondary, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    told = {"address": "127.0.0.1", "port": port, "key": "resolver"}
    async with world.feed(secondaries=[told]) as feed:
        await world.put("police", "http://a.example/")
        await until(lambda: heard(feed) == 1)
        assert secondary.heard == [serial(feed)] * 2
        await world.put("police", "http://b.example/")
        await until(lambda: heard(feed) == 2)
        assert secondary.heard[2:] == [serial(feed)]
    transport.close()
