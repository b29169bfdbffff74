"""A real Squid with the configurations of `deploy/squid`, unchanged but for ports and paths, and a real node."""

from __future__ import annotations

import grp
import http.client
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import blocker
from tests.e2e.processes import spawn, until
from tests.e2e.proxied import MARK, Proxied
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = Path(__file__).parents[2] / "deploy" / "squid"
HOSTS = ("listed", "harmless", "new", "whole", "a.b.whole", "notwhole", f"{MARK}.listed")
SQUID = """
http_port 127.0.0.1:{port}
pid_filename {directory}/squid.pid
cache_log {directory}/cache.log
coredump_dir {directory}
access_log none
cache_store_log none
cache deny all
memory_cache_shared off
visible_hostname proxy.test
pinger_enable off
netdb_filename none
hosts_file {directory}/hosts
shutdown_lifetime 0 seconds
acl CONNECT method CONNECT
include {directory}/blocker.conf
http_access allow all
"""
OPEN = {
    "helper": [
        ("http_access deny !decided\n", ""),
        ("squid-helper --socket", "squid-helper --undecided allow --socket"),
    ],
    "rewrite": [
        ("url_rewrite_bypass off", "url_rewrite_bypass on"),
        ("squid-helper --socket", "squid-helper --undecided allow --socket"),
    ],
    "icap": [("bypass=off", "bypass=on")],
}


def for_all_users(command: list[str], scratch: Path) -> list[str]:
    """The command in a mount namespace of its own in which every user can come to this Python, wherever it is kept.

    A Python below /root, say, is out of reach for Squid's user, as which the helpers run.
    """
    needed = sorted({Path(sys.base_prefix), Path(sys.prefix), Path(blocker.__file__).parents[1]})
    closed = {parent for place in needed for parent in place.parents if not parent.stat().st_mode & 0o001}
    behind = [place for place in needed if closed & set(place.parents)]
    if os.geteuid() != 0 or not behind:
        return command
    steps = []
    for number, place in enumerate(behind):
        steps.append(f"mkdir {scratch}/kept{number} && mount --bind {place} {scratch}/kept{number}")
    steps += [f"mount -t tmpfs -o mode=755 none {directory}" for directory in sorted(closed)]
    for number, place in enumerate(behind):
        steps.append(f"mkdir -p {place} && mount --bind {scratch}/kept{number} {place}")
    return ["unshare", "--mount", "sh", "-ec", "; ".join([*steps, f"exec {shlex.join(command)}"])]


