"""Expiry: rules leave on their day, in UTC, by themselves and at a pull, and nothing else leaves with them."""

from __future__ import annotations

import asyncio
import calendar
from datetime import date
from typing import TYPE_CHECKING

import pytest

from blocker._native import RuleSet
from blocker.ingest.expiry import EXPIRED_REASON, Expiry, ended, utc_day, without_ended
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import PublishResult, publish
from blocker.ingest.rollback import rollback
from blocker.ingest.update import PULL_REASON
from blocker.ingest.worker import IngestWorker, Pacing
from blocker.store.redis import Store
from blocker.store.sealing import Keyring
from tests.ingest.checks import DEADLINE, LATER, assert_whole, look, pages, until

if TYPE_CHECKING:
    from pathlib import Path

    from blocker.store.manifest import Manifest
    from tests.ingest.conftest import MakeSource
    from tests.redis_server import RedisServer

TODAY = date(2030, 1, 15)
NOON = float(calendar.timegm((2030, 1, 15, 12, 0, 0)))
DAY = 86_400.0


def dated(*days: str, lasting: int = 0) -> RuleSet:
    """One page for each day it ends on, and some that last."""
    rules = pages(range(lasting))
    for number, day in enumerate(days):
        metadata = f'{{"category":"x","expires":"{day}"}}' if day else '{"category":"x"}'
        rules.add("exact", "dated.example", f"/{number}", None, False, f"R-{number}", metadata)
    return rules


async def put(store: Store, keyring: Keyring, rules: RuleSet, name: str = "list") -> PublishResult:
    return await publish(store, keyring, name, PublishOptions(), rules, reason="test", now=NOON)


def paths(rules: RuleSet) -> list[str | None]:
    return sorted((rule[2] for rule in rules if rule[1] == "dated.example"), key=str)


