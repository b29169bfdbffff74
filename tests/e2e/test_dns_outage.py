"""A node that forwards to a real Unbound: what its metrics, its workers and `blocker doctor` say of an outage."""

from __future__ import annotations

import json
import socket
import subprocess
from typing import TYPE_CHECKING

import dns.message
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.node import Node
from tests.e2e.processes import program, spawn, until
from tests.e2e.resolvers import rcode
from tests.e2e.test_dns import RECORDS, UNBOUND
from tests.redis_server import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.redis_server import RedisServer

KNOWN = "good.customers.test"


class Unbound:
    """One that knows a zone of its own and no root; to some it says that they may not ask."""

    def __init__(self, directory: Path, *, refuses: bool = False) -> None:
        directory.mkdir()
        self.directory, self.port = directory, free_port()
        (directory / "zone").write_text(RECORDS, "utf-8")
        text = UNBOUND.format(port=self.port, directory=directory)
        text = text.replace("127.0.0.0/8 allow", "127.0.0.0/8 refuse") if refuses else text
        (directory / "unbound.conf").write_text(text, "utf-8")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = spawn(["unbound", "-c", "unbound.conf"], cwd=self.directory, stderr=subprocess.DEVNULL)
        until(lambda: rcode(self.port, KNOWN) in ("NOERROR", "REFUSED"))

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class Forwarding(Node):
    """A node that forwards to some resolvers."""

    def __init__(self, directory: Path, redis: RedisServer, *upstreams: str, workers: str = "0") -> None:
        (directory / "node").mkdir()
        self.dns_port = free_port()
        super().__init__(
            directory / "node", redis, gateways__dns__port=str(self.dns_port), gateways__workers=workers,
            gateways__dns__upstreams=json.dumps(upstreams), gateways__dns__upstream_probe="customers.test",
            gateways__dns__rate="20",
        )  # fmt: skip

    def figures(self, name: str) -> dict[tuple[str, ...], float]:
        """A metric's values by labels."""
        text = self.process.get("/metrics")[1].decode()
        return {
            tuple(sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text) for sample in family.samples if sample.name == name
        }  # fmt: skip

    def doctor(self) -> dict[str, tuple[str, str]]:
        """State and detail of what is said of upstreams and resolvers."""
        done = subprocess.run(
            [*program(), "doctor", "--json"], env=self.process.environment, cwd=self.directory, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        rows = [row for row in json.loads(done.stdout) if row["what"].startswith(("upstream", "resolver"))]
        assert all(row["state"] != "fail" for row in rows) or done.returncode == 1
        return {row["what"]: (row["state"], row["detail"]) for row in rows}


@pytest.fixture
def unbound(tmp_path: Path) -> Iterator[Unbound]:
    made = Unbound(tmp_path / "unbound")
    yield made
    made.stop()


def test_a_resolver_that_ends_is_seen_and_so_is_its_return(
    tmp_path: Path, redis: RedisServer, unbound: Unbound
) -> None:
    node = Forwarding(tmp_path, redis, unbound.address)
    try:
        node.push("http://listed.example/")
        until(lambda: node.figures("blocker_dns_upstream_up") == {(unbound.address,): 1})
        until(lambda: node.figures("blocker_dns_upstream_probes_total").get((unbound.address, "answered"), 0) >= 1)
        until(lambda: rcode(node.dns_port, KNOWN) == "NOERROR")  # once it has the list
        until(lambda: node.doctor()[f"upstream {unbound.address}"][0] == "ok")
        assert node.doctor()[f"upstream {unbound.address}"][1].startswith("answers in ")
        unbound.stop()
        until(lambda: node.figures("blocker_dns_upstream_up") == {(unbound.address,): 0})
        assert node.figures("blocker_dns_upstream_probes_total")[unbound.address, "silent"] >= 2
        state, detail = node.doctor()[f"upstream {unbound.address}"]
        assert (state, detail.partition(":")[0]) == ("fail", "says nothing within 1.5 s")
        assert rcode(node.dns_port, "listed.example") == "NXDOMAIN", "lists go on"
        unbound.start()
        until(lambda: node.figures("blocker_dns_upstream_up") == {(unbound.address,): 1})
    finally:
        node.process.stop()


def test_doctor_says_what_ails_each_resolver_and_how_bad_it_is(
    tmp_path: Path, redis: RedisServer, unbound: Unbound
) -> None:
    refusing = Unbound(tmp_path / "refusing", refuses=True)
    away = f"127.0.0.1:{free_port()}"
    node = Forwarding(tmp_path, redis, unbound.address, refusing.address, away)
    try:
        right = {
            f"upstream {unbound.address}": "ok", f"upstream {refusing.address}": "warn", f"upstream {away}": "warn",
        }  # fmt: skip
        until(lambda: {what: state for what, (state, _) in node.doctor().items()} == right)
        found = node.doctor()
        assert "does it let this machine ask" in found[f"upstream {refusing.address}"][1]
        unbound.stop()
        assert {state for state, _ in node.doctor().values()} == {"fail"}, "customers have no DNS"
    finally:
        node.process.stop()
        refusing.stop()


def test_workers_tell_the_node_what_they_refused_and_may_hold(
    tmp_path: Path, redis: RedisServer, unbound: Unbound
) -> None:
    node = Forwarding(tmp_path, redis, unbound.address, workers="2")
    try:
        node.push("http://listed.example/")
        until(lambda: rcode(node.dns_port, KNOWN) == "NOERROR")
        until(lambda: node.figures("blocker_dns_waiting_limit") == {(): 2 * 4096})
        assert node.figures("blocker_dns_cache_limit_bytes") == {(): 2 * 64 * 2**20}
        until(lambda: node.figures("blocker_dns_upstream_up") == {(unbound.address,): 1})
        message = dns.message.make_query(KNOWN, "A").to_wire()
        for _ in range(4):  # each may reach another worker, whose customers have saved up for two seconds
            with socket.socket(type=socket.SOCK_DGRAM) as one:
                one.connect(("127.0.0.1", node.dns_port))
                for _ in range(100):
                    one.send(message)

        def refused() -> bool:
            found = node.figures("blocker_dns_datagrams_refused_total")
            assert found["stranger",] == 0
            return found["slipped",] > 20 and found["dropped",] > 20

        until(refused)
        counted = node.figures("blocker_dns_datagrams_refused_total")
        assert counted["slipped",] + counted["dropped",] <= 400
        assert abs(counted["slipped",] - counted["dropped",]) <= 2
    finally:
        node.process.stop()


def test_doctor_names_the_resolver_of_the_routes_that_answers_nothing(
    tmp_path: Path, redis: RedisServer, unbound: Unbound
) -> None:
    directory = tmp_path / "routes"
    directory.mkdir()
    away = f"127.0.0.1:{free_port()}"
    (directory / "popular.csv").write_text("popular.example\n", "utf-8")
    node = Node(
        directory, redis,
        f"""
        [routes]
        enabled = true
        resolvers = ["{away}", "{unbound.address}"]
        lookup_seconds = 0.2
        lookup_tries = 1
        [guards]
        popular_domains = "popular.csv"
        own_networks = ["192.0.2.0/24"]
        """,
    )  # fmt: skip

    def doctor() -> list[dict[str, str]]:
        done = subprocess.run(
            [*program(), "doctor", "--json"], env=node.process.environment, cwd=directory, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        return [row for row in json.loads(done.stdout) if row["what"] == "resolver"]

    expected = [("fail", f"{away} answers nothing; nothing that it was asked for leaves")]
    try:
        node.push(f"http://{KNOWN}/page")
        until(lambda: [(row["state"], row["detail"]) for row in doctor()] == expected)
    finally:
        node.process.stop()
