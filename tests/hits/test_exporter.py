from __future__ import annotations

import gc
import re
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

import blocker
from blocker._native import Batch
from blocker.gateways.engine import VerdictEngine
from blocker.hits.calendar import WEEKDAYS
from blocker.hits.counters import HitCounter
from blocker.hits.exporter import Exporter
from blocker.hits.meters import BOUNDS_NS, GATEWAYS
from blocker.rules import Verdict
from tests.hits.support import BAD, GOOD, SHADOWED, WORSE, Clock, Followed, MemoryStore, Status, small_matcher

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client.metrics_core import Metric

START = 1_795_989_600.0  # Sunday, 29 November 2026, 22:00 UTC
HOUR = 3600.0
LISTS = {"first", "second", "quiet"}
HOURS = {f"{hour:02d}" for hour in range(24)}

# Every metric with its type and its closed label sets; what is not here must not be exported.
CONTRACT: Mapping[str, tuple[str, Mapping[str, set[str]]]] = {
    "blocker_decisions": ("counter", {"gateway": set(GATEWAYS), "verdict": set(map(str, Verdict))}),
    "blocker_decision_seconds": ("histogram", {"gateway": set(GATEWAYS)}),
    "blocker_invalid_urls": ("counter", {"gateway": set(GATEWAYS)}),
    "blocker_hits": ("counter", {"list": LISTS, "weekday": set(WEEKDAYS), "hour": HOURS}),
    "blocker_shadow_hits": ("counter", {"list": LISTS, "weekday": set(WEEKDAYS), "hour": HOURS}),
    "blocker_list_entries": ("gauge", {"list": LISTS | {"pardon"}}),
    "blocker_list_serial": ("gauge", {"list": LISTS | {"pardon"}}),
    "blocker_list_age_seconds": ("gauge", {"list": LISTS | {"pardon"}}),
    "blocker_canary_ok": ("gauge", {"list": LISTS, "gateway": set(GATEWAYS)}),
    "blocker_canary_age_seconds": ("gauge", {"list": LISTS, "gateway": set(GATEWAYS)}),
    "blocker_store_up": ("gauge", {}),
    "blocker_store_failures": ("counter", {}),
    "blocker_follower_lag_seconds": ("gauge", {}),
    "blocker_hits_waiting_hours": ("gauge", {}),
    "blocker_build_info": ("gauge", {"version": {"0.1.0"}}),
}


class Node:
    """An engine and its exporter."""

    def __init__(self) -> None:
        self.clock = Clock(START)
        self.follower = Followed()
        self.hits = HitCounter(MemoryStore(), node="node", zone=ZoneInfo("UTC"), clock=self.clock, boot="boot")
        self.engine = VerdictEngine(self.follower, self.hits)
        self.exporter = Exporter(
            self.engine.meters, self.hits, self.follower, shadow_lists={"second"}, clock=self.clock
        )

    def families(self) -> dict[str, Metric]:
        text = self.exporter.render().decode()
        return {family.name: family for family in text_string_to_metric_families(text)}

    def value(self, name: str, **labels: str) -> float:
        (value,) = [
            sample.value
            for family in self.families().values()
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        return value


@pytest.fixture
def node() -> Node:
    return Node()


async def busy(node: Node) -> None:
    for gateway in GATEWAYS:
        for url in (BAD, WORSE, SHADOWED, GOOD, "/no url"):
            node.engine.check(url, "default", gateway)
        node.engine.check_host("bad.example", "default", gateway)
        node.engine.check(WORSE, "hushed", gateway)
    await node.hits.flush()
    node.clock.now += HOUR
    await node.hits.flush()


async def test_names_types_and_labels_are_the_documented_ones(node: Node) -> None:
    await busy(node)
    families = node.families()
    assert {name: family.type for name, family in families.items()} == {
        name: kind for name, (kind, _) in CONTRACT.items()
    }
    for name, family in families.items():
        assert family.documentation, name
        allowed = dict(CONTRACT[name][1])
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if key != "le"}
            assert labels.keys() == allowed.keys(), sample
            assert all(value in allowed[key] for key, value in labels.items()), sample


