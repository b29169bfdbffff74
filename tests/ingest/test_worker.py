"""The worker: sources run on their own, failures stay with them, files are reloaded, and it stops and recovers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from blocker.ingest.source import load_sources
from blocker.ingest.worker import IngestWorker, Pacing, SourceHealth, retry_delay
from tests.ingest.checks import DEADLINE, assert_whole, is_stored, until
from tests.ingest.https_server import Certificate, HttpsServer, Request, plain, silence

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring
    from tests.redis_server import RedisServer

FAST = Pacing(reload=0.02, first_retry=0.02, first_store_retry=0.02, most_store_retry=0.1, collect=0.05, grace=0)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "lists"
    made.mkdir()
    return made


def write(directory: Path, name: str, entries: str, fields: str = "") -> None:
    (directory / f"{name}.txt").write_text(entries, encoding="utf-8")
    (directory / f"{name}.toml").write_text(
        f'format = "url"\npath = "{name}.txt"\ninterval_seconds = 1\njitter_seconds = 0\n{fields}', encoding="utf-8"
    )


def move(old: Path, new: Path) -> None:
    old.rename(new)


@contextlib.asynccontextmanager
async def running(directory: Path, store: Store, keyring: Keyring) -> AsyncIterator[IngestWorker]:
    worker = IngestWorker(directory, store, keyring, pacing=FAST)
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await task


def health(worker: IngestWorker, name: str) -> SourceHealth | None:
    return next((entry for entry in worker.health() if entry.list == name), None)


def status(worker: IngestWorker, name: str) -> str | None:
    found = health(worker, name)
    return found.last.status if found and found.last else None


def serial(worker: IngestWorker, name: str) -> int | None:
    found = health(worker, name)
    return found.last.serial if found and found.last else None


def failures(worker: IngestWorker, name: str) -> int:
    found = health(worker, name)
    return found.failures if found else 0


async def test_every_source_becomes_a_list(directory: Path, store: Store, keyring: Keyring) -> None:
    for name in ("a", "b", "c"):
        write(directory, name, f"http://{name}.example/\n")
    async with running(directory, store, keyring) as worker:
        await until(lambda: all(serial(worker, name) == 1 for name in "abc"))
        entry = health(worker, "a")
        assert entry is not None
        assert (entry.failures, entry.detail, entry.stale_after_seconds) == (0, "", 2)
        assert entry.checked_at == entry.last_at
        await until(lambda: status(worker, "a") == "not_modified" or status(worker, "a") == "unchanged")
    assert sorted(await store.heads()) == ["a", "b", "c"]


async def test_a_failing_source_does_not_hold_the_others(
    directory: Path, store: Store, keyring: Keyring, server: HttpsServer, certificate: Certificate
) -> None:
    server.answer = silence
    (directory / "silent.toml").write_text(
        f'format = "url"\nurl = "{server.url()}"\nca_file = "{certificate.authority}"\n', encoding="utf-8"
    )
    write(directory, "gone", "")
    (directory / "gone.txt").unlink()
    write(directory, "bad", "hhttp://x/\n")
    (directory / "broken.toml").write_text("[", encoding="utf-8")
    write(directory, "good", "http://a.example/\n")
    async with running(directory, store, keyring) as worker:
        await until(lambda: status(worker, "good") == "published")
        await until(lambda: failures(worker, "gone") > 1 and failures(worker, "bad") > 1)
        await until(lambda: len(server.requests) == 1)
        assert (status(worker, "gone"), status(worker, "bad")) == ("failed", "refused")
        assert status(worker, "silent") is None
        assert [error.partition(":")[0] for error in worker.source_errors] == ["broken.toml"]
        entry = health(worker, "gone")
        assert entry is not None
        assert (entry.checked_at, "No such file" in entry.detail) == (None, True)
    assert [*await store.heads()] == ["good"]
    assert (await store.source_state("bad"))["last_status"] == "refused"


async def test_a_changed_description_is_looked_at_at_once(directory: Path, store: Store, keyring: Keyring) -> None:
    write(directory, "a", "http://a.example/\n")
    async with running(directory, store, keyring) as worker:
        await until(lambda: status(worker, "a") == "published")
        slow = 'format = "url"\npath = "a.txt"\nmode = "shadow"\n'
        (directory / "a.toml").write_text(slow, encoding="utf-8")
        await until(lambda: serial(worker, "a") == 2)
        assert (await store.manifest("a")).mode == "shadow"
        entry = health(worker, "a")
        assert entry is not None
        assert entry.stale_after_seconds == 2 * 3900


async def test_a_source_that_vanishes_or_breaks_leaves_its_list(
    directory: Path, store: Store, keyring: Keyring
) -> None:
    write(directory, "a", "http://a.example/\n")
    write(directory, "b", "http://b.example/\n")
    async with running(directory, store, keyring) as worker:
        await until(lambda: status(worker, "a") and status(worker, "b"))
        (directory / "a.toml").unlink()
        (directory / "b.toml").write_text("format = ", encoding="utf-8")
        await until(lambda: not worker.health())
        assert [error.partition(":")[0] for error in worker.source_errors] == ["b.toml"]
        write(directory, "b", "http://c.example/\n")
        await until(lambda: status(worker, "b") == "published")
    assert (await store.manifest("a")).serial == 1
    assert len(await assert_whole(store, keyring, "a")) == 1
    assert (await store.manifest("b")).serial == 2


async def test_a_directory_that_is_away_for_a_while_stops_nothing(
    directory: Path, store: Store, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = threading.Lock()

    def read_whole(*given: Any) -> object:  # noqa: ANN401 - as there
        with reading:
            return load_sources(*given)

    monkeypatch.setattr("blocker.ingest.worker.load_sources", read_whole)
    write(directory, "a", "http://a.example/\n")
    async with running(directory, store, keyring) as worker:
        await until(lambda: status(worker, "a"))
        with reading:  # not between a look at the directory and its files: those would have been removed one by one
            move(directory, directory.with_name("away"))
        await until(lambda: worker.source_errors)
        assert health(worker, "a") is not None
        move(directory.with_name("away"), directory)
        await until(lambda: not worker.source_errors)
        await until(lambda: status(worker, "a") in ("not_modified", "unchanged"))


async def test_it_stops_in_the_middle_of_a_download(
    directory: Path, store: Store, keyring: Keyring, server: HttpsServer, certificate: Certificate
) -> None:
    server.answer = silence
    (directory / "silent.toml").write_text(
        f'format = "url"\nurl = "{server.url()}"\nca_file = "{certificate.authority}"\n', encoding="utf-8"
    )
    async with running(directory, store, keyring):
        await until(lambda: server.requests)
    assert await store.heads() == {}


async def test_cancelling_it_is_stopping_it(directory: Path, store: Store, keyring: Keyring) -> None:
    write(directory, "a", "http://a.example/\n")
    worker = IngestWorker(directory, store, keyring, pacing=FAST)
    task = asyncio.create_task(worker.run())
    await until(lambda: status(worker, "a"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await assert_whole(store, keyring, "a")


async def test_it_survives_restarts_of_redis(
    directory: Path, redis: RedisServer, store: Store, keyring: Keyring
) -> None:
    write(directory, "a", "http://a0.example/\n")
    async with running(directory, store, keyring) as worker:
        await until(lambda: status(worker, "a") == "published")
        for step in range(1, 4):
            await redis.akill()
            (directory / "new.txt").write_text(f"http://a{step}.example/\n", encoding="utf-8")
            (directory / "new.txt").rename(directory / "a.txt")
            await until(lambda: failures(worker, "a") > 1)
            entry = health(worker, "a")
            assert entry is not None
            assert "Redis" in entry.detail
            await redis.astart()
            await until(lambda: serial(worker, "a") == 1 + step)  # noqa: B023 - called before the next step
            assert failures(worker, "a") == 0
    rules = [rule[1] for rule in await assert_whole(store, keyring, "a")]
    assert rules == ["a3.example"]


async def test_a_redis_that_cannot_write_does_not_cause_a_storm_of_downloads(
    directory: Path,
    redis: RedisServer,
    store: Store,
    keyring: Keyring,
    server: HttpsServer,
    certificate: Certificate,
) -> None:
    server.answer = plain(b"http://a.example/\n")
    (directory / "a.toml").write_text(
        f'format = "url"\nurl = "{server.url()}"\nca_file = "{certificate.authority}"\n', encoding="utf-8"
    )
    redis.command("CONFIG", "SET", "maxmemory", "1")
    worker = IngestWorker(
        directory, store, keyring, pacing=Pacing(first_store_retry=0, first_retry=60), clock=lambda: 0
    )
    task = asyncio.create_task(worker.run())
    await until(lambda: (entry := health(worker, "a")) and entry.next_at)
    worker.stop()
    await task
    (entry,) = worker.health()
    assert "out of memory" in entry.detail
    assert entry.next_at is not None
    assert 30 <= entry.next_at <= 60
    assert len(server.requests) == 1


async def test_orphans_are_collected(directory: Path, store: Store, keyring: Keyring) -> None:
    (name,) = await store.put_blobs("segment", [b"nobody's"])
    write(directory, "a", "http://a.example/\n")
    async with running(directory, store, keyring) as worker:
        await until(lambda: status(worker, "a"))
        async with asyncio.timeout(DEADLINE):
            while await is_stored(store, "segment", name):
                pass
    await assert_whole(store, keyring, "a")


async def test_failures_are_counted_and_forgotten_after_a_success(
    directory: Path, store: Store, keyring: Keyring, server: HttpsServer, certificate: Certificate
) -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await plain(b"" if len(server.requests) < 4 else b"http://a.example/\n")(request, writer)

    server.answer = answer
    (directory / "a.toml").write_text(
        f'format = "url"\nurl = "{server.url()}"\nca_file = "{certificate.authority}"\n', encoding="utf-8"
    )
    seen = set()
    async with running(directory, store, keyring) as worker:
        while status(worker, "a") != "published":
            seen.add(failures(worker, "a"))
            await asyncio.sleep(0)
        assert failures(worker, "a") == 0
        assert len(server.requests) == 4
    assert seen == {0, 1, 2, 3}


def test_retries_double_up_to_a_limit_and_half_of_each_is_chance() -> None:
    class Least(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return min(a, b)

    class Most(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return max(a, b)

    most = [retry_delay(count, first=10, most=3600, chance=Most()) for count in range(1, 12)]
    assert most == [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]
    assert [retry_delay(count, first=10, most=3600, chance=Least()) for count in (1, 2, 11, 10_000)] == [
        5, 10, 1800, 1800,
    ]  # fmt: skip
