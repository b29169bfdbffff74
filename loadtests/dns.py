"""The dns gateway beside Unbound and PowerDNS Recursor with the same names in an RPZ: CPU time a query, memory, start.

    python -m loadtests.dns [rounds]

Needs dnsperf, unbound and pdns_recursor. 700 k blocked domains with all below them; every query is for one of them, and
every answer is looked at. The gateway has its table mapped, as a node has its snapshot.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import uvloop

from blocker._native import LineParser, Table
from blocker.gateways.dns import DnsListener
from blocker.gateways.dns_probe import query
from blocker.gateways.engine import VerdictEngine
from blocker.hits.counters import HitCounter
from blocker.matcher import ListMetadata, Matcher
from blocker.sections import DnsSettings
from loadtests.gateway import Nowhere
from loadtests.measure import (
    LOAD_CORE,
    Figures,
    cpu_seconds,
    free_port,
    middle,
    needs,
    on_core,
    ratio,
    rounds,
    server,
    show,
)
from loadtests.workload import KEY, QUESTIONS, domains

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 4
SERVERS = ("dns", "unbound", "powerdns")
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


def prepare(directory: Path) -> str:
    """The list as a table and as a zone, and the queries; the first name that is asked for."""
    names = list(domains())
    parser = LineParser("url")
    parser.feed("".join(f"http://*.{name}\n" for name in names).encode())
    run = parser.finish().nodes(KEY)
    Table.build([("list", 1, False, ListMetadata().dump(), run)], KEY).save(directory / "table")
    with (directory / "rpz.zone").open("w", encoding="utf-8") as zone:
        zone.write("$ORIGIN rpz.test.\n$TTL 300\n@ SOA ns.test. admin.test. 1 3600 600 86400 60\n@ NS ns.test.\n")
        zone.writelines(f"{name} CNAME .\n*.{name} CNAME .\n" for name in names)
    (directory / "rpz.lua").write_text(f'rpzFile("{directory}/rpz.zone", {{defpol=Policy.NXDOMAIN}})\n', "utf-8")
    draw = random.Random(1)  # noqa: S311 - the same load for all
    asked = [draw.choice(names) for _ in range(QUESTIONS)]
    (directory / "queries").write_text("".join(f"{name} A\n" for name in asked), "utf-8")
    return asked[0]


async def serve(port: int, table: str) -> None:
    """The gateway alone, in a process of its own."""
    hits = HitCounter(Nowhere(), node="load", zone=ZoneInfo("UTC"))
    engine = VerdictEngine(SimpleNamespace(matcher=Matcher.of(Table.open(table, KEY)), status=None), hits)
    await DnsListener(engine, DnsSettings(port=port, upstreams=("127.0.0.1:9",), rate=0)).start()
    await asyncio.Event().wait()


def command(name: str, directory: Path, port: int) -> list[str]:
    """How each is started."""
    match name:
        case "dns":
            return [sys.executable, "-m", "loadtests.dns", "serve", str(port), str(directory / "table")]
        case "unbound":
            (directory / "unbound.conf").write_text(UNBOUND.format(port=port, directory=directory), "utf-8")
            return ["unbound", "-c", str(directory / "unbound.conf")]
        case _:
            (directory / "recursor.conf").write_text(POWERDNS.format(port=port, directory=directory), "utf-8")
            return ["pdns_recursor", f"--config-dir={directory}"]


@contextlib.contextmanager
def started(name: str, directory: Path, listed: str) -> Iterator[tuple[int, int]]:
    """A server that gives right answers: its port and process id; tells how long that took, and the memory."""
    port, begun = free_port(), time.monotonic()
    with server(command(name, directory, port), port, stderr=subprocess.DEVNULL) as pid:
        next(at for at in count() if blocks(port, listed))
        memory = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text("utf-8"))
        assert memory is not None
        print(f"{name:20} {time.monotonic() - begun:.2f} s to the first right answer, {int(memory[1]) / 1024:.0f} MiB")
        yield port, pid


def blocks(port: int, name: str) -> bool:
    """Whether a listed name is blocked."""
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.settimeout(0.2)
        one.connect(("127.0.0.1", port))
        try:
            one.send(query(name, 1))
            return one.recv(2000)[3] & 15 == 3
        except OSError:
            return False


def load(port: int, pid: int, queries: Path) -> Figures:
    """Ask for a while."""
    before = cpu_seconds(pid)
    words = ["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(queries), "-e", "-l", str(SECONDS)]
    with on_core(LOAD_CORE):
        told = subprocess.run(
            [*words, "-c", "8", "-q", "200", "-t", "1"], capture_output=True, text=True, check=True
        ).stdout
    used = cpu_seconds(pid) - before
    found = {name: float(text) for name, text in re.findall(r"(completed|lost|second|Latency \(s\)):\s+([\d.]+)", told)}
    answered = int(found["completed"])
    assert re.search(rf"NXDOMAIN {answered} \(100", told), f"wrong answers: {told}"
    return Figures(found["second"], used / answered * 1e6, found["Latency (s)"] * 1e6, lost=int(found["lost"]))


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve(int(sys.argv[2]), sys.argv[3]))
        return
    needs("dnsperf", "unbound", "pdns_recursor")
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as running:
        directory = Path(temporary)
        listed = prepare(directory)
        servers = {name: running.enter_context(started(name, directory, listed)) for name in SERVERS}
        found: dict[str, list[Figures]] = {name: [] for name in SERVERS}
        for _ in range(rounds()):
            for name, (port, pid) in servers.items():
                found[name].append(load(port, pid, directory / "queries"))
        show("blocked names", found, ("rate", "cpu"))
        better = min(middle(found["unbound"], "cpu"), middle(found["powerdns"], "cpu"))
        ratio("blocked names, CPU, of the better of the two", middle(found["dns"], "cpu") / better, "0.6 or less")


if __name__ == "__main__":
    main()
