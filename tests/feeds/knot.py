"""A program under test in a directory of its own, and Knot DNS, the resolvers' source of truth."""

from __future__ import annotations

import shutil
import subprocess
from ipaddress import ip_address
from typing import TYPE_CHECKING, Self

from tests.e2e.processes import STOP_DEADLINE, spawn, until
from tests.redis_server import free_port

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType


def binary(name: str) -> str:
    """A program of the administrator's directories, which are not on everybody's PATH."""
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin")
    assert found, f"these tests need {name}; see tests/install-packages"
    return found


class LoggedProcess:
    """One program in a directory of its own; killed with the test process."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory / name
        self.directory.mkdir()
        self.logs = self.directory / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        with self.logs.open("ab") as log:
            self.process = spawn(command, stdout=log, stderr=log, cwd=self.directory, env=environment)

    def log(self) -> str:
        return self.logs.read_text("utf-8", "replace")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Knot(LoggedProcess):
    """An authoritative server for `example` and all names under it."""

    def __init__(self, directory: Path, name: str = "knot", ttl: int = 1) -> None:
        super().__init__(directory, name)
        self.port = free_port()
        self.ttl = ttl
        self._serial = 0
        self._records: dict[str, list[str]] = {}
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self._write()
        (self.directory / "knot.conf").write_text(
            f"""
server:
    rundir: {self.directory}
    listen: 127.0.0.1@{self.port}
    tcp-workers: 1
    udp-workers: 1
database:
    storage: {self.directory}
log:
  - target: stderr
    any: info
control:
    listen: {self.directory}/ctl
template:
  - id: default
    storage: {self.directory}
    zonefile-load: whole
zone:
  - domain: example
    file: example.zone
""",
            "utf-8",
        )
        self.run([binary("knotd"), "-c", str(self.directory / "knot.conf")])
        until(lambda: self._control("zone-status").returncode == 0 and "loaded" in self.log())

    def serve(self, **records: str | Iterable[str]) -> None:
        """Names under `example` (a double underscore is a dot): addresses, the name that it is an alias of, or whole
        records as `HTTPS DATA`."""
        for name, value in records.items():
            values = [value] if isinstance(value, str) else list(value)
            self._records[name.replace("__", ".").replace("_", "-")] = [_record(one) for one in values]
        self.reload()

    def forget(self, name: str) -> None:
        del self._records[name]
        self.reload()

    def reload(self) -> None:
        self._write()
        done = self._control("-b", "zone-reload", "example")
        assert done.returncode == 0, done.stderr

    def _control(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [binary("knotc"), "-s", str(self.directory / "ctl"), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def _write(self) -> None:
        self._serial += 1
        lines = [
            f"$ORIGIN example.\n$TTL {self.ttl}\n@ SOA ns.example. root.example. {self._serial} 60 60 60 1\n@ NS ns"
        ]
        lines += ["ns A 127.0.0.1"]
        lines += [f"{name} {record}" for name, records in self._records.items() for record in records]
        (self.directory / "example.zone").write_text("\n".join(lines) + "\n", "utf-8")


def _record(value: str) -> str:
    if value.startswith("HTTPS "):
        return value
    try:
        return f"{'A' if ip_address(value).version == 4 else 'AAAA'} {value}"
    except ValueError:
        return f"CNAME {value}"
