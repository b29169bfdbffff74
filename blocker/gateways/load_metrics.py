"""How busy a node and its workers are, for the metrics: connections, event loops, processor time and memory.

| metric                                | labels  | is                                                              |
|---------------------------------------|---------|-----------------------------------------------------------------|
| `blocker_connections`                 | gateway | connections that are open, of all processes together            |
| `blocker_connections_limit`           | gateway | how many may be                                                 |
| `blocker_connections_refused_total`   | gateway | connections that were one too many                              |
| `blocker_connections_cut_total`       | gateway | connections cut off because their peer was too slow             |
| `blocker_loop_lag_seconds`            | process | how late the event loop was at most within the last minute      |
| `blocker_cpu_seconds_total`           | process | processor time                                                  |
| `blocker_memory_bytes`                | process | resident memory                                                 |
| `blocker_companions`                  | kind    | workers and Squid helpers that are there                        |
| `blocker_workers_configured`          |         | workers that should be there                                    |

`process` is `node` or `worker-0` and so on; there are as many as are configured. Whether a connection stays does not
depend on what is decided on it. Times and memory move with single requests and are therefore told coarsely: steps of
5 ms, whole seconds, 16 MiB.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from blocker.hits.families import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from blocker.gateways.load import Connections, Load

# Steps in which is told what single requests could move.
CPU_STEP_SECONDS = 1
MEMORY_STEP_BYTES = 16 * 2**20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Companions(Protocol):
    """What is needed of the host of companions."""

    def count(self, gateway: str) -> int:
        """How many companions of a kind are there."""

    def loads(self) -> Iterable[tuple[int, float, Mapping[str, Connections]]]:
        """Of each companion that has gateways: process id, lag of its event loop, its open connections."""

    def take_ended(self) -> Mapping[str, Connections]:
        """What companions refused and cut since this was last asked, by gateway."""


class LoadFamilies:
    """The metrics of a node and its workers; see `blocker.hits.families.FamilySource`.

    Args:
        load: The node's own.
        host: Knows the workers.
        workers: Number → process id, of the workers that run.
        configured: How many there should be.
    """

    def __init__(self, load: Load, host: Companions, workers: Callable[[], Mapping[int, int]], configured: int) -> None:
        self._load = load
        self._host = host
        self._workers = workers
        self._configured = configured
        self._refused: Counter[str] = Counter()
        self._cut: Counter[str] = Counter()

    def families(self) -> Iterator[Family]:
        """Cost: 30 µs, and 30 µs for each worker, since /proc is read."""
        loads = list(self._host.loads())
        yield from self._connections([connections for _, _, connections in loads])
        yield from self._processes({pid: lag for pid, lag, _ in loads})
        companions = Family("blocker_companions", "gauge", "Workers and Squid helpers that are there.", ["kind"])
        for kind in ("worker", "squid-helper"):
            companions.add(self._host.count(kind), kind)
        yield companions
        configured = Family("blocker_workers_configured", "gauge", "Workers that should be there.")
        configured.add(self._configured)
        yield configured

    def _connections(self, others: Iterable[Mapping[str, Connections]]) -> Iterator[Family]:
        opened: Counter[str] = Counter()
        limits: Counter[str] = Counter()
        own = self._load.take()
        for found in others if self._configured else (own,):  # with workers the node itself accepts none
            for name, one in found.items():
                opened[name] += one.open
                limits[name] += one.limit
        for found in (own, self._host.take_ended()):
            for name, one in found.items():
                self._refused[name] += one.refused
                self._cut[name] += one.cut
        for name, kind, documentation, counts in (
            ("blocker_connections", "gauge", "Connections that are open.", opened),
            ("blocker_connections_limit", "gauge", "How many connections may be open.", limits),
            ("blocker_connections_refused", "counter", "Connections that were one too many.", self._refused),
            ("blocker_connections_cut", "counter", "Connections cut off for a peer too slow.", self._cut),
        ):
            family = Family(name, "counter" if kind == "counter" else "gauge", documentation, ["gateway"])
            for gateway in own:
                family.add(counts[gateway], gateway)
            yield family

    def _processes(self, lags: Mapping[int, float]) -> Iterator[Family]:
        lag = Family(
            "blocker_loop_lag_seconds", "gauge", "How late the event loop was at most within a minute.", ["process"]
        )
        cpu = Family("blocker_cpu_seconds", "counter", "Processor time, in whole seconds.", ["process"])
        memory = Family("blocker_memory_bytes", "gauge", "Resident memory, in steps of 16 MiB.", ["process"])
        lag.add(self._load.lag_seconds, "node")
        processes = {"node": os.getpid(), **{f"worker-{number}": pid for number, pid in self._workers().items()}}
        for name, pid in processes.items():
            if pid in lags:
                lag.add(lags[pid], name)
            try:
                seconds, resident = _used(pid)
            except (OSError, ValueError, IndexError):
                continue  # it has just ended, or this is no Linux
            cpu.add(seconds // CPU_STEP_SECONDS * CPU_STEP_SECONDS, name)
            memory.add(-(-resident // MEMORY_STEP_BYTES) * MEMORY_STEP_BYTES, name)
        yield from (lag, cpu, memory)


def _used(pid: int) -> tuple[float, int]:
    """Processor seconds and resident bytes of a process (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND, int(fields[21]) * _PAGE_BYTES
