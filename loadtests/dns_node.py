"""A whole node with the dns gateway beside PowerDNS Recursor and Unbound with the same names in an RPZ.

    python -m loadtests.dns_node [rounds]

Needs redis-server, unbound, unbound-control and pdns_recursor. 700 k blocked domains with all below them.

- start: from starting the program to the first right answer; the node has its copy on disk, the store is there, and all
  files are in memory. Beside it what of that is the program's own start, and the mapping of the table
- memory: resident, after the first answers (smaps), of the node with every gateway and its control plane
- change: from the commit, or from the order to read the changed file, to the first answer by the new list; and the
  longest time without any answer from before that until three seconds after
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from blocker._native import Table
from blocker.store.sealing import Keyring
from loadtests.dns import POWERDNS, UNBOUND, blocks
from loadtests.measure import LOAD_CORE, SERVER_CORE, free_port, needs, on_core, ratio, rounds
from loadtests.node import LIST, LoadedNode, give_way
from loadtests.workload import RULES, domains, name
from tests.e2e.processes import program, until
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Names that are in one of the versions only.
ADDED = [name(3 * (RULES + number)) for number in range(1000)]
# Unbound has read the file for half a minute on a busy machine.
DEADLINE = 180.0
# So long before and after a change answers are watched, in seconds.
WATCHED_SECONDS = 1.0, 3.0
CONTROL = """
remote-control:
  control-enable: yes
  control-use-cert: no
  control-interface: {directory}/control
"""


def write_zone(directory: Path, names: list[str], serial: int) -> None:
    """The list as a response policy zone."""
    beside = directory / "rpz.new"
    with beside.open("w", encoding="utf-8") as zone:
        soa = f"@ SOA ns.test. admin.test. {serial} 3600 600 86400 60\n@ NS ns.test.\n"
        zone.write(f"$ORIGIN rpz.test.\n$TTL 300\n{soa}")
        zone.writelines(f"{one} CNAME .\n*.{one} CNAME .\n" for one in names)
    beside.replace(directory / "rpz.zone")


def resident(pid: int) -> float:
    """Mebibytes of a process."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text("ascii"))
    assert found is not None
    return int(found[1]) / 1024


