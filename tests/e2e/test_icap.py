"""A real ICAP client that is not Squid: c-icap's own, with and without preview and 204."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.e2e.node import Node
from tests.e2e.processes import until
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def node(tmp_path: Path, redis: RedisServer, port: int) -> Iterator[Node]:
    running = Node(tmp_path, redis, gateways__icap__port=str(port))
    yield running
    if running.process.process is not None and running.process.process.poll() is None:
        running.process.kill()


def client(port: int, *options: str) -> tuple[str, str]:
    """What c-icap-client got: the output, and the headers that it tells."""
    done = subprocess.run(
        ["c-icap-client", "-i", "127.0.0.1", "-p", str(port), "-s", "reqmod", "-v", *options],
        capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    return done.stdout.decode("latin-1"), done.stderr.decode("latin-1")


WAYS: tuple[list[str], ...] = ([], ["-nopreview"], ["-no204"], ["-nopreview", "-no204"], ["-w", "4"], ["-w", "1024"])


def test_it_asks_in_every_way(node: Node, port: int, tmp_path: Path) -> None:
    node.push("http://listed.example/gallery/", "http://*.whole.example")
    until(lambda: node.ask() == "block")
    body = tmp_path / "body"
    body.write_bytes(bytes(range(256)) * 400)
    kept = tmp_path / "kept"
    for way in WAYS:
        for method in ("GET", "POST"):
            if method == "POST" and "-nopreview" not in way:
                continue  # this client shows no answer that comes within a preview; Squid does
            sent = ["-f", str(body)] if method == "POST" else []
            options = ["-method", method, *sent, "-req", "http://listed.example/gallery/1.jpg?x=y", *way]
            page, headers = client(port, *options)
            assert "451" in headers, options
            assert "Access to the page you asked for was stopped" in page, options
        kept.unlink(missing_ok=True)
        _, headers = client(
            port, "-method", "POST", "-f", str(body), "-o", str(kept), "-req", "http://harmless.example/", *way
        )  # fmt: skip
        assert "451" not in headers
        if "-no204" in way and "-nopreview" in way:
            assert kept.read_bytes() == body.read_bytes(), "what comes back is what was sent"
    told = client(port)
    assert "ISTag" in "".join(told)
    assert "REQMOD" in "".join(told)


def test_the_istag_moves_with_the_lists(node: Node, port: int) -> None:
    def tag() -> str:
        lines = "".join(client(port)).splitlines()
        return next(line.strip() for line in lines if "ISTag" in line)

    node.push("http://listed.example/gallery/")
    until(lambda: node.ask() == "block")
    first = tag()
    assert tag() == first
    node.push("http://listed.example/gallery/", "http://new.example/")
    until(lambda: node.ask("http://new.example/") == "block")
    second = tag()
    assert second != first
    node.command("lists", "rollback", "police", "1", "--reason", "test")
    until(lambda: node.ask("http://new.example/") == "allow")
    assert tag() not in (first, second), "another serial, though the same list"
