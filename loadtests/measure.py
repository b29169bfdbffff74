"""Processes on their cores, what they cost, and how figures are shown."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SERVER_CORE, LOAD_CORE = 0, 1
SOURCES = Path(__file__).parent
# A server that loads a million rules has needed half a minute on a busy machine.
_START_SECONDS = 120.0


@dataclass(frozen=True)
class Figures:
    """One run of the load."""

    rate: float  # answers a second
    cpu: float  # microseconds of the server's user and system time an answer
    median: float  # latency in microseconds
    wrong: int = 0  # answers that say something else than the list
    lost: int = 0  # questions without an answer
    late: float = 0.0  # latency in microseconds that one answer in a thousand exceeds

    def each(self, parts: int) -> Figures:
        """The same for parts of an answer, such as the decisions of a batch."""
        return replace(self, rate=self.rate * parts, cpu=self.cpu / parts)


def needs(*programs: str) -> None:
    """Ends the program where one of these is not installed."""
    missing = [one for one in programs if shutil.which(one) is None]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}")


def rounds(default: int = 5) -> int:
    """How many the command line asks for."""
    return int(sys.argv[1]) if sys.argv[1:] else default


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started meanwhile runs on this core, and whatever it starts too."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core} & before or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text("ascii").split():
                found += tree(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time so far of a process and those below it (proc(5))."""
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text("utf-8").rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait(port: int) -> None:
    """Until somebody listens."""
    end = time.monotonic() + _START_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > end:
            sys.exit("a server did not start in time")
        time.sleep(0.1)


@contextlib.contextmanager
def server(command: Sequence[str], port: int, **options: Any) -> Iterator[int]:  # noqa: ANN401 - as Popen's
    """A server on its core, listening; its process id."""
    with on_core(SERVER_CORE):
        process = subprocess.Popen(command, **options)
    try:
        wait(port)
        yield process.pid
    finally:
        for one in tree(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, 9)
        process.wait()


def gateway(name: str, port: int) -> list[str]:
    """The command that serves one gateway alone, with the list."""
    return [sys.executable, "-m", "loadtests.gateway", name, str(port)]


def compiled(directory: Path, name: str) -> Path:
    """A C program of this directory."""
    needs("cc")
    program = directory / name
    subprocess.run(["cc", "-O2", "-o", str(program), str(SOURCES / f"{name}.c")], check=True)
    return program


class Load:
    """`load.c`, compiled.

    Args:
        directory: Where to.
        seconds: How long each run lasts.
    """

    def __init__(self, directory: Path, seconds: float = 3.0) -> None:
        self._program = str(compiled(directory, "load"))
        self._seconds = seconds

    def command(
        self, protocol: str, questions: Path, target: str, *, connections: int, depth: int, rate: float, seconds: float
    ) -> list[str]:
        """How the program is called."""
        numbers = [str(connections), str(depth), str(rate), str(seconds)]
        return [self._program, protocol, *numbers, str(questions), target]

    def run(
        self, protocol: str, questions: Path, pid: int, target: int | tuple[int, int], *,
        connections: int = 1, depth: int = 1, rate: float = 0.0,
    ) -> Figures:  # fmt: skip
        """Ask the server of this process at a port, or over descriptors to and from it."""
        descriptors = target if isinstance(target, tuple) else ()
        where = ",".join(map(str, descriptors)) or str(target)
        command = self.command(
            protocol, questions, where, connections=connections, depth=depth, rate=rate, seconds=self._seconds
        )
        before = cpu_seconds(pid)
        with on_core(LOAD_CORE):
            told = subprocess.run(command, stdout=subprocess.PIPE, check=True, pass_fds=descriptors).stdout
        return figures(told, cpu_seconds(pid) - before)


def figures(told: bytes, used: float) -> Figures:
    """What `load.c` told, beside the seconds of processor time that it took the server."""
    found = json.loads(told)
    [first, *others] = found["phases"]
    answers = sum(phase["answers"] for phase in (first, *others))
    return Figures(
        rate=answers / found["seconds"],
        cpu=used / max(answers, 1) * 1e6,
        median=first["p50"] / 1000,
        wrong=found["missed"] + found["excess"],
        lost=found["lost"],
        late=first["p999"] / 1000,
    )


def middle(rows: Sequence[Figures], field: str) -> float:
    """The median of a figure."""
    return float(statistics.median(getattr(row, field) for row in rows))


def show(title: str, found: dict[str, list[Figures]], fields: Sequence[str] = ("rate", "cpu", "median")) -> None:
    """Medians with the lowest and the highest, a line for each side."""
    forms = {
        "rate": ("", "/s", 0), "cpu": ("", " µs CPU", 2), "median": ("p50 ", " µs", 1), "late": ("p99.9 ", " µs", 0),
    }  # fmt: skip
    for side, rows in found.items():
        told = []
        for field in fields:
            before, unit, digits = forms[field]
            values = [getattr(row, field) for row in rows]
            low, mid, high = (f"{value:,.{digits}f}" for value in (min(values), middle(rows, field), max(values)))
            told.append(f"{before}{mid} ({low}..{high}){unit}")
        wrong, lost = (sum(getattr(row, field) for row in rows) for field in ("wrong", "lost"))
        faults = f"  wrong {wrong}, lost {lost}" if wrong or lost else ""
        print(f"{title}  {side:20} {'  '.join(told)}{faults}")


def ratio(title: str, value: float, target: str) -> None:
    """A figure that counts, beside what is wanted."""
    print(f"{title}: {value:.2f} (wanted {target})", flush=True)


def flawless(rows: Sequence[Figures]) -> None:
    """Ends the program if an answer was wrong or lost."""
    wrong, lost = (sum(getattr(row, field) for row in rows) for field in ("wrong", "lost"))
    if wrong or lost:
        sys.exit(f"wrong answers: {wrong}, lost: {lost}")
