"""A real Squid asks: through its helper, as a rewriter, over ICAP, and by the names in TLS hellos."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import until
from tests.e2e.proxied import MARK
from tests.e2e.squid import OPEN, Squid
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    if without is None:  # a helper that comes when the node has gone has no list
        until(lambda: b'blocker_companions{kind="squid-helper"} 2.0' in squid.node.get("/metrics")[1])
    squid.push("http://listed.example/")
    until(lambda: squid.status("listed.example", "/x") == 451)
    if without is None:  # one without lists may answer 451 to everything
        until(lambda: squid.status("harmless.example", "/x") == 200)
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


class TlsOrigin:
    """An https server of its own authority, which says which path it was asked for."""

    def __init__(self, directory: Path) -> None:
        self.certificate = directory / "origin.pem"
        names = ",".join(f"DNS:{name}.example" for name in ("listed", "harmless", "whole"))
        subprocess.run(
            ["openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=origin",
             "-addext", f"subjectAltName={names}", "-keyout", self.certificate, "-out", self.certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        _, _, shown = self.certificate.read_text("ascii").partition("-----END PRIVATE KEY-----")
        self.shown = ssl.PEM_cert_to_DER_cert(shown.strip())
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._context = context
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), self._context.wrap_socket(connection, server_side=True) as tls:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                more = tls.recv(65536)
                if not more:  # the tunnel was ended; to ask on would keep a core busy for the rest of the run
                    return
                head += more
            tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\norigin")

    def close(self) -> None:
        """End it."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def through_tls(squid: Squid, origin: TlsOrigin, host: str, path: str) -> tuple[str, int]:
    """Who signed what a customer sees in a tunnel, and the status; nothing if the tunnel is ended."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", squid.port, context=context, timeout=30)
    connection.set_tunnel(host, origin.port)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            assert isinstance(connection.sock, ssl.SSLSocket)
            shown = connection.sock.getpeercert(binary_form=True)
            answer = connection.getresponse()
        except OSError:
            return "", 0
        assert shown is not None
        own = ssl.PEM_cert_to_DER_cert(
            origin.certificate.read_text("ascii").partition("-----END PRIVATE KEY-----")[2].strip()
        )
        answer.read()
        return ("origin" if shown == own else "filter"), answer.status


@pytest.mark.parametrize(
    ("way", "page", "whole"),
    [("helper+tls", ("filter", 451), ("filter", 451)), ("tls", ("filter", 200), ("", 0))],
)  # by names alone pages are not seen, and what is listed whole is cut off without a word
def test_only_hosts_under_inspection_are_decrypted(
    tmp_path: Path, redis: RedisServer, way: str, page: tuple[str, int], whole: tuple[str, int]
) -> None:
    (tmp_path / "node").mkdir()
    origin = TlsOrigin(tmp_path)
    readable = Path("/tmp") / f"{tmp_path.parent.name}-{free_port()}.pem"  # noqa: S108 - a certificate, for Squid's user
    shutil.copy(origin.certificate, readable)
    squid = Squid(tmp_path / "node", redis, way, "fail-closed", f"tls_outgoing_options cafile={readable}\n")
    try:
        squid.push("http://listed.example/gallery/", "http://*.whole.example")
        # Without a list a host is not decrypted, as a harmless one is not.
        until(lambda: through_tls(squid, origin, "listed.example", "/other") == ("filter", 200))
        until(lambda: through_tls(squid, origin, "whole.example", "/") == whole)
        assert through_tls(squid, origin, "harmless.example", "/") == ("origin", 200)
        assert through_tls(squid, origin, "listed.example", "/gallery/1.jpg") == page
        squid.push("http://*.whole.example")
        until(lambda: through_tls(squid, origin, "listed.example", "/gallery/1.jpg") == ("origin", 200))
    finally:
        squid.close()
        origin.close()
        readable.unlink()
