"""A node as an operator runs it: `blocker serve` in a process of its own, asked over HTTP.

    with NodeProcess(tmp_path, redis_url=redis.url) as node:
        node.check_many(["http://blocked.example/"])

A process dies with the test process, however that ends.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Self

from tests.redis_server import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

# A loaded machine has needed seconds to start a node; a minute is only ever a broken one.
DEADLINE = 60.0
# More than a stop may wait for requests under way and the last flush.
STOP_DEADLINE = 20.0
NODE = "node-under-test"


def program() -> list[str]:
    """How the program is called here."""
    return [sys.executable, "-m", "blocker"]


def environment(directory: Path, **settings: str) -> dict[str, str]:
    """The environment of a process: this one's without its own settings, and `BLOCKER_…` for each keyword."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BLOCKER_")}
    own = {
        "data_dir": str(directory / "var"),
        "lists_dir": str(directory / "lists"),
        "node": NODE,
        "gateways__check__port": "0",
        "gateways__icap__port": "0",
        "gateways__spoe__port": "0",
        "gateways__dns__port": "0",
        "gateways__dns__tls_port": "0",
        **settings,
    }
    return {**kept, **{f"BLOCKER_{name.upper()}": value for name, value in own.items()}}


def spawn(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401 - as Popen's
    """A process that is killed when this one ends."""
    setpriv = shutil.which("setpriv")
    guard = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
    return subprocess.Popen([*guard, *command], stdin=options.pop("stdin", subprocess.DEVNULL), **options)


def until(condition: Callable[[], bool], deadline: float = DEADLINE) -> None:
    """Poll until something holds."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.01)


class NodeProcess:
    """One node. Its port and directory stay the same however often it is started.

    Args:
        directory: Holds `lists`, and gets `var` and the logs.
        redis_url: None for the embedded Redis.
        roles: Parts to run.
        settings: More settings, as `environment` takes them.
    """

    def __init__(
        self, directory: Path, *, redis_url: str | None = None, roles: Sequence[str] = ("control",), **settings: str
    ) -> None:
        self.directory = directory
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.logs = directory / "node.log"
        settings = {"poll_seconds": "0.5", **settings, "http__port": str(self.port)}
        if redis_url is not None:
            settings["redis_url"] = redis_url
        self.environment = environment(directory, **settings)
        self._roles = [option for role in roles for option in ("--role", role)]

    def start(self, *, ready: bool = True) -> Self:
        """Start the process, and wait until it decides (or only answers)."""
        self.launch()
        until(lambda: self._answers(200 if ready else None))
        return self

    def launch(self) -> None:
        """Start the process and wait for nothing."""
        assert self.process is None or self.process.poll() is not None, "the node runs already"
        with self.logs.open("ab") as log:
            self.process = spawn(
                [*program(), "serve", *self._roles],
                stdout=log, stderr=log, cwd=self.directory, env=self.environment,
            )  # fmt: skip

    def _answers(self, wanted: int | None) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the node ended: {self.log()[-2000:]}"
        try:
            return self.get("/readyz")[0] in ((200, 503) if wanted is None else (wanted,))
        except OSError:
            return False

    @property
    def pid(self) -> int:
        """Process id."""
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOP_DEADLINE)

    def stop(self) -> int:
        """End it as an operator would; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_DEADLINE)

    def log(self) -> str:
        """What it has written so far."""
        return self.logs.read_text("utf-8", "replace") if self.logs.exists() else ""

    def connection(self) -> http.client.HTTPConnection:
        """A connection of one's own."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """One request on a fresh connection: status and body."""
        connection = self.connection()
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, bytes]:
        """GET."""
        return self.request("GET", path)

    def ready(self) -> dict[str, Any]:
        """What /readyz says."""
        found: dict[str, Any] = json.loads(self.get("/readyz")[1])
        return found

    def check_many(self, urls: Sequence[str]) -> list[dict[str, Any]]:
        """Decisions, all of one matcher."""
        body = json.dumps({"urls": list(urls)}).encode()
        status, text = self.request("POST", "/v1/check", body, {"content-type": "application/json"})
        assert status == 200, text
        results: list[dict[str, Any]] = json.loads(text)["results"]
        return results

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()  # so that an embedded Redis ends with it
            except subprocess.TimeoutExpired:
                self.kill()
