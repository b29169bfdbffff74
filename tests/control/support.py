"""Reading answers: the problem document of one, and the bytes of one to a request that no client would send."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx


def problem(answer: httpx.Response, status: int) -> dict[str, object]:
    """The problem document of an answer."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, object] = answer.json()
    assert document["status"] == status
    assert {"type", "title", "detail"} <= document.keys()
    return document


async def raw(port: int, request: bytes, *, ends: bool = False) -> bytes:
    """All that the server sends until it closes; the request must have it close, or the client ends by itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    if ends:
        writer.write_eof()
    answer = b""
    try:
        async with asyncio.timeout(60):
            while piece := await reader.read(65536):
                answer += piece
    except ConnectionError:
        pass  # the server closes while unread bytes of the request are on their way
    finally:
        writer.close()
    return answer
