"""Kill -9 anywhere, again and again: a node answers from whole serials throughout, and comes to the newest one."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import select
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Self

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from blocker.store.redis import Store
from tests.e2e.processes import NODE, NodeProcess, environment, program, spawn, until
from tests.e2e.world import LISTS, Witness, World
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from blocker.store.manifest import Manifest

INGEST_KILLS = 100
PROGRAM_KILLS = 4
REDIS_KILLS = 40
NODE_KILLS = 6
EMBEDDED_KILLS = 4
# What a kill may lose, and some for a machine that is slow to store it.
LOST_SECONDS = 1.0
SLOW_SECONDS = 0.5


class IngestDriver:
    """The driver of ingest_driver.py."""

    def __init__(self, directory: Path, url: str) -> None:
        command = [sys.executable, "-m", "tests.e2e.ingest_driver"]
        arguments = [str(directory / "var"), str(directory / "lists"), url]
        self._process = spawn(
            [*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(directory)
        )
        self._child = 0

    def begin(self) -> None:
        """Begin a pull of every list."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()
        self._child = int(self._line())

    def end(self, within: float | None = None) -> bool:
        """Wait for the end of the pull, or kill it after so many seconds; whether it brought every list up to date."""
        assert self._process.stdout is not None
        if within is not None and not select.select([self._process.stdout], [], [], within)[0]:
            os.kill(self._child, signal.SIGKILL)
        return self._line() == b"done 0\n"

    def pull(self) -> bool:
        """A whole pull."""
        self.begin()
        return self.end()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the driver ended"
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.kill()
        self._process.wait()


@pytest.fixture
def chance() -> random.Random:
    return random.Random(20260113)  # noqa: S311 - the same kills each time, as far as a machine repeats itself


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", aof=True) as running:
        yield running


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def manifests(url: str, name: str) -> list[Manifest]:
    """The history of a list, oldest first."""

    async def read() -> list[Manifest]:
        async with await Store.open(url, "default") as store:
            return (await store.history(name, 10_000))[::-1]

    return asyncio.run(read())


def check_history(url: str, witness: Witness) -> None:
    """Serials without a gap, and nothing published twice."""
    for name in LISTS:
        history = manifests(url, name)
        assert [manifest.serial for manifest in history] == list(range(1, len(history) + 1))
        digests = [manifest.rules_digest for manifest in history]
        assert len(set(digests)) == len(digests)
        assert len(history) <= witness.newest[name]


def converge(node: NodeProcess, witness: Witness) -> None:
    """The node comes to the newest version of every list."""
    until(lambda: witness.look(node.check_many(witness.urls)) == witness.newest)
    until(lambda: node.ready()["status"] == "ready" and node.ready()["detail"] == "")


def test_ingest_killed_anywhere(tmp_path: Path, redis: RedisServer, world: World, chance: random.Random) -> None:
    witness = Witness(world)
    with IngestDriver(tmp_path, redis.url) as driver, NodeProcess(tmp_path, redis_url=redis.url) as node:
        assert driver.pull()
        node.start()
        converge(node, witness)
        took = []
        for _ in range(5):
            world.write("bulk")
            started = time.monotonic()
            assert driver.pull()
            took.append(time.monotonic() - started)
        usual = statistics.median(took)
        killed = rounds = 0
        while killed < INGEST_KILLS:
            rounds += 1
            assert rounds < 5 * INGEST_KILLS, "too few pulls could be killed"
            for name in chance.sample(LISTS, chance.randint(1, len(LISTS))):
                world.write(name)
            driver.begin()
            killed += not driver.end(within=chance.uniform(0, 1.1 * usual))
            witness.look(node.check_many(witness.urls))
        assert driver.pull()
        converge(node, witness)
        check_history(redis.url, witness)
        assert node.stop() == 0


