"""AXFR of 700 k domains (1.4 M records) from Blocker to BIND beside BIND to BIND: seconds, and the primary's CPU.

    python -m loadtests.axfr [rounds]

Needs BIND's named. The primaries serve the same zone with the same key; a fresh secondary takes it from each in turn,
so that what else the machine does falls on both. The time is what the secondary says the transfer took.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import uvloop

from blocker._native import LineParser, Zone
from blocker.feed_section import RpzSettings
from blocker.feeds.history import History
from blocker.feeds.listener import ZoneListener
from blocker.feeds.signing import load_keys
from blocker.feeds.transfer import Served, ZoneServer
from blocker.feeds.zone import Plan, Version

DOMAINS = 700_000
ORIGIN = "load.rpz.test."
SECRET = base64.b64encode(bytes(range(32))).decode()
KEY = f'key "resolver" {{ algorithm hmac-sha256; secret "{SECRET}"; }};\n'
OPTIONS = """
options {{ directory "{directory}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no;
  pid-file "{directory}/pid"; session-keyfile "{directory}/session"; notify no; dnssec-validation no; }};
controls {{ }};
"""
PRIMARY = 'zone "{origin}" {{ type primary; file "zone"; allow-transfer {{ key "resolver"; }}; }};\n'
SECONDARY = (
    'zone "{origin}" {{ type secondary; masterfile-format raw; file "zone"; '
    'primaries {{ 127.0.0.1 port {primary} key "resolver"; }}; }};\n'
)
COMPLETED = re.compile(r"Transfer completed: (\d+) messages, (\d+) records, (\d+) bytes, ([0-9.]+) secs")


class Round(NamedTuple):
    """One transfer: seconds, CPU seconds of the primary, messages, records, bytes."""

    seconds: float
    cpu: float
    messages: int
    records: int
    size: int


def free_port() -> int:
    """A TCP port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def build() -> Version:
    """The zone."""
    parser = LineParser("domain")
    parser.feed(
        "".join(f"d{at * 2654435761 % 2**32:x}-{at}.example{at % 400}.test\n" for at in range(DOMAINS)).encode()
    )
    plan = Plan.of("load", RpzSettings.model_validate(described()).zones["load"])
    began = time.perf_counter()
    zone = Zone.build([(parser.finish(), False, False)], len(plan.wire_origin))
    print(f"zone of {len(zone):,} names built in {time.perf_counter() - began:.2f} s")
    return Version(plan=plan, serial=1, zone=zone)


def described() -> dict[str, object]:
    """The settings of the zone."""
    return {
        "port": 0,
        "keys": {"resolver": {"secret": SECRET}},
        "zones": {"load": {"origin": ORIGIN, "keys": ["resolver"]}},
    }


def named(directory: Path, zone: str) -> tuple[subprocess.Popen[bytes], int]:
    """A BIND with one zone."""
    port = free_port()
    (directory / "named.conf").write_text(KEY + OPTIONS.format(directory=directory, port=port) + zone, "utf-8")
    with (directory / "log").open("wb") as log:
        command = ["taskset", "-c", "1" if "secondary" in zone else "0", "named", "-g", "-c", "named.conf", "-n", "1"]
        return subprocess.Popen(command, cwd=directory, stdout=log, stderr=log), port


def wait_for(directory: Path, process: subprocess.Popen[bytes], pattern: re.Pattern[str]) -> re.Match[str]:
    """What a BIND says in its log."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        assert process.poll() is None, (directory / "log").read_text("utf-8")[-1000:]
        if found := pattern.search((directory / "log").read_text("utf-8", "replace")):
            return found
        time.sleep(0.05)
    raise TimeoutError


def cpu(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def transfer(port: int, pid: int) -> Round:
    """A fresh secondary takes the zone."""
    with tempfile.TemporaryDirectory() as name:
        before = cpu(pid)
        process, _ = named(Path(name), SECONDARY.format(origin=ORIGIN, primary=port))
        try:
            found = wait_for(Path(name), process, COMPLETED)
        finally:
            process.kill()
            process.wait()
        messages, records, size = map(int, found.groups()[:3])
        return Round(float(found[4]), cpu(pid) - before, messages, records, size)


async def serve(version: Version) -> None:
    """Blocker as the primary, in a process of its own."""
    settings = RpzSettings.model_validate(described())
    server = ZoneServer(settings.max_transfers, settings.request_seconds)
    server.configure([Served(version.plan, History(0), version)], load_keys(settings.keys))
    listener = ZoneListener(server, settings)
    await listener.start()
    print(listener.addresses[0].rpartition(":")[2], flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Measure in turns."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with (directory / "zone").open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in build().lines())
        own = subprocess.Popen(
            ["taskset", "-c", "0", sys.executable, "-m", "loadtests.axfr", "--serve"], stdout=subprocess.PIPE, text=True
        )
        bind, bind_port = named(directory, PRIMARY.format(origin=ORIGIN))
        try:
            assert own.stdout is not None
            own.stdout.readline()
            own_port = int(own.stdout.readline())
            wait_for(directory, bind, re.compile("all zones loaded"))
            found: dict[str, list[Round]] = {"blocker": [], "bind": []}
            for _ in range(rounds):
                found["blocker"].append(transfer(own_port, own.pid))
                found["bind"].append(transfer(bind_port, bind.pid))
        finally:
            for process in (own, bind):
                process.kill()
                process.wait()
    for who, runs in found.items():
        one = Round(*map(statistics.median, zip(*runs, strict=True)))
        print(
            f"{who:8} {one.seconds:6.2f} s  primary's CPU {one.cpu:5.2f} s  {one.messages:,.0f} messages "
            f"{one.records:,.0f} records {one.size / 1e6:.1f} MB"
        )
    ratio = statistics.median(a.seconds / b.seconds for a, b in zip(found["blocker"], found["bind"], strict=True))
    print(f"blocker / bind: {ratio:.2f} of the time")


if __name__ == "__main__":
    if "--serve" in sys.argv:
        with suppress(KeyboardInterrupt):
            uvloop.run(serve(build()))
    else:
        main()
