"""What a scrape costs a node that has as many lists as there may be, all gateways, canaries in each, and workers."""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

import blocker
from blocker.gateways.dns_load import DnsCounts, DnsRoom
from blocker.gateways.dns_metrics import DnsFamilies
from blocker.gateways.engine import VerdictEngine
from blocker.gateways.load import Connections, Load
from blocker.gateways.load_metrics import LoadFamilies
from blocker.gateways.upstream_watch import UpstreamState, UpstreamWatch
from blocker.hits.counters import HitCounter
from blocker.hits.exporter import Exporter
from blocker.hits.meters import GATEWAYS
from blocker.store.manifest import Head
from tests.control.test_list_watch import Books, watch
from tests.gateways.test_dns_metrics import Host as DnsHost
from tests.gateways.test_dns_metrics import unheard
from tests.gateways.test_load import STREAMS, Host, listener
from tests.hits.support import BAD, GOOD, Followed, MemoryStore, Status

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = [f"list-{number:02d}" for number in range(64)]
# The aim is 5 ms. Processor time and not the clock's, and much more than that for slow machines.
MOST_SECONDS = 0.04
SCRAPES = 40


class Look(NamedTuple):
    """A look at canaries."""

    list: str
    gateway: str
    reason: str | None = None
    checked: float = 5.0


class Workers(DnsHost):
    """Workers each of which has just said something."""

    def take_dns(self) -> list[DnsCounts]:
        asked = {f"192.0.2.{number}": {"asked": 1} for number in range(8)}
        return [DnsCounts(asked, {"answer": 8}, 1, [0, 0, 0])] * len(self.has)


async def full_exporter(workers: int) -> Exporter:
    followed = Followed()
    followed.matcher = blocker.Matcher.build({name: [BAD] for name in NAMES})
    followed.status = Status(checked=dict.fromkeys(NAMES, 1.0))
    hits = HitCounter(MemoryStore(), node="node", zone=ZoneInfo("UTC"))
    engine = VerdictEngine(followed, hits)
    looks = [Look(name, gateway) for name in NAMES for gateway in GATEWAYS]
    exporter = Exporter(engine.meters, hits, followed, canaries=lambda: looks)
    for gateway in GATEWAYS:
        engine.check(GOOD, "default", gateway)
    await hits.flush()
    host = Host()
    told = {name: Connections(1, 10, 0, 0) for name in STREAMS}
    host.told = [(os.getpid(), 0.0, told)] * workers
    numbers = dict.fromkeys(range(workers), os.getpid())
    exporter.add(LoadFamilies(Load([listener(name) for name in STREAMS]), host, lambda: numbers, workers))
    books = Books()
    books.found = {name: Head(list=name, serial=1, digest="0" * 64) for name in NAMES}
    books.states = {name: {"last_status": "unchanged", "last_at": "1"} for name in NAMES}
    lists = watch(books)
    assert await lists.look()
    exporter.add(lists)
    forwards = unheard(upstreams=[f"192.0.2.{number}" for number in range(8)])
    looks_at = UpstreamWatch(lambda: forwards.settings)
    looks_at.states = {text: UpstreamState() for text in forwards.settings.upstreams}
    for state in looks_at.states.values():
        state.found("answered", 0.001)
    dns_host = Workers()
    dns_host.has = [DnsRoom(1, 1, 1, 1)] * workers
    exporter.add(DnsFamilies(forwards, dns_host, looks_at, workers=bool(workers)))
    return exporter


def seconds(work: Callable[[], object]) -> float:
    """Processor time of this thread, the median of many."""
    taken = []
    for _ in range(SCRAPES):
        began = time.thread_time()
        work()
        taken.append(time.thread_time() - began)
    return statistics.median(taken)


@pytest.mark.parametrize("workers", [0, 8])
async def test_a_scrape_of_all_there_can_be_is_cheap(workers: int) -> None:
    exporter = await full_exporter(workers)
    assert len(exporter.render().splitlines()) > 64 * 168 + 2000
    fast, plain = seconds(exporter.render), seconds(lambda: generate_latest(exporter.registry))
    print(f"{workers} workers: {fast * 1000:.2f} ms; as prometheus_client does it {plain * 1000:.1f} ms")  # noqa: T201
    assert fast < MOST_SECONDS
    assert fast < plain / 5


async def test_all_of_it_is_the_same_text_as_prometheus_client_writes() -> None:
    exporter = await full_exporter(2)
    texts = (exporter.render().decode(), generate_latest(exporter.registry).decode())
    fast, plain = (
        {
            family.name: (family.documentation, family.type, [sample[:2] for sample in family.samples])
            for family in families
        }
        for families in map(text_string_to_metric_families, texts)
    )
    assert fast == plain
