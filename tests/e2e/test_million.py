"""A million decisions through several gateways and processes: each hit is in its cell once, whatever is restarted.

A batch client of the control plane, pipelining clients of the check gateway in two workers, and a Squid helper send a
known mix at once. In the first half Redis is restarted, and every cell must be exact. In the second the node is killed
twice, and what may be missing is what was answered in the second before each kill.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from blocker.hits.calendar import Cell, window_of
from blocker.store.redis import Store
from tests.e2e.node import Node
from tests.e2e.processes import program, spawn, until
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def mix(name: str) -> tuple[str, ...]:
    """Ten requests of which three are hits of the client's own list."""
    return (
        f"http://{name}.example/gallery/1.jpg", "http://harmless.example/", f"http://{name}.example/gallery/",
        f"http://{name}.example/gallery/2.jpg", "http://harmless.example/a", f"http://{name}.example/",
        "http://fine.example/", "http://fine.example/b", "http://good.example/", "http://good.example/c",
    )  # fmt: skip


HITS_OF_TEN = 3
PIPELINED = 500
BATCH = 10_000
HALF = {"batch": 300_000, "check": 150_000, "helper": 50_000}
PATIENCE = 120.0


class Tally:
    """What was answered when, and what was sent and never answered, in requests."""

    def __init__(self) -> None:
        self.answered: list[tuple[float, float, int]] = []  # moment, how long it took, requests
        self.unanswered = 0
        self._began = 0.0

    @property
    def total(self) -> int:
        return sum(count for _, _, count in self.answered)

    def begin(self, count: int) -> None:
        self.unanswered += count
        self._began = time.monotonic()

    def end(self, count: int, pause: float) -> None:
        """Note an answer, and leave the machine some time for what it must do beside answering."""
        now = time.monotonic()
        self.unanswered -= count
        self.answered.append((now, now - self._began, count))
        time.sleep(pause)

    def at_risk(self, kill: float, seconds: float) -> int:
        return sum(count for moment, _, count in self.answered if kill - seconds < moment <= kill + 0.05)


