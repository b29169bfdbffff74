"""A real nginx with the configuration of `deploy/nginx`, unchanged but for ports, before a real origin and node."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import spawn, until
from tests.e2e.proxied import MARK, Proxied, patient
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = Path(__file__).parents[2] / "deploy" / "nginx"
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Nginx(Proxied):
    """An nginx, its origin and its node."""

    def __init__(self, directory: Path, redis: RedisServer, undecided: str) -> None:
        check = free_port()
        super().__init__(directory, redis, gateways__check__port=str(check))
        ports = {8081: check, 8080: self.node.port, 8000: self.origin.server_port, 8888: self.port}
        text = patient(
            (DEPLOY / "blocker.conf").read_text("utf-8"),
            ("connect_timeout 200ms", "connect_timeout 10s"), ("read_timeout 500ms", "read_timeout 10s"),
        )  # fmt: skip
        text = re.sub(r"127\.0\.0\.1:(\d+)", lambda found: f"127.0.0.1:{ports[int(found[1])]}", text)
        (directory / "blocker.conf").write_text(text, "utf-8")
        shutil.copy(DEPLOY / f"{undecided}.conf", directory / "blocker-undecided.conf")
        (directory / "nginx.conf").write_text(
            f"worker_processes 1; daemon off; master_process off; pid {directory}/nginx.pid;\n"
            f"error_log {directory}/error.log; events {{}}\n"
            f"http {{ access_log {directory}/access.log;\n"
            + "".join(
                f"{kind}_temp_path {directory}/{kind};\n"
                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            + "include blocker.conf; }\n",
            "utf-8",
        )
        self.process = spawn(
            ["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf")], stderr=subprocess.DEVNULL
        )
        until(self._listens)


@pytest.fixture
def nginx(tmp_path: Path, redis: RedisServer, request: pytest.FixtureRequest) -> Iterator[Nginx]:
    running = Nginx(tmp_path, redis, request.param)
    yield running
    running.close()


@pytest.mark.parametrize("nginx", ["fail-closed"], indirect=True)
def test_updates_and_rollbacks_take_effect_without_a_restart(nginx: Nginx) -> None:
    assert nginx.status("harmless.example", "/") == 503, "a node without a list decides nothing"
    nginx.push("http://listed.example/gallery/", "http://*.whole.example")
    until(lambda: nginx.status("harmless.example", "/") == 200)
    status, page, headers = nginx.ask("listed.example", "/gallery/1.jpg?x=y", **{"Accept-Language": "en"})
    assert status == 451
    assert b"Access to the page you asked for was stopped" in page
    assert b"listed.example" not in page
    own = page.partition(b"<details")[0]
    assert b"Told by the police." in own, "it is the page of the list that blocks"
    for path in ("/gallery/?list=other", "/gallery/?list=", "/gallery/?list=police&list=police"):
        assert nginx.ask("listed.example", path, **{"Accept-Language": "en"})[1] == page, "whatever was asked for"
    _, swedish, _ = nginx.ask("listed.example", "/gallery/", **{"Accept-Language": "sv-SE, en;q=0.5"})
    assert b"Sagt av polisen." in swedish.partition(b"<details")[0]
    assert 'rel="blocked-by"' in headers["link"]
    assert headers["cache-control"] == "no-store"
    asked = [
        ("listed.example", "/gallery", 451), ("LISTED.example:80", "//gallery/%2e/a", 451),
        ("listed.example", "/", 200),
        ("listed.example", "/gallery2", 200), ("a.b.whole.example", "/any?thing", 451), ("notwhole.example", "/", 200),
        ("harmless.example", "/forbidden", 403),
    ]  # fmt: skip
    assert [(host, path, nginx.status(host, path)) for host, path, _ in asked] == asked
    assert nginx.ask("listed.example", "/gallery/x", "POST")[0] == 451
    assert nginx.ask("harmless.example", "/x", "POST")[0] == 200

    nginx.push("http://listed.example/gallery/", "http://*.whole.example", "http://new.example/")
    until(lambda: nginx.status("new.example", "/x") == 451)
    nginx.command("lists", "rollback", "police", "1", "--reason", "test")
    until(lambda: nginx.status("new.example", "/x") == 200)
    assert nginx.status("listed.example", "/gallery/") == 451


@pytest.mark.parametrize("nginx", ["fail-closed"], indirect=True)
def test_the_origin_sees_who_asks_and_blocker_does_not(nginx: Nginx) -> None:
    nginx.push("http://listed.example/gallery/")
    until(lambda: nginx.status("harmless.example", "/") == 200)
    marks = {
        "Cookie": f"session={MARK}", "Authorization": f"Basic {MARK}", "X-Forwarded-For": f"{MARK}",
        "X-Original-URL": f"http://{MARK}.example/", "User-Agent": MARK,
    }  # fmt: skip
    assert nginx.ask("listed.example", f"/gallery/{MARK}?{MARK}", **marks)[0] == 451
    assert nginx.ask("harmless.example", f"/{MARK}", **marks)[0] == 200, "a client cannot choose what is decided"
    assert nginx.ask(f"{MARK}.listed.example", "/%zz%00", **marks)[0] in (200, 400)
    passed = nginx.seen()[-1]
    assert passed["x-forwarded-for"].endswith("127.0.0.1")
    nginx.node.stop()
    kept = [nginx.node.log().encode()]
    kept += [path.read_bytes() for path in (nginx.directory / "var").rglob("*") if path.is_file()]
    assert not any(MARK.encode() in data for data in kept)
    blocked = [line for line in (nginx.directory / "access.log").read_text("utf-8").splitlines() if " 451 " in line]
    assert blocked == [], "who was stopped is not in the proxy's log either"


@pytest.mark.parametrize(("nginx", "without"), [("fail-closed", 503), ("fail-open", 200)], indirect=["nginx"])
def test_while_the_node_is_away(nginx: Nginx, without: int) -> None:
    nginx.push("http://listed.example/")
    until(lambda: nginx.status("listed.example", "/x") == 451)
    nginx.node.kill()
    assert nginx.status("harmless.example", "/") == without
    assert nginx.status("listed.example", "/x") == without
    nginx.node.start()
    until(lambda: nginx.status("listed.example", "/x") == 451)
    assert nginx.status("harmless.example", "/") == 200
