"""A real Caddy with the configuration of `deploy/caddy`, unchanged but for ports, before a real origin and node."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import spawn, until
from tests.e2e.proxied import MARK, Proxied, patient
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = Path(__file__).parents[2] / "deploy" / "caddy"
CLOSED = '\t\t\theader Retry-After 5\n\t\t\trespond "Please try again in a moment." 503\n'


class Caddy(Proxied):
    """A Caddy, its origin and its node."""

    def __init__(self, directory: Path, redis: RedisServer, undecided: str) -> None:
        check = free_port()
        super().__init__(directory, redis, gateways__check__port=str(check))
        text = patient(
            (DEPLOY / "Caddyfile").read_text("utf-8"),
            ("dial_timeout 200ms", "dial_timeout 10s"), ("header_timeout 500ms", "header_timeout 10s"),
        )  # fmt: skip
        assert CLOSED in text
        if undecided == "fail-open":  # as the file says
            text = text.replace(CLOSED, "\t\t\timport origin\n")
        ports = {"8895": self.port, "8081": check, "8000": self.origin.server_port}
        text = re.sub(r"(http://|127\.0\.0\.1):(\d+)", lambda found: f"{found[1]}:{ports[found[2]]}", text)
        (directory / "Caddyfile").write_text(text, "utf-8")
        self.log = directory / "caddy.log"
        with self.log.open("wb") as log:
            self.process = spawn(
                ["caddy", "run", "--config", "Caddyfile", "--adapter", "caddyfile"],
                cwd=directory, stdout=log, stderr=subprocess.STDOUT,
                env={**self.node.environment, "HOME": str(directory)},
            )  # fmt: skip
        until(self._listens)


@pytest.fixture
def caddy(tmp_path: Path, redis: RedisServer, request: pytest.FixtureRequest) -> Iterator[Caddy]:
    running = Caddy(tmp_path, redis, request.param)
    yield running
    running.close()


@pytest.mark.parametrize("caddy", ["fail-closed"], indirect=True)
def test_updates_rollbacks_and_privacy(caddy: Caddy) -> None:
    assert caddy.status("harmless.example", "/") == 503, "a node without a list decides nothing"
    caddy.push("http://listed.example/gallery/", "http://*.whole.example")
    until(lambda: caddy.status("harmless.example", "/") == 200)
    status, page, headers = caddy.ask("listed.example", "/gallery/1.jpg?x=y", **{"Accept-Language": "en"})
    assert status == 451
    assert b"Access to the page you asked for was stopped" in page
    assert b"listed.example" not in page
    assert 'rel="blocked-by"' in headers["link"]
    assert headers["cache-control"] == "no-store"
    asked = [
        ("listed.example", "/gallery", 451), ("LISTED.example:80", "//gallery/%2e/a", 451),
        ("listed.example", "/", 200), ("listed.example", "/gallery2", 200), ("a.b.whole.example", "/any?thing", 451),
        ("notwhole.example", "/", 200), ("harmless.example", "/forbidden", 403),
    ]  # fmt: skip
    assert [(host, path, caddy.status(host, path)) for host, path, _ in asked] == asked
    assert caddy.ask("listed.example", "/gallery/x", "POST")[0] == 451
    assert caddy.ask("harmless.example", "/x", "POST")[0] == 200

    caddy.push("http://listed.example/gallery/", "http://*.whole.example", "http://new.example/")
    until(lambda: caddy.status("new.example", "/x") == 451)
    caddy.command("lists", "rollback", "police", "1", "--reason", "test")
    until(lambda: caddy.status("new.example", "/x") == 200)

    marks = {
        "Cookie": f"session={MARK}", "Authorization": f"Basic {MARK}", "User-Agent": MARK, "X-Forwarded-For": MARK,
        "X-Forwarded-Host": f"{MARK}.example", "X-Forwarded-Uri": f"/{MARK}", "X-Original-URL": MARK,
    }  # fmt: skip
    status, page, headers = caddy.ask("listed.example", f"/gallery/{MARK}?{MARK}", **marks)
    assert status == 451, "a client cannot choose what is decided"
    assert MARK not in page.decode() + str(headers)
    assert caddy.ask("harmless.example", f"/{MARK}", **marks)[0] == 200
    assert caddy.seen()[-1]["x-forwarded-for"] == "127.0.0.1"
    caddy.node.stop()
    assert caddy.ask("listed.example", f"/gallery/{MARK}", **marks)[0] == 503
    kept = [caddy.node.log().encode(), caddy.log.read_bytes()]
    kept += [path.read_bytes() for path in (caddy.directory / "var").rglob("*") if path.is_file()]
    assert not any(MARK.encode() in data for data in kept)


@pytest.mark.parametrize(("caddy", "without"), [("fail-closed", 503), ("fail-open", 200)], indirect=["caddy"])
def test_while_the_node_is_away(caddy: Caddy, without: int) -> None:
    caddy.push("http://listed.example/")
    until(lambda: caddy.status("listed.example", "/x") == 451)
    caddy.node.kill()
    assert caddy.status("harmless.example", "/") == without
    assert caddy.ask("listed.example", "/x", "POST")[0] == without
    caddy.node.start()
    until(lambda: caddy.status("listed.example", "/x") == 451)
    assert caddy.status("harmless.example", "/") == 200
