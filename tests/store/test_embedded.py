from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blocker.errors import StoreError
from blocker.store import embedded
from blocker.store.redis import Store
from tests.store.publishing import publish, read_whole, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocker.store.embedded import EmbeddedRedis

ROOT = Path(__file__).parents[2]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def server_pid(url: str) -> int:
    async with await Store.open(url, "test") as store:
        fields = await store._session.info("test", "x")
        return int(fields["process_id"])


async def config(url: str, name: str) -> str:
    async with await Store.open(url, "test") as store:
        _, value = await store._session.command("test", "CONFIG", "GET", name)
        return str(value.decode())


async def test_it_listens_on_a_private_socket_only(
    make: Callable[[Path], EmbeddedRedis], tmp_path: Path, binary: Path, only: Callable[..., None]
) -> None:
    only(redis_server=binary)
    url = await make(tmp_path / "data").ensure()
    path = Path(url.removeprefix("unix://"))
    assert path == tmp_path / "data" / "redis" / "redis.sock"
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    for name, value in {"port": "0", "appendonly": "yes", "appendfsync": "always", "save": "",
                        "maxmemory-policy": "noeviction"}.items():  # fmt: skip
        assert await config(url, name) == value
    others = [file for file in path.parent.rglob("*") if file.is_file() and file.name != "redis.log"]
    assert others
    assert all(mode(file) & 0o077 == 0 for file in others)


async def test_ensuring_again_is_the_same_server(make: Callable[[Path], EmbeddedRedis], tmp_path: Path) -> None:
    first, second = make(tmp_path), make(tmp_path)
    url = await first.ensure()
    pid = await server_pid(url)
    assert await second.ensure() == await first.ensure() == url
    assert await server_pid(url) == pid
    assert (first.owned, second.owned) == (True, False)
    await second.stop()  # it started nothing
    assert await server_pid(url) == pid
    await first.stop()
    assert not first.owned
    assert await second.ensure() == url
    assert second.owned


async def test_all_at_once_start_one_server(make: Callable[[Path], EmbeddedRedis], tmp_path: Path) -> None:
    objects = [make(tmp_path) for _ in range(8)]
    urls = await asyncio.gather(*(one.ensure() for one in objects for _ in range(3)))
    assert len(set(urls)) == 1
    assert sum(one.owned for one in objects) == 1


async def test_data_survive_stops_and_kills(
    make: Callable[[Path], EmbeddedRedis], tmp_path: Path, binary: Path, only: Callable[..., None]
) -> None:
    only(redis_server=binary)
    server = make(tmp_path)
    for serial in range(1, 5):
        async with await Store.open(await server.ensure(), "test") as store:
            manifest = await publish(store, "test", serial, [b"%d" % serial])
        if serial % 2:
            await server.stop()
        else:
            os.kill(await server_pid(await server.ensure()), signal.SIGKILL)  # leaves its socket behind
        async with await Store.open(await server.ensure(), "test") as store:
            assert await store.heads() == {"test": manifest.head}
            await read_whole(store, manifest)


async def test_a_foreign_socket_in_the_way_is_replaced(make: Callable[[Path], EmbeddedRedis], tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "redis" / "redis.sock"))
    assert await server_pid(await make(tmp_path).ensure()) > 0


async def test_starting_does_not_hold_the_loop(
    make: Callable[[Path], EmbeddedRedis], tmp_path: Path, binary: Path, only: Callable[..., None]
) -> None:
    slow = tmp_path / "slow"
    slow.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec {binary} --version\n{shutil.which("sleep")} 0.5\nexec {binary} "$@"\n'
    )
    slow.chmod(0o755)
    only(redis_server=slow)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    started = time.monotonic()
    await make(tmp_path).ensure()
    ticking.cancel()
    assert ticks > 5
    assert time.monotonic() - started < embedded.START_SECONDS


async def test_a_cancelled_start_is_taken_over(make: Callable[[Path], EmbeddedRedis], tmp_path: Path) -> None:
    server = make(tmp_path)
    starting = asyncio.create_task(server.ensure())

    async def spawned() -> bool:
        return server._process is not None

    await until(spawned)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    pid = server._process.pid if server._process else 0
    assert await server_pid(await server.ensure()) == pid
    assert server.owned


PROCESS = """
import asyncio, sys
from pathlib import Path
from blocker.store.embedded import EmbeddedRedis

async def main():
    server = EmbeddedRedis(Path(sys.argv[1]))
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        url = await server.ensure()
        print(url, server.owned, flush=True)

asyncio.run(main())
"""


class Node:
    """Another process that shares the data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=ROOT,
        )  # fmt: skip

    def ask(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("ensure\n")
        self.process.stdin.flush()

    async def answer(self) -> tuple[str, bool]:
        assert self.process.stdout is not None
        url, owned = (await asyncio.to_thread(self.process.stdout.readline)).split()
        return url, owned == "True"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


async def test_processes_share_one_server_and_outlive_its_starter(tmp_path: Path) -> None:
    nodes = [Node(tmp_path) for _ in range(4)]
    try:
        for node in nodes:
            node.ask()
        answers = [await node.answer() for node in nodes]
        [url] = {url for url, _ in answers}
        [starter] = [node for node, (_, owned) in zip(nodes, answers, strict=True) if owned]
        async with await Store.open(url, "test") as store:
            manifest = await publish(store, "test", 1, [b"one"])
        pid = await server_pid(url)

        starter.kill()
        await until(lambda: gone(pid))  # no orphan is left behind

        nodes.remove(starter)
        for node in nodes:
            node.ask()
        answers = [await node.answer() for node in nodes]
        assert {url for url, _ in answers} == {url}
        assert [owned for _, owned in answers].count(True) == 1
        async with await Store.open(url, "test") as store:
            assert await store.heads() == {"test": manifest.head}
    finally:
        for node in nodes:
            node.kill()


async def gone(pid: int) -> bool:
    return not alive(pid)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("runtime", ["short", "long", "none"])
async def test_a_path_too_long_for_a_socket_moves_it_aside(
    make: Callable[[Path], EmbeddedRedis], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    short = Path(tempfile.mkdtemp(dir="/tmp"))  # the own directory of a test may be long
    if runtime == "none":
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    else:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(short if runtime == "short" else tmp_path / ("r" * 70)))
    data_dir = tmp_path / ("d" * 100)
    server = make(data_dir)
    url = await server.ensure()
    path = Path(url.removeprefix("unix://"))
    assert path.parent.parent == (short if runtime == "short" else Path("/tmp"))  # noqa: S108 - where it must be
    assert len(os.fsencode(path)) <= embedded.MAX_SOCKET_PATH
    assert mode(path.parent) == 0o700
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/elsewhere")  # another process, another environment
    assert await make(data_dir).ensure() == url
    await server.stop()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    assert await server.ensure()
    await server.stop()
    shutil.rmtree(path.parent)
    shutil.rmtree(short, ignore_errors=True)


async def test_a_foreign_directory_for_the_socket_is_refused(
    make: Callable[[Path], EmbeddedRedis], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    server = make(tmp_path / ("d" * 100))
    aside = server._short_directory()
    aside.mkdir()
    aside.chmod(0o755)
    with pytest.raises(StoreError, match="mode 0700"):
        await server.ensure()
    aside.rmdir()
    aside.symlink_to(tmp_path)
    with pytest.raises(StoreError, match="mode 0700"):
        await server.ensure()
