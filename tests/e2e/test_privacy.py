"""What is on a list, where it comes from, and who asked for what is nowhere afterwards.

A mark of its own stands for each thing that must not be kept. A real node with every role logs at its lowest level, and
its Redis writes everything to disk. Every route is asked in good and bad ways, sources fail in every way, Redis is
killed in between. Then all that is left is searched: logs, answers, metrics, Redis' keys and values, its files and its
memory, and every file of the node. Only the list file itself, the node's own memory, and an answer to whoever asked may
hold a mark.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import re
import secrets
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from redis import Redis

from tests.e2e.processes import NodeProcess, program, until
from tests.e2e.sources import SourceServer
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = (
    "line_host", "line_path", "line_query", "line_comment", "line_bad", "served", "source_user", "source_password",
    "source_path", "source_token", "source_answer", "host", "path", "query", "fragment", "user", "header", "cookie",
    "authorization", "agent", "forwarded", "policy", "route", "parameter", "body", "method", "garbage", "long",
)  # fmt: skip
BAD_MODES = ("error", "redirect", "cut", "unpacked", "endless")
# Longer than any URL may be, and longer than any request head may be.
LONG, TOO_LONG = 70_000, 300_000


class Marks:
    """One random word for each kind of secret, and a search for all of them."""

    def __init__(self) -> None:
        self._words = {kind: f"zq{secrets.token_hex(8)}" for kind in KINDS}
        self._pattern = re.compile("|".join(self._words.values()).encode(), re.IGNORECASE)

    def __getattr__(self, kind: str) -> str:
        return self._words[kind]

    def found_in(self, data: bytes) -> set[str]:
        """Kinds whose mark is there."""
        found = {match.lower().decode() for match in self._pattern.findall(data)}
        return {kind for kind, word in self._words.items() if word in found}


class Scene:
    """The deployment, and what it leaves behind."""

    def __init__(self, directory: Path, redis: RedisServer, web: SourceServer, marks: Marks, log_format: str) -> None:
        self.directory = directory
        self.redis = redis
        self.web = web
        self.marks = marks
        self.node = NodeProcess(
            directory, redis_url=redis.url, roles=("ingest", "control"), log_level="debug", log_format=log_format
        )
        self.answers: list[tuple[str, bytes]] = []  # of what may hold no mark
        self.echoed: set[str] = set()
        self.said: list[bytes] = []  # by commands

    @property
    def url(self) -> str:
        m = self.marks
        return f"http://{m.user}:{m.user}@{m.host}.example:8080/{m.path}/page?{m.query}=1#{m.fragment}"

    def write_lists(self) -> None:
        """One list from a file, one from the web, and one of which most lines are bad."""
        m = self.marks
        lists = self.directory / "lists"
        lists.mkdir()
        pace = "interval_seconds = 1\njitter_seconds = 0\n"
        (lists / "filed.toml").write_text(f'format = "url"\npath = "filed.txt"\nmax_bad_share = 0.5\n{pace}')
        self.write_file(0)
        address = f"http://{m.source_user}:{m.source_password}@127.0.0.1:{self.web.port}"
        (lists / "served.toml").write_text(
            f'format = "url"\nurl = "{address}/{m.source_path}?token={m.source_token}"\n{pace}'
        )
        (lists / "refused.toml").write_text(f'format = "url"\npath = "refused.txt"\n{pace}')
        (lists / "refused.txt").write_text(f"http://{m.line_host}.example/\n" + f"http://[{m.line_bad}\n" * 5)

    def write_file(self, number: int) -> None:
        """The list from a file, with a change to see; written aside, and put in its place."""
        m = self.marks
        beside = self.directory / "lists" / "filed.new"
        beside.write_text(
            f"# {m.line_comment}\n"
            f"http://{m.line_host}.example/\nhttp://{m.line_host}.test/{m.line_path}/\n"
            f"http://{m.line_host}.test/{m.line_path}?{m.line_query}={number}\n*.{m.line_host}.invalid/{m.line_path}\n"
            f"http://[{m.line_bad}\n{m.line_bad} {m.line_bad}\n"
            f"http://{m.host}.example/{m.path}/\n"  # so that what is asked for is blocked and counted
        )
        beside.replace(self.directory / "lists" / "filed.txt")

    def headers(self) -> dict[str, str]:
        m = self.marks
        return {
            "x-forwarded-for": f"{m.forwarded}, 203.0.113.99", "forwarded": f"for={m.forwarded}", "referer": self.url,
            "cookie": f"session={m.cookie}", "authorization": f"Bearer {m.authorization}", "user-agent": m.agent,
            "x-original-url": self.url, f"x-{m.header}": m.header, "accept-language": m.header, "traceparent": m.header,
        }  # fmt: skip

    def requests(self) -> Iterator[tuple[str, str, bytes | None]]:
        m = self.marks
        asked = quote(self.url, safe="")
        paths = [
            f"/v1/check?url={asked}", f"/v1/check?url={quote(self.url)}&{m.parameter}=1", "/v1/check",
            f"/v1/check?url={asked}&policy={m.policy}", f"/v1/check?policy={m.policy}", f"/v1/check?url={asked}&url=x",
            f"/v1/check?url=http://[{m.host}", f"/v1/check?url=/{m.path}", f"/v1/check?url={m.long * (LONG // 18)}",
            f"/v1/hosts/{m.host}.example", f"/v1/hosts/{m.host}?policy={m.policy}", f"/v1/hosts/{m.host}%00%20%5B",
            f"/v1/hosts/{m.host}?{m.parameter}", f"/v1/lists?{m.parameter}=1", f"/v1/lists/{m.route}",
            f"/healthz?{m.query}", f"/readyz?{m.query}", f"/metrics?{m.query}", f"/blocked?url={asked}",
            f"/docs?{m.query}", f"/openapi.json?{m.query}", f"/?{m.query}", f"/{m.route}/../{m.path}?{m.query}",
        ]  # fmt: skip
        methods = ("GET", "HEAD", "DELETE", "OPTIONS", "PATCH")
        yield from ((method, path, None) for path, method in itertools.product(paths, methods))
        yield f"{m.method.upper()}", "/v1/check", None
        many = [self.url, f"{m.host}.example", f"http://[{m.body}", f"/{m.body}", m.long * (LONG // 18), ""]
        bodies: list[Any] = [
            {"urls": many}, {"urls": [self.url] * 50}, {"urls": [self.url], "policy": m.policy}, {m.body: [m.body]},
            {"urls": [m.body, {m.body: m.body}, 1]}, [m.body], m.body, {"urls": [self.url] * 10_001},
        ]  # fmt: skip
        raw = [json.dumps(body).encode() for body in bodies]
        mark = m.body.encode()
        raw += [mark, raw[0][:40], b'{"urls":["\\ud800' + mark + b'"]}', b"\xff" + mark]
        yield from ((method, "/v1/check", body) for body, method in itertools.product(raw, ("POST", "PUT")))
        yield "POST", f"/v1/lists/{m.route}/publish", m.body.encode()

    def ask_everything(self) -> None:
        """Every request once. Only an answer that decides may repeat what was asked."""
        for method, path, body in self.requests():
            connection = self.node.connection()
            with contextlib.closing(connection):
                connection.request(method, path, body, self.headers())
                answer = connection.getresponse()
                data = answer.read() + str(answer.headers).encode()
            decides = answer.status == 200 and path.startswith(("/v1/check", "/v1/hosts/"))
            if decides:
                self.echoed |= self.marks.found_in(data)
            else:
                self.answers.append((f"{method} {answer.status}", data))

    def send_broken_bytes(self) -> None:
        m = self.marks
        requests = [
            f"{m.garbage}\r\n\r\n", f"GET /{m.garbage} HTTP/x\r\n\r\n",
            f"GET /{m.garbage} HTTP/1.1\r\n{m.garbage}\r\n\r\n",
            f"GET /{m.garbage}\x00 HTTP/1.1\r\nhost: x\r\n\r\n", f"\x16\x03\x01{m.garbage}",
            f"POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-length: {m.garbage}\r\n\r\n",
            f"POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{m.garbage}",
            f"POST /v1/check HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{m.garbage}\r\n",
            f"POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n{m.garbage}",
            f"GET /{m.long * (TOO_LONG // 18)} HTTP/1.1\r\nhost: x\r\n\r\n", f"GET {self.url} HTTP/1.0\r\n\r\n",
            f"CONNECT {m.host}.example:443 HTTP/1.1\r\nhost: {m.host}\r\n\r\n",
            f"GET /{m.path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nx: {m.header}\r\n\r\n",
        ]  # fmt: skip
        for request in requests:
            # A server that refuses a request may close before it was all sent.
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.node.port), timeout=30) as connection,
            ):
                connection.sendall(request.encode("latin-1"))
                connection.shutdown(socket.SHUT_WR)
                with connection.makefile("rb") as answer:
                    self.answers.append(("raw", answer.read()))

    def fail_sources(self) -> None:
        """The web source fails in every way, by a pull of its own, since the worker waits longer and longer."""
        for mode in BAD_MODES:
            self.web.mode = mode
            self.command("lists", "pull", code=1)
        self.web.mode = "good"
        self.command("lists", "pull", "served", code=0)

    def command(self, *words: str, code: int) -> None:
        done = subprocess.run(
            [*program(), *words], check=False, capture_output=True, cwd=self.directory, env=self.node.environment
        )
        self.said.append(done.stdout + done.stderr)
        assert done.returncode == code, done.stderr

    def in_redis(self) -> bytes:
        """Every key and value."""
        with Redis(unix_socket_path=str(self.redis.socket)) as client:
            readers: dict[bytes, Any] = {
                b"hash": client.hgetall, b"set": client.smembers, b"string": client.get, b"stream": client.xrange,
                b"zset": lambda key: client.zrange(key, 0, -1),
            }  # fmt: skip
            keys: Any = client.keys("*")
            parts = []
            for key in keys:
                value = readers[client.type(key)](key)
                parts += [key, value if isinstance(value, bytes) else repr(value).encode()]
            return b"\n".join(parts)

    def in_redis_memory(self) -> Iterator[bytes]:
        """What the server's process has in memory, where the system lets it be read."""
        process = Path(f"/proc/{self.redis.pid}")
        try:
            memory = (process / "mem").open("rb", buffering=0)
        except OSError:
            return
        with memory:
            for line in (process / "maps").read_text().splitlines():
                span, rights, *_rest = line.split()
                start, end = (int(at, 16) for at in span.split("-"))
                if not rights.startswith("rw") or end - start > 2**30:
                    continue
                with contextlib.suppress(OSError, OverflowError):
                    memory.seek(start)
                    yield memory.read(end - start)


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_no_secret_is_left_anywhere(tmp_path: Path, log_format: str) -> None:
    marks = Marks()
    served = f"http://{marks.served}.example/{marks.served}\nhttp://www.{marks.served}.test/\n".encode()
    # Uncompressed, so that what is searched for could be seen.
    options = ["rdbcompression no", "slowlog-log-slower-than 0"]
    with (
        SourceServer(served, marks.source_answer) as web,
        RedisServer(tmp_path / "redis", aof=True, options=options) as redis,
    ):
        scene = Scene(tmp_path, redis, web, marks, log_format)
        scene.write_lists()
        with scene.node as node:
            node.start()
            until(lambda: {entry["name"] for entry in node.ready()["lists"]} == {"filed", "served"})
            scene.ask_everything()
            scene.send_broken_bytes()
            redis.kill()
            scene.write_file(1)
            scene.ask_everything()
            until(lambda: node.ready()["status"] == "degraded")
            redis.start()  # and what changed meanwhile is published and enforced
            listed = f"http://{marks.line_host}.test/{marks.line_path}?{marks.line_query}=1"
            until(lambda: node.check_many([listed])[0]["kind"] == "exact")
            scene.fail_sources()
            scene.command("doctor", code=0)
            scene.command("lists", "ls", code=0)
            scene.command("lists", "log", "filed", code=0)
            scene.command("check", "http://harmless.example/", code=0)
            for path in ("/metrics", "/openapi.json", "/readyz", "/v1/lists", "/docs"):
                status, body = node.get(path)
                assert status == 200
                scene.answers.append((path, body))
            assert node.stop() == 0
        log = node.log().encode()
        redis.command("SAVE")
        values, memory = scene.in_redis(), list(scene.in_redis_memory())
        check(scene, log, values, memory)
    assert_no_marks(marks, "Redis' files", *files_below(tmp_path / "redis"))
    assert any(b"served" in data for data in files_below(tmp_path / "redis"))


