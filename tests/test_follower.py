"""The follower on a real Redis: in step with it, and never worse off for what Redis or the disk do."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from blocker._native import MAX_LISTS, LineParser
from blocker.errors import StoreUnavailable
from blocker.follower import Follower
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import publish
from blocker.matcher import Policy
from blocker.snapshot import Snapshot
from blocker.store.redis import Store
from blocker.store.sealing import Keyring
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from blocker.store.manifest import Manifest

KEYRING = Keyring(lookup=b"0123456789abcdef", seal=bytes(range(32)))
OTHER_KEYS = Keyring(lookup=b"another key 4567", seal=KEYRING.seal)
DEPLOYMENT = "test"
# A loaded machine may need seconds; only what is broken needs this long.
DEADLINE = 30.0
# A stop lets go of whatever it waits for. It takes a few milliseconds.
STOP_SECONDS = 1.0
# Longer than any test: only a wake-up can be the reason for what happens sooner.
NEVER = 300.0


class Deployment:
    """A store, and what a test does to it."""

    def __init__(self, redis: RedisServer, store: Store, directory: Path) -> None:
        self.redis = redis
        self.store = store
        self.directory = directory

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot(self.directory, KEYRING.lookup)

    def follower(self, **options: Any) -> Follower:  # noqa: ANN401 - any option's own type
        chosen: dict[str, Any] = {"poll_seconds": NEVER, **options}
        return Follower(self.connect, self.snapshot, KEYRING.lookup, **chosen)

    async def connect(self) -> Store:
        return await Store.open(self.redis.url, DEPLOYMENT, keyring=KEYRING)

    async def publish(self, name: str, *lines: str, **options: Any) -> int:  # noqa: ANN401 - as above
        rules = LineParser("url")
        rules.feed("".join(f"{line}\n" for line in lines).encode())
        done = await publish(
            self.store, KEYRING, name, PublishOptions(**options), rules.finish(), reason="test", now=time.time()
        )
        return done.serial

    async def commit(self, manifest: Manifest, **fields: Any) -> Manifest:  # noqa: ANN401 - as above
        """Commit a manifest as the next serial of its list, with some fields of one's own."""
        head = (await self.store.heads())[manifest.list]
        fields = {"epoch": await self.store.epoch(), "serial": head.serial + 1, **fields}
        changed = replace(manifest, **fields)
        await self.store.commit(changed, expected=head.serial)
        return changed

    async def retire(self, name: str) -> None:
        await self.commit(await self.store.manifest(name), retired=True, entries=0, layers=())

    def key(self, rest: str) -> str:
        return f"{{blocker:{DEPLOYMENT}}}:{rest}"


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    async with (
        RedisServer(tmp_path / "redis", aof=True) as redis,
        await Store.open(redis.url, DEPLOYMENT, keyring=KEYRING) as store,
    ):
        yield Deployment(redis, store, tmp_path / "snapshot")


@contextlib.asynccontextmanager
async def running(follower: Follower) -> AsyncIterator[Follower]:
    """A follower that runs, and is stopped quickly."""
    task = asyncio.create_task(follower.run())
    try:
        yield follower
    finally:
        started = time.monotonic()
        await follower.stop()
        await task
        took = time.monotonic() - started
    assert took < STOP_SECONDS


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        await asyncio.sleep(0.005)


def serials(follower: Follower) -> dict[str, int]:
    if follower.matcher is None:
        return {}
    return {name: serial for name, serial, _allow, _metadata in follower.matcher.table.lists}


def verdict(follower: Follower, url: str) -> str:
    assert follower.matcher is not None
    return follower.matcher.decide(url).verdict.value


def page(name: str) -> str:
    return f"http://{name}.example/page"


