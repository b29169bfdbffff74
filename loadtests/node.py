"""A real node on loopback with the million rules: Redis and `blocker serve` in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
from typing import TYPE_CHECKING, Any

from blocker.store.keys import Keys
from loadtests.measure import LOAD_CORE, SERVER_CORE, on_core
from loadtests.workload import RULES, lines, name
from tests.e2e.processes import NodeProcess, program, until
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

LIST = "police"


class LoadedNode(NodeProcess):
    """A node whose list is pushed by `blocker lists push`.

    Args:
        directory: See `NodeProcess`.
        redis: Its store.
        settings: See `NodeProcess`.
    """

    def __init__(self, directory: Path, redis: RedisServer, **settings: str) -> None:
        deployment = f"l{secrets.token_hex(8)}"
        super().__init__(directory, redis_url=redis.url, deployment=deployment, **settings)
        self._redis = redis
        self._commits = Keys(deployment).commits

    def commits(self) -> int:
        """How many changes of lists there were."""
        return int(self._redis.command("XLEN", self._commits)[1:])

    def push(self, entries: Iterable[str]) -> dict[str, Any]:
        """Make these lines the list, from a process of the load's core."""
        path = self.directory / "list.txt"
        path.write_text("\n".join(entries), "utf-8")
        with on_core(LOAD_CORE):
            told = subprocess.run(
                [*program(), "lists", "push", LIST, str(path), "--publish", "--json"],
                env=self.environment, cwd=self.directory, stdout=subprocess.PIPE, check=True,
            ).stdout  # fmt: skip
        found: dict[str, Any] = json.loads(told.splitlines()[-1])
        assert found["status"] == "published", found["status"]
        return found

    def decides(self, url: str, verdict: str) -> bool:
        """Whether it says so of an address."""
        return bool(self.check_many([url])[0]["verdict"] == verdict)


def give_way() -> None:
    """Have this process leave most of its core to the load that it shares it with."""
    os.nice(10)


@contextlib.contextmanager
def loaded_node(directory: Path, rules: int = RULES, **settings: str) -> Iterator[LoadedNode]:
    """A node on the server's core that enforces the list; Redis is on the load's."""
    (directory / "lists").mkdir()
    with on_core(LOAD_CORE):
        redis = RedisServer(directory / "redis").start()
    try:
        with LoadedNode(directory, redis, **settings) as node:
            with on_core(SERVER_CORE):
                node.start(ready=False)
            node.push(lines(rules))
            until(lambda: node.get("/readyz")[0] == 200 and node.decides(f"http://{name(0)}/", "block"))
            yield node
    finally:
        redis.close()
