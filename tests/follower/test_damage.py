"""Blobs, files, keys and disks that are not what they should be."""

from __future__ import annotations

import contextlib
import resource
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from blocker.follower import Follower
from blocker.snapshot import Snapshot
from blocker.store.redis import Store
from tests.follower.support import (
    DEPLOYMENT,
    KEYRING,
    OTHER_KEYS,
    Deployment,
    page,
    running,
    serials,
    until,
    verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
            # It is enforced before the disk has it again.
            await until(lambda: segments["first"].exists() and segments["first"].read_bytes() == good)
            await until(lambda: follower.status.detail == "")

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
