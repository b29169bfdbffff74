"""A real Envoy with the configurations of `deploy/envoy`, unchanged but for ports, before a real origin and node."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import spawn, until
from tests.e2e.proxied import MARK, Named, Proxied, hello, patient
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = Path(__file__).parents[2] / "deploy" / "envoy"
PROGRAM = Path(sys.executable).with_name("envoy")
CLOSED, OPEN = "failure_mode_allow: false", "failure_mode_allow: true"


class Envoy(Proxied):
    """An Envoy, where it sends things, and its node."""

    def __init__(self, directory: Path, redis: RedisServer, mode: str, undecided: str = "fail-closed") -> None:
        check, grpc = free_port(), free_port()
        settings = {
            "gateways__check__port": str(check), "canary_seconds": "1",
            "canaries": '{"police": {"blocked": ["http://listed.example/gallery/canary"]}}',
        }  # fmt: skip
        self.gateway = "check" if mode == "http" else "envoy"
        if mode != "http":
            settings |= {"gateways__envoy__enabled": "true", "gateways__envoy__port": str(grpc)}
        super().__init__(directory, redis, **settings)
        self.past, self.inspection = Named(b"past"), Named(b"inspection")
        ports = {
            8081: check, 9001: grpc, 8000: self.origin.server_port, 8891: self.port, 8892: self.port, 8894: self.port,
            8443: self.past.port, 8444: self.inspection.port,
        }  # fmt: skip
        text = patient((DEPLOY / f"{mode}.yaml").read_text("utf-8"), ("timeout: 0.2s", "timeout: 10s"))
        assert text.count(CLOSED) == 1
        if undecided == "fail-open":  # as the file says
            text = text.replace(CLOSED, OPEN)
        text = re.sub(r"(address: 127\.0\.0\.1, port_value): (\d+)", lambda at: f"{at[1]}: {ports[int(at[2])]}", text)
        (directory / "envoy.yaml").write_text(text, "utf-8")
        self.log = directory / "envoy.log"
        with self.log.open("wb") as log:
            self.process = spawn(
                [str(PROGRAM), "-c", "envoy.yaml", "--disable-hot-restart", "--concurrency", "2"],
                cwd=directory, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        until(self._accepts if mode == "tls" else self._listens)

    def _accepts(self) -> bool:
        assert self.process.poll() is None, "the proxy ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def metrics(self) -> str:
        """What the node shows of itself, with the labels in one order."""
        text = self.node.get("/metrics")[1].decode()
        return re.sub(r'\{list="police",gateway="(\w+)"\}', r'{gateway="\1",list="police"}', text)

    def close(self) -> None:
        """End everything."""
        super().close()
        self.past.close()
        self.inspection.close()


@pytest.fixture
def envoy(tmp_path: Path, redis: RedisServer, request: pytest.FixtureRequest) -> Iterator[Envoy]:
    running = Envoy(tmp_path, redis, *request.param)
    yield running
    running.close()


@pytest.mark.parametrize("envoy", [("http",), ("grpc",)], indirect=True, ids=["http", "grpc"])
def test_updates_rollbacks_and_privacy(envoy: Envoy) -> None:
    assert envoy.status("harmless.example", "/") == 503, "a node without a list decides nothing"
    envoy.push("http://listed.example/gallery/", "http://*.whole.example")
    until(lambda: envoy.status("harmless.example", "/") == 200)
    status, page, headers = envoy.ask("listed.example", "/gallery/1.jpg?x=y", **{"Accept-Language": "sv"})
    assert status == 451
    assert b'<html lang="sv"' in page
    assert b"listed.example" not in page
    assert 'rel="blocked-by"' in headers["link"]
    assert (headers["cache-control"], headers["content-language"]) == ("no-store", "sv")
    assert (headers["x-blocker-verdict"], headers["x-blocker-list"]) == ("block", "police")
    assert headers["content-type"] == "text/html; charset=utf-8"
    asked = [
        ("listed.example", "/gallery", 451), ("LISTED.example:80", "//gallery/%2e/a", 451),
        ("listed.example", "/", 200), ("listed.example", "/gallery2", 200), ("a.b.whole.example", "/any?thing", 451),
        ("notwhole.example", "/", 200), ("harmless.example", "/forbidden", 403), ("a@whole.example", "/", 451),
    ]  # fmt: skip
    assert [(host, path, envoy.status(host, path)) for host, path, _ in asked] == asked
    assert envoy.ask("listed.example", "/gallery/x", "POST")[0] == 451
    assert envoy.ask("harmless.example", "/x", "POST")[0] == 200
    asked_raw = b"GET /gallery/ HTTP/1.1\r\nHost: listed.example\r\nAccept-Language: \xff\xfe\r\n\r\n"
    assert raw(envoy.port, asked_raw) == b"451", "what is no UTF-8 is no way to be undecided"
    assert raw(envoy.port, asked_raw.replace(b"/gallery/", b"/gallery/\xff")) == b"400", "Envoy's own answer"

    until(lambda: f'blocker_canary_ok{{gateway="{envoy.gateway}",list="police"}} 1' in envoy.metrics())
    assert f'blocker_decisions_total{{gateway="{envoy.gateway}",verdict="allow"}} 0' not in envoy.metrics()
    envoy.push("http://listed.example/gallery/", "http://*.whole.example", "http://new.example/")
    until(lambda: envoy.status("new.example", "/x") == 451)
    os.kill(envoy.node.pid, signal.SIGHUP)
    until(lambda: "configuration read anew" in envoy.node.log())
    envoy.command("lists", "rollback", "police", "1", "--reason", "test")
    until(lambda: envoy.status("new.example", "/x") == 200)

    marks = {
        "Cookie": f"session={MARK}", "Authorization": f"Basic {MARK}", "User-Agent": MARK, "X-Forwarded-For": MARK,
        "X-Original-URL": f"http://{MARK}.example/", "X-Blocker-Verdict": MARK,
    }  # fmt: skip
    status, page, headers = envoy.ask("listed.example", f"/gallery/{MARK}?{MARK}", **marks)
    assert status == 451
    assert MARK not in page.decode() + str(headers)
    assert envoy.ask("harmless.example", f"/{MARK}", **marks)[0] == 200
    passed = envoy.seen()[-1]
    # Of a client on this machine Envoy names the machine's own address.
    assert ip_address(passed["x-forwarded-for"].rpartition(",")[2])
    assert "allow" not in passed.values(), "the origin is not told what was decided"
    envoy.node.stop()
    kept = [envoy.node.log().encode(), envoy.log.read_bytes()]
    kept += [path.read_bytes() for path in (envoy.directory / "var").rglob("*") if path.is_file()]
    assert not any(MARK.encode() in data for data in kept)


def raw(port: int, request: bytes) -> bytes:
    """The status of a request that no library would send."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        return connection.recv(1000)[9:12]


