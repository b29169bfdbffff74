"""`/v1/check` beside a trivial FastAPI handler, and its batches of 1 000 beside squidGuard, in turns.

    python -m loadtests.http_api [rounds]

Needs squidGuard, redis-server and a C compiler. A real node with 1 M rules; one question in a hundred is listed; every
answer is checked. Single questions come over eight keep-alive connections, batches over two; squidGuard is asked with
thousands of lines in flight.
"""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from loadtests import squid_guard
from loadtests.measure import Figures, Load, flawless, free_port, middle, needs, ratio, rounds, server, show
from loadtests.node import loaded_node
from loadtests.squid_helper import IN_FLIGHT, started
from loadtests.workload import ANY, urls, write_questions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtests.node import LoadedNode

CONNECTIONS, BATCH_CONNECTIONS = 8, 2
BATCH = 1000


def single() -> Iterator[tuple[bytes, int]]:
    """One question a request."""
    for url, listed in urls():
        yield f"GET /v1/check?url={quote(url, safe='')} HTTP/1.1\r\nHost: blocker\r\n\r\n".encode(), listed


def batches() -> Iterator[tuple[bytes, int]]:
    """A thousand questions a request."""
    asked = urls()
    while chunk := list(islice(asked, BATCH)):
        body = json.dumps({"urls": [url for url, _ in chunk]}).encode()
        head = (
            f"POST /v1/check HTTP/1.1\r\nHost: blocker\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        yield head.encode() + b"\r\n\r\n" + body, sum(listed for _, listed in chunk)


def one_by_one(directory: Path, load: Load, node: LoadedNode) -> None:
    """Beside the trivial handler."""
    asked = write_questions(directory / "single", single())
    unread = write_questions(directory / "unread", ((question, ANY) for question, _ in single()))
    port = free_port()
    with server([sys.executable, "-m", "loadtests.trivial_api", str(port)], port) as trivial:
        found: dict[str, list[Figures]] = {"trivial": [], "/v1/check": []}
        for _ in range(rounds()):
            found["trivial"].append(load.run("http", unread, trivial, port, connections=CONNECTIONS))
            found["/v1/check"].append(load.run("http", asked, node.pid, node.port, connections=CONNECTIONS))
    show("http", found)
    own, peer = found["/v1/check"], found["trivial"]
    ratio("http, of the trivial handler, rate", middle(own, "rate") / middle(peer, "rate"), "3 or more")
    ratio("http, of the trivial handler, by CPU", middle(peer, "cpu") / middle(own, "cpu"), "3 or more")
    flawless(own)


def by_thousand(directory: Path, load: Load, node: LoadedNode) -> None:
    """Beside squidGuard."""
    asked = write_questions(directory / "batches", batches())
    lines = write_questions(directory / "lines", squid_guard.questions())
    with started(squid_guard.build(directory / "guard")) as [guard]:
        found: dict[str, list[Figures]] = {"squidGuard": [], "batches": []}
        for _ in range(rounds()):
            found["squidGuard"].append(
                load.run("lines", lines, guard.process.pid, (guard.to, guard.fro), depth=IN_FLIGHT)
            )
            batch = load.run("http", asked, node.pid, node.port, connections=BATCH_CONNECTIONS)
            found["batches"].append(batch.each(BATCH))
    show("batch, decisions", found)
    own, peer = found["batches"], found["squidGuard"]
    ratio("batch, of squidGuard, rate", middle(own, "rate") / middle(peer, "rate"), "20 or more")
    ratio("batch, of squidGuard, by CPU", middle(peer, "cpu") / middle(own, "cpu"), "20 or more")
    flawless(own)


def main() -> None:
    """Measure and print."""
    needs("squidGuard")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        load = Load(directory)
        with loaded_node(directory) as node:
            one_by_one(directory, load, node)
            by_thousand(directory, load, node)


if __name__ == "__main__":
    main()