class Peer:
    """Another resolver; it starts with the zone that is there."""

    def __init__(self, directory: Path, kind: str) -> None:
        self.port, self._directory = free_port(), directory
        if kind == "unbound":
            text = UNBOUND + CONTROL
            (directory / "unbound.conf").write_text(text.format(port=self.port, directory=directory), "utf-8")
            self._command = ["unbound", "-c", str(directory / "unbound.conf")]
        else:
            (directory / "recursor.conf").write_text(POWERDNS.format(port=self.port, directory=directory), "utf-8")
            (directory / "rpz.lua").write_text(
                f'rpzFile("{directory}/rpz.zone", {{defpol=Policy.NXDOMAIN}})\n', "utf-8"
            )
            self._command = ["pdns_recursor", f"--config-dir={directory}"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; it need not answer yet."""
        with on_core(SERVER_CORE):
            self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def control(self, *words: str) -> None:
        """Order Unbound; returns once it has."""
        with on_core(LOAD_CORE):
            subprocess.run(
                ["unbound-control", "-c", str(self._directory / "unbound.conf"), *words],
                stdout=subprocess.DEVNULL, timeout=DEADLINE, check=True,
            )  # fmt: skip


def started(start: Callable[[], object], port: int, listed: str) -> float:
    """Seconds from starting to the first right answer."""
    begun = time.monotonic()
    start()
    until(lambda: asks(port, listed), DEADLINE)
    return time.monotonic() - begun


def asks(port: int, listed: str) -> bool:
    """Whether a listed name is blocked; who does not listen yet has said so at once."""
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
    return blocks(port, listed)


@contextlib.contextmanager
def watched(port: int, found: list[float]) -> Iterator[None]:
    """Answers are watched meanwhile; the longest time without one comes into `found`, in seconds."""
    with on_core(LOAD_CORE):
        process = subprocess.Popen(
            [sys.executable, "-m", "loadtests.dns_gap", str(port), name(0)], stdout=subprocess.PIPE
        )
    try:
        time.sleep(WATCHED_SECONDS[0])
        yield
        time.sleep(WATCHED_SECONDS[1])
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=60)
        found.append(json.loads(told)["gap"])
    finally:
        process.kill()
        process.wait()


def swap_node(node: LoadedNode, port: int, serial: int, *, marked: bool) -> float:
    """Roll back to a serial; seconds from its commit to the first answer by it."""
    before = node.commits()
    with on_core(LOAD_CORE):
        command = subprocess.Popen(
            [*program(), "lists", "rollback", LIST, str(serial), "--reason", "load"],
            env=node.environment, cwd=node.directory, stdout=subprocess.DEVNULL, preexec_fn=give_way,
        )  # fmt: skip
    until(lambda: node.commits() > before, DEADLINE)
    begun = time.monotonic()
    until(lambda: blocks(port, ADDED[0]) == marked, DEADLINE)
    took = time.monotonic() - begun
    assert command.wait(60) == 0
    return took


def swap_unbound(peer: Peer, *, marked: bool) -> float:
    """Have it read the file; seconds to the first answer by it."""
    begun = time.monotonic()
    peer.control("auth_zone_reload", "rpz.test")
    until(lambda: blocks(peer.port, ADDED[0]) == marked, DEADLINE)
    return time.monotonic() - begun


def show(title: str, found: dict[str, list[float]], unit: str, digits: int = 2) -> dict[str, float]:
    """Medians with the least and the most."""
    for side, values in found.items():
        low, middle, high = (f"{v:.{digits}f}" for v in (min(values), statistics.median(values), max(values)))
        print(f"{title:28} {side:10} {middle} ({low}..{high}) {unit}", flush=True)
    return {side: statistics.median(values) for side, values in found.items()}


def table_seconds(node: LoadedNode) -> float:
    """How long the node's table takes to map."""
    data = Path(node.environment["BLOCKER_DATA_DIR"])
    key = Keyring.load_or_create(data / "keys", create=False).lookup
    begun = time.monotonic()
    Table.open(data / "snapshot" / "table", key)
    return time.monotonic() - begun


def main() -> None:
    """Measure and print."""
    needs("unbound", "unbound-control", "pdns_recursor")
    names, count = list(domains()), rounds(3)
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as running:
        directory, port = Path(temporary), free_port()
        write_zone(directory, names, 1)
        (directory / "lists").mkdir()
        with on_core(LOAD_CORE):
            redis = running.enter_context(RedisServer(directory / "redis"))
        node = LoadedNode(
            directory, redis, gateways__dns__port=str(port), gateways__dns__upstreams='["127.0.0.1:9"]',
            gateways__dns__rate="0", canary_seconds="3600", node=secrets.token_hex(4),
        )  # fmt: skip
        running.enter_context(node)
        unbound, powerdns = (Peer(directory, kind) for kind in ("unbound", "powerdns"))
        for peer in (unbound, powerdns):
            running.callback(peer.stop)

        def start_node() -> None:
            with on_core(SERVER_CORE):
                node.launch()

        start_node()
        node.push(f"http://*.{one}" for one in names)
        until(lambda: blocks(port, names[-1]), DEADLINE)
        until((Path(node.environment["BLOCKER_DATA_DIR"]) / "snapshot" / "table").exists)
        time.sleep(WATCHED_SECONDS[0])  # until the copy on disk is whole
        starts: dict[str, list[float]] = {"node": [], "powerdns": []}
        memory: dict[str, list[float]] = {"node": [], "powerdns": []}
        for _ in range(count):
            node.stop()
            starts["node"].append(started(start_node, port, names[0]))
            until(lambda: node.get("/readyz")[0] == 200)
            memory["node"].append(resident(node.pid))
            powerdns.stop()
            starts["powerdns"].append(started(powerdns.start, powerdns.port, names[0]))
            memory["powerdns"].append(resident(powerdns.pid))
        print(f"of the node's start, mapping the table: {table_seconds(node) * 1000:.1f} ms")
        middle = show("start to first right answer", starts, "s")
        ratio("start, times sooner than PowerDNS", middle["powerdns"] / middle["node"], "50 or more")
        middle = show("memory", memory, "MiB", 0)
        ratio("memory, of PowerDNS", middle["node"] / middle["powerdns"], "0.25 or less")
        powerdns.stop()
        serials = {False: 1, True: int(node.push(f"http://*.{one}" for one in [*names, *ADDED])["serial"])}
        until(lambda: blocks(port, ADDED[0]), DEADLINE)
        unbound.start()
        until(lambda: blocks(unbound.port, names[0]), DEADLINE)
        changes: dict[str, list[float]] = {"node": [], "unbound": []}
        gaps: dict[str, list[float]] = {"node": [], "unbound": [], "node, no change": []}
        for turn in range(2 * count):
            with watched(port, gaps["node, no change"]):
                pass
            with watched(port, gaps["node"]):
                changes["node"].append(swap_node(node, port, serials[bool(turn % 2)], marked=bool(turn % 2)))
            if turn < 2:  # half a minute each
                marked = turn == 0
                write_zone(directory, names + (ADDED if marked else []), turn + 2)
                with watched(unbound.port, gaps["unbound"]):
                    changes["unbound"].append(swap_unbound(unbound, marked=marked))
        middle = show("change to new answer", changes, "s", 3)
        ratio("change, times sooner than Unbound", middle["unbound"] / middle["node"], "100 or more")
        middle = show("longest gap", {side: [1000 * one for one in gaps[side]] for side in gaps}, "ms", 1)
        ratio("longest gap, milliseconds", middle["node"], "5 or less")


if __name__ == "__main__":
    main()
