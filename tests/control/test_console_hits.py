"""The console's page of hits: what this node shows in its metrics, with what the others show in theirs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from blocker.hits.counters import HitCounter
from blocker.store.token import Role
from tests.control.console_client import Browser

if TYPE_CHECKING:
    from tests.control.console_scene import Scene

HOUR = 3600.0


def shown(page: str, name: str) -> list[int]:
    """The figures of one list, hour by hour and Monday first in each."""
    for caption, table in re.findall(r"<caption><strong>([^<]+)</strong>(.*?)</table>", page, re.DOTALL):
        if caption.strip() == name and "shadow: would" not in table:
            return [int(text.replace("\u202f", "")) for text in re.findall(r'<td class="h\d">([^<]+)</td>', table)]
    return []


async def test_hits_are_those_that_metrics_show(full: Scene) -> None:
    """What was counted in this hour is not there, neither here nor there."""
    cell = f"iwf|2026-W48|{7}|23"
    await full.store.flush_hits(full.settings.node, "other", 1, {cell: 5000})
    async with Browser(full) as browser:
        await browser.sign_in(await full.token("vera", Role.VIEWER))
        page = (await browser.get("/console/hits")).text
        metrics = (await browser.client.get("/metrics")).text
    shown = {
        (name.strip(), number)
        for name, table in re.findall(r"<caption><strong>([^<]+)</strong>(.*?)</table>", page, re.DOTALL)
        if "shadow: would" not in table
        for number in re.findall(r'<td class="h\d">([^<]+)</td>', table)
    }
    counted = {
        (name, f"{int(float(count)):,}".replace(",", "\u202f"))
        for name, count in re.findall(r'blocker_hits_total\{list="([^"]+)".*?\} (\S+)', metrics)
    }
    loud = {name for name, count in counted if count != "0"}
    assert loud == {"iwf", "police", "interpol"}
    assert shown == {(name, count) for name, count in counted if name in loud}
    assert "No hits yet: trial" not in page, "it would have blocked"


async def test_the_fleets_hits_are_the_sums_of_what_each_node_shows(full: Scene) -> None:
    """Each node's are rounded by themselves; one that is gone still counts; an hour that goes on never shows."""
    zone, now = ZoneInfo("Europe/Stockholm"), full.clock()
    week = ("iwf|2026-W47|2|10", "iwf|2026-W46|2|10")
    await full.store.flush_hits("gbg-resolver-1", "boot", 1, {week[0]: 5, week[1]: 9, "iwf|2026-W48|7|23": 700})
    await full.store.flush_hits("gone", "boot", 1, {week[0]: 1, "police|2026-W47|2|10": 0 + 17})
    async with Browser(full) as browser:
        token = await full.token("vera", Role.VIEWER)
        await browser.sign_in(token)
        page = (await browser.get("/console/hits")).text
        own = full.hits.released
        assert own is not None
        place = 10 * 7 + 1  # in the table: the hour's row, Tuesday
        mine = {series.list: cells[24 + 10] for series, cells in own.items()}
        assert shown(page, "iwf")[place] == mine["iwf"] + (8 + 16) + 8
        assert shown(page, "police")[place] == mine["police"] + 24
        assert "this node and 2 more" in page
        other = HitCounter(full.store, node="gbg-resolver-1", zone=zone, clock=full.clock)
        assert await other.flush()
        assert other.released is not None
        assert {series.list: cells[24 + 10] for series, cells in other.released.items()}["iwf"] == 24, (
            "as it says itself"
        )

        await full.store.flush_hits("gbg-resolver-1", "boot", 2, {week[0]: 100})
        assert shown((await browser.get("/console/hits")).text, "iwf") == shown(page, "iwf"), "until the hour is over"
        full.clock.now = now - now % HOUR + HOUR + 60
        assert await full.hits.flush()
        await browser.sign_in(token)
        early = shown((await browser.get("/console/hits")).text, "iwf")
        assert early[23 * 7 + 6] == mine_at(full, "iwf", 6 * 24 + 23), "the others' may still be on their way"
        full.clock.now += 120
        late = shown((await browser.get("/console/hits")).text, "iwf")
        assert late[23 * 7 + 6] == early[23 * 7 + 6] + 704
        assert late[place] == shown(page, "iwf")[place] + 104


def mine_at(scene: Scene, name: str, at: int) -> int:
    assert scene.hits.released is not None
    return sum(cells[at] for series, cells in scene.hits.released.items() if series.list == name and not series.shadow)


async def test_without_the_store_this_nodes_own_hits_are_there(full: Scene) -> None:
    async with Browser(full) as browser:
        await browser.sign_in(await full.token("vera", Role.VIEWER))
        await full.redis.astop()
        page = (await browser.get("/console/hits")).text
    assert "Other nodes' hits are not among them" in page or "Other nodes&#39; hits are not among them" in page
    assert "Requests that this node blocked" in page
    assert any(shown(page, "iwf"))