async def test_the_fast_text_equals_what_the_registry_collects(node: Node) -> None:
    for _ in range(2):
        await busy(node)
        texts = (node.exporter.render().decode(), generate_latest(node.exporter.registry).decode())
        fast, plain = (
            {family.name: (family.documentation, family.type, family.samples) for family in families}
            for families in map(text_string_to_metric_families, texts)
        )
        assert fast == plain


async def test_blocks_appear_when_their_hour_is_over_rounded_up(node: Node) -> None:
    await node.hits.flush()
    blocks = {"gateway": "dns", "verdict": "block"}
    for _ in range(9):
        node.engine.check(BAD, "default", "dns")
    node.exporter.render()
    node.engine.check(BAD, "default", "dns")
    node.engine.answer(Batch([BAD, BAD]), "default", "dns")
    assert node.value("blocker_decisions_total", **blocks) == 0
    assert node.value("blocker_decisions_total", gateway="dns", verdict="allow") == 12, "not missing meanwhile"
    assert node.value("blocker_decision_seconds_count", gateway="dns") == 12
    node.clock.now += HOUR
    assert node.value("blocker_decisions_total", **blocks) == 16
    node.engine.check(BAD, "default", "dns")
    assert node.value("blocker_decisions_total", **blocks) == 16
    node.clock.now += HOUR
    assert node.value("blocker_decisions_total", **blocks) == 24


async def test_all_cells_of_every_list_are_there_at_zero(node: Node) -> None:
    await node.hits.flush()
    samples = node.families()["blocker_hits"].samples
    assert len(samples) == 3 * 168
    assert {sample.value for sample in samples} == {0}
    shadow = node.families()["blocker_shadow_hits"].samples
    assert {sample.labels["list"] for sample in shadow} == {"quiet", "second"}, "by their own mode and by a policy's"


async def test_no_cell_is_there_before_the_stored_totals_are_known(node: Node) -> None:
    assert node.families()["blocker_hits"].samples == []
    assert node.families()["blocker_shadow_hits"].samples == []


async def test_released_hits_are_in_the_cell_of_their_hour(node: Node) -> None:
    node.engine.check(BAD)
    node.engine.check(SHADOWED)
    await node.hits.flush()
    node.clock.now += HOUR
    await node.hits.flush()
    assert node.value("blocker_hits_total", list="first", weekday="sun", hour="22") == 8
    assert node.value("blocker_shadow_hits_total", list="quiet", weekday="sun", hour="22") == 8
    assert node.value("blocker_hits_total", list="first", weekday="sun", hour="23") == 0


async def test_a_list_that_left_keeps_its_released_hits(node: Node) -> None:
    node.engine.check(BAD)
    await node.hits.flush()
    node.clock.now += HOUR
    await node.hits.flush()
    node.follower.matcher = blocker.Matcher.build({"new": [GOOD]})
    assert node.value("blocker_hits_total", list="first", weekday="sun", hour="22") == 8
    assert node.value("blocker_hits_total", list="new", weekday="sun", hour="22") == 0
    assert node.value("blocker_list_serial", list="new") == 1
    node.follower.matcher = None
    assert node.value("blocker_hits_total", list="first", weekday="sun", hour="22") == 8
    assert node.families()["blocker_list_serial"].samples == []


async def test_ages_are_those_of_the_last_good_look_at_the_source(node: Node) -> None:
    node.follower.status = Status(checked={"first": START - 60, "second": START + 5})
    assert node.value("blocker_list_age_seconds", list="first") == 60
    assert node.value("blocker_list_age_seconds", list="second") == 0, "clocks of two machines differ a little"
    assert len(node.families()["blocker_list_age_seconds"].samples) == 2, "no age is known of lists built by hand"
    assert node.value("blocker_list_serial", list="first") == 7
    assert node.value("blocker_list_entries", list="second") == 2


