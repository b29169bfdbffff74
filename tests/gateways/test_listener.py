"""Limits of the stream gateways, over real sockets: what a hostile peer meets, and that the others notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
from typing import TYPE_CHECKING, Any

import pytest

from blocker.errors import ServeError
from blocker.gateways.canaries import NoAnswer
from blocker.gateways.check import CheckProbe, check_listener
from blocker.gateways.connection import TURN_BYTES
from blocker.gateways.spoe import SpoeProbe, spoe_listener
from blocker.rules import Verdict
from blocker.sections import CheckSettings, SpoeSettings
from tests.gateways.test_http_codec import BLOCKED, PAGES, Desk, nginx, seen
from tests.ingest.checks import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from blocker.gateways.listener import Listener

DEADLINE = 30.0


@contextlib.asynccontextmanager
async def running(desk: Desk | None = None, **limits: Any) -> AsyncIterator[Listener]:  # noqa: ANN401 - settings' own
    desk = desk or Desk()
    listener = check_listener(desk.engine, CheckSettings(port=0, **{"drain_seconds": 0.2, **limits}), PAGES)
    await listener.start()
    try:
        async with asyncio.timeout(DEADLINE):
            yield listener
    finally:
        await listener.stop()
        for writer in PEERS:
            writer.transport.abort()
        PEERS.clear()
        await asyncio.sleep(0)


PEERS: list[asyncio.StreamWriter] = []  # closed with their listener
Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def peer(listener: Listener) -> Peer:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    PEERS.append(writer)
    return reader, writer


async def unix_peer(path: Path) -> Peer:
    reader, writer = await asyncio.open_unix_connection(str(path))
    PEERS.append(writer)
    return reader, writer


async def ask(one: Peer, url: str = BLOCKED) -> int:
    reader, writer = one
    writer.write(nginx(url))
    return seen(await reader.readuntil(b"\r\n\r\n"))[0]


async def ended(one: Peer) -> bytes:
    """All that comes until the other side ends the connection, in whichever way."""
    reader, _ = one
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            data += piece
    return data


async def test_many_questions_over_lasting_connections() -> None:
    async with running() as listener:
        peers = [await peer(listener) for _ in range(50)]
        for _ in range(3):
            assert set(await asyncio.gather(*map(ask, peers))) == {403}
        reader, writer = peers[0]
        writer.write(nginx(BLOCKED) * 1000)
        answers = await reader.readexactly(
            1000
            * len(
                b"HTTP/1.1 403 Forbidden\r\nX-Blocker-Verdict: block\r\n"
                b"X-Blocker-List: police\r\nContent-Length: 0\r\n\r\n"
            )
        )
        assert answers.count(b"403 Forbidden") == 1000


async def test_a_request_that_does_not_end_is_cut_off_while_others_are_served() -> None:
    async with running(request_seconds=0.6) as listener:
        good = await peer(listener)
        hostile = [await peer(listener) for _ in range(100)]
        dripping = asyncio.create_task(drip(hostile))
        async with asyncio.timeout(15):
            await asyncio.gather(*map(ended, hostile))
        dripping.cancel()
        assert listener.cut == 100
        assert await ask(good) == 403
        assert len(listener.connections) == 1


async def drip(peers: list[Peer]) -> None:
    """A byte at a time, for ever."""
    with contextlib.suppress(ConnectionError):
        while True:
            for _, writer in peers:
                writer.write(b"G" if not writer.is_closing() else b"")
            await asyncio.sleep(0.05)


async def test_a_peer_that_does_not_read_is_read_no_more_and_cut_off() -> None:
    async with running(request_seconds=1.0) as listener:
        good, (reader, writer) = await peer(listener), await peer(listener)
        asked = nginx("http://listed.example/gallery/").replace(b"/nginx", b"/envoy/gallery/").replace(
            b"Host: blocker", b"Host: listed.example"
        )  # fmt: skip
        flood = asyncio.create_task(pour(writer, asked * 100))
        async with asyncio.timeout(15):
            while not listener.cut:
                assert await ask(good) == 403
                await asyncio.sleep(0.05)
        flood.cancel()
        assert reader is not None
        assert await ask(good) == 403


async def pour(writer: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(data)
            await writer.drain()


async def test_a_peer_that_asks_without_end_is_answered_in_turns_with_others() -> None:
    """It writes far more than one read brings, ends its side, and still gets every answer, in order."""
    urls = [BLOCKED if number % 3 == 0 else f"http://other.example/{number}" for number in range(20_000)]
    async with running() as listener:
        fed: list[int] = []
        make = listener.session

        class Watched:
            def __init__(self, limits: Any) -> None:  # noqa: ANN401 - settings' own
                self._session = make(limits)

            def feed(self, data: bytes) -> bytes:
                fed.append(len(data))
                return self._session.feed(data)

            def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the session's own
                return getattr(self._session, name)

        listener.session = Watched
        fast, other = await peer(listener), await peer(listener)
        reader, writer = fast
        writer.write(b"".join(map(nginx, urls)))
        writer.write_eof()
        assert await ask(other) == 403
        statuses = [seen(await reader.readuntil(b"\r\n\r\n"))[0] for _ in urls]
        assert statuses == [403 if url == BLOCKED else 204 for url in urls]
        assert await reader.read() == b""
        assert max(fed) == TURN_BYTES


async def test_more_connections_than_are_borne_are_closed_at_once() -> None:
    async with running(max_connections=3) as listener:
        peers = [await peer(listener) for _ in range(3)]
        assert [await ask(one) for one in peers] == [403] * 3
        assert await ended(await peer(listener)) == b""
        assert listener.refused == 1
        peers.pop()[1].close()
        await until(lambda: len(listener.connections) == 2)
        assert await ask(await peer(listener)) == 403


async def test_a_silent_connection_is_closed() -> None:
    async with running(idle_seconds=3.0) as listener:
        one = await peer(listener)
        assert await ask(one) == 403
        assert await ended(one) == b""
        assert listener.cut == 0


async def test_a_peer_that_sends_garbage_gets_its_error_and_is_closed() -> None:
    async with running() as listener:
        good, bad = await peer(listener), await peer(listener)
        bad[1].write(b"\x16\x03\x01\x00\xf4\n\n")
        assert (await ended(bad)).startswith(b"HTTP/1.1 400 ")
        assert await ask(good) == 403


async def test_a_stop_answers_what_is_under_way_and_tells_the_others() -> None:
    async with running(drain_seconds=20.0) as listener:
        busy, lasting = await peer(listener), await peer(listener)
        assert await ask(busy) == await ask(lasting) == 403
        busy[1].write(nginx(BLOCKED)[:20])
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(listener.stop())
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionError):
            await peer(listener)
        busy[1].write(nginx(BLOCKED)[20:])
        lasting[1].write(nginx("http://harmless.example/"))
        for one, status in ((busy, b"403"), (lasting, b"204")):
            answer = await ended(one)
            assert answer.split()[1] == status
            assert b"Connection: close" in answer
        async with asyncio.timeout(15):
            await stopping


async def test_a_unix_socket_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "check.sock"
    async with running(unix=path, unix_mode=0o600) as listener:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await ask(await unix_peer(path)) == 403
        with pytest.raises(ServeError, match="cannot be listened on"):
            async with running(unix=path):
                pass
        assert await ask(await unix_peer(path)) == 403, "of the first, untouched"
        await listener.stop()
        assert not path.exists()


async def test_a_unix_socket_of_a_killed_process_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "check.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert path.exists()
    async with running(unix=path):
        assert await ask(await unix_peer(path)) == 403
    plain = tmp_path / "plain"
    plain.write_text("kept")
    with pytest.raises(ServeError):
        async with running(unix=plain):
            pass
    assert plain.read_text() == "kept"


async def test_an_address_in_use_names_the_setting() -> None:
    async with running() as listener:
        with pytest.raises(ServeError, match="BLOCKER_GATEWAYS__CHECK__PORT"):
            await check_listener(Desk().engine, CheckSettings(port=listener.port), PAGES).start()


async def test_canaries_ask_through_the_socket() -> None:
    async with running() as listener:
        probe = CheckProbe(listener)
        answer = await probe.ask(BLOCKED, "default")
        assert (answer.verdict, answer.list, answer.shadow) == (Verdict.BLOCK, "police", None)
        assert (await probe.ask("http://harmless.example/ä b", "default")).verdict is Verdict.ALLOW
        with pytest.raises(NoAnswer):
            await probe.ask(BLOCKED, "school")
    with pytest.raises((NoAnswer, OSError)):
        await probe.ask(BLOCKED, "default")
    async with running(Desk(ready=False)) as listener:
        with pytest.raises(NoAnswer):
            await CheckProbe(listener).ask(BLOCKED, "default")


async def test_canaries_ask_the_spoe_gateway_too() -> None:
    for desk, verdict in ((Desk(), Verdict.BLOCK), (Desk(ready=False), None)):
        listener = spoe_listener(desk.engine, SpoeSettings(port=0, drain_seconds=0.1))
        probe = SpoeProbe(listener)
        with pytest.raises(NoAnswer):
            await probe.ask(BLOCKED, "default")
        await listener.start()
        try:
            if verdict is None:
                with pytest.raises(NoAnswer):
                    await probe.ask(BLOCKED, "default")
            else:
                assert await probe.ask(BLOCKED, "default") == (verdict, "police", None)
                assert (await probe.ask(f"http://a.example/{'x' * 3000}", "default")).verdict is Verdict.ALLOW
        finally:
            await listener.stop()
        with pytest.raises((NoAnswer, OSError)):
            await probe.ask(BLOCKED, "default")
