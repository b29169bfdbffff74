"""Logging: one line a record, and nothing in it that came from a request.

What keeps it so, at every level, for our own loggers and for those of libraries:

- An exception is logged by its type and its code positions. Its message is kept only if it is a `BlockerError`, whose
  messages are safe by contract. Values, local variables and source lines are never written.
- Of a library's record only the template is kept (`HTTP Request: %s %s`), not its arguments, of anything formatted
  only the first line: asyncio writes the `repr` of tasks and exceptions on the following ones.
- Loggers that describe each request or connection are held at WARNING whatever the configured level.
- After `catch_uncaught`, exceptions that nobody caught come here too and not to the interpreter's own printing.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import structlog

from blocker.errors import BlockerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from structlog.typing import EventDict, Processor, WrappedLogger

# They write addresses, requests or connections below WARNING.
NOISY = (
    "asyncio",
    "fastapi",
    "grpc",
    "h11",
    "httpcore",
    "httpx",
    "redis",
    "uvicorn",
    "uvicorn.access",
    "uvicorn.error",
)
# Frames of one exception: enough for the way from a route to its fault.
_FRAMES = 12
# Exceptions of one chain of causes.
_CAUSES = 5
_PACKAGE = Path(__file__).resolve().parent
# `path:12: DeprecationWarning: text` as the warnings module formats it; the text is not kept.
_WARNING = re.compile(r"(.*?:\d+: \w+):", re.DOTALL)

Catchable = BaseException | tuple[Any, ...] | bool | None


def configure(level: str = "info", format: str = "console", stream: IO[str] | None = None) -> None:  # noqa: A002
    """Send all logging of this process through here; may be called again.

    Args:
        level: Least level logged: debug, info, warning or error.
        format: `console` for people, `json` for machines, one object a line.
        stream: Where lines go; standard error by default.
    """
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        scrub_exception,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if format == "json"
        else structlog.dev.ConsoleRenderer(colors=stream.isatty())
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[scrub_foreign, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([] if format == "json" else [_on_the_line]),
                renderer,
            ],
            pass_foreign_args=True,
            use_get_message=False,
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.raiseExceptions = False  # a record that cannot be formatted is dropped, not printed with its arguments
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def catch_uncaught() -> None:
    """Log what the main thread, other threads and destructors raise to nobody; for a program's own start."""
    log = structlog.get_logger("blocker")

    def uncaught(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt):
            return
        log.critical("uncaught exception", exc_info=error)

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            log.critical("uncaught exception in a thread", exc_info=args.exc_value)

    def unraisable(args: sys.UnraisableHookArgs) -> None:
        log.error("exception that could not be raised", exc_info=args.exc_value)

    sys.excepthook = uncaught
    threading.excepthook = in_thread
    sys.unraisablehook = unraisable


def positions(error: BaseException) -> list[str]:
    """Where an exception passed, outermost first, as `blocker/control/app.py:33` or `json/decoder.py:355`."""
    return [f"{_short(name)}:{line}" for name, line in _frames(error.__traceback__)][-_FRAMES:]


def describe(error: BaseException) -> dict[str, Any]:
    """What may be told of an exception: type, positions, causes; its message only if it is our own."""
    told: dict[str, Any] = {"exception": type(error).__qualname__, "at": positions(error)}
    if isinstance(error, BlockerError):
        told["reason"] = str(error)
    causes = [type(cause).__qualname__ for cause in _causes(error)]
    if causes:
        told["causes"] = causes
    return told


def scrub_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace `exc_info` by what may be told of it; a structlog processor."""
    info: Catchable = event.pop("exc_info", None)
    event.pop("stack_info", None)
    event.pop("stack", None)
    if info is True:
        info = sys.exc_info()
    if isinstance(info, tuple):
        info = info[1] if len(info) > 1 else None
    if isinstance(info, BaseException):
        event.update(describe(info))
    return event


def scrub_foreign(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Keep only the template of a library's record, and the exception for `scrub_exception`; a structlog processor."""
    arguments = event.pop("positional_args", None)
    template = str(event["event"])
    if event["_record"].name == "py.warnings":
        found = _WARNING.match(str(arguments[0]) if arguments else template)
        template = found[1] if found else "a warning"
    event["event"] = template.partition("\n")[0]
    return event


def _on_the_line(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Rename what structlog's console renderer would write on lines of its own."""
    if "exception" in event:
        event["error"] = event.pop("exception")
    return event


def _frames(trace: TracebackType | None) -> Iterator[tuple[str, int]]:
    while trace is not None:
        yield trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next


def _causes(error: BaseException) -> Iterator[BaseException]:
    for _ in range(_CAUSES):
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is None:
            return
        yield cause
        error = cause


def _short(filename: str) -> str:
    path = Path(filename)
    if path.is_relative_to(_PACKAGE):
        return str(path.relative_to(_PACKAGE.parent))
    return "/".join(path.parts[-2:])
