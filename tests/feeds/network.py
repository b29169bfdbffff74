"""The real programs around a route feed, on this machine's own addresses and free ports: ExaBGP as the speaker, BIRD
and FRR as routers, with the configurations of `deploy`; and a node that announces routes.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import re
import signal
import subprocess
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blocker.feeds.route_socket import ask_report
from tests.e2e.node import Node
from tests.e2e.processes import program, until
from tests.feeds.knot import LoggedProcess, binary
from tests.redis_server import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.redis_server import RedisServer

DEPLOY = Path(__file__).parents[2] / "deploy"
FEED, ROUTER = "127.0.0.2", "127.0.0.3"
ALL_TRIALS = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15", "2001:db8::/32"]
NEXT_HOP6 = "2001:db8:ffff::80"
FAMILIES = ("ipv4", "ipv6", "flow4", "flow6")


class Bird(LoggedProcess):
    """The router of `deploy/bird`.

    Args:
        directory: Gets a directory of its own.
        most: Routes of a family that it takes; None for what the file says.
        address: Its own.
        families: Those of the file that it has.
    """

    def __init__(
        self, directory: Path, most: int | None = None, *, address: str = ROUTER, families: Sequence[str] = FAMILIES
    ) -> None:
        super().__init__(directory, f"bird-{address}")
        self.address = address
        self.port = free_port()
        text = (DEPLOY / "bird" / "bird.conf").read_text("utf-8")
        text = text.replace("192.0.2.10", FEED).replace("192.0.2.1", address).replace("port 179", f"port {self.port}")
        if most is not None:
            text = text.replace("import limit 20000", f"import limit {most}")
        # Routes are not to come into this machine's kernel: see test_kernel_routes.
        text = re.sub(r"(?ms)^protocol kernel \{\n.*?^\}\n", "", text)
        for one in set(FAMILIES).difference(families):
            text = re.sub(rf"(?ms)^    {one} {{\n.*?^    }};\n", "", text)
        (self.directory / "bird.conf").write_text(text, "utf-8")
        self.start()

    def start(self) -> None:
        self.run([binary("bird"), "-f", "-c", "bird.conf", "-s", "ctl", "-P", "pid"])
        until((self.directory / "ctl").exists)

    def control(self, *words: str) -> str:
        """What birdc says."""
        command = [binary("birdc"), "-s", str(self.directory / "ctl"), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def show(self, table: str) -> str:
        return self.control("show", "route", "table", table, "all")

    def prefixes(self) -> set[str]:
        """What it routes."""
        text = self.show("master4") + self.show("master6")
        return set(re.findall(r"^([0-9a-f.:]+/\d+) ", text, re.MULTILINE))

    def routes(self) -> set[str]:
        """The addresses among them."""
        return {prefix.removesuffix("/32").removesuffix("/128") for prefix in self.prefixes()}

    def received(self) -> tuple[int, int]:
        """Announcements and withdrawals that came since the session is up, each route of an UPDATE one."""
        said = self.control("show", "protocols", "all", "blocker")
        updates, withdraws = (
            sum(map(int, re.findall(rf"Import {kind}: +(\d+)", said))) for kind in ("updates", "withdraws")
        )
        return updates, withdraws

    def flows(self) -> str:
        return self.show("flowtab4") + self.show("flowtab6")

    def becomes(self, *addresses: str) -> None:
        """Wait until it has just these."""
        until(lambda: self.routes() == set(addresses))


class Frr(LoggedProcess):
    """The router of `deploy/frr`: its bgpd alone, which needs neither zebra nor root. As `Bird`."""

    def __init__(self, directory: Path, most: int | None = None) -> None:
        super().__init__(directory, "frr")
        self.address = ROUTER
        self.port = free_port()
        text = (DEPLOY / "frr" / "frr.conf").read_text("utf-8")
        text = text.replace("192.0.2.10", FEED).replace("192.0.2.1", ROUTER)
        if most is not None:
            text = text.replace("maximum-prefix 20000", f"maximum-prefix {most}")
        config = self.directory / "frr.conf"
        config.write_text(text, "utf-8")
        self.run(
            [
                binary("/usr/lib/frr/bgpd"), "--skip_runas", "--no_zebra", "--listenon", ROUTER, "--bgp_port",
                str(self.port), "--vty_port", "0", "--vty_socket", str(self.directory), "--config_file", str(config),
                "--pid_file", str(self.directory / "pid"), "--log", "stdout",
            ]
        )  # fmt: skip
        until((self.directory / "bgpd.vty").exists)
        # So that it also says what it refuses.
        families = [
            (f"address-family {one} unicast", f"neighbor {FEED} soft-reconfiguration inbound", "exit-address-family")
            for one in ("ipv4", "ipv6")
        ]
        self._vtysh("configure terminal", "router bgp 65001", *families[0], *families[1])

    def _vtysh(self, *commands: str) -> str:
        words = [word for command in commands for word in ("--command", command)]
        where = ["--vty_socket", str(self.directory), "--histfile", str(self.directory / "history")]
        done = subprocess.run([binary("vtysh"), *where, *words], capture_output=True, text=True, check=True)
        return done.stdout

    def show(self, what: str) -> dict[str, Any]:
        """What `show bgp … json` says."""
        found: dict[str, Any] = json.loads(self._vtysh(f"show bgp {what} json"))
        return found

    def received(self) -> set[str]:
        """What came, whatever became of it."""
        said = [self.show(f"{family} unicast neighbors {FEED} received-routes") for family in ("ipv4", "ipv6")]
        return {prefix for one in said for prefix in one["receivedRoutes"]}

    def prefixes(self) -> set[str]:
        """What it routes."""
        found = [self.show(f"{family} unicast")["routes"] for family in ("ipv4", "ipv6")]
        return {
            prefix for routes in found for prefix, paths in routes.items() if any(one.get("bestpath") for one in paths)
        }

    def becomes(self, *addresses: str) -> None:
        """Wait until it has just these."""
        until(lambda: self.prefixes() == {_prefix(one) for one in addresses})


def _prefix(address: str) -> str:
    return f"{address}/{ip_address(address).max_prefixlen}"


class ExaBgp(LoggedProcess):
    """ExaBGP as in `deploy/exabgp`, which runs `blocker bgp-feed`.

    Args:
        directory: Gets a directory of its own.
        router: Its neighbor.
        socket: The node's.
        more: Lines for the neighbor in the configuration.
    """

    def __init__(self, directory: Path, router: Bird | Frr, socket: Path, more: str = "") -> None:
        super().__init__(directory, "exabgp")
        text = (DEPLOY / "exabgp" / "exabgp.conf").read_text("utf-8").replace("192.0.2.10", FEED)
        text = text.replace("/run/blocker/routes.sock", str(socket))
        text = text.replace("/usr/local/bin/blocker", " ".join(program()))
        text = text.replace("    family {", f"    {more}\n    family {{")
        begin = text.index("neighbor 192.0.2.1 {")
        self._head, self._neighbor = text[:begin], text[begin:]
        self.configure(router)
        text = (DEPLOY / "exabgp" / "exabgp.env").read_text("utf-8")
        (self.directory / "exabgp.env").write_text(text.replace("'exabgp'", f"'{getpass.getuser()}'"), "utf-8")
        self.start()

    def start(self) -> None:
        files = [f"{self.directory}/exabgp.env", f"{self.directory}/exabgp.conf"]
        self.run([binary("exabgp"), "--env", *files])

    def configure(self, *routers: Bird | Frr, without: str = "") -> None:
        """Have these as neighbors, without the lines that have a text in them; `reload` takes it over."""
        text = self._head
        for router in routers:
            one = self._neighbor.replace("neighbor 192.0.2.1 ", f"neighbor {router.address} ")
            text += one.replace("connect 179;", f"connect {router.port};")
        lines = [line for line in text.splitlines(keepends=True) if not without or without not in line]
        (self.directory / "exabgp.conf").write_text("".join(lines), "utf-8")

    def reload(self) -> None:
        """As `systemctl reload`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGUSR1)

    def feed(self) -> int:
        """The process id of the feed that it runs."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text("ascii").split()
        assert len(children) == 1
        return int(children[0])


class RouteNode(Node):
    """A node that announces routes."""

    def __init__(
        self, directory: Path, redis: RedisServer, resolvers: Sequence[str], *,
        popular: Sequence[str] = ("popular.example",), own: Sequence[str] = ("198.18.200.0/24",), **routes: Any,  # noqa: ANN401 - as the settings have them
    ) -> None:  # fmt: skip
        (directory / "popular.txt").write_text("".join(f"{name}\n" for name in popular), "utf-8")
        chosen = {
            "enabled": True, "resolvers": list(resolvers), "trial_networks": ALL_TRIALS, "next_hop": FEED,
            "next_hop6": NEXT_HOP6, "min_ttl_seconds": 1, "max_ttl_seconds": 1, "lookup_seconds": 10,
            "hold_down_seconds": 86400, **routes,
        }  # fmt: skip
        lines = [f"{name} = {json.dumps(value)}" for name, value in chosen.items() if value is not None]
        guards = f'[guards]\npopular_domains = "{directory}/popular.txt"\nown_networks = {json.dumps(list(own))}\n'
        super().__init__(directory, redis, "\n".join(["[routes]", *lines, "", guards]))
        self.socket = directory / "var" / "routes.sock"

    def rewrite(self, name: str, value: object) -> None:
        """Change a setting of the routes in the file."""
        path = self.directory / "blocker.toml"
        line = re.compile(rf"^{name} = .*$", re.MULTILINE)
        text, count = line.subn(f"{name} = {json.dumps(value)}", path.read_text("utf-8"))
        assert count == 1
        path.write_text(text, "utf-8")

    def report(self, *options: str) -> dict[str, Any]:
        """What `blocker routes` says with these options, asked for as it does, without the start of a process."""
        found = dict(asyncio.run(ask_report(self.socket)))
        if "--hosts" not in options:
            for one in (*found["addresses"], *found["hosts"]):
                del one["host"]
        return found

    def kill_feed(self, exabgp: ExaBgp) -> None:
        """Kill the feed, and wait until ExaBGP has started another, which has connected."""
        (killed,) = [one["pid"] for one in self.report()["feeds"]]
        assert killed == exabgp.feed()
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(pids := [one["pid"] for one in self.report()["feeds"]]) == 1 and pids != [killed])

    def doctor(self) -> dict[str, list[tuple[str, str]]]:
        """What `blocker doctor` says: state and detail, by what was looked at."""
        command = [*program(), "doctor", "--json"]
        done = subprocess.run(
            command, env=self.process.environment, cwd=self.directory, capture_output=True, text=True, check=False
        )
        found: dict[str, list[tuple[str, str]]] = {}
        for row in json.loads(done.stdout):
            found.setdefault(row["what"], []).append((row["state"], row["detail"]))
        return found

    def why(self) -> dict[str, tuple[str, str | None]]:
        """State and reason of each address."""
        return {one["address"]: (one["state"], one["reason"]) for one in self.report()["addresses"]}

    def knows(self, start: str) -> Callable[[], bool]:
        """Whether it has heard of an address that begins so; to wait for."""
        return lambda: any(address.startswith(start) for address in self.why())

    def metric(self, name: str, **labels: str) -> float:
        """A value of /metrics."""
        text = self.process.get("/metrics")[1].decode()
        shown = "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}" if labels else ""
        found = re.search(rf"^{re.escape(name + shown)} (\S+)$", text, re.MULTILINE)
        assert found, f"{name}{shown} is not there"
        return float(found[1])
