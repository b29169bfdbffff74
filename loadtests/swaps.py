"""What a swap of the million rules costs those who ask meanwhile, through the check gateway of a real node.

    python -m loadtests.swaps [swaps]

Needs redis-server and a C compiler. The list changes between two whole versions again and again, by
`blocker lists rollback`, whose own time is counted apart. First 32 connections ask at half of what the gateway can do;
then 900 ask while 100 hostile ones are slow, never end, send garbage or do not read. Latencies are those from when a
question was due, so that a stall counts for all that it holds up. Both with the gateway in the node's process and in
two workers. It fails if an answer was wrong or lost, or if p99.9 while lists are swapped is more than twice that
between.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtests.measure import LOAD_CORE, Load, free_port, on_core, ratio, rounds, show
from loadtests.node import LIST, LoadedNode, give_way, loaded_node
from loadtests.spoe import check_question
from loadtests.workload import RULES, lines, name, urls, write_questions
from tests.e2e.processes import program, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SWAPS = 10
CONNECTIONS = 32
HELD, HOSTILE = 900, 100
# Rules that are in one of the versions only; nobody asks for them.
CHANGED = 1000
# Between two swaps, in seconds: about as long as a swap takes, so that both phases are asked as often.
QUIET_SECONDS = 2.0
# So long after a swap the node still writes its snapshot, in seconds.
AFTER_SECONDS = 1.0
MOST = 2.0


class Swapper:
    """A node with two versions of the list, and the gateway that is asked."""

    def __init__(self, node: LoadedNode, port: int) -> None:
        self.node = node
        self.port = port
        added = [f"http://*.{name(3 * (RULES + number))}" for number in range(CHANGED)]
        self._marker = f"http://{name(3 * RULES)}/"
        self._serials = [1, int(node.push(lines() + added)["serial"])]
        self._second = True
        self._until_enforced()

    def swap(self, committed: Callable[[], object]) -> None:
        """Enforce the other version; `committed` is called once the store has it and the node may begin."""
        self._second = not self._second
        before = self.node.commits()
        with on_core(LOAD_CORE):
            command = subprocess.Popen(
                [*program(), "lists", "rollback", LIST, str(self._serials[self._second]), "--reason", "load"],
                env=self.node.environment, cwd=self.node.directory, stdout=subprocess.DEVNULL, preexec_fn=give_way,
            )  # fmt: skip
        until(lambda: self.node.commits() > before)
        committed()
        self._until_enforced()
        assert command.wait(60) == 0

    def _until_enforced(self) -> None:
        until(lambda: self._blocked(self._marker) == self._second)

    def _blocked(self, url: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/nginx", headers={"X-Original-URL": url})
            return connection.getresponse().status == 403


@contextlib.contextmanager
def hostile(port: int, count: int) -> Iterator[None]:
    """Peers that mean no good."""
    with on_core(LOAD_CORE):
        process = subprocess.Popen(
            [sys.executable, "-m", "loadtests.hostile", str(port), str(count)], stdout=subprocess.PIPE
        )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        assert process.poll() is None, "the hostile peers have ended"
    finally:
        process.kill()
        process.wait()


def saturation(load: Load, questions: Path, node: LoadedNode, port: int, connections: int) -> float:
    """Answers a second that the gateway surely can give: the least of three runs."""
    rows = [load.run("http", questions, node.pid, port, connections=connections) for _ in range(3)]
    show(f"{connections} connections", {"saturated": rows})
    return min(row.rate for row in rows)


def asked(command: list[str], swapper: Swapper, swaps: int) -> dict[str, Any]:
    """What the load tells of times with swaps and without, in turns."""
    with on_core(LOAD_CORE):
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        for _ in range(swaps):
            time.sleep(QUIET_SECONDS)
            process.send_signal(signal.SIGHUP)
            swapper.swap(lambda: process.send_signal(signal.SIGUSR2))
            time.sleep(AFTER_SECONDS)
            process.send_signal(signal.SIGUSR1)
        time.sleep(QUIET_SECONDS)
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    found: dict[str, Any] = json.loads(told)
    return found


def report(title: str, found: dict[str, Any]) -> bool:
    """Shows it; whether all is well."""
    quiet, swapping, publishing = found["phases"]
    phases = {"between swaps": quiet, "while swapped": swapping, "while published": publishing}
    for phase, figures in phases.items():
        told = "  ".join(f"{field} {figures[field] / 1000:,.0f} µs" for field in ("p50", "p99", "p999", "max"))
        print(f"{title}  {phase}  {figures['answers']:,} answers  {told}")
    wrong = found["missed"] + found["excess"]
    print(f"{title}  wrong {wrong}, lost {found['lost']}, of {found['asked']:,}")
    times = swapping["p999"] / quiet["p999"]
    ratio(f"{title}, p99.9 while swapped, times that between", times, "1.3 or less")
    return bool(wrong == found["lost"] == 0 and times <= MOST)


def main() -> None:
    """Measure and print."""
    swaps, well = rounds(SWAPS), True
    for workers in (0, 2):
        with tempfile.TemporaryDirectory() as directory:
            path, port = Path(directory), free_port()
            load = Load(path, seconds=1.5)
            questions = write_questions(path / "questions", ((check_question(url), listed) for url, listed in urls()))
            with loaded_node(path, gateways__workers=str(workers), gateways__check__port=str(port)) as node:
                swapper = Swapper(node, port)
                for title, connections, enemies in (("calm", CONNECTIONS, 0), ("hostile", HELD, HOSTILE)):
                    with hostile(port, enemies) if enemies else contextlib.nullcontext():
                        rate = saturation(load, questions, node, port, connections) / 2
                        command = load.command(
                            "http", questions, str(port), connections=connections, depth=1, rate=rate, seconds=3600
                        )
                        well &= report(f"{workers} workers, {title}", asked(command, swapper, swaps))
    if not well:
        sys.exit(1)


if __name__ == "__main__":
    main()
