"""A node with worker processes, and a running node's configuration read anew."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.node import BLOCKED, Node
from tests.e2e.processes import program, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.redis_server import RedisServer


@pytest.fixture
def node(tmp_path: Path, redis: RedisServer) -> Iterator[Node]:
    running = Node(tmp_path, redis, gateways__workers="2")
    yield running
    if running.process.process is not None and running.process.process.poll() is None:
        running.process.kill()


def test_workers_follow_the_lists_and_each_hit_is_counted_once(node: Node) -> None:
    until(lambda: len(node.workers()) == 2)
    node.push("http://listed.example/gallery/")
    told = Counter[str]()

    def ask(times: int, url: str = BLOCKED) -> list[str]:
        answers = [node.ask(url) for _ in range(times)]
        told.update(answers)
        return answers

    # A worker that has not got the list yet may answer some of the first.
    until(lambda: ask(20) == ["block"] * 20)
    assert ask(500) == ["block"] * 500
    assert ask(20, "http://harmless.example/") == ["allow"] * 20
    until(lambda: node.hits() == told["block"])
    node.push("http://listed.example/gallery/", "http://new.example/")
    until(lambda: ask(10, "http://new.example/") == ["block"] * 10)
    node.command("lists", "rollback", "police", "1", "--reason", "test")
    until(lambda: ask(10, "http://new.example/") == ["allow"] * 10)
    assert node.process.stop() == 0
    assert node.hits() == told["block"]
    assert node.workers() == []


def test_a_killed_worker_is_started_again_and_refuses_nobody(node: Node) -> None:
    node.push("http://listed.example/gallery/")
    until(lambda: [node.ask() for _ in range(20)] == ["block"] * 20)
    for _ in range(3):
        victim = node.workers()[0]
        os.kill(victim, signal.SIGKILL)
        assert {node.ask() for _ in range(30)} <= {"block", ""}, "never a wrong answer"
        until(lambda victim=victim: len(node.workers()) == 2 and victim not in node.workers())  # type: ignore[misc]
        assert [node.ask() for _ in range(20)] == ["block"] * 20
    assert node.process.log().count("a worker ended and is started again") == 3
    assert node.process.stop() == 0


def test_workers_end_with_their_node_however_it_ends(node: Node) -> None:
    node.push("http://listed.example/gallery/")
    until(lambda: node.ask() == "block")
    workers = node.workers()
    node.process.kill()
    until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() and _runs(pid) for pid in workers))
    node.process.start()
    until(lambda: [node.ask() for _ in range(20)] == ["block"] * 20)
    assert node.process.stop() == 0


def test_a_node_is_there_again_at_once_after_a_kill(node: Node) -> None:
    """Workers of the dead node hold its ports, in whatever state the kill finds them: serving, and still starting."""
    node.push("http://listed.example/gallery/")
    until(lambda: node.ask() == "block")
    for _ in range(3):
        node.process.kill()
        node.process.start(ready=False)  # fails if the process ends
        until(lambda: node.ask() == "block")
        os.kill(node.workers()[0], signal.SIGKILL)  # its successor has hardly begun when the node is killed
    assert node.process.stop() == 0


def test_an_address_that_stays_in_use_is_told_and_one_that_is_let_go_is_taken(node: Node) -> None:
    until(lambda: len(node.workers()) == 2)
    assert node.process.stop() == 0
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", node.port))
        taken.listen()
        waited = "waiting for an address that is in use"
        with node.process.logs.open("ab") as log:
            refused = subprocess.run(
                [*program(), "serve", "--role", "control"], check=False, timeout=60, stdout=log, stderr=log,
                cwd=node.directory, env=node.process.environment,
            )  # fmt: skip
        assert refused.returncode == 1
        assert f"127.0.0.1:{node.port} is in use; set BLOCKER_GATEWAYS__CHECK__PORT" in node.process.log()
        assert node.process.log().count(waited) == 1

        def let_go() -> None:
            until(lambda: node.process.log().count(waited) == 2)
            taken.close()

        letting_go = threading.Thread(target=let_go)  # not the start: the node would end with its thread
        letting_go.start()
        node.process.start(ready=False)
        letting_go.join()
    until(lambda: len(node.workers()) == 2)
    assert node.process.stop() == 0


def _runs(pid: int) -> bool:
    try:
        return b"blocker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_stop_loses_no_request_that_was_taken(tmp_path: Path, redis: RedisServer, workers: str) -> None:
    """Connections ask without pause; each request that was sent whole before its connection was closed is answered."""
    node = Node(tmp_path, redis, gateways__workers=workers, gateways__check__drain_seconds="15")
    node.push("http://listed.example/gallery/")
    until(lambda: [node.ask() for _ in range(20)] == ["block"] * 20)
    lost: list[str] = []
    answered = [0] * 16

    def client(number: int) -> None:
        with (
            socket.create_connection(("127.0.0.1", node.port), timeout=30) as connection,
            connection.makefile("rb") as reader,
        ):
            while True:
                connection.sendall(f"GET /check?url={BLOCKED} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = reader.readline()
                    if not line:
                        lost.append("no answer")
                        return
                    head += line
                if b"block police" not in reader.read(len("block police")):
                    lost.append("wrong answer")
                answered[number] += 1
                if b"connection: close" in head.lower():
                    return  # it was told that this was the last one

    clients = [threading.Thread(target=client, args=(number,)) for number in range(len(answered))]
    for one in clients:
        one.start()
    # One that had not connected by now would be refused, as it should be.
    until(lambda: min(answered) > 10)
    assert node.process.stop() == 0
    for one in clients:
        one.join(30)
    assert lost == []


FIRST = """
[policies.default.lists]
police = "enforce"
[stop_page]
operator = "First Provider"
"""
SECOND = FIRST.replace('"enforce"', '"shadow"').replace("First", "Second") + '[gateways.check]\nhost = "127.0.0.2"\n'


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_configuration_is_read_anew(tmp_path: Path, redis: RedisServer, workers: str) -> None:
    node = Node(tmp_path, redis, FIRST, gateways__workers=workers)
    process = node.process
    file = tmp_path / "blocker.toml"
    try:
        node.push("http://listed.example/gallery/")
        until(lambda: [node.ask() for _ in range(20)] == ["block"] * 20)
        assert b"First Provider" in process.get("/blocked")[1]
        assert b"First Provider" in forwarded(node)
        file.write_text('canary_seconds = "often"', "utf-8")
        os.kill(process.pid, signal.SIGHUP)
        until(lambda: "configuration not read anew" in process.log())
        assert [node.ask() for _ in range(10)] == ["block"] * 10
        file.write_text(SECOND, "utf-8")
        os.kill(process.pid, signal.SIGHUP)
        until(lambda: [node.ask() for _ in range(20)] == ["allow"] * 20)
        assert b"Second Provider" in process.get("/blocked")[1]
        assert "gateways.check.host" in process.log(), "what needs a restart is named"
        file.write_text(FIRST.replace("First", "Third"), "utf-8")
        os.kill(process.pid, signal.SIGHUP)
        until(lambda: [node.ask() for _ in range(20)] == ["block"] * 20)
        until(lambda: all(b"Third Provider" in forwarded(node) for _ in range(10)))
        assert process.stop() == 0
    finally:
        if process.process is not None and process.process.poll() is None:
            process.kill()


def forwarded(node: Node) -> bytes:
    """The stop page as the check gateway shows it."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=30)
    connection.request("GET", "/envoy/gallery/1.jpg", headers={"Host": "listed.example"})
    answer = connection.getresponse()
    assert answer.status in (200, 451)
    page = answer.read()
    connection.close()
    return page
