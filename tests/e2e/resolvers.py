"""A node that serves a zone, and real resolvers that take it, each with the configuration of `deploy`."""

from __future__ import annotations

import abc
import base64
import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode

from tests.certificates import NAME, Authority
from tests.e2e.node import Node
from tests.e2e.processes import spawn, until
from tests.redis_server import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tests.redis_server import RedisServer

DEPLOY = Path(__file__).parents[2] / "deploy"
SECRET = base64.b64encode(b"a secret of thirty-two bytes ...").decode()
ZONE = "police.rpz.example"
INSPECT = "inspect.rpz.example"
PRIMARY = "192.0.2.10"
# Names under .test are answered by nobody: these resolvers forward to a port where nobody listens, or have no network.
BLOCKED = "listed.example"
# Characters of a resolver's log that a failure tells.
LOG_END = 4000


class Feeding(Node):
    """A node with one zone, told to one secondary."""

    def __init__(
        self, directory: Path, redis: RedisServer, secondary: int, *, signed: bool = True, zone: str = "",
        notify: bool = True, tls: str | None = None, **settings: str,
    ) -> None:  # fmt: skip
        self.zone_port, self.tls_port = free_port(), free_port()
        self.authority = Authority(directory / "authority")
        served = ""
        if tls is not None:
            shown = self.authority.sign()
            served = f'tls_port = {self.tls_port}\ntls_certificate = "{shown.certificate}"\ntls_key = "{shown.key}"\n'
            served += tls.format(ca=self.authority.certificate)
            zone += "\ntls_only = true"
        self.zone_file: Path | None = None
        self.zone_options: tuple[str, ...] = ()
        key = (', key = "resolver"' if signed else "") + ("" if notify else ", notify = false")
        super().__init__(
            directory,
            redis,
            f"""
            [feeds.rpz]
            enabled = true
            port = {self.zone_port}
            {served}
            [feeds.rpz.keys.resolver]
            secret = "{SECRET}"
            [feeds.rpz.zones.police]
            origin = "{ZONE}"
            {zone}
            keys = ["resolver"]
            networks = [{"" if signed else '"127.0.0.0/8"'}]
            secondaries = [{{ address = "127.0.0.1", port = {secondary}{key} }}]
            [feeds.rpz.zones.inspect]
            origin = "{INSPECT}"
            carries = "inspect"
            addresses = ["192.0.2.80"]
            keys = ["resolver"]
            secondaries = [{{ address = "127.0.0.1", port = {secondary}{key} }}]
            """,
            **settings,
        )

    def names(self, *more: str) -> None:
        """Make these and enough others the list, so that a difference is smaller than the zone."""
        self.push(*(f"http://filler{at}.example/" for at in range(200)), f"http://*.{BLOCKED}", *more)
        self.export()

    def roll_back(self) -> None:
        """Make the first version the present one again."""
        self.command("lists", "rollback", "police", "1", "--reason", "test")
        self.export()

    def export(self) -> None:
        """Write the zone where a resolver reads it from a file."""
        if self.zone_file is not None:
            self.command("export", "rpz", "police", "--output", str(self.zone_file), *self.zone_options)


def rcode(port: int, name: str) -> str:
    """How a resolver answers a name: its RCODE, or nothing."""
    return answer(port, name)[0]


def answer(port: int, name: str, kind: str = "A") -> tuple[str, list[str]]:
    """RCODE and data of a resolver's answer; nothing if there is none."""
    with contextlib.suppress(dns.exception.DNSException, OSError):
        told = asked_of(port, dns.message.make_query(name, kind))
        return dns.rcode.to_text(told.rcode()), [str(data) for rrset in told.answer for data in rrset]
    return "", []


def asked_of(port: int, asked: dns.message.Message) -> dns.message.Message:
    """What is answered; a question that a busy machine leaves lying is sent again, as stub resolvers do.

    Raises:
        dns.exception.DNSException, OSError: Nothing, or nothing that can be read.
    """
    for _ in range(4):
        with contextlib.suppress(dns.exception.Timeout):
            return dns.query.udp(asked, "127.0.0.1", timeout=2, port=port)
    return dns.query.udp(asked, "127.0.0.1", timeout=2, port=port)