@pytest.mark.parametrize(
    ("envoy", "without"),
    [(("http", "fail-closed"), 503), (("http", "fail-open"), 200), (("grpc", "fail-closed"), 503),
     (("grpc", "fail-open"), 200)],
    indirect=["envoy"], ids=["http-closed", "http-open", "grpc-closed", "grpc-open"],
)  # fmt: skip
def test_while_the_node_is_away(envoy: Envoy, without: int) -> None:
    envoy.push("http://listed.example/")
    until(lambda: envoy.status("listed.example", "/x") == 451)
    envoy.node.kill()
    assert envoy.status("harmless.example", "/") == without
    assert envoy.status("listed.example", "/x") == without
    envoy.node.start()
    until(lambda: envoy.status("listed.example", "/x") == 451)
    assert envoy.status("harmless.example", "/") == 200


@pytest.mark.parametrize("envoy", [("tls",)], indirect=True, ids=["tls"])
def test_only_hosts_under_inspection_are_sent_to_where_addresses_are_seen(envoy: Envoy) -> None:
    envoy.push("http://listed.example/gallery/", "http://*.whole.example")
    until(lambda: hello(envoy.port, "listed.example") == b"inspection")
    assert hello(envoy.port, "harmless.example") == b"past"
    assert hello(envoy.port, "a.whole.example") == b""
    envoy.node.kill()
    assert hello(envoy.port, "harmless.example") == b"", "fail-closed"


@pytest.mark.parametrize("envoy", [("tls", "fail-open")], indirect=True, ids=["tls-open"])
def test_names_pass_while_the_node_is_away_where_that_is_chosen(envoy: Envoy) -> None:
    envoy.push("http://*.whole.example")
    until(lambda: hello(envoy.port, "a.whole.example") == b"")
    envoy.node.kill()
    assert hello(envoy.port, "a.whole.example") == b"past"
