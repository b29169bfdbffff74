"""Looking names up at a real Knot DNS: families, aliases, times, resolvers that are down, and hundreds of addresses."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
import structlog

from blocker.feeds.lookups import Lookups, Pace
from blocker.feeds.resolve import Answer, Resolvers
from blocker.feeds.routes import Limits, RouteTable
from blocker.feeds.sightings import FAMILIES
from tests.feeds.knot import Knot
from tests.follower.support import until
from tests.redis_server import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def knot(tmp_path: Path) -> Iterator[Knot]:
    with Knot(tmp_path, ttl=300) as running:
        yield running


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Knot]:
    with Knot(tmp_path, "other", ttl=60) as running:
        yield running


async def look_up(name: str, *servers: str, quorum: int = 1) -> Answer | None:
    resolvers = Resolvers(servers, quorum=quorum, seconds=15.0, tries=6)
    try:
        return await resolvers.look_up(name, {})
    finally:
        await resolvers.close()


def told(answer: Answer | None) -> set[str]:
    assert answer is not None
    return {str(address) for address in answer.addresses}


async def test_both_families_and_the_end_of_an_alias_are_found(knot: Knot) -> None:
    knot.serve(both=["192.0.2.1", "192.0.2.2", "2001:db8::1"], alias="middle", middle="both", six="2001:db8::6")
    for name in ("both.example", "alias.example"):
        answer = await look_up(name, knot.address)
        assert told(answer) == {"192.0.2.1", "192.0.2.2", "2001:db8::1"}
        assert answer is not None
        assert (answer.ttl, answer.complete) == (300, FAMILIES)
    assert told(await look_up("six.example", knot.address)) == {"2001:db8::6"}


async def test_five_hundred_addresses_come_whole(knot: Knot) -> None:
    addresses = {f"198.18.{at // 250}.{at % 250}" for at in range(500)}
    knot.serve(crowd=addresses)
    assert told(await look_up("crowd.example", knot.address)) == addresses


async def test_a_name_that_is_nowhere_is_an_answer_and_a_resolver_that_is_down_is_none(knot: Knot) -> None:
    answer = await look_up("nowhere.example", knot.address)
    assert answer == Answer(frozenset(), float("inf"), complete=FAMILIES)
    assert await look_up("nowhere.example", f"127.0.0.1:{free_port()}") is None
    # Knot is no authority for it and refuses: that says nothing about the name.
    assert await look_up("elsewhere.test", knot.address) is None


async def test_answers_are_united_or_counted(knot: Knot, other: Knot) -> None:
    knot.serve(split=["192.0.2.1", "192.0.2.2"])
    other.serve(split=["192.0.2.2", "192.0.2.3"])
    servers = (knot.address, other.address)
    answer = await look_up("split.example", *servers)
    assert told(answer) == {"192.0.2.1", "192.0.2.2", "192.0.2.3"}
    assert answer is not None
    assert answer.ttl == 60, "the shorter one"
    assert told(await look_up("split.example", *servers, quorum=2)) == {"192.0.2.2"}


async def test_of_a_popular_name_any_resolver_s_word_counts_whatever_the_quorum(knot: Knot, other: Knot) -> None:
    """A content network tells each resolver other addresses; whoever points at one of them tells all the same."""
    knot.serve(popular="192.0.2.1", hostile="192.0.2.1")
    other.serve(popular="192.0.2.2", hostile="192.0.2.1")
    resolvers = Resolvers([knot.address, other.address], quorum=2, seconds=15.0, tries=6)
    table = RouteTable(Limits(), (), [ip_network("192.0.2.0/24")])
    table.popular_known = True
    table.listed(["hostile"], 0.0)

    def popular(key: str, answer: Answer | None) -> None:
        table.popular_answered(key, answer.addresses if answer else (), 0.0, complete=FAMILIES)

    def listed(key: str, answer: Answer | None) -> None:
        table.answered(key, answer.addresses if answer else (), 0.0, complete=FAMILIES)

    looking = [Lookups(resolvers, Pace(), popular), Lookups(resolvers, Pace(), listed, {})]
    looking[0].want({"popular": "popular.example"})
    looking[1].want({"hostile": "hostile.example"})
    running = [asyncio.create_task(one.run()) for one in looking]
    try:
        await until(lambda: not any(one.untried for one in looking))
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await resolvers.close()
    assert set(map(str, table.popular["popular"].at)) == {"192.0.2.1", "192.0.2.2"}
    assert set(map(str, table.names["hostile"].at)) == {"192.0.2.1"}
    assert not table.step(1.0)


async def test_with_one_resolver_down_an_answer_is_not_complete_until_it_is_given_up(knot: Knot) -> None:
    knot.serve(name="192.0.2.1")
    down = f"127.0.0.1:{free_port()}"
    answer = await look_up("name.example", knot.address, down)
    assert answer is not None
    assert (told(answer), answer.complete) == ({"192.0.2.1"}, frozenset())
    resolvers = Resolvers([knot.address, down], quorum=2, seconds=15.0, tries=6, give_up_seconds=0.2)
    try:
        await resolvers.look_up("name.example", {})
        while (answer := await resolvers.look_up("name.example", {})) is not None and not answer.complete:
            pass
        assert told(answer) == {"192.0.2.1"}, "a quorum of those that are left"
        assert resolvers.results[down].keys() == {"failed"}
        assert resolvers.results[knot.address].keys() == {"answered"}
    finally:
        await resolvers.close()


async def test_names_are_looked_up_again_when_their_time_is_over_and_no_others(knot: Knot) -> None:
    knot.ttl = 1
    knot.serve(one="192.0.2.1", two="192.0.2.2")
    resolvers = Resolvers([knot.address], seconds=15.0, tries=6)
    heard: list[tuple[str, Answer | None]] = []
    enough = asyncio.Event()

    def hear(key: str, answer: Answer | None) -> None:
        heard.append((key, answer))
        if sum(one == "a" for one, _ in heard) >= 3 and any(one == "c" for one, _ in heard):
            enough.set()

    lookups: Lookups[str] = Lookups(resolvers, Pace(least=0.1, most=0.2), hear)
    running = asyncio.create_task(lookups.run())
    lookups.want({"a": "one.example", "b": "two.example"})
    lookups.want({"a": "one.example", "c": "nowhere.example"})
    assert len(lookups) == 2
    try:
        async with asyncio.timeout(30):
            await enough.wait()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await resolvers.close()
    answers = dict(heard)
    assert told(answers["a"]) == {"192.0.2.1"}
    assert told(answers["c"]) == set()
    assert "b" not in answers, "it was not wanted any more"
    assert lookups.untried == 0


async def test_lookups_keep_to_their_rate_and_number(knot: Knot) -> None:
    knot.serve(**{f"n{at}": "192.0.2.1" for at in range(40)})
    resolvers = Resolvers([knot.address], seconds=15.0, tries=6)
    loop = asyncio.get_running_loop()
    heard: list[float] = []
    enough = asyncio.Event()

    def hear(_key: int, _answer: Answer | None) -> None:
        heard.append(loop.time())
        if len(heard) == 30:
            enough.set()

    lookups: Lookups[int] = Lookups(resolvers, Pace(least=60, per_second=20, at_once=2), hear)
    lookups.want({at: f"n{at}.example" for at in range(40)})
    begun = loop.time()
    running = asyncio.create_task(lookups.run())
    async with asyncio.timeout(30):
        await enough.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await resolvers.close()
    assert heard[29] - begun >= 29 / 20 - 0.1


async def test_a_name_that_cannot_be_asked_for_is_a_failed_look_and_is_not_logged(knot: Knot) -> None:
    names = ["a..example", "x" * 300 + ".example", "secret name.example", ""]
    with structlog.testing.capture_logs() as logs:
        for name in names:
            answer = await look_up(name, knot.address)
            assert answer is None or answer.addresses == frozenset()
    assert "secret" not in str(logs)
