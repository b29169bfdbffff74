"""`blocker squid-helper` beside squidGuard, and beside a C helper that only echoes lines.

    python -m loadtests.squid_helper [rounds]

Needs squidGuard, redis-server and a C compiler. All are url_rewrite programs on two pipes, the helper is a companion of
a real node with 1 M rules; one question in a hundred is listed; every answer of it and of squidGuard is checked.
Asked with thousands of lines in flight (answers a second), and one at a time (median latency). Then the memory of
twenty helpers beside that of one.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from loadtests import squid_guard
from loadtests.measure import (
    SERVER_CORE,
    Figures,
    Load,
    compiled,
    flawless,
    middle,
    needs,
    on_core,
    ratio,
    rounds,
    show,
)
from loadtests.node import LoadedNode, loaded_node
from loadtests.workload import ANY, write_questions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

IN_FLIGHT = 8192
HELPERS = 20


class Helper:
    """A helper on two pipes, as Squid starts it."""

    def __init__(self, command: Sequence[str]) -> None:
        read, self.to = os.pipe()
        self.fro, write = os.pipe()
        with on_core(SERVER_CORE):
            self.process = subprocess.Popen(command, stdin=read, stdout=write)
        os.close(read)
        os.close(write)

    def ask(self, line: bytes) -> bytes:
        """One question: it has started once it answers."""
        os.write(self.to, line)
        return os.read(self.fro, 4096)

    def memory(self) -> dict[str, int]:
        """Resident memory in kB, and the share of it that is its own (Documentation/filesystems/proc.rst)."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text("ascii")
        fields = (line.split() for line in text.splitlines()[1:])
        return {field[0].rstrip(":"): int(field[1]) for field in fields}

    def close(self) -> None:
        """End it as Squid does."""
        os.set_blocking(self.to, True)
        os.close(self.to)
        os.close(self.fro)
        self.process.wait(30)


def ours(node: LoadedNode) -> list[str]:
    """The command of our helper."""
    return [
        str(Path(sys.prefix) / "bin" / "blocker"), "squid-helper",
        "--socket", str(node.directory / "var" / "node.sock"), "--redirect", squid_guard.STOP_PAGE,
    ]  # fmt: skip


@contextlib.contextmanager
def started(command: Sequence[str], count: int = 1) -> Iterator[list[Helper]]:
    """Helpers that answer."""
    helpers = [Helper(command) for _ in range(count)]
    try:
        for helper in helpers:
            helper.ask(b"http://domain1.example/ 192.0.2.1/- - GET\n")
        yield helpers
    finally:
        for helper in helpers:
            helper.close()


def measure(directory: Path, node: LoadedNode) -> None:
    """Rates and latencies."""
    load = Load(directory)
    asked = write_questions(directory / "lines", squid_guard.questions())
    echoed = write_questions(directory / "echoed", ((line, ANY) for line, _ in squid_guard.questions()))
    commands = {
        "echo": [str(compiled(directory, "echo"))],
        "squidGuard": squid_guard.build(directory / "guard"),
        "squid-helper": ours(node),
    }
    with contextlib.ExitStack() as stack:
        helpers = {side: stack.enter_context(started(command))[0] for side, command in commands.items()}
        for title, depth in (("pipelined", IN_FLIGHT), ("one at a time", 1)):
            found: dict[str, list[Figures]] = {side: [] for side in helpers}
            for _ in range(rounds()):
                for side, helper in helpers.items():
                    questions = echoed if side == "echo" else asked
                    found[side].append(
                        load.run("lines", questions, helper.process.pid, (helper.to, helper.fro), depth=depth)
                    )
            show(f"{title:13}", found)
            report(title, found)
            flawless(found["squid-helper"])


def report(title: str, found: dict[str, list[Figures]]) -> None:
    """The ratios that count."""
    own, guard, echo = found["squid-helper"], found["squidGuard"], found["echo"]
    if title == "pipelined":
        ratio(f"{title}, of squidGuard, rate", middle(own, "rate") / middle(guard, "rate"), "25 or more")
        ratio(f"{title}, of squidGuard, by CPU", middle(guard, "cpu") / middle(own, "cpu"), "25 or more")
        ratio(f"{title}, of echo, rate", middle(own, "rate") / middle(echo, "rate"), "0.4 or more")
        ratio(f"{title}, of echo, by CPU", middle(echo, "cpu") / middle(own, "cpu"), "0.4 or more")
    else:
        ratio(f"{title}, times echo, p50", middle(own, "median") / middle(echo, "median"), "1.4 or less")


def weigh(node: LoadedNode) -> None:
    """Memory of one helper and of twenty."""
    sums = {}
    for count in (1, HELPERS):
        with started(ours(node), count) as helpers:
            memories = [helper.memory() for helper in helpers]
        sums[count] = sum(memory["Pss"] for memory in memories) / 1024
        resident = sum(memory["Rss"] for memory in memories) / 1024
        print(f"memory  {count:2} helpers: {sums[count]:.1f} MiB of their own (PSS), {resident:.1f} MiB resident (RSS)")
    print(f"memory  each further helper: {(sums[HELPERS] - sums[1]) / (HELPERS - 1):.1f} MiB")


def main() -> None:
    """Measure and print."""
    needs("squidGuard")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with loaded_node(directory) as node:
            measure(directory, node)
            weigh(node)


if __name__ == "__main__":
    main()
