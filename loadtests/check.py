"""The check gateway beside nginx `return 204`: requests a second and CPU time a request, one core each, in turns.

    python -m loadtests.check [rounds]

Needs nginx and wrk. 1 M rules; one request in a hundred is for a listed page.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from loadtests.measure import (
    LOAD_CORE,
    Figures,
    cpu_seconds,
    free_port,
    gateway,
    middle,
    needs,
    on_core,
    ratio,
    rounds,
    server,
    show,
)

SECONDS = 4
LUA = """
local n = 0
local function name(number)  -- as workload.py makes it
  return string.format("%08x.example", number * 2654435761 % 4294967296)
end
request = function()
  n = n + 1
  local url = "http://" .. name(3 * (n % 50000) + 2) .. "/page/" .. n .. "?q=1"
  if n % 100 == 0 then url = "http://" .. name(3 * (n % 300000) + 1) .. "/listed/" end
  return wrk.format("GET", "/nginx", {["X-Original-URL"] = url, ["Host"] = "blocker"})
end
"""
NGINX = """
worker_processes 1; daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 100000000; {temporary}
  server {{ listen 127.0.0.1:{port}; return 204; }} }}
"""


def load(port: int, pid: int, connections: int, script: Path, *, blocks: bool) -> Figures:
    """Ask for a while."""
    before = cpu_seconds(pid)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency", "-s", str(script)]
    with on_core(LOAD_CORE):
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
    return Figures(rate, used / count * 1e6, median)


def nginx(directory: Path, port: int) -> list[str]:
    """The command that starts the peer."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {directory}/{kind}; " for kind in kinds)
    configuration = directory / "nginx.conf"
    configuration.write_text(NGINX.format(directory=directory, port=port, temporary=temporary), "utf-8")
    return ["nginx", "-p", str(directory), "-c", str(configuration)]


def main() -> None:
    """Measure and print."""
    needs("nginx", "wrk")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        script = directory / "load.lua"
        script.write_text(LUA, "utf-8")
        ports = {"nginx": free_port(), "check": free_port()}
        with (
            server(nginx(directory, ports["nginx"]), ports["nginx"]) as first,
            server(gateway("check", ports["check"]), ports["check"]) as second,
        ):
            pids = {"nginx": first, "check": second}
            for connections in (32, 1):
                found: dict[str, list[Figures]] = {"nginx": [], "check": []}
                for _ in range(rounds()):
                    for side, rows in found.items():
                        rows.append(load(ports[side], pids[side], connections, script, blocks=side == "check"))
                report(connections, found)


def report(connections: int, found: dict[str, list[Figures]]) -> None:
    """Medians, and the ratios that count."""
    title = f"{connections:3} connections"
    show(title, found)
    peer, own = found["nginx"], found["check"]
    if connections > 1:
        ratio(f"{title}, of nginx 204, rate", middle(own, "rate") / middle(peer, "rate"), "0.9 or more")
        ratio(f"{title}, of nginx 204, by CPU", middle(peer, "cpu") / middle(own, "cpu"), "0.9 or more")
    else:
        ratio(f"{title}, times nginx 204, p50", middle(own, "median") / middle(peer, "median"), "1.3 or less")


if __name__ == "__main__":
    main()