async def test_the_state_of_the_store_is_shown(node: Node) -> None:
    node.follower.status = Status(store_up=False, failures=3, lag_seconds=12.5)
    assert node.value("blocker_store_up") == 0
    assert node.value("blocker_store_failures_total") == 3
    assert node.value("blocker_follower_lag_seconds") == 12.5
    node.follower.status = Status()
    assert node.value("blocker_store_up") == 1


async def test_hits_that_wait_are_told_of_only_when_their_hour_is_over() -> None:
    node, store = Node(), MemoryStore()
    node.hits._store = store
    await node.hits.flush()
    store.fails = "before"
    before = node.exporter.render()
    node.engine.check(BAD)
    assert not await node.hits.flush()
    shown = node.exporter.render()
    assert b"blocker_hits_waiting_hours 0.0\n" in before
    assert b"blocker_hits_waiting_hours 0.0\n" in shown, "else it would be the moment of the hit"
    for hours in (1, 1, 2):
        node.clock.now += HOUR
        if hours == 2:
            node.engine.check(BAD)
            node.clock.now += HOUR
        assert not await node.hits.flush()
        assert node.value("blocker_hits_waiting_hours") == hours
    store.fails = ""
    assert await node.hits.flush()
    assert node.value("blocker_hits_waiting_hours") == 0


async def test_times_are_counted_in_their_bucket() -> None:
    ticks = iter([0, BOUNDS_NS[2], 0, BOUNDS_NS[2] + 1, 0, 10**10])
    clock, follower = Clock(START), Followed()
    hits = HitCounter(MemoryStore(), node="node", zone=ZoneInfo("UTC"), clock=clock)
    engine = VerdictEngine(follower, hits, timer=lambda: next(ticks))
    for _ in range(3):
        engine.check(GOOD)
    families = text_string_to_metric_families(Exporter(engine.meters, hits, follower).render().decode())
    (family,) = [family for family in families if family.name == "blocker_decision_seconds"]
    buckets = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]
    assert buckets == [0, 0, 1, 2, *[2] * (len(BOUNDS_NS) - 4), 3]
    (total,) = [sample.value for sample in family.samples if sample.name.endswith("_sum")]
    assert total == pytest.approx((BOUNDS_NS[-1] + (BOUNDS_NS[1] + 2 * BOUNDS_NS[2] + BOUNDS_NS[3]) / 2) / 1e9)


async def test_blocks_leave_allow_when_they_are_shown_and_nothing_is_ever_taken_back(node: Node) -> None:
    await node.hits.flush()
    seen: list[tuple[float, float]] = []
    for hour in range(3):
        for url in [BAD] * 3 + [GOOD] * 20 * hour:
            node.engine.check(url, "default", "dns")
            allow, block = (
                node.value("blocker_decisions_total", gateway="dns", verdict=verdict) for verdict in ("allow", "block")
            )
            seen.append((allow, block))
        node.clock.now += HOUR
    assert [*seen[2], *seen[3]] == [3, 0, 3, 8], "stands still: of the blocks that are shown five were never there"
    assert [*seen[-1]] == [69 - 16, 16], "all decisions, less what is shown as blocked"
    assert [allow for allow, _ in seen] == sorted(allow for allow, _ in seen)


def test_an_exporter_keeps_no_old_matcher_alive() -> None:
    node = Node()
    node.exporter.render()
    old = small_matcher()
    node.follower.matcher = old
    node.exporter.render()
    node.follower.matcher = small_matcher()
    assert not [holder for holder in gc.get_referrers(old) if isinstance(holder, dict) and "_kept" in holder]


def test_there_are_no_exemplars_and_nothing_of_the_process(node: Node) -> None:
    text = node.exporter.render().decode()
    assert all(line.startswith(("#", "blocker_")) for line in text.splitlines())
    assert not re.search(r"# \{|# EOF|_created", text), "exemplars and OpenMetrics' own lines"


def test_sixty_four_lists_are_scraped_from_ready_text(node: Node) -> None:
    node.follower.matcher = blocker.Matcher.build({f"list-{number}": [BAD] for number in range(64)})
    first = node.exporter._hits.render()
    assert node.exporter._hits.render() is first
