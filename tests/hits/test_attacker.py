"""Somebody with flow logs exact to the second and every scrape of `/metrics` tries to find out who was blocked.

The node is as bad for its users as can be: quiet, so that most requests are alone in their second, and half of them are
blocked, which takes three times as long as finding nothing. The attacker has learned from an hour of which he knows
everything (he sends requests of his own) how each counter moves, and then judges single requests of other hours by
everything that moved in their second. Seeds are fixed; a bound is passed by chance once in a thousand times.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from blocker.gateways.engine import VerdictEngine
from blocker.hits import meters
from blocker.hits.counters import HitCounter
from blocker.hits.exporter import Exporter
from tests.hits.support import BAD, GOOD, Clock, Followed, MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

START = 1_795_989_600.0  # a full hour
HOUR = 3600
FLOWS = 1200  # an hour, each with a user of its own
BIN = 8

# What moved in a second and by how much.
Moved = frozenset[str]


@pytest.fixture(autouse=True)
def _seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "_random", random.Random(77))  # noqa: S311


class Node:
    """A real engine, counter and exporter; only clock and timer are the test's."""

    def __init__(self, drawn: random.Random) -> None:
        self.clock = Clock(START)
        self._drawn = drawn
        self._ticks = 0
        self._next = 0
        self.hits = HitCounter(MemoryStore(), node="node", zone=ZoneInfo("UTC"), clock=self.clock, boot="boot")
        follower = Followed()
        self.engine = VerdictEngine(follower, self.hits, timer=self._timer)
        self.exporter = Exporter(self.engine.meters, self.hits, follower, clock=lambda: START)

    def _timer(self) -> int:
        self._ticks += self._next
        self._next = 0 if self._next else self._duration
        return self._ticks

    def request(self, blocked: bool) -> None:
        self._duration = self._drawn.randrange(700, 1300) if blocked else self._drawn.randrange(150, 700)
        self.engine.check(BAD if blocked else GOOD, "default", "dns")

    def metrics(self) -> list[str]:
        return self.exporter.render().decode().splitlines()

    def naive(self) -> list[str]:
        """What an exporter without release rules would show."""
        meter = self.engine.meters["dns"]
        return [f"{name} {getattr(meter, name)}" for name in ("allow", "inspect", "blocks", "nanoseconds")]

    def without_blocks(self) -> list[str]:
        """Live counters of all verdicts but blocks, and their times."""
        meter = self.engine.meters["dns"]
        return [f"allow {meter.allow}", *(f"bucket{n} {count}" for n, count in enumerate(meter.buckets))]


def moved(before: Sequence[str], after: Sequence[str]) -> Moved:
    assert len(before) == len(after)
    changes = set()
    for earlier, later in zip(before, after, strict=True):
        if earlier != later:
            name, _, value = later.rpartition(" ")
            changes.add(f"{name} {float(value) - float(earlier.rpartition(' ')[2]):.9f}")
    return frozenset(changes)


async def watched_hour(node: Node, drawn: random.Random, look: Callable[[], list[str]]) -> list[tuple[Moved, bool]]:
    """One hour, a scrape each second: for each second with a single flow what moved, and whether it was blocked."""
    flows: dict[int, list[bool]] = {}
    for _ in range(FLOWS):
        flows.setdefault(drawn.randrange(HOUR), []).append(drawn.random() < 0.5)
    start, seen = node.clock.now, []
    node.request(False)  # so that all counters are there
    await node.hits.flush()
    before = look()
    for second in range(HOUR):
        node.clock.now = start + second
        requests = flows.get(second, [])
        for blocked in requests:
            node.request(blocked)
        after = look()
        if len(requests) == 1:
            seen.append((moved(before, after), requests[0]))
        elif not requests and second:
            assert after == before, "something moved by itself; that would be a signal too"
        before = after
        if second % 60 == 0:
            await node.hits.flush()
    node.clock.now = start + HOUR
    await node.hits.flush()
    return seen


