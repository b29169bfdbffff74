"""The dns gateway beside Unbound and PowerDNS Recursor with the same names in an RPZ: CPU time a query, memory, start.

    python loadtests/dns.py [rounds] [names]

Needs dnsperf, unbound and pdns_recursor. The server runs on core 0, the load on core 1; all serve in turns, so that
what else the machine does falls on all. 700 k blocked domains with what is below them; every query is for one of them.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from zoneinfo import ZoneInfo

import uvloop

from blocker._native import LineParser, Table
from blocker.gateways.dns import DnsListener
from blocker.gateways.dns_probe import query
from blocker.gateways.engine import VerdictEngine
from blocker.hits.counters import HitCounter
from blocker.matcher import ListMetadata, Matcher
from blocker.sections import DnsSettings

NAMES = 700_000
SECONDS = 4
KEY = bytes(16)
SERVERS = ("blocker", "unbound", "powerdns")
UNBOUND = """
server:
  interface: 127.0.0.1@{port}
  access-control: 127.0.0.0/8 allow
  do-daemonize: no
  num-threads: 1
  username: ""
  chroot: ""
  directory: "{directory}"
  pidfile: ""
  use-syslog: no
  logfile: "{directory}/unbound.log"
  module-config: "respip iterator"
rpz:
  name: "rpz.test"
  zonefile: "{directory}/rpz.zone"
"""
POWERDNS = """
local-address=127.0.0.1
local-port={port}
daemon=no
threads=1
pdns-distributes-queries=no
socket-dir={directory}
config-dir={directory}
security-poll-suffix=
lua-config-file={directory}/rpz.lua
hint-file=no
quiet=yes
"""


class Round(NamedTuple):
    """One run of the load: queries a second, CPU microseconds a query."""

    rate: float
    cpu: float


def prepare(directory: Path, names: int) -> None:
    """The list as a table and as a zone, and the queries."""
    domains = [f"domain{number}.example" for number in range(names)]
    parser = LineParser("url")
    parser.feed("".join(f"http://*.{name}\n" for name in domains).encode())
    run = parser.finish().nodes(KEY)
    Table.build([("list", 1, False, ListMetadata().dump(), run)], KEY).save(directory / "table")
    with (directory / "rpz.zone").open("w", encoding="utf-8") as zone:
        zone.write("$ORIGIN rpz.test.\n$TTL 300\n@ SOA ns.test. admin.test. 1 3600 600 86400 60\n@ NS ns.test.\n")
        zone.writelines(f"{name} CNAME .\n*.{name} CNAME .\n" for name in domains)
    (directory / "rpz.lua").write_text(f'rpzFile("{directory}/rpz.zone", {{defpol=Policy.NXDOMAIN}})\n', "utf-8")
    draw = random.Random(1)  # noqa: S311 - the same load for all
    asked = (draw.choice(domains) for _ in range(200_000))
    (directory / "queries").write_text("".join(f"{name} A\n" for name in asked), "utf-8")


async def serve(port: int, table: str) -> None:
    """The gateway alone, in a process of its own, with the table mapped as a node's snapshot is."""

    class Nowhere:
        async def flush_hits(self, *_: object) -> None:
            """Keep nothing."""

        async def load_hits(self, _node: str) -> dict[str, int]:
            """Nothing was kept."""
            return {}

    hits = HitCounter(Nowhere(), node="load", zone=ZoneInfo("UTC"))
    matcher = Matcher.of(Table.open(table, KEY))
    engine = VerdictEngine(SimpleNamespace(matcher=matcher, status=None), hits)
    await DnsListener(engine, DnsSettings(port=port, upstreams=("127.0.0.1:9",), rate=0)).start()
    await asyncio.Event().wait()


def command(server: str, directory: Path, port: int) -> list[str]:
    """How each is started."""
    match server:
        case "blocker":
            return [sys.executable, __file__, "serve", str(port), str(directory / "table")]
        case "unbound":
            (directory / "unbound.conf").write_text(UNBOUND.format(port=port, directory=directory), "utf-8")
            return ["unbound", "-c", str(directory / "unbound.conf")]
        case _:
            (directory / "recursor.conf").write_text(POWERDNS.format(port=port, directory=directory), "utf-8")
            return ["pdns_recursor", f"--config-dir={directory}"]


def answers(port: int) -> bool:
    """Whether a blocked name is blocked."""
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.settimeout(0.2)
        one.connect(("127.0.0.1", port))
        try:
            one.send(query("domain1.example", 1))
            return one.recv(2000)[3] & 15 == 3
        except OSError:
            return False


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def load(port: int, pid: int, queries: Path) -> Round:
    """Ask for a while."""
    before = cpu_seconds(pid)
    words = ["taskset", "-c", "1", "dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(queries), "-e"]
    told = subprocess.run(
        [*words, "-l", str(SECONDS), "-c", "8", "-q", "200", "-t", "1"], capture_output=True, text=True, check=True
    ).stdout
    used = cpu_seconds(pid) - before
    count = int(re.search(r"Queries completed:\s+(\d+)", told)[1])  # type: ignore[index]
    rate = float(re.search(r"Queries per second:\s+([\d.]+)", told)[1])  # type: ignore[index]
    assert re.search(rf"NXDOMAIN {count} \(100", told), f"wrong answers: {told}"
    return Round(rate, used / count * 1e6)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve(int(sys.argv[2]), sys.argv[3]))
        return
    rounds = int(sys.argv[1]) if sys.argv[1:] else 5
    names = int(sys.argv[2]) if sys.argv[2:] else NAMES
    for tool in ("dnsperf", "unbound", "pdns_recursor", "taskset"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is not installed")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        prepare(directory, names)
        running: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
        try:
            for server in SERVERS:
                port, started = free_port(), time.monotonic()
                made = subprocess.Popen(
                    ["taskset", "-c", "0", *command(server, directory, port)], stderr=subprocess.DEVNULL
                )
                running[server] = (made, port)
                while not answers(port):
                    assert made.poll() is None, f"{server} ended"
                taken, memory = time.monotonic() - started, resident_mib(made.pid)
                print(f"{server:8} {taken:6.2f} s to the first right answer, {memory:5.0f} MiB")
            found: dict[str, list[Round]] = {server: [] for server in SERVERS}
            for _ in range(rounds):
                for server, (made, port) in running.items():
                    found[server].append(load(port, made.pid, directory / "queries"))
            report(found)
        finally:
            for made, _ in running.values():
                made.kill()
                made.wait()


def report(found: dict[str, list[Round]]) -> None:
    """Medians and best, and the ratio that counts."""
    middle = {server: statistics.median(row.cpu for row in rows) for server, rows in found.items()}
    for server, rows in found.items():
        best = min(row.cpu for row in rows)
        rate = statistics.median(row.rate for row in rows)
        print(f"{server:8} {rate:8.0f}/s {middle[server]:6.2f} µs CPU a query (best {best:.2f})")
    better = min(middle["unbound"], middle["powerdns"])
    print(f"blocker's CPU time is {middle['blocker'] / better:.2f} of the better one's")


if __name__ == "__main__":
    main()
