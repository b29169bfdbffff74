from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from blocker import log
from blocker.errors import InvalidURL, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "zzmarkzz"
UNSEEN = """
import asyncio, gc
async def failing(): int(MARK)
async def main():
    task = asyncio.create_task(failing())
    await asyncio.sleep(0)
    del task
    gc.collect()
asyncio.run(main())
"""


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where lines go; logging is put back afterwards."""
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in log.NOISY}
    before = (root.handlers[:], root.level)
    yield io.StringIO()
    root.handlers[:], root.level = before
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(capture=False)
    logging.raiseExceptions = True
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_record_is_one_json_object_a_line(stream: io.StringIO) -> None:
    log.configure("info", "json", stream)
    structlog.get_logger("blocker.test").info("list published", list="example", serial=7)
    structlog.get_logger("blocker.test").debug("not this")
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "list published", "list": "example", "serial": 7, "level": "info", "logger": "blocker.test",
    }  # fmt: skip


def test_a_record_is_one_readable_line_for_people(stream: io.StringIO) -> None:
    log.configure("debug", "console", stream)
    structlog.get_logger("blocker.test").debug("list published", list="example")
    assert stream.getvalue().count("\n") == 1
    assert "list published" in stream.getvalue()
    assert "list=example" in stream.getvalue()
    assert "\x1b" not in stream.getvalue(), "colours are for terminals"


def test_an_exception_is_its_type_and_places(stream: io.StringIO) -> None:
    log.configure("info", "json", stream)
    try:
        try:
            int(MARK)
        except ValueError as cause:
            raise RuntimeError(MARK) from cause
    except RuntimeError as error:
        structlog.get_logger("blocker.test").exception("failed", stack_info=True)
        logging.getLogger("somebody.else").exception("failed: %s", error)  # noqa: TRY401 - libraries do this
        structlog.get_logger("blocker.test").error("failed", exc_info=error)
    assert MARK not in stream.getvalue()
    for line in lines(stream):
        assert (line["exception"], line["causes"]) == ("RuntimeError", ["ValueError"])
        assert line["at"] == [f"tests/test_log.py:{_line_of('raise RuntimeError(MARK) from cause')}"]
        assert "stack" not in line


def _line_of(text: str) -> int:
    with open(__file__, encoding="utf-8") as source:  # noqa: PTH123
        return next(number for number, line in enumerate(source, start=1) if line.strip() == text)


def test_the_message_of_our_own_errors_is_told() -> None:
    told = log.describe(StoreUnavailable("read the heads: Redis did not answer in time"))
    assert told == {
        "exception": "StoreUnavailable", "at": [], "reason": "read the heads: Redis did not answer in time",
    }  # fmt: skip
    assert log.describe(InvalidURL("empty host"))["reason"] == "empty host"
    assert "reason" not in log.describe(ValueError(MARK))


def test_places_in_the_package_are_named_from_its_root() -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        log.configure("no such level")
    assert any(place.startswith("blocker/log.py:") for place in log.positions(caught.value))
    assert all(place.count("/") <= 3 for place in log.positions(caught.value))


def test_a_libraries_record_keeps_its_template_only(stream: io.StringIO) -> None:
    log.configure("debug", "json", stream)
    foreign = logging.getLogger("another.package")
    foreign.info('HTTP Request: %s %s "%s"', "GET", MARK, 200)
    foreign.error("first line\n%s", MARK)
    foreign.error("bad %d template %s", MARK)
    foreign.error({"an": "object"})
    assert MARK not in stream.getvalue()
    assert [line["event"] for line in lines(stream)] == [
        'HTTP Request: %s %s "%s"', "first line", "bad %d template %s", "{'an': 'object'}",
    ]  # fmt: skip


def test_loggers_that_describe_requests_are_held_at_warning(stream: io.StringIO) -> None:
    log.configure("debug", "json", stream)
    for name in ("httpx", "httpcore.http11", "uvicorn.error", "uvicorn.access", "asyncio", "redis.connection", "h11"):
        logging.getLogger(name).info("about a request")
    assert stream.getvalue() == ""


def test_a_warning_is_its_place_and_category(stream: io.StringIO) -> None:
    log.configure("info", "json", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn(MARK, UserWarning, stacklevel=1)
    (line,) = lines(stream)
    assert MARK not in stream.getvalue()
    assert line["event"].endswith("UserWarning")
    assert "test_log.py:" in line["event"]


def test_configuring_twice_writes_each_record_once(stream: io.StringIO) -> None:
    log.configure("info", "json", io.StringIO())
    log.configure("info", "json", stream)
    structlog.get_logger("blocker.test").info("once")
    assert len(lines(stream)) == 1


@pytest.mark.parametrize(
    "fault",
    [
        "raise ValueError(MARK)",
        "import threading; t = threading.Thread(target=lambda: int(MARK)); t.start(); t.join()",
        "class Late:\n    def __del__(self): int(MARK)\nLate()",
        "import asyncio\nasync def failing(): int(MARK)\nasyncio.run(failing())",
        UNSEEN,
    ],
)
def test_what_nobody_caught_is_logged_without_its_values(fault: str) -> None:
    program = f"from blocker import log\nMARK = {MARK!r}\nlog.configure('debug', 'json')\nlog.catch_uncaught()\n{fault}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert MARK not in done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["exception"] == "ValueError"


def test_an_interrupt_is_no_fault() -> None:
    program = "from blocker import log\nlog.configure()\nlog.catch_uncaught()\nraise KeyboardInterrupt"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode != 0