class TestFollowing:
    async def test_without_lists_there_is_no_matcher_and_no_fault(self, deployment: Deployment) -> None:
        async with running(deployment.follower()) as follower:
            await until(lambda: follower.status.store_up)
            assert follower.matcher is None
            assert (follower.status.source, follower.status.detail) == ("none", "")
            assert follower.status.lag_seconds == 0

    async def test_boots_from_manifests_and_segments(self, deployment: Deployment) -> None:
        await deployment.publish("block", page("one"), page("two"))
        await deployment.publish("except", page("two"), action="allow")
        await deployment.publish("trial", page("three"), mode="shadow")
        async with running(deployment.follower()) as follower:
            await until(lambda: follower.status.source == "store")
            assert serials(follower) == {"block": 1, "except": 1, "trial": 1}
            assert [verdict(follower, page(name)) for name in ("one", "two", "three")] == ["block", "allow", "allow"]
            assert follower.matcher is not None
            assert follower.matcher.decide(page("three")).shadow == ("trial",)
            status = follower.status
            assert (status.store_up, status.detail, status.lag_seconds) == (True, "", 0)
            assert status.epoch == await deployment.store.epoch()
            assert status.checked.keys() == {"block", "except", "trial"}

    async def test_policies_are_those_of_every_matcher(self, deployment: Deployment) -> None:
        await deployment.publish("block", page("one"))
        policies = [Policy(name="none", lists={})]
        async with running(deployment.follower(policies=policies)) as follower:
            for serial in (1, 2):
                await until(lambda serial=serial: serials(follower) == {"block": serial})  # type: ignore[misc]
                assert follower.matcher is not None
                assert follower.matcher.decide(page("one"), "none").verdict == "allow"
                await deployment.publish("block", page("one"), page("two"))

    async def test_commits_wake_it_at_once(self, deployment: Deployment) -> None:
        async with running(deployment.follower()) as follower:
            await until(lambda: follower.status.store_up)
            delays = []
            for number in range(1, 11):
                await deployment.publish("block", *(page(f"number{at}") for at in range(number)))
                committed = time.monotonic()
                await until(lambda number=number: serials(follower) == {"block": number})  # type: ignore[misc]
                delays.append(time.monotonic() - committed)
                assert verdict(follower, page(f"number{number - 1}")) == "block"
            assert sorted(delays)[len(delays) // 2] < 1.0

    async def test_deltas_add_and_take_away(self, deployment: Deployment) -> None:
        many = [page(f"number{at}") for at in range(400)]
        async with running(deployment.follower()) as follower:
            await deployment.publish("block", *many)
            for serial in range(2, 22):  # past the point where layers are folded
                await deployment.publish("block", *many[serial:], page(f"new{serial}"))
            await until(lambda: serials(follower) == {"block": 21})
            assert len((await deployment.store.manifest("block")).layers) < 20
            assert verdict(follower, page("new21")) == "block"
            assert [verdict(follower, page(name)) for name in ("new20", "number20")] == ["allow", "allow"]
            assert all(verdict(follower, url) == "block" for url in many[21:])

    async def test_older_content_at_a_new_serial(self, deployment: Deployment) -> None:
        await deployment.publish("block", page("one"))
        old = await deployment.store.manifest("block")
        await deployment.publish("block", page("two"))
        async with running(deployment.follower()) as follower:
            await until(lambda: serials(follower) == {"block": 2})
            await deployment.commit(old, reason="rollback")
            await until(lambda: serials(follower) == {"block": 3})
            assert [verdict(follower, page(name)) for name in ("one", "two")] == ["block", "allow"]

    async def test_a_head_that_went_back_is_followed(self, deployment: Deployment) -> None:
        """A failover of Redis forgot the last commits."""
        await deployment.publish("block", page("one"))
        head = (await deployment.store.heads())["block"]
        await deployment.publish("block", page("two"))
        async with running(deployment.follower(poll_seconds=0.2)) as follower:
            await until(lambda: serials(follower) == {"block": 2})
            deployment.redis.command("HSET", deployment.key("heads"), "block", head.to_json())
            await until(lambda: serials(follower) == {"block": 1})
            assert verdict(follower, page("one")) == "block"

    async def test_a_list_may_become_empty(self, deployment: Deployment) -> None:
        await deployment.publish("block", page("one"))
        async with running(deployment.follower()) as follower:
            await until(lambda: serials(follower) == {"block": 1})
            await deployment.publish("block")
            await until(lambda: serials(follower) == {"block": 2})
            assert verdict(follower, page("one")) == "allow"

    async def test_a_retired_list_leaves(self, deployment: Deployment) -> None:
        await deployment.publish("first", page("one"))
        await deployment.publish("second", page("two"))
        async with running(deployment.follower()) as follower:
            await until(lambda: len(serials(follower)) == 2)
            await deployment.retire("second")
            await until(lambda: serials(follower) == {"first": 1})
            assert verdict(follower, page("two")) == "allow"
            assert follower.status.detail == ""
            await deployment.publish("second", page("two"))  # by hand
            await until(lambda: serials(follower) == {"first": 1, "second": 3})
            assert verdict(follower, page("two")) == "block"

    async def test_a_list_that_was_retired_returns_in_another_life_of_the_store(self, deployment: Deployment) -> None:
        await deployment.publish("other", page("zero"))
        await deployment.publish("block", page("one"))
        digest = (await deployment.store.manifest("block")).digest
        await deployment.commit(await deployment.store.manifest("block"), retired=True)
        async with running(deployment.follower()) as follower:
            await until(lambda: serials(follower) == {"other": 1})
            deployment.redis.command("FLUSHALL")
            await deployment.publish("block", page("two"))
            await deployment.publish("block", page("one"))
            assert (await deployment.store.manifest("block")).digest == digest  # the very head that was retired
            await until(lambda: serials(follower).get("block") == 2)
            assert verdict(follower, page("one")) == "block"

    async def test_more_lists_than_a_table_takes(self, deployment: Deployment) -> None:
        names = [f"list{number:02}" for number in range(MAX_LISTS + 2)]
        for name in names:
            await deployment.publish(name, page(name))
        async with running(deployment.follower(poll_seconds=0.2)) as follower:
            told = "66 lists, at most 64; left out: list64, list65; retire some"
            await until(lambda: follower.status.detail == told)
            assert len(serials(follower)) == MAX_LISTS
            assert follower.status.lag_seconds > 0
            assert [verdict(follower, page(name)) for name in ("list63", "list64")] == ["block", "allow"]
            await deployment.publish("list00", page("changed"))  # those that are there move on
            await until(lambda: serials(follower)["list00"] == 2)
            assert verdict(follower, page("changed")) == "block"
            await deployment.retire("list01")
            await until(lambda: "list64" in serials(follower))
            await deployment.retire("list02")
            await until(lambda: "list65" in serials(follower) and not follower.status.detail)
            assert len(serials(follower)) == MAX_LISTS


class TestStoreAway:
    async def test_starts_from_the_snapshot_and_catches_up(self, deployment: Deployment) -> None:
        await deployment.publish("block", page("one"))
        async with running(deployment.follower()):
            await until(lambda: deployment.snapshot.load() is not None)
        await deployment.redis.akill()
        follower = deployment.follower()
        await follower.load_snapshot()
        assert (serials(follower), follower.status.source) == ({"block": 1}, "snapshot")
        async with running(follower):
            await until(lambda: "cannot be reached" in follower.status.detail)
            assert not follower.status.store_up
            assert follower.status.lag_seconds > 0
            assert verdict(follower, page("one")) == "block"
            await deployment.redis.astart()
            await deployment.publish("block", page("two"))
            await until(lambda: serials(follower) == {"block": 2})
            await until(lambda: follower.status.store_up)
            assert (follower.status.source, follower.status.detail) == ("store", "")

    async def test_keeps_its_lists_through_every_restart(self, deployment: Deployment) -> None:
        await deployment.publish("block", page("one"))
        async with running(deployment.follower()) as follower:
            await until(lambda: serials(follower) == {"block": 1})
            for serial in range(2, 5):
                await deployment.redis.akill()
                await until(lambda: not follower.status.store_up)
                assert verdict(follower, page("one")) == "block"
                await deployment.redis.astart()
                await deployment.publish("block", page("one"), page(f"number{serial}"))
                await until(lambda serial=serial: serials(follower) == {"block": serial})  # type: ignore[misc]

    async def test_an_emptied_store_takes_nothing_away(self, deployment: Deployment) -> None:
        await deployment.publish("first", page("one"))
        await deployment.publish("second", page("two"))
        async with running(deployment.follower(poll_seconds=0.2)) as follower:
            await until(lambda: follower.status.source == "store")
            epoch = follower.status.epoch
            deployment.redis.command("FLUSHALL")
            await until(lambda: follower.status.epoch != epoch)
            status = follower.status
            assert status.store_up
            assert status.detail == (
                "list first left the store; its last serial stays; list second left the store; its last serial stays"
            )
            assert status.lag_seconds > 0
            assert [verdict(follower, page(name)) for name in ("one", "two")] == ["block", "block"]
            await deployment.publish("first", page("three"))  # serial 1 once more, of another life
            await until(lambda: follower.status.detail == "list second left the store; its last serial stays")
            assert serials(follower) == {"first": 1, "second": 1}
            assert [verdict(follower, page(name)) for name in ("one", "two", "three")] == ["allow", "block", "block"]
            await deployment.publish("second", page("two"))
            await until(lambda: follower.status.detail == "")
            assert follower.status.lag_seconds == 0

    async def test_a_fault_of_our_own_is_no_end(self, deployment: Deployment) -> None:
        await deployment.publish("block", page("one"))
        faults = [RuntimeError("zxqmark"), OSError("zxqmark")]

        async def connect() -> Store:
            if faults:
                raise faults.pop()
            return await deployment.connect()

        follower = Follower(connect, deployment.snapshot, KEYRING.lookup)
        async with running(follower):
            await until(lambda: "OSError" in follower.status.detail)
            assert "zxqmark" not in follower.status.detail
            await until(lambda: serials(follower) == {"block": 1})


class TestDamage:
    @pytest.mark.parametrize("harm", ["missing", "corrupt", "no manifest"])
    async def test_one_list_that_cannot_be_read_stays_and_others_move_on(
        self, deployment: Deployment, harm: str
    ) -> None:
        await deployment.publish("first", page("one"))
        await deployment.publish("second", page("two"))
        async with running(deployment.follower(poll_seconds=0.2)) as follower:
            await until(lambda: len(serials(follower)) == 2)
            good = await deployment.store.manifest("first")
            await deployment.publish("first", page("three"))
            bad = await deployment.store.manifest("first")
            await deployment.commit(good, reason="back")
            await until(lambda: serials(follower)["first"] == 3)
            (segment,) = bad.segments
            (deployment.directory / "segments" / segment).unlink(missing_ok=True)
            match harm:
                case "missing":
                    deployment.redis.command("DEL", deployment.key(f"segment:{segment}"))
                    told = "is not in the store"
                case "corrupt":
                    deployment.redis.command("SETRANGE", deployment.key(f"segment:{segment}"), "60", "zzzz")
                    told = "expected SHA-256"
                case _:
                    told = "has no serial 4"
            # A commit checks that its blobs are there, so this head is written by hand.
            next_one = replace(bad, serial=4)
            if harm != "no manifest":
                deployment.redis.command("SET", deployment.key("manifest:first:4"), next_one.to_json())
            deployment.redis.command("HSET", deployment.key("heads"), "first", next_one.head.to_json())
            await deployment.publish("second", page("four"))
            await until(lambda: serials(follower) == {"first": 3, "second": 2} and follower.status.detail != "")
            assert [verdict(follower, page(name)) for name in ("one", "three", "four")] == ["block", "allow", "block"]
            status = follower.status
            assert status.store_up
            assert status.detail.startswith("list first: ")
            assert told in status.detail
            assert status.lag_seconds > 0
            if harm != "no manifest":
                await deployment.publish("first", page("five"))
                await until(lambda: serials(follower)["first"] == 5 and follower.status.detail == "")

    @pytest.mark.parametrize("harm", ["flipped", "cut", "gone", "another"])
    async def test_a_damaged_segment_on_disk_heals_itself(self, deployment: Deployment, harm: str) -> None:
        await deployment.publish("first", page("one"))
        await deployment.publish("second", page("two"))
        async with running(deployment.follower()) as follower:
            await until(lambda: len(serials(follower)) == 2)
            segments = {
                name: deployment.directory / "segments" / (await deployment.store.manifest(name)).segments[0]
                for name in ("first", "second")
            }
            await until(lambda: all(path.exists() for path in segments.values()))
            good = segments["first"].read_bytes()
            match harm:
                case "flipped":
                    swap_file(segments["first"], good[:70] + bytes([good[70] ^ 1]) + good[71:])
                case "cut":
                    swap_file(segments["first"], good[:-1])
                case "gone":
                    shutil.rmtree(deployment.directory / "segments")
                case _:
                    swap_file(segments["first"], b"another file altogether")
            await deployment.publish("second", page("two"), page("three"))
            await until(lambda: serials(follower) == {"first": 1, "second": 2})
            assert [verdict(follower, page(name)) for name in ("one", "two", "three")] == ["block"] * 3
            await until(lambda: follower.status.detail == "")
            assert segments["first"].read_bytes() == good

    async def test_lists_that_are_nowhere_any_more_stay_as_they_are(self, deployment: Deployment) -> None:
        await deployment.publish("first", page("one"))
        await deployment.publish("second", page("two"))
        async with running(deployment.follower(poll_seconds=0.2)) as follower:
            await until(lambda: len(serials(follower)) == 2)
            await until(lambda: follower.status.source == "store")
            deployment.redis.command("FLUSHALL")
            shutil.rmtree(deployment.directory / "segments")
            await deployment.publish("first", page("three"))
            await until(lambda: "is not in the store" in follower.status.detail)
            assert [verdict(follower, page(name)) for name in ("one", "two")] == ["block", "block"]
            await deployment.publish("second", page("two"))
            await until(lambda: follower.status.detail == "")
            assert [verdict(follower, page(name)) for name in ("one", "two", "three")] == ["allow", "block", "block"]

    @pytest.mark.parametrize("harm", ["flipped", "cut", "empty", "directory", "key"])
    async def test_a_damaged_table_is_told_and_written_anew(self, deployment: Deployment, harm: str) -> None:
        await deployment.publish("block", page("one"))
        path = deployment.snapshot.table_path
        async with running(deployment.follower()):
            await until(path.exists)
        data = path.read_bytes()
        match harm:
            case "flipped":
                swap_file(path, data[:100] + bytes([data[100] ^ 1]) + data[101:])
                told = "checksum does not match its contents; delete the snapshot"
            case "cut":
                swap_file(path, data[:-8])
                told = "bytes, expected"
            case "empty":
                swap_file(path, b"")
                told = "snapshot: 0 bytes"
            case "directory":
                path.unlink()
                path.mkdir()
                told = "snapshot: "
            case _:
                told = "made under another lookup key; use the deployment's lookup.key"
        key = OTHER_KEYS.lookup if harm == "key" else KEYRING.lookup
        follower = Follower(deployment.connect, Snapshot(deployment.directory, key), key)
        await follower.load_snapshot()
        assert follower.matcher is None
        assert told in follower.status.detail
        if harm in ("key", "directory"):  # nothing that would heal by itself
            return
        async with running(follower):
            await until(lambda: serials(follower) == {"block": 1})
            await until(lambda: follower.status.detail == "")
            await until(lambda: path.read_bytes() == data)

    async def test_another_lookup_key_than_the_deployments_is_refused(self, deployment: Deployment) -> None:
        await deployment.publish("block", page("one"))

        async def connect() -> Store:
            return await Store.open(deployment.redis.url, DEPLOYMENT, keyring=OTHER_KEYS)

        follower = Follower(connect, Snapshot(deployment.directory, OTHER_KEYS.lookup), OTHER_KEYS.lookup)
        async with running(follower):
            await until(lambda: "copy the deployment's key files" in follower.status.detail)
            assert follower.status.detail.startswith("lookup.key: this node's key ")
            assert follower.matcher is None

    @pytest.mark.parametrize("kind", ["full", "replaced"])
    async def test_a_disk_that_takes_nothing_keeps_no_list_from_being_enforced(
        self, deployment: Deployment, kind: str
    ) -> None:
        await deployment.publish("block", page("one"))
        async with running(deployment.follower(poll_seconds=0.2)) as follower:
            await until(deployment.snapshot.table_path.exists)
            old = deployment.snapshot.table_path.read_bytes()
            with full_disk(deployment.directory, kind):
                for serial in (2, 3):
                    await deployment.publish("block", page("one"), *(page(f"{serial}-{at}") for at in range(1000)))
                    await until(lambda serial=serial: serials(follower) == {"block": serial})  # type: ignore[misc]
                    assert verdict(follower, page(f"{serial}-999")) == "block"
                    await until(lambda: (follower.status.store_up, follower.status.detail) == (True, ""))
            assert deployment.snapshot.table_path.read_bytes() == old
            await until(lambda: deployment.snapshot.table_path.read_bytes() != old)
        again = deployment.follower()
        await again.load_snapshot()
        assert serials(again) == {"block": 3}


class TestReader:
    async def test_one_that_does_not_persist_writes_nothing(self, deployment: Deployment) -> None:
        await deployment.publish("block", page("one"))
        follower = deployment.follower(persist=False)
        await follower.load_snapshot()
        await follower.sync(deployment.store)
        assert serials(follower) == {"block": 1}
        assert not deployment.directory.exists()

    async def test_nor_does_it_mend_or_drop_the_files_of_a_node(self, deployment: Deployment) -> None:
        await deployment.publish("block", *(page(f"number{at}") for at in range(100)))
        async with running(deployment.follower()):
            await until(deployment.snapshot.table_path.exists)
        await deployment.publish("block", *(page(f"number{at}") for at in range(101)))
        (segment,) = (deployment.directory / "segments").iterdir()
        swap_file(segment, b"damaged")
        before = files_of(deployment.directory)
        reader = deployment.follower(persist=False)
        await reader.load_snapshot()
        assert serials(reader) == {"block": 1}
        await reader.sync(deployment.store)
        assert (serials(reader), reader.status.detail) == ({"block": 2}, "")
        assert verdict(reader, page("number100")) == "block"
        assert files_of(deployment.directory) == before


class TestStopping:
    @pytest.mark.parametrize("frozen", [False, True])
    async def test_while_it_waits_for_a_commit(self, deployment: Deployment, frozen: bool) -> None:
        await deployment.publish("block", page("one"))
        async with running(deployment.follower()) as follower:
            await until(lambda: follower.status.source == "store")
            if frozen:
                deployment.redis.pause()

    async def test_while_redis_does_not_answer_its_first_question(self, deployment: Deployment) -> None:
        deployment.redis.pause()
        for turns in range(8):
            async with running(deployment.follower()):
                for _ in range(turns):
                    await asyncio.sleep(0)

    async def test_while_it_waits_before_another_try(self, deployment: Deployment) -> None:
        await deployment.redis.akill()
        async with running(deployment.follower()) as follower:
            await until(lambda: follower.status.detail != "")

    async def test_while_it_connects(self, deployment: Deployment) -> None:
        connecting = asyncio.Event()

        async def connect() -> Store:
            connecting.set()
            await asyncio.sleep(NEVER)
            raise StoreUnavailable("never")

        async with running(Follower(connect, deployment.snapshot, KEYRING.lookup)):
            await connecting.wait()

    async def test_in_the_middle_of_reading(self, deployment: Deployment) -> None:
        await deployment.publish("block", page("one"))

        class Freezing(Store):
            async def heads(self) -> Any:  # noqa: ANN401 - as in Store
                deployment.redis.pause()
                reading.set()
                return await super().heads()

        reading = asyncio.Event()
        follower = Follower(
            lambda: Freezing.open(deployment.redis.url, DEPLOYMENT, keyring=KEYRING),
            deployment.snapshot,
            KEYRING.lookup,
        )
        async with running(follower):
            await reading.wait()

    async def test_before_it_runs(self, deployment: Deployment) -> None:
        follower = deployment.follower()
        await follower.stop()
        async with asyncio.timeout(DEADLINE):
            await follower.run()

    async def test_by_cancelling_it(self, deployment: Deployment) -> None:
        follower = deployment.follower()
        task = asyncio.create_task(follower.run())
        await until(lambda: follower.status.store_up)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class TestSwapping:
    async def test_decisions_are_always_those_of_one_serial(self, deployment: Deployment) -> None:
        """A thread asks without pause while ten serials are put in place; each answer is whole."""
        swaps = 10
        urls = [page("always"), *(page(f"at{serial}") for serial in range(1, swaps + 2))]
        filler = [page(f"filler{at}") for at in range(3000)]
        await deployment.publish("block", page("always"), page("at1"), *filler)
        seen: list[tuple[tuple[str, int | None], ...]] = []
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                matcher = follower.matcher
                assert matcher is not None
                answers = tuple((found.verdict.value, found.serial) for found in matcher.decide_many(urls))
                if not seen or seen[-1] != answers:
                    seen.append(answers)

        async with running(deployment.follower()) as follower:
            await until(lambda: follower.matcher is not None)
            asking = asyncio.create_task(asyncio.to_thread(ask))
            try:
                for serial in range(2, swaps + 2):
                    await deployment.publish("block", page("always"), page(f"at{serial}"), *filler)
                    await until(lambda serial=serial: serials(follower) == {"block": serial})  # type: ignore[misc]
            finally:
                done.set()
                await asking
        allowed: list[tuple[tuple[str, int | None], ...]] = []
        for serial in range(1, swaps + 2):
            blocked = (page("always"), page(f"at{serial}"))
            allowed.append(tuple(("block", serial) if url in blocked else ("allow", None) for url in urls))
        positions = [allowed.index(answers) for answers in seen]
        assert positions == sorted(set(positions))
        assert len(positions) > swaps // 2

    async def test_the_event_loop_is_not_held_by_a_large_list(self, deployment: Deployment) -> None:
        """200 000 rules are swapped again and again; the best round must be good, since the machine may be busy."""
        parser = LineParser("domain")
        parser.feed(b"".join(b"host%d.example\n" % number for number in range(200_000)))
        rules = parser.finish()
        options = PublishOptions()
        follower = deployment.follower()
        stalls = []
        for mode in ("enforce", "shadow", "enforce"):
            options = replace(options, mode=mode)
            await publish(deployment.store, KEYRING, "block", options, rules, reason="test", now=time.time())
            async with longest_stall() as stall:
                await follower.sync(deployment.store)
            stalls.append(stall[0])
        assert serials(follower) == {"block": 3}
        assert verdict(follower, "http://host199999.example/") == "block"
        assert min(stalls) < 0.05

    async def test_status_follows_a_clock(self, deployment: Deployment) -> None:
        now = [1000.0]
        follower = deployment.follower(clock=lambda: now[0])
        now[0] = 1007.0
        assert follower.status.lag_seconds == 7
        await deployment.publish("block", page("one"))
        await follower.sync(deployment.store)
        assert (follower.status.lag_seconds, follower.status.last_sync) == (0, 1007.0)
        deployment.redis.command("FLUSHALL")
        now[0] = 1010.0
        await follower.sync(deployment.store)
        assert (follower.status.lag_seconds, follower.status.last_sync) == (3, 1007.0)


@contextlib.asynccontextmanager
async def longest_stall() -> AsyncIterator[list[float]]:
    """How long the event loop was held, at most, in seconds."""
    longest = [0.0]

    async def tick() -> None:
        while True:
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            longest[0] = max(longest[0], time.perf_counter() - due)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0)
    try:
        yield longest
        await asyncio.sleep(0.002)
    finally:
        ticker.cancel()


@contextlib.contextmanager
def full_disk(directory: Path, kind: str) -> Iterator[None]:
    """A disk on which no file can grow beyond some bytes, or a directory that is none any more."""
    if kind == "full":
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        return
    aside = directory.with_name("aside")
    directory.rename(aside)
    directory.write_bytes(b"")
    try:
        yield
    finally:
        directory.unlink()
        aside.rename(directory)


def swap_file(path: Path, data: bytes) -> None:
    """Put other bytes in a file's place without touching what is mapped."""
    beside = path.with_name("beside")
    beside.write_bytes(data)
    beside.replace(path)


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}
