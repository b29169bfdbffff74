"""A resolver that behaves as a test says, on UDP and TCP: late, silent, forging, truncating, failing, changing case."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset

from tests.redis_server import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    Behaviour = Callable[["Upstream", dns.message.QueryMessage, bool], Sequence[bytes]]


class Upstream(asyncio.DatagramProtocol):
    """What it was asked is kept in `asked`, on TCP in `asked_over_tcp`, and looks at whether it is there, which are
    for the root, in `looks`; it answers nothing before `go` is set."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.asked: list[dns.message.QueryMessage] = []
        self.looks: list[dns.message.QueryMessage] = []
        self.sources: list[tuple[str, int]] = []
        self.asked_over_tcp: list[dns.message.QueryMessage] = []
        self.arrived = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        message = dns.message.from_wire(data)
        assert isinstance(message, dns.message.QueryMessage)
        (self.looks if message.question[0].name == dns.name.root else self.asked).append(message)
        self.sources.append(peer)
        self.arrived.set()
        task = asyncio.create_task(self._answer(message, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: dns.message.QueryMessage, peer: tuple[str, int]) -> None:
        await self.go.wait()
        assert self._transport is not None
        for answer in self.behave(self, message, False):
            self._transport.sendto(answer, peer)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError):
            length = int.from_bytes(await reader.readexactly(2), "big")
            message = dns.message.from_wire(await reader.readexactly(length))
            assert isinstance(message, dns.message.QueryMessage)
            self.asked_over_tcp.append(message)
            for answer in self.behave(self, message, True):
                writer.write(len(answer).to_bytes(2, "big") + answer)


@contextlib.asynccontextmanager
async def upstream(behave: Behaviour) -> AsyncIterator[Upstream]:
    """One that listens."""
    made = Upstream(behave)
    made.port = free_port()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: made, local_addr=("127.0.0.1", made.port))
    server = await asyncio.start_server(made.connected, "127.0.0.1", made.port)
    try:
        yield made
    finally:
        transport.close()
        server.close()
        await server.wait_closed()


def reply(asked: dns.message.QueryMessage, *records: str, rcode: str = "NOERROR", soa: str = "") -> dns.message.Message:
    """An answer; records as `TTL TYPE DATA`, their owner the question's name."""
    answer = dns.message.make_response(asked, recursion_available=True)
    answer.set_rcode(dns.rcode.from_text(rcode))
    name = asked.question[0].name
    for section, texts in ((answer.answer, records), (answer.authority, [soa] if soa else [])):
        for text in texts:
            ttl, kind, data = text.split(" ", 2)
            section.append(dns.rrset.from_text(name, int(ttl), "IN", kind, data))
    return answer


def address(_upstream: Upstream, asked: dns.message.QueryMessage, _stream: bool) -> list[bytes]:
    """The address that everything has."""
    return [reply(asked, "300 A 192.0.2.33").to_wire()]
