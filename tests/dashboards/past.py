"""Weeks of known hits, told by the real exporter under a clock that is set: what a Prometheus would have scraped.

Each whole hour a known number of requests is blocked. Once the hour is over the exporter is scraped.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

import blocker
from blocker.gateways.engine import VerdictEngine
from blocker.hits.calendar import WEEKDAYS
from blocker.hits.counters import HitCounter
from blocker.hits.exporter import Exporter
from tests.dashboards.prometheus_server import dated
from tests.hits.support import Clock, Followed, MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOUR = 3600
DAYS = 22
BIN = 8
INSTANCE = "192.0.2.7:8080"
# List → the page that is asked for.
LISTS = {"police": "http://police.example/page", "interpol": "http://interpol.example/page"}
SHADOW = {"trial": "http://trial.example/page"}
# After the end of an hour the node is scraped so much later, in seconds.
SCRAPED = 2


class Cell(NamedTuple):
    """One hour of a list: when it began, and how many requests were blocked in it."""

    list: str
    began: int
    hits: int

    @property
    def shown(self) -> int:
        """As it is released."""
        return -(-self.hits // BIN) * BIN

    @property
    def place(self) -> tuple[str, str]:
        """Weekday and hour, as the metric's labels have them."""
        moment = datetime.fromtimestamp(self.began, UTC)
        return WEEKDAYS[moment.weekday()], f"{moment.hour:02d}"


def schedule(name: str, began: int) -> int:
    """How many requests an hour sees: an evening's hill, more at weekends, and growth from week to week."""
    moment = datetime.fromtimestamp(began, UTC)
    hill = max(0, 10 - abs(moment.hour - 21)) * (2 if moment.weekday() >= 5 else 1)
    week = began // (7 * 24 * HOUR) % 4
    return {"police": hill + week, "interpol": 9 if moment.hour == 3 else 0, "trial": hill // 2}[name]


def cells(end: int) -> list[Cell]:
    """All hours that were over at `end`."""
    begins = range(end - DAYS * 24 * HOUR, end, HOUR)
    return [Cell(name, began, schedule(name, began)) for began in begins for name in (*LISTS, *SHADOW)]


async def scraped(end: int) -> AsyncIterator[str]:
    """Lines for `PrometheusServer`: a scrape an hour, each after its hour is over; the last at `end` and a bit."""
    clock = Clock(float(end - DAYS * 24 * HOUR))
    follower = Followed()
    lists = {**LISTS, **SHADOW}
    follower.matcher = blocker.Matcher.build({name: [url] for name, url in lists.items()}, shadow=tuple(SHADOW))
    counter = HitCounter(MemoryStore(), node="node", zone=ZoneInfo("UTC"), clock=clock, bin=BIN)
    engine = VerdictEngine(follower, counter)
    exporter = Exporter(engine.meters, counter, follower, clock=clock)
    await counter.flush()
    for line in dated(exporter.render().decode(), INSTANCE, clock.now):
        yield line
    while clock.now < end:
        began = int(clock.now)
        for name, url in lists.items():
            for _ in range(schedule(name, began)):
                engine.check(url, "default", "check")
        clock.now = float(began + HOUR)
        await counter.flush()
        for line in dated(exporter.render().decode(), INSTANCE, clock.now + SCRAPED):
            yield line
