"""A command line in a directory of its own, and a Redis server that all of these tests share."""

from __future__ import annotations

import io
import json
import logging
import secrets
import shutil
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from blocker import log
from blocker.cli import main
from tests.e2e.processes import environment
from tests.redis_server import LASTING, RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLES = Path(__file__).parents[2] / "lists"


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON
        """The one JSON document on standard output."""
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        """The JSON documents on standard output, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def told(self) -> str:
        """The one line on standard error."""
        (line,) = self.err.splitlines()
        return line


@dataclass
class CommandLine:
    """Runs commands in this process, which is quick, with settings as in a process of their own."""

    directory: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def data_dir(self) -> Path:
        return self.directory / "var"

    @property
    def lists_dir(self) -> Path:
        return self.directory / "lists"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that does the same."""
        return environment(self.directory, **self.settings)

    def source(self, name: str, text: str, entries: bytes | str = "") -> None:
        """Write a list and its description."""
        (self.lists_dir / f"{name}.toml").write_text(text)
        data = entries.encode() if isinstance(entries, str) else entries
        (self.lists_dir / f"{name}.txt").write_bytes(data)

    def __call__(self, *arguments: str, stdin: bytes = b"", **settings: str) -> Ran:
        with self.monkeypatch.context() as patch:
            for name, value in self.environment.items():
                if name.startswith("BLOCKER_"):
                    patch.setenv(name, value)
            for name, value in settings.items():
                patch.setenv(f"BLOCKER_{name.upper()}", value)
            patch.chdir(self.directory)
            patch.setattr(sys, "argv", ["blocker", *arguments])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            self.capsys.readouterr()
            try:
                main()
                code = 0
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 0
            out, err = self.capsys.readouterr()
        assert "Traceback" not in out + err
        return Ran(code, out, err)

    def refused(self, *arguments: str, stdin: bytes = b"", code: int = 1, **settings: str) -> str:
        """What a command that must fail says: one line on standard error, and nothing of an exception."""
        ran = self(*arguments, stdin=stdin, **settings)
        assert ran.code == code
        assert "uncaught" not in ran.err
        return ran.told


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), aof=True) as running:
        LASTING.add(running)
        yield running


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """A command configures logging for its process; here it is put back."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in (*log.NOISY, "blocker.follower")}
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    raising = logging.raiseExceptions
    yield
    root.handlers[:], root.level = before
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.raiseExceptions = raising
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture
def empty(
    tmp_path: Path, redis: RedisServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    """No source and no list, in a deployment of its own."""
    (tmp_path / "lists").mkdir()
    settings = {"redis_url": redis.url, "deployment": f"t{secrets.token_hex(8)}", "http__port": "0"}
    return CommandLine(tmp_path, monkeypatch, capsys, settings)


@pytest.fixture
def blocker(empty: CommandLine) -> CommandLine:
    """The sample lists of the project, pulled."""
    shutil.copytree(SAMPLES, empty.lists_dir, dirs_exist_ok=True)
    assert empty("lists", "pull").code == 0
    return empty
