"""Somebody who knows and sends all questions but one, and reads every scrape, wants to know if that one was blocked.

What gives a block away is that a question is not forwarded. So a gateway, its upstreams and its metrics are run with
questions of which some are blocked, and again with others in their place that are forwarded and, as seven in eight are,
not drawn; the texts must be the same. Then the lot itself is watched, where it is worst for the user: all upstreams are
silent, and his question is the only one of its minute.
"""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import settings as tried
from hypothesis import strategies as st

from blocker.gateways import dns_load, dns_metrics
from tests.gateways.dns_desk import shown
from tests.gateways.dns_running import ask, running
from tests.gateways.dns_upstream import Upstream, address, reply, upstream
from tests.gateways.test_dns_metrics import Told
from tests.ingest.checks import until
from tests.redis_server import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dns.message import QueryMessage

BLOCKED = "host.example"
MINUTES = 700


class Lots:
    """Draws as it will, but for the questions that stand where blocked ones are: these are not drawn."""

    def __init__(self) -> None:
        self._drawn = random.Random(7)  # noqa: S311
        self.spared = False

    def randrange(self, stop: int) -> int:
        return 1 if self.spared else self._drawn.randrange(stop)


def behave(one: Upstream, asked: QueryMessage, stream: bool) -> Sequence[bytes]:
    """An answer, or a failure."""
    if b"failing" in (asked.question[0].name.labels[0].lower()):
        return [reply(asked, rcode="SERVFAIL").to_wire()]
    return address(one, asked, stream)


async def texts(kinds: Sequence[str], instead: str) -> list[str]:
    """What is published at each step: of these questions, with something else instead of the blocked ones."""
    lots = Lots()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dns_load, "_random", lots)
        patch.setattr(dns_metrics, "_random", random.Random(5))  # noqa: S311
        away = free_port()
        async with upstream(behave) as one, running(one, away) as listener:
            told = Told(listener)
            await told.watch.look()
            found = []
            for number, kind in enumerate(kinds):
                lots.spared = kind == "blocked"
                if kind != "blocked":
                    await ask(listener, f"{kind}{number}.example", tcp=number % 3 == 0)
                elif instead == "blocked":
                    assert shown(await ask(listener, BLOCKED)) == ("NXDOMAIN", [])
                elif instead:
                    await ask(listener, f"{instead}{number}.example", tcp=number % 3 == 0)
                if number % 10 == 9:
                    told.clock.now += dns_metrics.WINDOW_SECONDS / 2
                    found.append(told.text())
            told.clock.now += dns_metrics.WINDOW_SECONDS
            found += [told.text(), told.text()]
            return [text.replace(str(one.port), "1").replace(str(away), "2") for text in found]


def without_times(text: str) -> list[str]:
    """How long the node's own questions took is another time each time."""
    return [line for line in text.splitlines() if "upstream_seconds" not in line]


@tried(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from(["answered", "failing", "blocked"]), max_size=45))
@example(["blocked"] * 20)
@example([*["failing"] * 20, "blocked", *["answered"] * 20])
async def test_the_text_is_the_same_with_blocked_questions_without_them_and_with_others_instead(
    kinds: list[str],
) -> None:
    worlds = [await texts(kinds, instead) for instead in ("blocked", "", "answered", "failing")]
    for other in worlds[1:]:
        assert [without_times(text) for text in worlds[0]] == [without_times(text) for text in other]


async def minutes(seed: int) -> list[tuple[bool, bool]]:
    """Of minutes with one question each in an outage: whether it was blocked, and whether anything moved."""
    drawn = random.Random(seed)  # noqa: S311
    away = free_port()
    async with running(away, cache_bytes=0) as listener:  # what is told of the cache moves by lot
        told = Told(listener)
        for _ in range(2):
            await told.watch.look()
        quiet, found = told.text(), []
        for number in range(MINUTES):
            blocked = drawn.random() < 0.5
            await ask(listener, BLOCKED if blocked else f"{number}.example")
            told.clock.now += dns_metrics.WINDOW_SECONDS
            found.append((blocked, told.text() != quiet))
        return found


async def test_in_an_outage_most_questions_that_are_alone_move_no_more_than_a_blocked_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dns_load, "_random", random.Random(1))  # noqa: S311 - passed by chance once in a thousand times
    found = await minutes(2)
    assert not any(moved for blocked, moved in found if blocked)
    others = [moved for blocked, moved in found if not blocked]
    share, chance = sum(others) / len(others), 1 / dns_load.ONE_IN
    assert abs(share - chance) < 3.3 * math.sqrt(chance * (1 - chance) / len(others))
    # The best guess of whoever sees nothing move.
    still = [blocked for blocked, moved in found if not moved]
    assert sum(still) / len(still) < 8 / 15 + 3.3 * math.sqrt(0.25 / len(still))


async def test_the_same_attacker_finds_everything_where_all_questions_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_load, "ONE_IN", 1)
    assert all(blocked is not moved for blocked, moved in await minutes(3))


@pytest.mark.parametrize("step", [dns_metrics.ENTRIES_STEP, dns_metrics.BYTES_STEP])
def test_one_answer_more_changes_the_step_that_is_told_about_never(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    size, apart = (1, 1) if step == dns_metrics.ENTRIES_STEP else (500, 100)
    for before in (0, 1, step - size, step - 1, step, 5 * step + 7):
        changed = 0
        for draw in range(0, step, apart):
            monkeypatch.setattr(dns_metrics._random, "randrange", lambda _step, draw=draw: draw)
            changed += dns_metrics._drawn_step(before, step) != dns_metrics._drawn_step(before + size, step)
        assert 1 <= changed <= -(-size // apart) + (apart > 1)


def test_a_lot_is_drawn_for_one_question_in_eight() -> None:
    drawn = sum(dns_load.Forwarded.drawn() for _ in range(80_000))
    assert abs(drawn - 10_000) < 5 * math.sqrt(80_000 * 7 / 64)


async def test_a_question_that_joins_others_is_drawn_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    lots = iter([1, 0, 1, 0])
    monkeypatch.setattr(dns_load._random, "randrange", lambda _stop: next(lots))
    async with upstream(address) as one, running(one, cache_bytes=0) as listener:
        one.go.clear()
        asking = [asyncio.create_task(ask(listener, "same.example"))]
        await one.arrived.wait()
        asking += [asyncio.create_task(ask(listener, "same.example", tcp=True)) for _ in range(3)]
        await until(lambda: listener.forwarder.waiting == 4)
        one.go.set()
        await asyncio.gather(*asking)
        taken = listener.forwarder.forwarded.take((0, 0, 0))
        assert (taken.asked, taken.fates, taken.waiting) == ({}, {"answer": 2}, 2)
