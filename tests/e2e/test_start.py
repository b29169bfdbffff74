"""A node that starts with its copy of the lists: it answers before it can be managed."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.node import Node
from tests.e2e.processes import until
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Libraries that only people, monitoring or other machines need, and the store's client.
LATER = (
    "fastapi",
    "starlette",
    "uvicorn",
    "httpx",
    "redis",
    "jinja2",
    "aiodns",
    "dns.message",
    "grpc",
    "prometheus_client",
)
LOADED = f"""
import sys, blocker.cli.app, blocker.cli.serve
print([name for name in {LATER!r} if name in sys.modules])
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with RedisServer(tmp_path / "redis") as redis:
        running = Node(tmp_path, redis)
        running.push("http://listed.example/gallery/")
        until((tmp_path / "var" / "snapshot" / "table").exists)
        until(lambda: running.ask() == "block")
        assert running.process.stop() == 0
        yield running
        if running.process.process is not None and running.process.process.poll() is None:
            running.process.kill()


def test_what_answers_loads_nothing_that_it_does_not_need() -> None:
    told = subprocess.run([sys.executable, "-c", LOADED], check=True, capture_output=True, text=True).stdout
    assert told == "[]\n"


def test_it_answers_before_it_can_be_managed_and_a_reload_waits_for_that(node: Node) -> None:
    (node.directory / "blocker.toml").write_text("[gateways.spoe]\nenabled = false\n", "utf-8")
    for _ in range(10):  # a machine may be busy with other things between the two
        node.process.launch()
        until(lambda: node.ask() == "block")
        if not managed(node):
            break
        assert node.process.stop() == 0
    else:
        pytest.fail("it could be managed whenever it answered: this test shows nothing")
    (node.directory / "blocker.toml").write_text("nonsense = 1\n", "utf-8")
    os.kill(node.process.pid, signal.SIGHUP)
    assert node.ask() == "block"
    until(lambda: "configuration not read anew" in node.process.log())
    until(lambda: node.process.get("/readyz")[0] == 200)
    assert node.process.log().index("configuration not read anew") > 0
    assert node.process.stop() == 0


def test_it_can_be_stopped_while_it_is_loaded(node: Node) -> None:
    node.process.launch()
    until(lambda: node.ask() == "block")
    assert node.process.stop() == 0
    assert "Traceback" not in node.process.log()


def test_its_port_is_taken_from_the_first_on(node: Node) -> None:
    """A second node fails at once, and who asks for its state meanwhile waits instead of being refused."""
    node.process.launch()
    until(lambda: node.ask() == "block")
    with pytest.raises(OSError, match="in use"), socket.socket() as other:
        other.bind(("127.0.0.1", node.process.port))
    assert node.process.get("/healthz")[0] == 200


def managed(node: Node) -> bool:
    """Whether its control plane answers at once."""
    connection = http.client.HTTPConnection("127.0.0.1", node.process.port, timeout=0.02)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except TimeoutError:
        return False
    finally:
        connection.close()