class Squid(Proxied):
    """A Squid, its origin and its node."""

    def __init__(self, directory: Path, redis: RedisServer, way: str, undecided: str) -> None:
        # Squid runs as a user of its own, which must come to its files and to the node's socket.
        self.shared = Path(tempfile.mkdtemp(prefix="blocker-squid-"))
        self.shared.chmod(0o755)
        self.run = self.shared / "run"
        self.run.mkdir()
        icap = free_port()
        user = "proxy" if os.geteuid() == 0 else None
        super().__init__(
            directory, redis, gateways__icap__port=str(icap), companions__unix=str(self.run / "node.sock"),
            companions__group=user or grp.getgrgid(os.getegid()).gr_name,
        )  # fmt: skip
        text = (DEPLOY / f"{way}.conf").read_text("utf-8")
        for old, new in OPEN[way] if undecided == "fail-open" else []:
            assert old in text
            text = text.replace(old, new)
        for old, new in [
            ("/usr/bin/blocker", str(Path(sys.prefix) / "bin" / "blocker")), ("/run/blocker", str(self.run)),
            ("/etc/squid/blocker", str(self.shared)), ("127.0.0.1:1344", f"127.0.0.1:{icap}"),
            ("127.0.0.1:8080", f"127.0.0.1:{self.node.port}"), ("port 8080", f"port {self.node.port}"),
        ]:  # fmt: skip
            text = text.replace(old, new)
        assert re.findall(r"(?:/usr/bin|/etc|/run)/blocker", text) == []
        self._write("blocker.conf", text)
        self._write("hosts", "".join(f"127.0.0.1 {name}.example\n" for name in HOSTS))
        self._write("squid.conf", SQUID.format(port=self.port, directory=self.shared))
        self._write("ERR_BLOCKED", self.node.get("/blocked")[1].decode().replace("%", "%%"))
        self.log = self.shared / "cache.log"
        self.log.touch()
        if user is not None:
            shutil.chown(self.log, user, user)
            shutil.chown(self.shared, user, user)
        self.start()

    def start(self) -> None:
        """Start it."""
        command = for_all_users(
            ["squid", "-N", "-n", f"t{secrets.token_hex(8)}", "-f", str(self.shared / "squid.conf")], self.shared
        )
        self.process = spawn(command, stderr=subprocess.DEVNULL)
        until(self._listens)

    def _write(self, name: str, text: str) -> None:
        path = self.shared / name
        path.write_text(text, "utf-8")
        path.chmod(0o644)

    def ask(self, host: str, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """What a customer gets."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            body = b"x=1" * 1000 if method == "POST" else None
            connection.request(method, f"http://{host}:{self.origin.server_port}{path}", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    def connect(self, host: str) -> int:
        """Status of a tunnel."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("CONNECT", f"{host}:{self.origin.server_port}")
            return connection.getresponse().status
        finally:
            connection.close()

    def close(self) -> None:
        """End everything."""
        super().close()
        shutil.rmtree(self.shared)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), aof=True) as running:
        yield running


@pytest.fixture
def squid(tmp_path: Path, redis: RedisServer, request: pytest.FixtureRequest) -> Iterator[Squid]:
    running = Squid(tmp_path, redis, *request.param)
    yield running
    running.close()


CLOSED = [(way, "fail-closed") for way in OPEN]


@pytest.mark.parametrize("squid", CLOSED, indirect=True, ids=" ".join)
def test_updates_and_rollbacks_take_effect_without_a_restart(squid: Squid) -> None:
    assert squid.status("harmless.example", "/") != 200, "a node without a list decides nothing"
    squid.push("http://listed.example/gallery/", "http://*.whole.example")
    until(lambda: squid.status("harmless.example", "/") == 200)
    status, page, headers = squid.ask("listed.example", "/gallery/1.jpg?x=y", **{"Accept-Language": "en"})
    assert status == 451
    assert b"Access to the page you asked for was stopped" in page
    assert b"listed.example" not in page
    assert (headers["cache-control"], 'rel="blocked-by"' in headers["link"]) == ("no-store", True)
    asked = [
        ("listed.example", "/gallery", 451), ("LISTED.example", "//gallery/%2e/a", 451), ("listed.example", "/", 200),
        ("listed.example", "/gallery2", 200), ("a.b.whole.example", "/any?thing", 451),
        ("notwhole.example", "/", 200), ("harmless.example", "/forbidden", 403),
    ]  # fmt: skip
    assert [(host, path, squid.status(host, path)) for host, path, _ in asked] == asked
    assert squid.ask("listed.example", "/gallery/x", "POST")[0] == 451
    assert squid.ask("harmless.example", "/x", "POST")[0] == 200

    squid.push("http://listed.example/gallery/", "http://*.whole.example", "http://new.example/")
    until(lambda: squid.status("new.example", "/x") == 451)
    squid.command("lists", "rollback", "police", "1", "--reason", "test")
    until(lambda: squid.status("new.example", "/x") == 200)  # at the latest when Squid's own cache of answers is over
    assert squid.status("listed.example", "/gallery/") == 451


@pytest.mark.parametrize("squid", [("helper", "fail-closed"), ("icap", "fail-closed")], indirect=True, ids=" ".join)
def test_tunnels_are_decided_by_their_host(squid: Squid) -> None:
    squid.push("http://listed.example/gallery/", "http://*.whole.example")
    until(lambda: squid.connect("harmless.example") == 200)
    assert squid.connect("listed.example") == 200, "what is in it is not seen here; it is inspected elsewhere"
    assert squid.connect("a.b.whole.example") == 451