@pytest.mark.parametrize(
    ("now", "day"),
    [(NOON - 12 * 3600, TODAY), (NOON - 12 * 3600 - 0.001, date(2030, 1, 14)), (NOON + 12 * 3600, date(2030, 1, 16))],
)
def test_a_day_is_a_utc_day(now: float, day: date, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    assert utc_day(now) == day


def test_a_rule_ends_with_the_beginning_of_its_day() -> None:
    rules = dated("2030-01-14", "2030-01-15", "2030-01-17", "2030-01-16", "", lasting=20)
    over, next_day = ended(rules, TODAY)
    assert (paths(over), len(over), next_day) == (["/0", "/1"], 2, date(2030, 1, 16))
    left = without_ended(rules, TODAY)
    assert (paths(left), len(left)) == (["/2", "/3", "/4"], 23)
    assert len(ended(left, TODAY).rules) == 0
    assert ended(left, date(2031, 1, 1)).next_day is None


@pytest.mark.parametrize(
    "metadata",
    [
        '{"expires":""}', '{"expires":"soon"}', '{"expires":20300101}', '{"expires":null}', '["expires"]', '"expires"',
        '{"expires"', '{"note":"expires"}', '{"note":"\\"expires\\""}', "[" * 100_000 + '"expires"',
    ],
    ids=range(10),
)  # fmt: skip
def test_what_is_no_day_ends_nothing(metadata: str) -> None:
    rules = RuleSet()
    rules.add("host", "a.example", None, None, False, "", metadata)
    assert without_ended(rules, date.max) is rules


async def test_only_what_is_over_leaves(store: Store, keyring: Keyring) -> None:
    await put(store, keyring, dated("2030-01-15", "2030-01-16", "", lasting=200))
    (done,) = await Expiry(store, keyring).sweep(NOON)
    assert (done.serial, done.added, done.removed, done.entries) == (2, 0, 1, 202)
    assert (done.reason, done.created) == (EXPIRED_REASON, NOON)
    assert len(done.layers) == 2  # a small change is a small layer here too
    assert await store.manifest("list") == done
    rules = await assert_whole(store, keyring, "list")
    assert rules.dump() == without_ended(dated("2030-01-15", "2030-01-16", "", lasting=200), TODAY).dump()


async def test_lists_are_read_again_only_on_their_day_or_when_they_changed(store: Store, keyring: Keyring) -> None:
    await put(store, keyring, dated("2030-01-17", "2030-01-19", lasting=50))
    await put(store, keyring, pages(range(50)), "other")
    expiry = Expiry(store, keyring)
    read: list[str] = []
    manifest = store.manifest

    async def counted(list: str, serial: int | None = None) -> Manifest:  # noqa: A002 - the method's own
        read.append(list)
        return await manifest(list, serial)

    store.manifest = counted  # type: ignore[method-assign]
    served = []
    for day in range(6):
        done = await expiry.sweep(NOON + day * DAY) + await expiry.sweep(NOON + day * DAY + 60)
        served.append(([entry.serial for entry in done], read[:]))
        read.clear()
    assert served == [([], ["list", "other"]), ([], []), ([2], ["list"]), ([], []), ([3], ["list"]), ([], [])]
    await put(store, keyring, dated("2030-01-17", lasting=50), "other")
    read.clear()
    (last,) = await expiry.sweep(NOON + 6 * DAY)
    assert (last.list, last.serial, read) == ("other", 3, ["other"])


async def test_a_list_may_expire_whole_and_be_rolled_back_to(store: Store, keyring: Keyring) -> None:
    await put(store, keyring, dated("2030-01-15"))
    expiry = Expiry(store, keyring)
    assert [done.entries for done in await expiry.sweep(NOON)] == [0]
    await rollback(store, keyring, "list", 1, now=NOON)
    assert [(done.serial, done.entries) for done in await expiry.sweep(NOON)] == [(4, 0)]
    await assert_whole(store, keyring, "list")


async def test_a_publish_that_comes_between_is_not_undone(redis: RedisServer, store: Store, keyring: Keyring) -> None:
    await put(store, keyring, dated("2030-01-15", lasting=10))

    class Rival(Store):
        async def put_blobs(self, kind: object, blobs: object) -> list[str]:
            await put(store, keyring, dated("2030-01-15", lasting=30))
            return await super().put_blobs(kind, blobs)  # type: ignore[arg-type]

    async with await Rival.open(redis.url, "test", keyring=keyring) as own:
        assert await Expiry(own, keyring).sweep(NOON) == []
    assert (await store.manifest("list")).entries == 31
    (done,) = await Expiry(store, keyring).sweep(NOON)
    assert (done.serial, done.entries) == (3, 30)


async def test_a_damaged_list_does_not_hold_the_others(redis: RedisServer, store: Store, keyring: Keyring) -> None:
    for name in ("a", "b"):
        await put(store, keyring, dated("2030-01-15", lasting=len(name) + ord(name)), name)
    redis.command("DEL", f"{{blocker:test}}:sealed:{(await store.manifest('a')).sealed[0]}")
    expiry = Expiry(store, keyring)
    assert [done.list for done in await expiry.sweep(NOON)] == ["b"]
    assert await Expiry(store, Keyring(lookup=keyring.lookup)).sweep(NOON) == []
    redis.stop()
    assert await expiry.sweep(NOON) == []


# --- pulls and the worker --------------------------------------------------------------------------------------------


async def test_a_pull_publishes_nothing_that_has_expired(
    store: Store, keyring: Keyring, file_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    _read_dated(monkeypatch, dated("2030-01-15", "2090-01-01", lasting=5))
    done = await look(file_source("x"), store, keyring, NOON)
    assert (done.status, done.added) == ("published", 6)
    assert paths(await assert_whole(store, keyring, "file")) == ["/1"]
    _read_dated(monkeypatch, dated("2030-01-15", "2030-01-16", "2090-01-01", lasting=5))
    await look(file_source("y"), store, keyring, NOON)
    (swept,) = await Expiry(store, keyring).sweep(NOON + DAY)
    assert (swept.serial, swept.removed) == (3, 1)
    # What expired since the last look is no reason to read the source again.
    assert (await look(file_source("y"), store, keyring, LATER)).status == "not_modified"
    assert [manifest.reason for manifest in await store.history("file")] == [EXPIRED_REASON, PULL_REASON, PULL_REASON]


async def test_the_days_that_a_list_file_says(store: Store, keyring: Keyring, file_source: MakeSource) -> None:
    text = "url,expires\nhttp://a.example/,2030-01-15\nhttp://b.example/,2030-01-16\nhttp://c.example/,\n"
    done = await look(file_source(text, format="csv"), store, keyring, NOON)
    assert (done.status, done.bad, done.rules, done.added) == ("published", 0, 3, 2)
    hosts = [[rule[1] for rule in await assert_whole(store, keyring, "file")]]
    await Expiry(store, keyring).sweep(NOON + DAY / 2)
    hosts.append([rule[1] for rule in await assert_whole(store, keyring, "file")])
    assert hosts == [["b.example", "c.example"], ["c.example"]]


async def test_the_worker_takes_them_out(tmp_path: Path, store: Store, keyring: Keyring) -> None:
    await put(store, keyring, dated("2030-01-16", lasting=5))
    now, asked = NOON, 0

    def clock() -> float:
        nonlocal asked
        asked += 1
        return now

    worker = IngestWorker(tmp_path, store, keyring, pacing=Pacing(expire=0.02), clock=clock)
    task = asyncio.create_task(worker.run())
    try:
        await until(lambda: asked > 3)
        before = await store.last_commit()
        assert (await store.heads())["list"].serial == 1
        now = midnight = NOON + DAY / 2
        assert await store.wait_for_commit(before, DEADLINE) != before
    finally:
        worker.stop()
        await task
    assert (await store.manifest("list")).created == midnight
    assert paths(await assert_whole(store, keyring, "list")) == []
    assert Pacing().expire * 3 <= 60


def _read_dated(monkeypatch: pytest.MonkeyPatch, rules: RuleSet) -> None:
    """Let any file be read as these rules: the formats that say a day are not what is tested here."""

    class Parser:
        lines = bad = 0
        errors: tuple[()] = ()

        def feed(self, _data: bytes) -> None: ...

        @property
        def rules(self) -> int:
            return len(rules)

        def finish(self) -> RuleSet:
            return rules

    class Listed:
        options: frozenset[str] = frozenset()

        def parser(self, _options: object) -> Parser:
            return Parser()

    monkeypatch.setattr("blocker.ingest.source.Source.list_format", Listed())
