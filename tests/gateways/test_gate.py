"""What a gate decides and counts is what the engine decides and counts, and neither more nor sooner is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings

from blocker import Matcher
from blocker._native import HttpSession
from blocker.errors import InvalidRule
from blocker.gateways.engine import UnknownPolicy
from blocker.hits.exporter import Exporter
from blocker.matcher import Policy
from tests.data_dir import needs_shared_data, traffic
from tests.gateways.test_http_codec import BLOCKED, LISTS, Desk, nginx, seen
from tests.oracle.strategies import Case, cases
from tests.test_matcher import build_setup

if TYPE_CHECKING:
    from collections.abc import Iterable

SHADOWED = "http://shadowed.example/"


def ask(desk: Desk, urls: Iterable[str]) -> list[tuple[int, str, str]]:
    session = HttpSession(desk.gate)
    return [seen(session.feed(nginx(url))) for url in urls]


def counted(desk: Desk, gateway: str) -> tuple[int, int, int, int]:
    desk.engine.meters.collect()
    meter = desk.engine.meters[gateway]
    return meter.allow, meter.inspect, meter.blocks, meter.invalid


async def test_counts_are_those_of_the_engine() -> None:
    urls = [BLOCKED, SHADOWED, "http://harmless.example/", "/none", "http://listed.example/gallery/ok"] * 3
    desk, other = Desk(), Desk()
    ask(desk, urls)
    for url in urls:
        other.engine.check(url, gateway="check")
    assert counted(desk, "check") == counted(other, "check") == (12, 0, 3, 3)
    meter = desk.engine.meters["check"]
    assert sum(meter.buckets) == 12
    assert meter.nanoseconds > 0
    for one in (desk, other):
        await one.hits.flush()
    assert desk.store.cells == other.store.cells
    assert sum(desk.store.cells.values()) == 6, "three blocks, and three that the list on trial would have blocked"


async def test_hits_fall_into_their_hour_and_are_shown_after_it() -> None:
    desk = Desk()
    exporter = Exporter(desk.engine.meters, desk.hits, desk.followed, clock=desk.clock)
    desk.clock.now += 3600 - desk.clock.now % 3600 - 1
    desk.engine.tick()
    ask(desk, [BLOCKED] * 5)
    await desk.hits.flush()
    assert 'blocker_decisions_total{gateway="check",verdict="block"} 0' in exporter.render().decode()
    desk.clock.now += 2
    desk.engine.tick()  # as the listener does before it feeds
    ask(desk, [BLOCKED] * 3)
    await desk.hits.flush()
    first, second = sorted(desk.store.cells.values())
    assert (first, second) == (3, 5)
    text = exporter.render().decode()
    assert 'blocker_decisions_total{gateway="check",verdict="block"} 8' in text, "five, rounded up; the three wait"
    assert text.count("blocker_decision_seconds_count") == 1


async def test_hits_of_an_old_matcher_are_not_lost_at_a_swap() -> None:
    desk = Desk()
    ask(desk, [BLOCKED] * 2)
    desk.engine.swapped(Matcher.build({"other": ["http://other.example/"]}))
    assert ask(desk, [BLOCKED, "http://other.example/"]) == [(204, "allow", ""), (403, "block", "other")]
    await desk.hits.flush()
    assert sorted(desk.store.cells.values()) == [1, 2]
    assert counted(desk, "check") == (1, 0, 3, 0)


def test_a_canary_counts_as_nothing_here_too() -> None:
    desk = Desk()
    desk.engine.canaries = frozenset({BLOCKED, SHADOWED})
    assert [status for status, *_ in ask(desk, [BLOCKED, BLOCKED, SHADOWED, f"{BLOCKED}?x"])] == [403, 403, 204, 403]
    assert counted(desk, "check") == (0, 0, 1, 0)
    late = desk.engine.gate("icap", "default")
    session = HttpSession(late)
    session.feed(nginx(BLOCKED))
    assert counted(desk, "icap") == (0, 0, 0, 0)


def test_a_policy_that_is_not_there_is_refused() -> None:
    desk = Desk()
    with pytest.raises(UnknownPolicy, match="configured are: default"):
        desk.engine.gate("check", "school")


def test_what_is_no_url_gets_the_policys_answer() -> None:
    desk = Desk()
    desk.engine.swapped(Matcher.build(LISTS, policies=[Policy(on_invalid="block")]))
    assert ask(desk, ["/none"]) == [(403, "block", "")]
    assert counted(desk, "check") == (0, 0, 1, 1)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_the_same_verdict_as_through_the_matcher(case: Case) -> None:
    native, _, _ = build_setup(case.setup)
    desk = Desk()
    desk.engine.swapped(native)
    session = HttpSession(desk.gate)
    for url in case.urls:
        text = url.encode("utf-8", "surrogateescape")
        if any(byte < 0x20 or byte == 0x7F for byte in text) or text != text.strip():
            continue  # no header holds these
        decision = native.decide(text)
        status, verdict, name = seen(session.feed(nginx(text.decode("latin-1"))))
        assert (verdict, name) == (decision.verdict.value, decision.list or "")
        assert status == (403 if verdict == "block" else 204)


@needs_shared_data
def test_real_traffic_gets_the_matchers_verdicts() -> None:
    urls = [url for number, url in enumerate(traffic()) if number % 20 == 0 and min(url, default=0) > 0x20]
    listed = [url.decode("latin-1") for url in urls[::100] if b"://" in url]
    desk = Desk()
    desk.engine.swapped(native := Matcher.build({"real": [line for line in listed if _is_rule(line)]}))
    session = HttpSession(desk.gate)
    answers = session.feed(b"".join(nginx(url.decode("latin-1")) for url in urls)).split(b"HTTP/1.1 ")[1:]
    assert len(answers) == len(urls) > 10_000
    decisions = native.decide_many(urls)
    assert [answer[:3] == b"403" for answer in answers] == [one.verdict == "block" for one in decisions]
    assert sum(one.verdict == "block" for one in decisions) > 90


def _is_rule(line: str) -> bool:
    try:
        Matcher.build({"one": [line]})
    except InvalidRule:
        return False
    return True
