"""A proxy under test: its node, an origin behind it, and what a customer sees before it."""

from __future__ import annotations

import http.client
import http.server
import json
import secrets
import socket
import ssl
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import NodeProcess, program
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from pathlib import Path

MARK = "zqmarkzq"
# The stop page of the list `police`, as a setting of the node.
STOP_PAGE = json.dumps({
    "operator": "Provider", "reason": "Told by the provider.",
    "lists": {"police": {
        "reason": "Told by the police.", "languages": {"sv": {"reason": "Sagt av polisen."}},
    }},
})  # fmt: skip


class Origin(http.server.BaseHTTPRequestHandler):
    """Answers everything, and remembers what it was asked."""

    protocol_version = "HTTP/1.1"
    server: OriginServer

    def do_GET(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers.get("Content-Length", "0")))  # a proxy keeps the connection
        self.server.seen.append({name.lower(): value for name, value in self.headers.items()})
        status = 403 if self.path == "/forbidden" else 200
        self.send_response(status)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"origin")

    do_POST = do_GET  # noqa: N815 - the library's name

    def log_message(self, *_arguments: object) -> None:
        """Nothing."""


class OriginServer(http.server.ThreadingHTTPServer):
    """An origin, and what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Origin)
        self.seen: list[dict[str, str]] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a proxy that went away, as those that are killed do."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Named:
    """A listener that takes a connection and says who it is."""

    def __init__(self, name: bytes) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._name = name
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(self._name)

    def close(self) -> None:
        """End it."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def hello(port: int, name: str) -> bytes:
    """Who answers a TLS hello for a name; nothing if it is refused."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(outgoing.read())
        try:
            return connection.recv(100)
        except ConnectionError:
            return b""


def patient(text: str, *limits: tuple[str, str]) -> str:
    """A configuration whose proxy waits longer for the node; on a busy machine its few tenths of a second run out.

    Args:
        text: The configuration.
        limits: What stands there, and what shall.
    """
    for old, new in limits:
        assert old in text
        text = text.replace(old, new)
    return text


class Proxied:
    """Everything around a proxy. A subclass starts `process`, listening on `port`."""

    process: subprocess.Popen[bytes]

    def __init__(self, directory: Path, redis: RedisServer, **settings: str) -> None:
        self.directory = directory
        (directory / "lists").mkdir()
        self.node = NodeProcess(
            directory, redis_url=redis.url, deployment=f"t{secrets.token_hex(8)}", log_level="debug",
            stop_page=STOP_PAGE, **settings
        ).start(ready=False)  # fmt: skip
        self.origin = OriginServer()
        threading.Thread(target=self.origin.serve_forever, daemon=True).start()
        self.port = free_port()

    def _listens(self) -> bool:
        assert self.process.poll() is None, "the proxy ended"
        try:
            self.ask("harmless.example", "/")
        except OSError:
            return False
        return True

    def ask(self, host: str, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """What a customer gets."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, b"x=1" if method == "POST" else None, {"Host": host, **headers})
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    def status(self, host: str, path: str) -> int:
        """Its status alone."""
        return self.ask(host, path)[0]

    def command(self, *words: str) -> dict[str, object]:
        """Run a command of the project on the node's deployment."""
        done = subprocess.run(
            [*program(), *words, "--json"],
            env=self.node.environment, cwd=self.directory, capture_output=True, check=True,
        )  # fmt: skip
        told: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return told

    def push(self, *lines: str) -> None:
        """Make these lines the list."""
        (self.directory / "list.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        assert self.command("lists", "push", "police", "list.txt", "--publish")["status"] == "published"

    def seen(self) -> list[dict[str, str]]:
        """Headers of all requests that the origin got."""
        return self.origin.seen

    def close(self) -> None:
        """End everything."""
        self.process.terminate()
        self.process.wait(30)
        self.origin.shutdown()
        self.origin.server_close()
        if self.node.process is not None and self.node.process.poll() is None:
            self.node.kill()