@pytest.mark.parametrize("squid", CLOSED, indirect=True, ids=" ".join)
def test_the_origin_sees_who_asks_and_blocker_does_not(squid: Squid) -> None:
    squid.push("http://listed.example/gallery/")
    until(lambda: squid.status("harmless.example", "/") == 200)
    marks = {
        "Cookie": f"session={MARK}", "Authorization": f"Basic {MARK}", "X-Forwarded-For": MARK, "User-Agent": MARK,
        "X-Client-IP": MARK, "X-Authenticated-User": MARK, "Referer": f"http://{MARK}.example/",
    }  # fmt: skip
    status, page, _ = squid.ask("listed.example", f"/gallery/{MARK}?{MARK}", **marks)
    assert (status, MARK.encode() in page) == (451, False)
    assert squid.ask("harmless.example", f"/{MARK}", **marks)[0] == 200
    assert squid.ask(f"{MARK}.listed.example", "/%zz%00", **marks)[0] in (200, 400)
    assert squid.ask(f"{MARK}.listed.example", f"/{MARK * 9000}", **marks)[0] in (200, 400, 414)
    assert squid.seen()[-1]["x-forwarded-for"].endswith("127.0.0.1")
    squid.node.stop()
    kept = [squid.node.log().encode()]
    kept += [path.read_bytes() for path in (squid.directory / "var").rglob("*") if path.is_file()]
    assert not any(MARK.encode() in data for data in kept)


@pytest.mark.parametrize(
    ("squid", "without"),
    [
        (("icap", "fail-closed"), 500), (("icap", "fail-open"), 200),
        # A helper goes on with the lists that it has; without any, it says so.
        (("helper", "fail-closed"), None), (("helper", "fail-open"), None),
        (("rewrite", "fail-closed"), None), (("rewrite", "fail-open"), None),
    ],
    indirect=["squid"],
)  # fmt: skip
def test_while_the_node_is_away(squid: Squid, without: int | None) -> None:
    squid.push("http://listed.example/")
    until(lambda: squid.status("listed.example", "/x") == 451)
    squid.node.kill()
    if without is not None:
        assert squid.status("harmless.example", "/") == without
        assert squid.status("listed.example", "/x") == without
    else:
        assert squid.status("harmless.example", "/y") == 200
        assert squid.status("listed.example", "/y") in (451, 503)
    squid.node.start()
    until(lambda: squid.status("listed.example", "/x") == 451)
    until(lambda: squid.status("harmless.example", "/") == 200)


@pytest.mark.parametrize(
    ("squid", "status"),
    [
        (("helper", "fail-closed"), 503), (("helper", "fail-open"), 200), (("rewrite", "fail-closed"), 451),
        (("rewrite", "fail-open"), 200), (("icap", "fail-open"), 200),
    ],
    indirect=["squid"],
)  # fmt: skip
def test_while_there_are_no_lists(squid: Squid, status: int) -> None:
    assert squid.status("harmless.example", "/") == status
    squid.push("http://listed.example/")
    until(lambda: squid.status("listed.example", "/x") == 451)
    until(lambda: squid.status("harmless.example", "/") == 200)


@pytest.mark.parametrize("squid", [("helper", "fail-closed")], indirect=True)
def test_helpers_count_into_the_nodes_hits_and_are_watched_by_its_canaries(squid: Squid) -> None:
    squid.push("http://listed.example/")
    until(lambda: squid.status("listed.example", "/x") == 451)
    seen = b'blocker_decisions_total{gateway="squid-helper",verdict="allow"} '
    squid.status("harmless.example", "/1")
    until(lambda: seen in (text := squid.node.get("/metrics")[1]) and seen + b"0" not in text)
    squid.node.stop()
