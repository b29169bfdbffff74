from __future__ import annotations

import asyncio
import signal
import socket
from typing import TYPE_CHECKING

import httpx
import pytest

from blocker.control.server import ControlServer
from blocker.errors import ServeError
from blocker.sockets import bind
from tests.control.support import raw

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


async def hello(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def test_port_zero_takes_a_free_port_and_says_which() -> None:
    server = ControlServer(hello, "127.0.0.1", 0)
    await server.start()
    assert server.port > 0
    assert server.addresses == [f"127.0.0.1:{server.port}"]
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{server.port}/")).text == "hello"
    await server.stop()
    await server.stop()
    with pytest.raises(ConnectionRefusedError):
        await raw(server.port, b"")


async def test_a_port_in_use_is_named_with_its_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError) as caught:
            await ControlServer(hello, "127.0.0.1", port).start()
    assert str(caught.value) == (
        f"address 127.0.0.1:{port} is in use; set BLOCKER_HTTP__PORT or stop the other program"
    )


@pytest.mark.parametrize(
    ("host", "message"),
    [("203.0.113.7", "203.0.113.7:0 is not one of this machine"), ("no such host.invalid", "no address for the host")],
)
async def test_an_address_that_cannot_be_had_is_named(host: str, message: str) -> None:
    with pytest.raises(ServeError, match=message):
        await ControlServer(hello, host, 0).start()


def test_every_address_of_a_name_is_bound_with_one_port() -> None:
    found = {entry[4][0] for entry in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    sockets = bind("localhost", 0, "X")
    try:
        assert {opened.getsockname()[0] for opened in sockets} == found
        assert len({opened.getsockname()[1] for opened in sockets}) == 1
    finally:
        for opened in sockets:
            opened.close()


async def test_ipv6_addresses_are_shown_in_brackets() -> None:
    server = ControlServer(hello, "::1", 0)
    await server.start()
    assert server.addresses == [f"[::1]:{server.port}"]
    with pytest.raises(ServeError, match=r"address \[::1\]:\d+ is in use"):
        bind("::1", server.port, "X")
    await server.stop()


async def test_signals_stay_with_the_program() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    server = ControlServer(hello, "127.0.0.1", 0)
    await server.start()
    assert {number: signal.getsignal(number) for number in before} == before
    await server.stop()


async def test_a_stop_lets_a_request_under_way_end() -> None:
    reached, release = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        reached.set()
        await release.wait()
        await hello(scope, receive, send)

    server = ControlServer(slow, "127.0.0.1", 0)
    await server.start()
    asking = asyncio.create_task(raw(server.port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"))
    await reached.wait()
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0)
    release.set()
    assert (await asking).endswith(b"hello")
    await stopping


async def test_a_server_that_ends_by_itself_is_an_error() -> None:
    server = ControlServer(hello, "127.0.0.1", 0)
    await server.start()
    assert server._server is not None
    server._server.limit_max_requests = 1
    await raw(server.port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    with pytest.raises(ServeError, match="ended by itself"):
        await server.wait()
    with pytest.raises(ServeError, match="ended by itself"):
        await server.wait()
