"""A Squid under test, with the configurations of `deploy/squid`, unchanged but for ports and paths."""

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

import blocker
from tests.e2e.processes import spawn, until
from tests.e2e.proxied import MARK, Proxied, patient
from tests.redis_server import RedisServer, free_port

DEPLOY = Path(__file__).parents[2] / "deploy" / "squid"
HOSTS = ("listed", "harmless", "new", "whole", "a.b.whole", "notwhole", f"{MARK}.listed")
SQUID = """
{port}
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
    """A Squid, its origin and its node.

    Args:
        way: The configuration file, or several: `helper+tls`.
        undecided: `fail-closed` or `fail-open`.
        own: More lines of its configuration.
    """

    def __init__(self, directory: Path, redis: RedisServer, way: str, undecided: str, own: str = "") -> None:
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
        text = own + "".join((DEPLOY / f"{name}.conf").read_text("utf-8") for name in way.split("+"))
        if way == "icap":
            text = patient(
                text, ("connect_timeout 1 second", "connect_timeout 10 seconds"), ("2 seconds", "10 seconds")
            )
        for old, new in OPEN[way] if undecided == "fail-open" else []:
            assert old in text
            text = text.replace(old, new)
        for old, new in [
            ("/usr/bin/blocker", str(Path(sys.prefix) / "bin" / "blocker")), ("/run/blocker", str(self.run)),
            ("/etc/squid/blocker", str(self.shared)), ("127.0.0.1:1344", f"127.0.0.1:{icap}"),
            ("127.0.0.1:3128", f"127.0.0.1:{self.port}"), ("127.0.0.1:3129", f"127.0.0.1:{free_port()}"),
            ("127.0.0.1:8080", f"127.0.0.1:{self.node.port}"), ("port 8080", f"port {self.node.port}"),
            ("ttl=20 negative_ttl=20", "ttl=3 negative_ttl=3"),  # what the tests wait for
        ]:  # fmt: skip
            text = text.replace(old, new)
        assert re.findall(r"(?:/usr/bin|/etc|/run)/blocker", text) == []
        self._write("blocker.conf", text)
        self._write("hosts", "".join(f"127.0.0.1 {name}.example\n" for name in HOSTS))
        port = "" if "tls" in way else f"http_port 127.0.0.1:{self.port}"
        self._write("squid.conf", SQUID.format(port=port, directory=self.shared))
        self._write("ERR_BLOCKED", self.node.get("/blocked")[1].decode().replace("%", "%%"))
        self.log = self.shared / "cache.log"
        self.log.touch()
        if user is not None:
            shutil.chown(self.log, user, user)
            shutil.chown(self.shared, user, user)
        if "tls" in way:
            self._make_authority(user)
        self.start()

    def start(self) -> None:
        """Start it."""
        command = for_all_users(
            ["squid", "-N", "-n", f"t{secrets.token_hex(8)}", "-f", str(self.shared / "squid.conf")], self.shared
        )
        self.process = spawn(command, stderr=subprocess.DEVNULL)
        until(self._listens)

    def _make_authority(self, user: str | None) -> None:
        """As the configuration file says."""
        ca = self.shared / "ca.pem"
        request = ["req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=Filter"]
        subprocess.run(["openssl", *request, "-keyout", ca, "-out", ca], check=True, capture_output=True)
        certificates = ["/usr/lib/squid/security_file_certgen", "-c", "-s", str(self.shared / "certificates")]
        subprocess.run([*certificates, "-M", "16MB"], check=True, capture_output=True)
        if user is not None:
            for path in (ca, self.shared / "certificates", *(self.shared / "certificates").rglob("*")):
                shutil.chown(path, user, user)

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
