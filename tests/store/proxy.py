"""A TCP proxy before a Redis server that cuts connections at chosen moments."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from types import TracebackType

    from tests.redis_server import RedisServer

Moment = Literal["before", "after"]


class Proxy:
    """Passes bytes on, and cuts the connections that carry a marked request, as often as it was told to.

    `before` cuts when the request arrives, so that Redis never sees it; `after` cuts when Redis has answered it, so
    that it was done and the client does not know.
    """

    def __init__(self, server: RedisServer) -> None:
        self._target = server
        self._tasks: set[asyncio.Task[None]] = set()
        self._marker = b""
        self._moment: Moment = "after"
        self._left = 0
        self._told = 0  # what was sent before the marker was named does not count
        self.cuts = 0

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"redis://127.0.0.1:{self._port}"

    def cut(self, marker: bytes, moment: Moment, times: int) -> None:
        """Cut the next `times` connections on which `marker` is sent."""
        self._marker, self._moment, self._left, self.cuts = marker, moment, times, 0
        self._told += 1

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        target_reader, target_writer = await asyncio.open_unix_connection(str(self._target.socket))
        marked = asyncio.Event()

        async def requests() -> None:
            seen, told = b"", self._told
            while data := await reader.read(65536):
                if told != self._told:
                    seen, told = b"", self._told
                seen = (seen + data)[-200_000:]
                if self._left and self._marker in seen and not marked.is_set():
                    self._left -= 1
                    self.cuts += 1
                    marked.set()
                    if self._moment == "before":
                        return
                target_writer.write(data)
                await target_writer.drain()

        async def answers() -> None:
            while data := await target_reader.read(65536):
                if marked.is_set():
                    return
                writer.write(data)
                await writer.drain()

        ways = {asyncio.create_task(requests()), asyncio.create_task(answers())}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, target_writer):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()
