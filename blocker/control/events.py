"""Progress of long changes as Server-Sent Events (WHATWG HTML, section 9.2), for whoever asks for them.

With `Accept: text/event-stream` a change answers at once with a stream: `progress` events, then one `result` with the
answer and its status, or one `problem`. The change itself goes on to its end though nobody listens any more.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import structlog
from fastapi.responses import StreamingResponse

from blocker.control.problems import problem_of
from blocker.ingest.publish import Progress, no_progress
from blocker.log import describe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fastapi import Request, Response

MEDIA_TYPE = "text/event-stream"
# More often is of no use to anybody who looks.
EVENT_SECONDS = 0.1
# A comment so often keeps proxies from closing a quiet stream.
HEARTBEAT_SECONDS = 15.0

_log = structlog.get_logger(__name__)
_running: set[asyncio.Task[Response]] = set()


async def answered_in_time(request: Request, work: Callable[[Progress], Awaitable[Response]]) -> Response:
    """The work's answer, or a stream of events that ends with it, as the client asks."""
    if MEDIA_TYPE not in request.headers.get("accept", ""):
        return await work(no_progress)
    latest: dict[str, Any] = {}
    changed = asyncio.Event()

    def progress(phase: str, done: int, total: int | None) -> None:
        latest.update(phase=phase, done=done, total=total)
        changed.set()

    async def run() -> Response:
        return await work(progress)

    task = asyncio.create_task(run())
    _running.add(task)  # it ends by itself, whether or not somebody listens
    task.add_done_callback(_running.discard)
    task.add_done_callback(lambda _task: changed.set())

    async def events() -> AsyncIterator[bytes]:
        while not task.done():
            try:
                await asyncio.wait_for(changed.wait(), HEARTBEAT_SECONDS)
            except TimeoutError:
                yield b":\n\n"
                continue
            changed.clear()
            if latest:
                yield _event("progress", latest)
                latest.clear()
                await asyncio.wait({task}, timeout=EVENT_SECONDS)
        error = task.exception()
        if error is None:
            answer = task.result()
            yield _event("result", {"status": answer.status_code, "body": json.loads(bytes(answer.body))})
        else:
            problem = problem_of(error if isinstance(error, Exception) else RuntimeError())
            if problem.status == 500:
                _log.error("a request failed", **describe(error))
            yield _event("problem", problem.document())

    return StreamingResponse(events(), media_type=MEDIA_TYPE)


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
