"""A clock that steps, back or forward, neither stops a route nor ends a hold-down."""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from blocker.feeds.route_feed import RouteFeed
from blocker.feeds.route_report import report
from blocker.feeds.routes import Limits, RouteTable
from blocker.feeds.sightings import FAMILIES
from blocker.feeds.steady import SteadyClock
from blocker.route_section import RouteSettings
from blocker.sections import GuardSettings
from blocker.store.sealing import Keyring
from tests.feeds.test_route_report import no_store
from tests.follower.support import until

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400.0
FREE = [ip_address(f"11.0.0.{at}") for at in range(20)]


def test_a_steady_clock_goes_on_whatever_becomes_of_the_wall_clock() -> None:
    wall, steady = [1_000_000.0], [5.0]
    clock = SteadyClock(lambda: wall[0], lambda: steady[0])
    assert (clock(), clock.stepped) == (1_000_000.0, 0.0)
    steady[0] += 60.0
    wall[0] += 60.25
    assert (clock(), clock.stepped) == (1_000_060.0, 0.0)
    wall[0] -= DAY
    assert (clock(), clock.stepped) == (1_000_060.0, -DAY)
    steady[0] += 1.0
    wall[0] += 366 * DAY + 1.0
    assert (clock(), clock.stepped) == (1_000_061.0, 365 * DAY)


def test_a_table_whose_clock_steps_back_still_changes_within_the_minute() -> None:
    made = RouteTable(Limits(changes_per_minute=10))
    made.popular_known = True
    names = [str(at) for at in range(20)]
    made.listed(names, 100 * DAY)
    for name, address in zip(names, FREE, strict=True):
        made.answered(name, [address], 100 * DAY, complete=FAMILIES)
    assert len(made.step(100 * DAY).announce) == 10
    assert len(made.step(99 * DAY).announce) == 10
    made.listed([], 99 * DAY)
    assert not made.step(99 * DAY + 29.0), "the minute is not over"
    assert len(made.step(99 * DAY + 30.0).withdraw) == 20, "and no withdrawal waits for it longer than this"


@pytest.mark.parametrize("step", [-DAY, 365 * DAY])
async def test_a_feed_goes_on_when_the_clock_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    settings = RouteSettings(enabled=True, resolvers=("127.0.0.1:9",), popular_top=0, changes_per_minute=2)
    feed = RouteFeed(settings, GuardSettings(), tmp_path, Keyring(lookup=bytes(16), seal=bytes(32)), None, no_store)
    running = asyncio.create_task(feed.run())
    await until(lambda: feed._lookups is not None)
    await feed._list(frozenset({"11.0.0.1"}))
    await until(lambda: len(feed.table.announced) == 1)
    (key,) = feed.names
    feed.table.answered(key, FREE[2:3], feed.now(), complete=FAMILIES)
    await until(lambda: len(feed.table.announced) == 2)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + step)
    await feed._list(frozenset({"11.0.0.1", "11.0.0.3"}))
    # Neither is the minute over, nor the hold-down of what the name has left.
    feed.table.step(feed.now())
    assert set(map(str, feed.table.announced)) == {"11.0.0.1", "11.0.0.2"}
    feed.table.configure(Limits(changes_per_minute=3), (), ())
    await until(lambda: len(feed.table.announced) == 3)
    await feed.stop()
    await running


async def test_the_report_shows_times_as_the_wall_clock_has_them_now(tmp_path: Path) -> None:
    feed = RouteFeed(
        RouteSettings(), GuardSettings(), tmp_path, Keyring(lookup=bytes(16), seal=bytes(32)), None, no_store
    )
    feed.table.popular_known = True
    feed.table.listed(["a"], 100.0)
    feed.table.answered("a", FREE[:1], 100.0, complete=FAMILIES)
    feed.table.step(100.0)
    feed.table.answered("a", [], 200.0, complete=FAMILIES)
    (entry,) = (await report(feed, 200.0, 1000.0))["addresses"]
    assert (entry["since"], entry["until"]) == (1100.0, 1200.0 + DAY)
    (entry,) = (await report(feed, 200.0))["addresses"]
    assert (entry["since"], entry["until"]) == (100.0, 200.0 + DAY)
