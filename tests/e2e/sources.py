"""A web server for list sources that answers well, badly, or hardly; on this machine, so plain HTTP is allowed."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class SourceServer:
    """Serves one text in the way of `mode`: good, error, redirect, cut, unpacked or silent about its length."""

    def __init__(self, text: bytes, secret: str) -> None:
        self.mode = "good"
        self.modes_seen: set[str] = set()
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                source.modes_seen.add(source.mode)
                match source.mode:
                    case "good":
                        self._send(200, {"content-length": str(len(text))}, text)
                    case "error":
                        self._send(500, {"content-length": str(len(secret)), "x-reason": secret}, secret.encode())
                    case "redirect":
                        self._send(302, {"location": f"http://{secret}.example/{secret}", "content-length": "0"}, b"")
                    case "cut":
                        self._send(200, {"content-length": str(len(text) + 9)}, text)
                    case "unpacked":
                        self._send(200, {"content-length": str(len(text)), "content-encoding": "gzip"}, text)
                    case _:
                        self._send(200, {"etag": f'"{secret}"'}, text)

            def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the library names it
                """Nothing is printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
