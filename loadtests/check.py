"""The check gateway beside nginx `return 204`: requests a second and CPU time a request, one core each, in turns.

    python loadtests/check.py [rounds]

Needs nginx and wrk. The server runs on core 0, the load on core 1; both serve in turns, so that what else the machine
does falls on both. 1 M rules (700 k domains, 300 k pages); one request in a hundred is for a listed page.
"""

from __future__ import annotations

import asyncio
import os
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
from blocker.gateways.check import check_listener
from blocker.gateways.engine import VerdictEngine
from blocker.hits.counters import HitCounter
from blocker.matcher import ListMetadata, Matcher
from blocker.sections import CheckSettings

RULES = 1_000_000
SECONDS = 4
KEY = bytes(16)
LUA = """
local n = 0
request = function()
  n = n + 1
  local url = "http://other" .. (n % 50000) .. ".example/page/" .. n .. "?q=1"
  if n % 100 == 0 then url = "http://page" .. (n % 300000) .. ".example/listed/" end
  return wrk.format("GET", "/nginx", {["X-Original-URL"] = url, ["Host"] = "blocker"})
end
"""
NGINX = """
worker_processes 1; daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 100000000; {temporary}
  server {{ listen 127.0.0.1:{port}; return 204; }} }}
"""


class Round(NamedTuple):
    """One run of the load: requests a second, CPU microseconds a request, median latency in microseconds."""

    rate: float
    cpu: float
    median: float


def matcher() -> Matcher:
    """A million rules."""
    parser = LineParser("url")
    lines = [f"http://*.domain{number}.example" for number in range(RULES * 7 // 10)]
    lines += [f"http://page{number}.example/listed/" for number in range(RULES * 3 // 10)]
    parser.feed("\n".join(lines).encode())
    run = parser.finish().nodes(KEY)
    return Matcher.of(Table.build([("list", 1, False, ListMetadata().dump(), run)], KEY))


async def serve(port: int) -> None:
    """The gateway alone, in a process of its own."""

    class Nowhere:
        async def flush_hits(self, *_: object) -> None:
            """Keep nothing."""

        async def load_hits(self, _node: str) -> dict[str, int]:
            """Nothing was kept."""
            return {}

    hits = HitCounter(Nowhere(), node="load", zone=ZoneInfo("UTC"))
    engine = VerdictEngine(SimpleNamespace(matcher=matcher(), status=None), hits)
    await check_listener(engine, CheckSettings(port=port), []).start()
    await asyncio.Event().wait()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(port: int, pid: int, connections: int, script: Path, *, blocks: bool) -> Round:
    """Ask for a while."""
    before = cpu_seconds(pid)
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency", "-s", str(script)]
    told = subprocess.run([*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True).stdout
    used = cpu_seconds(pid) - before
    count = int(re.search(r"(\d+) requests in", told)[1])  # type: ignore[index]
    rate = float(re.search(r"Requests/sec:\s*([\d.]+)", told)[1])  # type: ignore[index]
    found = re.search(r"50%\s+([\d.]+)(us|ms)", told)
    assert found is not None
    median = float(found[1]) * (1000 if found[2] == "ms" else 1)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", told)
    if blocks:  # every hundredth, and no other
        assert refused is not None
        assert abs(int(refused[1]) - count / 100) < count / 1000, "wrong answers"
    else:
        assert refused is None
    return Round(rate, used / count * 1e6, median)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait(port: int) -> None:
    """Until somebody listens."""
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve(int(sys.argv[2])))
        return
    rounds = int(sys.argv[1]) if sys.argv[1:] else 5
    for tool in ("nginx", "wrk", "taskset"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is not installed")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        script = directory / "load.lua"
        script.write_text(LUA, "utf-8")
        ports = {"nginx": free_port(), "check": free_port()}
        temporary = "".join(
            f"{kind}_temp_path {directory}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        configuration = directory / "nginx.conf"
        configuration.write_text(NGINX.format(directory=directory, port=ports["nginx"], temporary=temporary), "utf-8")
        pinned = ["taskset", "-c", "0"]
        servers = {
            "nginx": subprocess.Popen([*pinned, "nginx", "-p", str(directory), "-c", str(configuration)]),
            "check": subprocess.Popen([*pinned, sys.executable, __file__, "serve", str(ports["check"])]),
        }
        try:
            for port in ports.values():
                wait(port)
            for connections in (32, 1):
                found: dict[str, list[Round]] = {"nginx": [], "check": []}
                for _ in range(rounds):
                    for side, rows in found.items():
                        rows.append(load(ports[side], servers[side].pid, connections, script, blocks=side == "check"))
                report(connections, found)
        finally:
            for server in servers.values():
                server.kill()
                server.wait()


def report(connections: int, found: dict[str, list[Round]]) -> None:
    """Medians, and the ratios that count."""
    middle = {side: Round(*map(statistics.median, zip(*rows, strict=True))) for side, rows in found.items()}
    for side, row in middle.items():
        print(
            f"{connections:3} connections  {side:6} {row.rate:8.0f}/s {row.cpu:6.1f} µs CPU  p50 {row.median:5.0f} µs"
        )
    nginx, check = middle["nginx"], middle["check"]
    ratios = (
        f"rate {check.rate / nginx.rate:.2f}, CPU {nginx.cpu / check.cpu:.2f}, p50 {check.median / nginx.median:.2f}"
    )
    print(f"{connections:3} connections  of nginx 204: {ratios}")


if __name__ == "__main__":
    main()