class Clients:
    """Clients that send until their share is answered, over and over through whatever is restarted."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.tallies = {name: Tally() for name in HALF}
        self._helper = spawn(
            [*program(), "squid-helper", "--socket", str(node.directory / "var" / "node.sock")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._asked = b"".join(f"{url}\n".encode() for url in mix("helper"))
        until(self._helper_decides)

    @property
    def answered(self) -> int:
        return sum(tally.total for tally in self.tallies.values())

    def start(self, more: dict[str, int]) -> list[threading.Thread]:
        goals = {name: self.tallies[name].total + count for name, count in more.items()}
        jobs = {"batch": self._batch, "check": self._check, "helper": self._ask_helper}
        threads = [threading.Thread(target=self._until, args=(name, goals[name], jobs[name])) for name in goals]
        for one in threads:
            one.start()
        return threads

    def lag(self, up: float, kill: float) -> float:
        """For how long something waited at most, of what a node answered in its last two seconds."""
        answered = [(moment, took) for tally in self.tallies.values() for moment, took, _ in tally.answered]
        last = [took for moment, took in answered if moment - took > up and kill - 2.0 < moment <= kill]
        return max(last) if last else kill - max(moment for moment, _ in answered if moment <= kill)

    def end(self) -> None:
        assert self._helper.stdin is not None
        assert self._helper.stdout is not None
        self._helper.stdin.close()
        assert self._helper.wait(30) == 0
        self._helper.stdout.close()

    def _until(self, name: str, goal: int, job: Callable[[Tally, int], None]) -> None:
        tally, deadline = self.tallies[name], time.monotonic() + PATIENCE
        while tally.total < goal and time.monotonic() < deadline:
            job(tally, goal)

    def _batch(self, tally: Tally, goal: int) -> None:
        body = json.dumps({"urls": mix("batch") * (BATCH // 10)}).encode()
        connection = self._node.process.connection()
        try:
            while tally.total < goal:
                tally.begin(BATCH)
                connection.request("POST", "/v1/check", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 200:
                    tally.unanswered -= BATCH  # decided nothing
                    continue
                assert text.count(b'"block"') == BATCH * 3 // 10
                tally.end(BATCH, 0.1)
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)
        finally:
            connection.close()

    def _check(self, tally: Tally, goal: int) -> None:
        requests = b"".join(f"GET /check?url={url} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for url in mix("check"))
        sent = requests * (PIPELINED // 10)
        try:
            while tally.total < goal:  # a new connection now and then, so that both workers are asked
                with socket.create_connection(("127.0.0.1", self._node.port), timeout=30) as connection:
                    for _ in range(20):
                        tally.begin(PIPELINED)
                        connection.sendall(sent)
                        if not _read_answers(connection):
                            return
                        tally.end(PIPELINED, 0.01)
                        if tally.total >= goal:
                            return
        except OSError:
            time.sleep(0.05)

    def _helper_decides(self) -> bool:
        assert self._helper.stdin is not None
        assert self._helper.stdout is not None
        self._helper.stdin.write(b"http://harmless.example/\n")
        self._helper.stdin.flush()
        return b"allow" in self._helper.stdout.readline()

    def _ask_helper(self, tally: Tally, goal: int) -> None:
        assert self._helper.stdin is not None
        assert self._helper.stdout is not None
        while tally.total < goal:
            tally.begin(200)
            self._helper.stdin.write(self._asked * 20)
            self._helper.stdin.flush()
            blocks = sum(b"verdict_=block" in self._helper.stdout.readline() for _ in range(200))
            assert blocks == 60, "a helper goes on with the lists it has"
            tally.end(200, 0.01)


def _read_answers(connection: socket.socket) -> bool:
    """Whether all pipelined requests were answered, and rightly."""
    blocks = bodies = 0
    rest = b""
    while bodies < PIPELINED:
        data = connection.recv(262_144)
        if not data:
            return False
        rest += data
        *lines, rest = rest.split(b"\n")
        for line in lines:
            word = line.split(b" ", 1)[0].strip()
            blocks += word == b"block"
            bodies += word in (b"block", b"allow", b"inspect")
    assert blocks == PIPELINED * 3 // 10
    return True


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with RedisServer(tmp_path / "redis", aof=True) as redis:
        running = Node(tmp_path, redis, gateways__workers="2", timezone="Europe/Stockholm")
        yield running
        if running.process.process is not None and running.process.process.poll() is None:
            running.process.kill()


async def stored(node: Node) -> Counter[Cell]:
    async with await Store.open(node.redis.url, node.deployment) as store:
        cells = {Cell.parse(field): count for field, count in (await store.fleet_hits()).items()}
        assert await store.hit_nodes() in ([], ["node-under-test"])
    return Counter(cells)


def by_list(cells: Counter[Cell]) -> dict[str, int]:
    sums = Counter[str]()
    for cell, count in cells.items():
        sums[cell.list] += count
    return dict(sums)


def hits_of(clients: Clients) -> dict[str, int]:
    return {name: tally.total * HITS_OF_TEN // 10 for name, tally in clients.tallies.items()}


def test_every_hit_is_in_its_cell_once(node: Node) -> None:
    first: dict[str, int] = {}
    for name in HALF:
        node.push_list(name, [f"http://{name}.example/gallery/"])
        url = f"http://{name}.example/gallery/"
        asked = Counter[str]()

        def blocked(url: str = url, asked: Counter[str] = asked) -> bool:
            answers = [node.ask(url) for _ in range(20)]
            asked.update(answers)
            return answers == ["block"] * 20

        until(blocked)
        first[name] = asked["block"]
    clients = Clients(node)
    until(lambda: by_list(asyncio.run(stored(node))) == first)
    before = asyncio.run(stored(node))
    started = time.time()

    threads = clients.start(HALF)
    until(lambda: clients.answered > 150_000, PATIENCE)
    node.redis.restart()
    for one in threads:
        one.join(PATIENCE)
    assert clients.answered >= 500_000
    assert [tally.unanswered for tally in clients.tallies.values()] == [0, 0, 0]
    until(lambda: by_list(asyncio.run(stored(node)) - before) == hits_of(clients))
    time.sleep(2)  # two flushes: more than all would be too many
    assert by_list(asyncio.run(stored(node)) - before) == hits_of(clients), "each once, and all of them"

    killed, ready = [], [time.monotonic()]
    threads = clients.start(HALF)
    for goal in (620_000, 780_000):
        until(lambda goal=goal: clients.answered > goal, PATIENCE)  # type: ignore[misc]
        workers = node.workers()
        killed.append(time.monotonic())
        node.process.kill()
        until(lambda workers=workers: not any(map(runs, workers)))  # type: ignore[misc]
        node.process.start()
        ready.append(time.monotonic())
    for one in threads:
        one.join(PATIENCE)
    clients.end()
    assert node.process.stop() == 0
    assert clients.answered >= 1_000_000

    cells = asyncio.run(stored(node)) - before
    found, answered = by_list(cells), hits_of(clients)
    # A machine that is busy with other things makes a flush wait as it makes requests wait.
    lags = [clients.lag(up, kill) for up, kill in zip(ready, killed, strict=False)]
    for name, tally in clients.tallies.items():
        # What was answered in the second before a kill may be missing; what got no answer may have been counted.
        at_risk = sum(tally.at_risk(kill, 1.0 + lag) for kill, lag in zip(killed, lags, strict=True))
        least = answered[name] - at_risk * HITS_OF_TEN // 10
        most = answered[name] + tally.unanswered * HITS_OF_TEN // 10
        print(f"{name}: {answered[name]} hits answered, {found[name]} found, at least {least}; lags {lags}")  # noqa: T201
        assert least <= found[name] <= most
    zone = ZoneInfo("Europe/Stockholm")
    assert {cell.slot for cell in cells} <= {window_of(moment, zone).slot for moment in (started, time.time())}


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
