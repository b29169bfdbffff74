"""Messages between the processes of a node: whole or not at all, with their files, whatever the other side does."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocker.gateways import channel
from blocker.gateways.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Sequence


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class End:
    """One end, and what it got."""

    def __init__(self, opened: socket.socket) -> None:
        self.messages: asyncio.Queue[tuple[dict[str, Any], list[int]]] = asyncio.Queue()
        self.ended = asyncio.Event()
        self.channel = Channel(opened, self._got, self.ended.set)

    def _got(self, message: dict[str, Any], descriptors: Sequence[int]) -> None:
        if message.get("fault"):
            raise ValueError("a fault of the receiver")
        self.messages.put_nowait((message, list(descriptors)))

    async def get(self) -> tuple[dict[str, Any], list[int]]:
        async with asyncio.timeout(20):
            return await self.messages.get()


def pair() -> tuple[End, socket.socket]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return End(left), right


async def test_messages_of_any_size_arrive_in_order_with_their_files() -> None:
    one, raw = pair()
    other = End(raw)
    reading, writing = os.pipe()
    for number, size in enumerate((0, 1, 48 * 1024, 5_000_000, 7)):
        one.channel.send({"number": number, "text": "x" * size}, [writing] if number % 2 else [])
    os.close(writing)
    for number, size in enumerate((0, 1, 48 * 1024, 5_000_000, 7)):
        message, descriptors = await other.get()
        assert (message["number"], len(message["text"])) == (number, size)
        assert len(descriptors) == number % 2
        for descriptor in descriptors:
            os.write(descriptor, b"here")
            os.close(descriptor)
    assert os.read(reading, 100) == b"herehere"
    assert os.read(reading, 100) == b"", "no copy of the descriptor is left open"
    os.close(reading)
    one.channel.close()
    async with asyncio.timeout(20):
        await other.ended.wait()
    one.channel.send({"into": "nothing"})
    other.channel.send({"into": "nothing"})


@pytest.mark.parametrize("garbage", [b".{", b".[]", b".", b"\xff" * 100, b".null", b"+" + b"x" * 200_000])
async def test_garbage_ends_the_channel(garbage: bytes) -> None:
    one, raw = pair()
    raw.send(garbage)
    raw.close()
    async with asyncio.timeout(20):
        await one.ended.wait()
    assert one.messages.empty()


async def test_a_fault_of_the_receiver_ends_nothing() -> None:
    one, raw = pair()
    raw.send(b'.{"fault":true}')
    raw.send(b'.{"after":1}')
    assert await one.get() == ({"after": 1}, [])
    one.channel.close()
    raw.close()


async def test_who_never_reads_is_given_up_and_costs_no_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "MAX_WAITING_BYTES", 2**20)
    one, raw = pair()
    before = open_files()
    for _ in range(100):
        one.channel.send({"text": "x" * 40_000}, [0])
    assert one.ended.is_set()
    assert open_files() < before
    raw.close()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=200_000), max_size=3), min_size=1, max_size=4))
def test_what_is_sent_is_what_arrives(messages: list[dict[str, str]]) -> None:
    async def whole() -> None:
        one, raw = pair()
        other = End(raw)
        for message in messages:
            one.channel.send({**message, "fault": False})
        assert [(await other.get())[0] for _ in messages] == [{**message, "fault": False} for message in messages]
        one.channel.close()
        other.channel.close()

    asyncio.run(whole())


def test_a_socket_at_a_path_that_is_too_long_for_one(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 30)
    directory.mkdir()
    path = directory / "node.sock"
    listening = channel.listen(path)
    channel.connect(path).close()
    with pytest.raises(OSError, match="in use"):
        channel.listen(path)
    listening.close()
    assert path.is_socket()
    with pytest.raises(OSError, match="refused"):
        channel.connect(path)
    channel.listen(path).close()  # what a killed process left is replaced
    path.unlink()
    path.write_text("kept")
    with pytest.raises(OSError, match="in use"):
        channel.listen(path)
    assert path.read_text() == "kept"


async def test_many_messages_cost_little() -> None:
    one, raw = pair()
    other = End(raw)
    started = time.perf_counter()
    for number in range(5_000):
        one.channel.send({"number": number})
        if number % 100 == 0:
            await asyncio.sleep(0)
    for number in range(5_000):
        assert (await other.get())[0] == {"number": number}
    assert time.perf_counter() - started < 10
    one.channel.close()
    other.channel.close()
