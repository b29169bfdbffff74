"""Long work in turns: whoever shares the event loop gets it, and what comes of it is the same."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
from typing import TYPE_CHECKING

import pytest

from blocker.feeds.lookups import Lookups, Pace
from blocker.feeds.resolve import Resolvers
from blocker.feeds.routes import Limits, RouteTable
from blocker.feeds.turns import Turns, Young, encoded, in_turns
from blocker.gateways.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping
    from typing import Any


async def turns_of(work: Awaitable[object]) -> int:
    """How often others had the loop meanwhile."""
    count = 0

    async def others() -> None:
        nonlocal count
        while True:
            count += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    await asyncio.sleep(0)
    before = count
    await work
    beside.cancel()
    return count - before


async def test_turns_are_as_long_as_they_are_to_be() -> None:
    async def work() -> None:
        turns = Turns(10)
        for _ in range(100):
            await turns.spend()

    assert await turns_of(work()) == 10


MESSAGES: list[dict[str, Any]] = [
    {},
    {"a": 1},
    {"list": []},
    {
        "first": [1],
        "none": None,
        "list": [{"host": f"h{at}.example", "since": at / 7} for at in range(1000)],
        "last": {},
    },
    {"wide": ["\u00e9" * 100_000, "b"], "nested": [[1, 2], [3]]},
]


@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
async def test_what_is_written_in_turns_is_the_same_json(message: Mapping[str, Any]) -> None:
    pieces = await encoded(message)
    assert json.loads(b"".join(pieces)) == message
    assert all(pieces)
    # And comes through a channel as one message.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    heard: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    reading = Channel(theirs, lambda message, _: heard.set_result(message), lambda: None)
    writing = Channel(ours, lambda *_: None, lambda: None)
    writing.send_pieces([b'{"report":', *pieces, b"}"])
    assert await heard == {"report": message}
    writing.close()
    reading.close()


async def test_a_report_of_thousands_of_addresses_is_written_in_turns() -> None:
    assert await turns_of(encoded({"addresses": [{"address": str(at)} for at in range(6400)]})) >= 100


def test_what_stays_is_set_aside_as_names_are_looked_up_and_no_more_often() -> None:
    young = Young()
    frozen = []
    for untried in (0, 0, 2500, 2000, 1501, 1500, 1000, 501, 500, 100, 0, 0, 5, 0, 0):
        before = gc.get_freeze_count()
        kept = [[at] for at in range(10_000)]
        young.look(untried)
        if gc.get_freeze_count() > before:
            frozen.append(untried)
        del kept
    gc.unfreeze()
    assert frozen == [1500, 500, 0, 0]


async def test_a_list_of_thousands_of_names_is_taken_over_in_turns() -> None:
    names = {str(at): f"h{at}.example" for at in range(10_000)}
    table = RouteTable(Limits())
    assert await turns_of(in_turns(table.listing(names, 0.0))) >= 10_000 / 256
    assert set(table.ids) == set(names)
    resolvers = Resolvers(["127.0.0.1:9"])
    lookups: Lookups[str] = Lookups(resolvers, Pace(), lambda *_: None, {})
    assert await turns_of(in_turns(lookups.wanting(names))) >= 10_000 / 256
    assert lookups.untried == len(lookups) == 10_000
    half = dict(list(names.items())[:5000])
    assert await turns_of(in_turns(table.listing(half, 0.0))) >= 15_000 / 256
    assert await turns_of(in_turns(lookups.wanting(half))) >= 15_000 / 256
    assert lookups.untried == len(lookups) == len(table.ids) == 5000
    await resolvers.close()
