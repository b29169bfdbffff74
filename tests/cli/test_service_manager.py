"""What systemd is told: by the unit alone, and by a real node at a real datagram socket."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from blocker.cli.service_manager import ServiceManager
from tests.cli.conftest import SAMPLES
from tests.e2e.processes import NodeProcess, program, spawn, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.redis_server import RedisServer


class Manager:
    """A service manager's socket, and all that was said to it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.said: list[dict[str, str]] = []

    def hear(self) -> list[dict[str, str]]:
        """All messages up to now, each as its variables."""
        while True:
            try:
                message = self.socket.recv(65536).decode()
            except BlockingIOError:
                return self.said
            self.said.append(dict(line.split("=", 1) for line in message.split("\n")))

    def heard(self, name: str) -> list[str]:
        return [message[name] for message in self.hear() if name in message]


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@blocker-test-{os.getpid()}-{id(tmp_path)}"
    opened = Manager(address)
    yield opened
    opened.socket.close()


def test_nothing_is_said_where_nobody_listens() -> None:
    for environment in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}):
        told = ServiceManager(dict(environment))
        assert not told.there
        told.ready("status")
        told.stopping()
        told.close()


def test_a_manager_that_is_gone_harms_nobody(tmp_path: Path) -> None:
    told = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    told.ready("status")
    told.sign_of_life()
    told.close()
    told.close()


def test_children_are_not_told_how_to_speak_in_the_node_s_name(manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "9000000", "WATCHDOG_PID": "7", "OTHER": "1"}
    told = ServiceManager(environment, pid=7)
    assert environment == {"OTHER": "1"}
    assert told.watchdog_seconds == 9
    told.close()


@pytest.mark.parametrize("given", [{"WATCHDOG_PID": "8"}, {"WATCHDOG_USEC": ""}, {"WATCHDOG_USEC": "often"}])
def test_a_watchdog_of_somebody_else_is_none(given: dict[str, str]) -> None:
    assert ServiceManager({"WATCHDOG_USEC": "9000000", "WATCHDOG_PID": "7", **given}, pid=7).watchdog_seconds == 0


def test_what_is_said_has_the_protocol_s_form(manager: Manager) -> None:
    told = ServiceManager({"NOTIFY_SOCKET": manager.address})
    told.reloading()
    assert manager.hear() == [], "before it is ready nothing else is said of it"
    told.sign_of_life()
    told.ready("decides with 3 lists")
    told.sign_of_life()
    told.reloading()
    told.reloaded()
    told.stopping()
    told.close()
    early, ready, sign, reloading, reloaded, stopping = manager.hear()
    assert early == {"WATCHDOG": "1", "EXTEND_TIMEOUT_USEC": "60000000", "STATUS": "waits for its lists"}
    assert ready == {"READY": "1", "STATUS": "decides with 3 lists"}
    assert sign == {"WATCHDOG": "1"}
    assert reloading["RELOADING"] == "1"
    assert int(reloading["MONOTONIC_USEC"]) > 0
    assert reloaded == {"READY": "1"}
    assert stopping["STOPPING"] == "1"


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_a_node_is_ready_when_it_decides_and_lives_while_its_loop_turns(
    tmp_path: Path, redis: RedisServer, manager: Manager
) -> None:
    (tmp_path / "lists").mkdir()
    node = NodeProcess(tmp_path, redis_url=redis.url, deployment=f"t{os.urandom(8).hex()}", gateways__workers="1")
    node.environment |= {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1500000"}
    with node:
        node.start(ready=False)
        until(lambda: len(manager.heard("EXTEND_TIMEOUT_USEC")) > 1)
        assert manager.heard("READY") == [], "there is no list yet, so nothing is decided"
        listed = tmp_path / "list.txt"
        listed.write_text("http://listed.example/\n", "utf-8")
        push = spawn(
            [*program(), "lists", "push", "police", str(listed), "--publish"], env=node.environment, cwd=tmp_path
        )
        # Heard meanwhile: what comes while the socket's queue is full is lost.
        until(lambda: manager.heard("READY") == ["1"] and push.poll() is not None)
        assert push.returncode == 0
        assert node.check_many(["http://listed.example/"])[0]["verdict"] == "block"
        assert "decides with 1 lists" in manager.heard("STATUS")
        signs = len(manager.heard("WATCHDOG"))
        until(lambda: len(manager.heard("WATCHDOG")) > signs + 2)
        os.kill(node.pid, signal.SIGHUP)
        until(lambda: manager.heard("READY") == ["1", "1"])
        assert len(manager.heard("RELOADING")) == 1
        node_signs_end_when_it_hangs(node, manager)
        assert node.stop() == 0
    assert manager.heard("STOPPING") == ["1"]


def node_signs_end_when_it_hangs(node: NodeProcess, manager: Manager) -> None:
    """A stopped process stands for a loop that hangs: systemd would end it now."""
    os.kill(node.pid, signal.SIGSTOP)
    manager.hear()
    before = len(manager.said)
    with pytest.raises(AssertionError, match="did not come true in time"):
        until(lambda: len(manager.hear()) > before + 1, deadline=2.0)  # one may have been on its way
    os.kill(node.pid, signal.SIGCONT)
    until(lambda: len(manager.hear()) > before + 2)


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_a_process_that_only_ingests_is_ready_when_it_has_begun(
    tmp_path: Path, redis: RedisServer, manager: Manager
) -> None:
    shutil.copytree(SAMPLES, tmp_path / "lists")
    node = NodeProcess(tmp_path, redis_url=redis.url, deployment=f"t{os.urandom(8).hex()}")
    environment = {**node.environment, "NOTIFY_SOCKET": manager.address}
    process = spawn(
        [*program(), "serve", "--role", "ingest"],
        env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: manager.heard("READY") == ["1"])
        assert "looks after the lists" in manager.heard("STATUS")
    finally:
        process.terminate()
        assert process.wait(20) == 0
    assert manager.heard("STOPPING") == ["1"]