def check(scene: Scene, log: bytes, values: bytes, memory: list[bytes]) -> None:
    marks = scene.marks
    # What was done was done: every failure happened, and the search finds what is there.
    assert scene.web.modes_seen == {"good", *BAD_MODES}
    assert {"host", "path", "query"} <= scene.echoed
    assert marks.found_in((scene.directory / "lists" / "filed.txt").read_bytes()) >= {"line_host", "line_bad"}
    assert b"list published" in log
    assert b"store not usable" in log
    assert b"list not updated" in log
    assert b"hits" in values
    assert all(b"served" in data for data in (values, b"".join(memory) or b"served"))
    # And none of it is left.
    assert_no_marks(marks, "log", log)
    assert_no_marks(marks, "commands", *scene.said)
    for what, data in scene.answers:
        assert_no_marks(marks, f"answer to {what}", data)
    assert_no_marks(marks, "Redis' keys and values", values)
    assert_no_marks(marks, "Redis' memory", *memory)
    assert_no_marks(marks, "files of the node", *files_below(scene.directory / "var"))
    assert (scene.directory / "var" / "snapshot" / "table").exists()
    others = [path for path in scene.directory.iterdir() if path.name not in ("lists", "redis", "var", "node.log")]
    assert others == []
    assert b"Traceback" not in log


def assert_no_marks(marks: Marks, where: str, *data: bytes) -> None:
    found = set[str]().union(*map(marks.found_in, data))
    assert not found, f"{where}: {', '.join(sorted(found))}"


def files_below(directory: Path) -> list[bytes]:
    """Names and contents of all files."""
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return [str(path.relative_to(directory)).encode() + b"\n" + path.read_bytes() for path in paths]


def test_the_search_finds_what_a_server_repeats() -> None:
    marks = Marks()
    with SourceServer(marks.served.encode(), "none") as web:
        connection = http.client.HTTPConnection("127.0.0.1", web.port)
        with contextlib.closing(connection):
            connection.request("GET", "/")
            assert marks.found_in(connection.getresponse().read()) == {"served"}
