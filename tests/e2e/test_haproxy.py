"""A real HAProxy with the configuration of `deploy/haproxy`, unchanged but for ports, before a real origin and node."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import spawn, until
from tests.e2e.proxied import MARK, Named, Proxied, hello, patient
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = Path(__file__).parents[2] / "deploy" / "haproxy"
CLOSED = "http-request return status 503"


class HAProxy(Proxied):
    """An HAProxy, where it sends things, and its node."""

    def __init__(self, directory: Path, redis: RedisServer, undecided: str) -> None:
        self.agent = free_port()
        super().__init__(directory, redis, gateways__spoe__port=str(self.agent))
        self.tls_port = free_port()
        self.past, self.inspection = Named(b"past"), Named(b"inspection")
        ports = {
            12345: self.agent, 8080: self.node.port, 8000: self.origin.server_port, 8890: self.port,
            8893: self.tls_port, 8443: self.past.port, 8444: self.inspection.port,
        }  # fmt: skip
        text = patient((DEPLOY / "haproxy.cfg").read_text("utf-8"), ("inspect-delay 5s", "inspect-delay 20s"))
        assert CLOSED in text
        if undecided == "fail-open":  # as the file says
            text = "".join(line for line in text.splitlines(keepends=True) if CLOSED not in line)
        text = re.sub(r"127\.0\.0\.1:(\d+)", lambda found: f"127.0.0.1:{ports[int(found[1])]}", text)
        (directory / "haproxy.cfg").write_text(text, "utf-8")
        agent = patient((DEPLOY / "blocker-spoe.conf").read_text("utf-8"), ("500ms", "10s"))
        (directory / "blocker-spoe.conf").write_text(agent, "utf-8")
        self.log = directory / "haproxy.log"
        with self.log.open("wb") as log:
            self.process = spawn(["haproxy", "-f", "haproxy.cfg"], cwd=directory, stdout=log, stderr=subprocess.STDOUT)
        until(self._listens)

    def hello(self, name: str) -> bytes:
        """Who answers a TLS hello for a name; nothing if it is refused."""
        return hello(self.tls_port, name)

    def close(self) -> None:
        """End everything."""
        super().close()
        self.past.close()
        self.inspection.close()


@pytest.fixture
def haproxy(tmp_path: Path, redis: RedisServer, request: pytest.FixtureRequest) -> Iterator[HAProxy]:
    running = HAProxy(tmp_path, redis, request.param)
    yield running
    running.close()


@pytest.mark.parametrize("haproxy", ["fail-closed"], indirect=True)
def test_updates_and_rollbacks_take_effect_without_a_restart(haproxy: HAProxy) -> None:
    assert haproxy.status("harmless.example", "/") == 503, "a node without a list decides nothing"
    haproxy.push("http://listed.example/gallery/", "http://*.whole.example")
    until(lambda: haproxy.status("harmless.example", "/") == 200)
    status, page, headers = haproxy.ask("listed.example", "/gallery/1.jpg?x=y", **{"Accept-Language": "en"})
    assert status == 451
    assert b"Access to the page you asked for was stopped" in page
    assert b"listed.example" not in page
    own = page.partition(b"<details")[0]
    assert b"Told by the police." in own, "it is the page of the list that blocks"
    for path in ("/gallery/?list=other", "/gallery/?list=", "/gallery/?list=police&list=police"):
        assert haproxy.ask("listed.example", path, **{"Accept-Language": "en"})[1] == page, "whatever was asked for"
    _, swedish, _ = haproxy.ask("listed.example", "/gallery/", **{"Accept-Language": "sv-SE, en;q=0.5"})
    assert b"Sagt av polisen." in swedish.partition(b"<details")[0]
    assert 'rel="blocked-by"' in headers["link"]
    asked = [
        ("listed.example", "/gallery", 451), ("LISTED.example:80", "//gallery/%2e/a", 451),
        ("listed.example", "/", 200), ("listed.example", "/gallery2", 200), ("a.b.whole.example", "/any?thing", 451),
        ("notwhole.example", "/", 200), ("harmless.example", "/forbidden", 403),
    ]  # fmt: skip
    assert [(host, path, haproxy.status(host, path)) for host, path, _ in asked] == asked
    haproxy.push("http://listed.example/gallery/", "http://*.whole.example", "http://new.example/")
    until(lambda: haproxy.status("new.example", "/x") == 451)
    haproxy.command("lists", "rollback", "police", "1", "--reason", "test")
    until(lambda: haproxy.status("new.example", "/x") == 200)


@pytest.mark.parametrize("haproxy", ["fail-closed"], indirect=True)
def test_only_hosts_under_inspection_are_sent_to_where_addresses_are_seen(haproxy: HAProxy) -> None:
    haproxy.push("http://listed.example/gallery/", "http://*.whole.example")
    until(lambda: haproxy.hello("listed.example") == b"inspection")
    assert haproxy.hello("harmless.example") == b"past"
    assert haproxy.hello("a.whole.example") == b""


@pytest.mark.parametrize("haproxy", ["fail-closed"], indirect=True)
def test_the_origin_sees_who_asks_and_blocker_does_not(haproxy: HAProxy) -> None:
    haproxy.push("http://listed.example/gallery/")
    until(lambda: haproxy.status("harmless.example", "/") == 200)
    marks = {"Cookie": f"session={MARK}", "Authorization": f"Basic {MARK}", "User-Agent": MARK, "X-Original-URL": MARK}
    status, page, _ = haproxy.ask("listed.example", f"/gallery/{MARK}?{MARK}", **marks)
    assert status == 451
    assert MARK.encode() not in page
    assert haproxy.ask("harmless.example", f"/{MARK}", **marks)[0] == 200
    assert haproxy.seen()[-1]["x-forwarded-for"] == "127.0.0.1"
    haproxy.node.stop()
    kept = [haproxy.node.log().encode(), haproxy.log.read_bytes()]
    kept += [path.read_bytes() for path in (haproxy.directory / "var").rglob("*") if path.is_file()]
    assert not any(MARK.encode() in data for data in kept)


@pytest.mark.parametrize(("haproxy", "without"), [("fail-closed", 503), ("fail-open", 200)], indirect=["haproxy"])
def test_while_the_node_is_away(haproxy: HAProxy, without: int) -> None:
    haproxy.push("http://listed.example/")
    until(lambda: haproxy.status("listed.example", "/x") == 451)
    haproxy.node.kill()
    assert haproxy.status("harmless.example", "/") == without
    assert haproxy.status("listed.example", "/x") == without
    haproxy.node.start()
    until(lambda: haproxy.status("listed.example", "/x") == 451)
    assert haproxy.status("harmless.example", "/") == 200
