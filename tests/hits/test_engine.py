from __future__ import annotations

import json
from zoneinfo import ZoneInfo

import pytest

import blocker
from blocker._native import Batch
from blocker.errors import BlockerError, ServeError
from blocker.gateways.engine import NotReady, UnknownPolicy, VerdictEngine
from blocker.hits.counters import HitCounter
from blocker.rules import Kind, Verdict
from tests.hits.support import BAD, GOOD, SHADOWED, WORSE, Clock, Followed, MemoryStore

MARK = "zzmarkzz"


class Node:
    """An engine with a store that shows what was counted."""

    def __init__(self) -> None:
        self.follower = Followed()
        self.store = MemoryStore()
        self.clock = Clock(1_795_989_600.0)
        self.hits = HitCounter(self.store, node="node", zone=ZoneInfo("UTC"), clock=self.clock)
        self.engine = VerdictEngine(self.follower, self.hits)


def verdicts(answers: bytes) -> list[str]:
    return [answer["verdict"] for answer in json.loads(b"[%b]" % answers)]


@pytest.fixture
def node() -> Node:
    return Node()


def test_a_decision_is_that_of_the_followers_matcher(node: Node) -> None:
    decision = node.engine.check(BAD)
    assert (decision.verdict, decision.list, decision.kind, decision.serial) == (Verdict.BLOCK, "first", Kind.EXACT, 7)
    assert node.engine.check(GOOD.encode()).verdict is Verdict.ALLOW
    assert node.engine.check_host("bad.example").verdict is Verdict.INSPECT
    assert verdicts(node.engine.answer(Batch([BAD, GOOD]))) == ["block", "allow"]
    assert node.engine.answer(Batch([])) == b""


def test_a_swapped_matcher_decides_from_then_on(node: Node) -> None:
    old = node.engine.matcher()
    node.follower.matcher = blocker.Matcher.build({"other": [GOOD]})
    assert node.engine.check(GOOD).verdict is Verdict.BLOCK
    assert verdicts(node.engine.answer(Batch([GOOD]), matcher=old)) == ["allow"]


async def test_hits_and_meters_count_alike_one_by_one_and_many(node: Node) -> None:
    urls = [BAD, WORSE, WORSE, SHADOWED, GOOD, "/no url", "http://bad.example/pardoned"]
    for url in urls:
        node.engine.check(url, "default", "check")
    node.engine.answer(Batch(urls), "default", "spoe")
    one, many = node.engine.meters["check"], node.engine.meters["spoe"]
    for meter in (one, many):
        assert (meter.allow, meter.inspect, meter.blocks, meter.invalid) == (4, 0, 3, 1)
        assert sum(meter.buckets) == 4, "a block's time is in no bucket"
        assert meter.nanoseconds > 0
    await node.hits.flush()
    assert node.store.cells == {
        "first|2026-W48|7|22": 2, "second|2026-W48|7|22": 4, "~quiet|2026-W48|7|22": 4,
    }  # fmt: skip


async def test_canaries_in_a_batch_are_answered_and_not_counted(node: Node) -> None:
    node.engine.canaries = frozenset([BAD, SHADOWED, GOOD])
    assert verdicts(node.engine.answer(Batch([BAD, WORSE, SHADOWED, GOOD, "/no url"]))) == [
        "block", "block", "allow", "allow", "allow",
    ]  # fmt: skip
    meter = node.engine.meters["control"]
    assert (meter.allow, meter.blocks, meter.invalid) == (2, 1, 1), "what is let through anyway is no canary's block"
    await node.hits.flush()
    assert node.store.cells == {"second|2026-W48|7|22": 1}


async def test_a_batch_counts_in_the_hour_it_is_decided_in(node: Node) -> None:
    node.engine.answer(Batch([WORSE]))
    node.clock.now += 3600
    node.engine.answer(Batch([WORSE, WORSE]))
    await node.hits.flush()
    assert node.store.cells["second|2026-W48|7|22"] == 1
    assert node.store.cells["second|2026-W48|7|23"] == 2


async def test_many_without_a_block_count_their_shadow_hits(node: Node) -> None:
    node.engine.answer(Batch([GOOD, SHADOWED]))
    await node.hits.flush()
    assert node.store.cells == {"~quiet|2026-W48|7|22": 1}


def test_nothing_is_decided_before_the_first_matcher(node: Node) -> None:
    node.follower.matcher = None
    for call in (lambda: node.engine.check(MARK), lambda: node.engine.check_host(MARK),
                 lambda: node.engine.answer(Batch([MARK])), node.engine.matcher):  # fmt: skip
        with pytest.raises(NotReady) as caught:
            call()
        assert MARK not in str(caught.value)
    assert node.engine.meters == {}


def test_an_unknown_policy_is_refused_without_its_name(node: Node) -> None:
    for call in (lambda: node.engine.check(BAD, MARK), lambda: node.engine.check_host("bad.example", MARK),
                 lambda: node.engine.answer(Batch([BAD]), MARK)):  # fmt: skip
        with pytest.raises(UnknownPolicy, match="configured are: default, strict, hushed") as caught:
            call()
        assert MARK not in str(caught.value)
        assert caught.value.__suppress_context__
    assert issubclass(NotReady, ServeError)
    assert issubclass(UnknownPolicy, BlockerError)


def test_only_the_known_gateways_have_a_meter(node: Node) -> None:
    with pytest.raises(KeyError):
        node.engine.check(GOOD, "default", MARK)
    assert MARK not in node.engine.meters
