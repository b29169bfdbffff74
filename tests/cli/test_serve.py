"""`blocker serve`: what it says when it starts, and what keeps it from starting."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from blocker.cli.node import FIRST_LISTS_SECONDS
from tests.cli.conftest import SAMPLES
from tests.e2e.processes import NodeProcess, environment, program, spawn, until
from tests.redis_server import free_port

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine

SCRIPT = [str(Path(sys.executable).parent / "blocker")]


@pytest.mark.parametrize(
    ("called", "options"), [(SCRIPT, []), (program(), ["--data-dir", "other data"])], ids=["script", "module"]
)
def test_hints_do_what_they_say(tmp_path: Path, called: list[str], options: list[str]) -> None:
    """The commands are run as they are printed, by a shell, in another terminal of the same directory."""
    assert shutil.which("curl"), "this test needs curl, as the hint does"
    shutil.copytree(SAMPLES, tmp_path / "lists")
    names = {path.stem for path in SAMPLES.glob("*.toml")}
    own = {"http__port": str(free_port())}
    settings = {
        name: value for name, value in environment(tmp_path, **own).items()
        if name not in ("BLOCKER_DATA_DIR", "BLOCKER_LISTS_DIR")
    }  # fmt: skip
    said = tmp_path / "said"
    with said.open("wb") as output:
        node = spawn([*called, *options, "serve", "--hints"], stdout=output, stderr=output, cwd=tmp_path, env=settings)
    try:
        until(lambda: "Stop with Ctrl-C." in said.read_text())
        lists = f"http://127.0.0.1:{own['http__port']}/v1/lists"
        until(lambda: names <= {row["name"] for row in httpx.get(lists, timeout=60).json()["lists"]})
        commands = re.findall(r"^  (\S.*)\n      → (.*)$", said.read_text(), re.MULTILINE)
        assert len(commands) == 4
        answers = [
            subprocess.run(
                ["sh", "-c", command], check=True, capture_output=True, text=True, cwd=tmp_path, env=settings
            )
            for command, _promise in commands
        ]
        assert [promise.partition(":")[0] for _command, promise in commands] == [
            '"verdict"', "block, allow (an exception inside a blocked domain), allow",
            "each step of the decision, and the rule that wins", "a token, to sign in with at the console",
        ]  # fmt: skip
        assert json.loads(answers[0].stdout)["verdict"] == "block"
        assert json.loads(answers[0].stdout)["kind"] == "prefix"
        assert [line.split()[0] for line in answers[1].stdout.splitlines()] == ["verdict", "block", "allow", "allow"]
        assert "exceptions" in answers[1].stdout
        assert "verdict    block: the domain rule of sample-domains" in answers[2].stdout
        token = re.search(r"blk_\S+", answers[3].stdout)
        assert token
        console = f"http://127.0.0.1:{own['http__port']}"
        assert f"{console}/" in commands[3][1]
        came_in = httpx.post(
            f"{console}/console/login", data={"token": token[0]}, headers={"origin": console}, timeout=60
        )
        assert came_in.headers["location"] == "/"
        for page in re.findall(r"http://\S+/(?:docs|blocked)\b", said.read_text()):
            shown = subprocess.run(["curl", "-s", page], check=True, capture_output=True, text=True).stdout
            assert "<html" in shown
        node.send_signal(signal.SIGINT)  # Ctrl-C
        assert node.wait(20) == 0
    finally:
        node.terminate()
        node.wait(20)
    assert "Traceback" not in said.read_text()
    assert (tmp_path / (options[-1] if options else "var") / "snapshot" / "table").exists()


def test_a_port_in_use(blocker: CommandLine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = blocker("serve", http__port=str(port))
    assert ran.code == 1
    waiting, line = ran.err.splitlines()
    assert "waiting for an address that is in use" in waiting
    assert line == f"blocker: address 127.0.0.1:{port} is in use; set BLOCKER_HTTP__PORT or stop the other program"


@pytest.mark.parametrize(
    ("host", "told"), [("203.0.113.1", "is not one of this machine"), ("no such host", "no address for the host")]
)
def test_an_address_that_cannot_be_had(blocker: CommandLine, host: str, told: str) -> None:
    assert told in blocker.refused("serve", http__host=host)


def test_a_second_node_on_one_machine_leaves_the_first_alone(blocker: CommandLine) -> None:
    with NodeProcess(blocker.directory, **blocker.settings) as node:
        node.start()
        second = subprocess.run(
            [*program(), "serve"], check=False, capture_output=True, text=True, cwd=blocker.directory,
            env=node.environment,
        )  # fmt: skip
        assert second.returncode == 1
        assert "is in use; set BLOCKER_HTTP__PORT" in second.stderr
        assert node.check_many(["http://blocked.example/"])[0]["verdict"] == "block"


def test_a_decision_node_needs_no_sources_and_no_seal_key(blocker: CommandLine) -> None:
    shutil.rmtree(blocker.lists_dir)
    (blocker.data_dir / "keys" / "seal.key").unlink()
    with NodeProcess(blocker.directory, **blocker.settings) as node:
        node.start()
        assert node.check_many(["http://blocked.example/"])[0]["verdict"] == "block"
        status, body = node.get("/v1/lists")
        assert (status, {row["stale"] for row in json.loads(body)["lists"]}) == (200, {None})
        assert node.stop() == 0
    assert not (blocker.data_dir / "keys" / "seal.key").exists()
    assert "no seal key" in blocker.refused("lists", "show", "sample-urls", "--rules").lower()


def test_logs_are_one_line_a_record(blocker: CommandLine) -> None:
    took = []
    for form in ("json", "console"):
        with NodeProcess(
            blocker.directory, **{**blocker.settings, "redis_url": "redis://127.0.0.1:1/", "log_format": form}
        ) as node:
            node.start(ready=False)
            until(lambda node=node: "hits wait in memory" in node.log())  # type: ignore[misc]
            stopping = time.monotonic()
            assert node.stop() == 0
            took.append(time.monotonic() - stopping)
            lines = node.log().splitlines()
            node.logs.unlink()
        for line in lines:
            if form == "json":
                assert json.loads(line)["level"]
            else:
                assert re.match(r"\d{4}-\d\d-\d\dT\S+Z \[\w+ *\] ", line), line
    assert min(took) < FIRST_LISTS_SECONDS / 2, "nothing waits for lists any more"


def test_the_script_is_the_program() -> None:
    done = subprocess.run([*SCRIPT, "--version"], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("blocker ")
