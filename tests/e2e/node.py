"""A real node and what it says through its check gateway."""

from __future__ import annotations

import http.client
import json
import secrets
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from redis import Redis

from tests.e2e.processes import NodeProcess, program
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCKED = "http://listed.example/gallery/1.jpg"


class Node:
    """A node with its list, asked through the check gateway."""

    def __init__(
        self,
        directory: Path,
        redis: RedisServer,
        configuration: str = "",
        *,
        roles: Sequence[str] = ("control",),
        **settings: str,
    ) -> None:
        (directory / "lists").mkdir()
        self.port = free_port()
        self.directory = directory
        self.deployment = f"t{secrets.token_hex(8)}"
        (directory / "blocker.toml").write_text(configuration, "utf-8")
        self.redis = redis
        self.process = NodeProcess(
            directory, redis_url=redis.url, deployment=self.deployment, log_level="debug", roles=roles,
            **{"gateways__check__port": str(self.port), **settings},
        )  # fmt: skip
        self.process.start(ready=False)

    def push(self, *lines: str) -> None:
        """Make these lines the list."""
        self.push_list("police", lines)

    def push_list(self, name: str, lines: Sequence[str], *options: str) -> None:
        """Make these lines a list of this name."""
        (self.directory / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        done = self.command("lists", "push", name, f"{name}.txt", "--publish", *options)
        assert done["status"] == "published"

    def command(self, *words: str) -> dict[str, object]:
        """Run a command on the node's deployment."""
        done = subprocess.run(
            [*program(), *words, "--json"],
            env=self.process.environment,
            cwd=self.directory,
            capture_output=True,
            check=True,
        )
        told: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return told

    def ask(self, url: str = BLOCKED) -> str:
        """The verdict, over a connection of its own; empty if there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", f"/check?url={url}")
            return connection.getresponse().read().decode().partition(" ")[0].strip()
        except OSError:
            return ""
        finally:
            connection.close()

    def workers(self) -> list[int]:
        """Process ids of those that run."""
        return children(self.process.pid)

    def hits(self) -> int:
        """All that is stored."""
        client = Redis.from_url(self.redis.url, decode_responses=True)
        with client:
            keys = [key for key in client.scan_iter(f"*{self.deployment}*hits*") if client.type(key) == "hash"]
            return sum(int(count) for key in keys for field, count in client.hgetall(key).items() if "|" in field)


def children(pid: int) -> list[int]:
    """Workers of a process."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text("utf-8").rpartition(")")[2].split()
            command = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z" and b"blocker.cli.worker" in command:
            found.append(int(status.parent.name))
    return found