def judged(learned: Sequence[tuple[Moved, bool]], seen: Sequence[tuple[Moved, bool]]) -> float:
    """How often a blocked request is judged more suspicious than another (the area under the ROC curve).

    A naive Bayes classifier on what moved; what he never saw says nothing.
    """
    counts = {True: Counter[str](), False: Counter[str]()}
    for changes, blocked in learned:
        counts[blocked].update(changes)
    totals = {label: 1 + sum(one is label for _, one in learned) for label in (True, False)}

    def suspicion(changes: Moved) -> float:
        score = 0.0
        for change in counts[True].keys() | counts[False].keys():
            odds = [(counts[label][change] + 0.5) / (totals[label] + 1) for label in (True, False)]
            here = odds if change in changes else [1 - one for one in odds]
            score += math.log(max(here[0], 1e-9) / max(here[1], 1e-9))
        return score

    scores = {label: [suspicion(changes) for changes, one in seen if one is label] for label in (True, False)}
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[True] for b in scores[False]]
    return sum(pairs) / len(pairs)


def bound(seen: Sequence[tuple[Moved, bool]]) -> float:
    """How far from one half the area may be by chance: 3.3 standard deviations (Mann and Whitney, 1947)."""
    blocked = sum(label for _, label in seen)
    others = len(seen) - blocked
    return 3.3 * math.sqrt((blocked + others + 1) / (12 * blocked * others))


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_request_can_be_told_from_another_by_what_moved_in_its_second(seed: int) -> None:
    drawn = random.Random(seed)  # noqa: S311
    node = Node(drawn)
    await watched_hour(node, drawn, node.metrics)  # a first one, so that counters and times are not new
    learned = await watched_hour(node, drawn, node.metrics)
    seen = await watched_hour(node, drawn, node.metrics)
    assert len(seen) > 700
    assert abs(judged(learned, seen) - 0.5) < bound(seen)


@pytest.mark.parametrize("exporter", ["naive", "without_blocks"])
async def test_the_same_attacker_finds_everything_where_counters_are_live_or_blocks_are_missing(exporter: str) -> None:
    drawn = random.Random(3)  # noqa: S311
    node = Node(drawn)
    look = getattr(node, exporter)
    learned = await watched_hour(node, drawn, look)
    assert judged(learned, await watched_hour(node, drawn, look)) > 0.99


@pytest.mark.parametrize("others", range(1, 2 * BIN + 1))
async def test_within_a_bin_both_worlds_look_the_same_at_every_second_and_afterwards(others: int) -> None:
    """He knows of every request but one whether it was blocked, and watches over the end of the hour."""
    worlds = []
    for blocked in (False, True):
        node = Node(random.Random(4))  # noqa: S311
        await node.hits.flush()
        texts = []
        for number in range(others + 40):
            node._drawn = random.Random(number)  # noqa: S311 - each request takes what it takes in both worlds
            node.request(number < others)
            texts.append(node.metrics())
            node.clock.now += 1
        node._drawn = random.Random(5)  # noqa: S311
        node.request(blocked)
        for second in (0, 1, HOUR - 60 - others, HOUR, HOUR + 1, 2 * HOUR):
            node.clock.now = START + 40 + others + second
            await node.hits.flush()
            texts.append([line for line in node.metrics() if "_bucket" not in line and "_sum" not in line])
        worlds.append(texts)
    same = worlds[0] == worlds[1]
    assert same is (others % BIN != 0), "the border between two bins is all that can be seen"


async def test_over_many_hours_he_wins_no_more_than_the_border_of_a_bin_gives() -> None:
    """One unknown request an hour, among others of which he knows all: the best guess is right in 9 of 16 hours."""
    drawn = random.Random(6)  # noqa: S311
    node = Node(drawn)
    right, hours = 0, 800
    await node.hits.flush()
    for _ in range(hours):
        others, blocked = drawn.randrange(64), drawn.random() < 0.5
        before = released(node)
        for _ in range(others):
            node.request(True)
        node.request(blocked)
        node.clock.now += HOUR
        await node.hits.flush()
        rounded = released(node) - before
        guess = drawn.random() < 0.5 if others % BIN else rounded > others
        right += guess is blocked
    expected = hours * (1 / 2 + 1 / (2 * BIN))
    assert abs(right - expected) < 3.3 * math.sqrt(hours / 4)


def released(node: Node) -> float:
    cells = [line for line in node.metrics() if line.startswith('blocker_hits_total{list="first"')]
    return sum(float(line.rpartition(" ")[2]) for line in cells)