def test_the_program_itself_killed_while_it_pulls(
    tmp_path: Path, redis: RedisServer, world: World, chance: random.Random
) -> None:
    witness = Witness(world)
    settings = environment(tmp_path, redis_url=redis.url)
    command = [*program(), "lists", "pull", "--json"]

    def pull(kill_after: float | None = None) -> int:
        process = spawn(command, stdout=subprocess.PIPE, cwd=tmp_path, env=settings)
        try:
            process.communicate(timeout=kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        return process.returncode

    started = time.monotonic()
    assert pull() == 0
    usual = time.monotonic() - started
    with NodeProcess(tmp_path, redis_url=redis.url) as node:
        node.start()
        for _ in range(PROGRAM_KILLS):
            for name in LISTS:
                world.write(name)
            pull(chance.uniform(0.6, 1) * usual)
            witness.look(node.check_many(witness.urls))
        assert pull() == 0
        converge(node, witness)
        check_history(redis.url, witness)


def test_redis_killed_anywhere(tmp_path: Path, redis: RedisServer, world: World, chance: random.Random) -> None:
    witness = Witness(world)
    with IngestDriver(tmp_path, redis.url) as driver, NodeProcess(tmp_path, redis_url=redis.url) as node:
        assert driver.pull()
        node.start()
        converge(node, witness)
        for _ in range(REDIS_KILLS):
            for name in chance.sample(LISTS, chance.randint(1, len(LISTS))):
                world.write(name)
            driver.begin()
            time.sleep(chance.uniform(0, 0.1))  # at a random moment of the pull
            redis.kill()
            witness.look(node.check_many(witness.urls))
            redis.start()
            driver.end()
            witness.look(node.check_many(witness.urls))
        assert driver.pull()
        converge(node, witness)
        check_history(redis.url, witness)


def test_the_node_killed_anywhere(tmp_path: Path, redis: RedisServer, world: World, chance: random.Random) -> None:
    witness = Witness(world)
    with IngestDriver(tmp_path, redis.url) as driver, NodeProcess(tmp_path, redis_url=redis.url) as node:
        assert driver.pull()
        node.start()
        converge(node, witness)
        for number in range(NODE_KILLS):
            for name in LISTS:
                world.write(name)
            driver.begin()
            time.sleep(chance.uniform(0, 0.15))  # while it takes over what is published
            node.kill()
            driver.end()
            alone = number % 2 == 1
            if alone:  # nothing but its disk to start from
                redis.kill()
            node.start()
            witness.restarted()
            witness.look(node.check_many(witness.urls))
            if alone:
                assert node.ready()["source"] == "snapshot"
                redis.start()
            assert driver.pull()
            converge(node, witness)
        check_history(redis.url, witness)


def test_a_whole_node_and_the_redis_it_started_killed(tmp_path: Path, world: World, chance: random.Random) -> None:
    """One process with every role, and its embedded Redis: each is killed, and everything comes back by itself."""
    witness = Witness(world)
    socket = tmp_path / "var" / "redis" / "redis.sock"
    with NodeProcess(tmp_path, roles=("ingest", "control")) as node:
        node.start()
        until(lambda: len(node.ready()["lists"]) == len(LISTS))
        for number in range(EMBEDDED_KILLS):
            with Redis(unix_socket_path=str(socket)) as client:
                server: int = client.info()["process_id"]
            for name in LISTS:
                world.write(name)
            time.sleep(chance.uniform(0, 1))  # the worker looks once a second
            if number == EMBEDDED_KILLS - 1:
                node.kill()
                node.start()
                witness.restarted()
            else:
                os.kill(server, signal.SIGKILL)
                until(lambda server=server: another(socket, server))  # type: ignore[misc]
            witness.look(node.check_many(witness.urls))
            converge(node, witness)
        assert node.stop() == 0
    with Redis(unix_socket_path=str(socket)) as client, pytest.raises(RedisConnectionError):
        client.ping()


def another(socket: Path, server: int) -> bool:
    """Whether another Redis answers at a socket than the one that was killed there."""
    try:
        with Redis(unix_socket_path=str(socket)) as client:
            found: int = client.info()["process_id"]
    except RedisConnectionError:
        return False
    return found != server


class Asking:
    """Asks for a blocked page without pause; remembers when each answer came."""

    def __init__(self, node: NodeProcess, url: str) -> None:
        self.answered: list[float] = []
        self._path = f"/v1/check?url={url}"
        self._connection = node.connection()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        try:
            while not self._ended.is_set():
                self._connection.request("GET", self._path)
                assert json.load(self._connection.getresponse())["verdict"] == "block"
                self.answered.append(time.monotonic())
        except (OSError, ValueError, http.client.HTTPException):
            return  # the node was ended
        finally:
            self._connection.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()


def stored_hits(redis: RedisServer) -> Counter[str]:
    """Hits by list, as they are in Redis."""
    with Redis(unix_socket_path=str(redis.socket), decode_responses=True) as client:
        cells: dict[str, str] = client.hgetall(f"{{blocker:default}}:hits:{NODE}")
    hits: Counter[str] = Counter()
    for cell, count in cells.items():
        hits[cell.partition("|")[0]] += int(count)
    return hits


BLOCKED = "http://whole1.example/"


def test_a_killed_node_loses_the_hits_of_the_last_second_at_most(
    tmp_path: Path, redis: RedisServer, world: World, chance: random.Random
) -> None:
    assert world.version["pages"] == 1
    with IngestDriver(tmp_path, redis.url) as driver, NodeProcess(tmp_path, redis_url=redis.url) as node:
        assert driver.pull()
        before = rounds = 0
        while rounds < 2:
            node.start()
            with Asking(node, BLOCKED) as asking:
                started = time.monotonic()
                time.sleep(chance.uniform(2, 3))  # hits to lose
                killed = time.monotonic()
                node.kill()
            stored = stored_hits(redis)["pages"] - before
            before += stored
            assert stored <= len(asking.answered) + 1  # one may have been counted and not yet answered
            moments = [started, *(moment for moment in asking.answered if moment < killed), killed]
            if max(later - earlier for earlier, later in pairwise(moments)) > SLOW_SECONDS:
                continue  # the machine stood still, and what was due then had no chance to be stored
            due = sum(moment < killed - LOST_SECONDS - SLOW_SECONDS for moment in asking.answered)
            assert 0 < due <= stored
            rounds += 1


def test_a_stop_answers_what_is_under_way_and_keeps_every_hit(tmp_path: Path, redis: RedisServer, world: World) -> None:
    assert world.version["pages"] == 1
    with IngestDriver(tmp_path, redis.url) as driver, NodeProcess(tmp_path, redis_url=redis.url) as node:
        assert driver.pull()
        total = 0
        for _ in range(2):  # totals go on after a restart
            node.start()
            node.check_many([BLOCKED] * 50)
            body = json.dumps({"urls": [BLOCKED] * 7}).encode()
            connection = node.connection()
            connection.putrequest("POST", "/v1/check")
            connection.putheader("content-length", str(len(body)))
            connection.endheaders(body[:20])
            # Served, so that the request above was seen before the signal is.
            assert node.get("/healthz")[0] == 200
            assert node.process is not None
            node.process.send_signal(signal.SIGTERM)
            until(lambda: "stopping" in node.log())
            connection.send(body[20:])
            answer = connection.getresponse()
            assert answer.status == 200
            assert len(json.load(answer)["results"]) == 7
            connection.close()
            assert node.process.wait(20) == 0
            total += 57
            assert stored_hits(redis)["pages"] == total
            node.logs.unlink()
        # An hour that is over is shown after a restart as it was stored, rounded up to the bin of 8.
        redis.command("HSET", f"{{blocker:default}}:hits:{NODE}", "pages|2025-W03|2|14", "41")
        node.start()
        until(lambda: b'blocker_hits_total{list="pages",weekday="tue",hour="14"} 48.0' in node.get("/metrics")[1])
        assert node.stop() == 0
        assert "Traceback" not in node.log()