class Origin:
    """An authoritative BIND for the names that are not listed: everything under `example.` has 192.0.2.1, and mail."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        directory.mkdir()
        (directory / "example.zone").write_text(
            "$TTL 5\n@ IN SOA ns.example. x.example. 1 60 60 60 5\n@ IN NS ns.example.\n* IN A 192.0.2.1\n"
            '* IN MX 10 mail.example.\n* IN TXT "v=spf1 mx"\n* IN CAA 0 issue "ca.example"\n'
            f"*.listed IN A 192.0.2.1\nalias IN CNAME deep.{BLOCKED}.\n",
            "utf-8",
        )
        (directory / "named.conf").write_text(
            f'options {{ directory "{directory}"; listen-on port {self.port} {{ 127.0.0.1; }};'
            f' listen-on-v6 {{ none; }}; recursion no; pid-file "{directory}/pid";'
            f' session-keyfile "{directory}/session"; }};\n'
            'controls { };\nzone "example" { type primary; file "example.zone"; };\n',
            "utf-8",
        )
        self.process = spawn_logged(["named", "-g", "-c", "named.conf"], directory)
        until(lambda: rcode(self.port, "ns.example") == "NOERROR")

    def close(self) -> None:
        end(self.process)


def spawn_logged(command: Sequence[str], directory: Path, **options: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401
    """A process whose output is in `log` of its directory."""
    with (directory / "log").open("wb") as log:
        return spawn(command, cwd=directory, stdout=log, stderr=subprocess.STDOUT, **options)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started here."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


class Resolver(abc.ABC):
    """A resolver in a directory of its own."""

    package = ""
    files: tuple[str, ...] = ()
    signed = True  # whether it knows TSIG
    tls: str | None = None  # what the node is told of TLS for it; None: it cannot
    decides_aliases = True  # whether it looks at where names lead (CNAME)
    notified = True  # whether it is told of new versions
    zone = ""  # more settings of the zone
    options: Mapping[str, Any] = {}  # of its process

    def __init__(self, directory: Path, node: Feeding, port: int, origin: Origin) -> None:
        self.port, self.directory = port, self.place(directory)
        directory = self.directory
        changes = self.changes(node, origin)
        for name in self.files:
            text = (DEPLOY / self.package / name).read_text("utf-8")
            for found, put in changes:
                assert len(self.files) > 1 or found in text, f"{name} has no {found}"
                text = text.replace(found, put)
            (directory / name).write_text(text, "utf-8")
        self.process = spawn_logged(self.command(), directory, **self.options)

    def place(self, directory: Path) -> Path:
        """Make its directory."""
        directory.mkdir()
        return directory

    @abc.abstractmethod
    def changes(self, node: Feeding, origin: Origin) -> Iterable[tuple[str, str]]:
        """What is another place here: text and what takes its place."""

    @abc.abstractmethod
    def command(self) -> Sequence[str]:
        """How it is started."""

    def until(self, condition: Callable[[], bool]) -> None:
        """Poll until something holds of its answers; what it has written is told if it does not."""
        try:
            until(lambda: self.process.poll() is not None or condition())
            assert self.process.poll() is None, "it has ended"
        except AssertionError as error:
            error.add_note(self.log()[-LOG_END:])
            raise

    def check(self) -> None:
        """Look at how it got the updates, and that it still runs."""
        assert self.process.poll() is None

    def log(self) -> str:
        """What it has written."""
        return (self.directory / "log").read_text("utf-8", "replace")

    def close(self) -> None:
        end(self.process)


class Bind(Resolver):
    """BIND, over TLS in both directions."""

    package, files = "bind", ("named.conf",)
    tls = 'tls_client_ca = "{ca}"'

    def changes(self, node: Feeding, origin: Origin) -> Iterable[tuple[str, str]]:
        (self.directory / "key").write_text(
            f'key "resolver" {{ algorithm hmac-sha256; secret "{SECRET}"; }};\n', "utf-8"
        )
        shown = node.authority.sign("resolver.isp.example")
        here = f'pid-file "{self.directory}/pid"; session-keyfile "{self.directory}/session"; dnssec-validation no; '
        here += f"forward only; forwarders {{ 127.0.0.1 port {origin.port}; }};"
        return (
            ("/etc/bind/blocker.key", f"{self.directory}/key"),
            ('directory "/var/cache/bind";', f'directory "{self.directory}"; {here}'),
            ("listen-on port 53", f"listen-on port {self.port}"),
            ("/etc/bind/blocker-ca.pem", str(node.authority.certificate)),
            ("/etc/bind/resolver.pem", str(shown.certificate)),
            ("/etc/bind/resolver.key", str(shown.key)),
            (f"primaries {{ {PRIMARY} port 8854", f"primaries {{ 127.0.0.1 port {node.tls_port}"),
            ("logging {", "controls { };\nlogging {"),
        )

    def command(self) -> Sequence[str]:
        return ["named", "-g", "-c", "named.conf", "-n", "1"]

    def check(self) -> None:
        # Each of the two updates came as a difference: BIND keeps those in its journal.
        dumped = subprocess.run(
            ["named-journalprint", f"{ZONE}.zone.jnl"], cwd=self.directory, capture_output=True, check=True, text=True
        ).stdout
        assert dumped.count("\tSOA\t") == 4, "two differences, each from one SOA to the next"


class BindWithInspection(Bind):
    """BIND with the second zone too, as the comment in its configuration says."""

    def changes(self, node: Feeding, origin: Origin) -> Iterable[tuple[str, str]]:
        text = (DEPLOY / self.package / "named.conf").read_text("utf-8")
        zone = text[text.index(f'zone "{ZONE}" {{') :]
        line = f'zone "{INSPECT}" policy given min-update-interval 5;'
        return ((zone, zone + zone.replace(ZONE, INSPECT)), (f"//   {line}", line), *super().changes(node, origin))


class BindAlone(Bind):
    """BIND that nobody tells, which looks as often as the zone says because its configuration lets it."""

    notified, zone = False, "refresh = 1\n            retry = 1"

    def changes(self, node: Feeding, origin: Origin) -> Iterable[tuple[str, str]]:
        times = (("min-refresh-time 60", "min-refresh-time 1"), ("min-retry-time 30", "min-retry-time 1"))
        return (*times, *super().changes(node, origin))


class Unbound(Resolver):
    """Unbound, which knows no TSIG."""

    package, files, signed = "unbound", ("unbound.conf",), False
    tls = "tls_alpn = false"

    def changes(self, node: Feeding, origin: Origin) -> Iterable[tuple[str, str]]:
        here = f'directory: "{self.directory}"\n    chroot: ""\n    username: ""\n    pidfile: "{self.directory}/pid"\n'
        here += "    do-not-query-localhost: no\n    use-syslog: no\n    verbosity: 4\n"
        forward = f'forward-zone:\n    name: "example"\n    forward-addr: 127.0.0.1@{origin.port}\n'
        return (
            ("    port: 53\n", f"    port: {self.port}\n    {here}"),
            ("/etc/unbound/blocker-ca.pem", str(node.authority.certificate)),
            (f"primary: {PRIMARY}@8854#{NAME}", f"primary: 127.0.0.1@{node.tls_port}#{NAME}"),
            (f"allow-notify: {PRIMARY}", "allow-notify: 127.0.0.1"),
            ("/var/lib/unbound", str(self.directory)),
            ("\nrpz:", f"\n{forward}\nrpz:"),
        )

    def command(self) -> Sequence[str]:
        return ["unbound", "-d", "-c", "unbound.conf"]

    def check(self) -> None:
        assert self.log().count("last IXFR packet") >= 2, "the updates came as differences"


class PowerDns(Resolver):
    """PowerDNS Recursor, which hears no notices."""

    notified = False
    package, files = "pdns-recursor", ("recursor.conf", "blocker.lua")

    def changes(self, node: Feeding, origin: Origin) -> Iterable[tuple[str, str]]:
        here = f"socket-dir={self.directory}\nforward-zones=example=127.0.0.1:{origin.port}\ndnssec=off\nloglevel=6\n"
        return (
            ("local-port=53\n", f"local-port={self.port}\n{here}"),
            ("/etc/powerdns", str(self.directory)),
            (f"{PRIMARY}:5354", f"127.0.0.1:{node.zone_port}"),
            ('"SECRET"', f'"{SECRET}"'),
            ("/var/lib/powerdns", str(self.directory)),
        )

    def command(self) -> Sequence[str]:
        return ["pdns_recursor", "--config-dir=.", "--daemon=no", "--write-pid=no", "--disable-syslog", "--threads=1"]

    def check(self) -> None:
        assert self.log().count("Processing deltas") >= 2, "the updates came as differences"


class Knot(Resolver):
    """Knot Resolver, which reads the zone from a file: where it can be, as the user that its package makes."""

    package, files, decides_aliases = "knot-resolver", ("kresd.conf",), False
    user = "knot-resolver"
    options = {"user": user, "group": user, "extra_groups": ()} if os.geteuid() == 0 else {}

    def place(self, directory: Path) -> Path:
        if not self.options:
            return super().place(directory)
        made = Path(tempfile.mkdtemp())  # the tests' own directories are closed to other users
        shutil.chown(made, self.user, self.user)
        (made / "zones").mkdir(0o750)
        shutil.chown(made / "zones", group=self.user)
        return made

    def changes(self, node: Feeding, origin: Origin) -> Iterable[tuple[str, str]]:
        (self.directory / "zones").mkdir(exist_ok=True)
        node.zone_file = self.directory / "zones" / f"{ZONE}.zone"
        node.zone_options = ("--mode", "0640", "--group", self.user) if self.options else ()
        node.export()
        forward = f"policy.add(policy.suffix(policy.STUB('127.0.0.1@{origin.port}'), {{todname('example.')}}))\n"
        return (
            ("'127.0.0.1', 53,", f"'127.0.0.1', {self.port},"),
            ("/var/lib/blocker-zones", str(node.zone_file.parent)),
            ("true))\n", f"true))\n{forward}trust_anchors.remove('.')\n"),
        )

    def command(self) -> Sequence[str]:
        return ["kresd", "-n", "-c", "kresd.conf", str(self.directory)]

    def check(self) -> None:
        if self.options:
            status = Path(f"/proc/{self.process.pid}/status").read_text("utf-8")
            assert f"\nUid:\t{pwd.getpwnam(self.user).pw_uid}\t" in status
            assert Path(self.directory / "zones").owner() != self.user, "of another user, and replaced at each update"

    def close(self) -> None:
        super().close()
        if self.options:
            shutil.rmtree(self.directory)
