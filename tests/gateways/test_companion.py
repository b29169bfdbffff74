"""Companions beside their node: the same table, canaries and policies; hits counted once, whatever ends when."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from blocker import Matcher, Policy
from blocker._native import HttpSession
from blocker.errors import ServeError, StoreUnavailable
from blocker.gateways import channel
from blocker.gateways.canaries import Answer, NoAnswer
from blocker.gateways.companion import Companion
from blocker.gateways.engine import VerdictEngine
from blocker.gateways.host import CompanionHost, HelperProbe
from blocker.hits.counters import HitCounter
from blocker.rules import Verdict
from blocker.sections import CompanionSettings
from tests.gateways.test_http_codec import BLOCKED, LISTS, nginx, seen
from tests.hits.support import Followed, MemoryStore
from tests.ingest.checks import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

KEY = bytes(range(16))


def matcher(*more: str, policies: tuple[Policy, ...] = ()) -> Matcher:
    lists = {**LISTS, "police": [*LISTS["police"], *more]}
    return Matcher.build(lists, allow=("pardon",), shadow=("quiet",), lookup_key=KEY, policies=policies)


class Node:
    """What of a node companions meet."""

    def __init__(self, path: Path, store: MemoryStore, *, ready: bool = True, **settings: Any) -> None:  # noqa: ANN401
        self.followed = Followed(matcher() if ready else None)
        self.hits = HitCounter(store, node="node", zone=ZoneInfo("UTC"), flush_seconds=0.1)
        self.engine = VerdictEngine(self.followed, self.hits)
        self.policies: list[dict[str, Any]] = []
        self.host = CompanionHost(
            CompanionSettings(**settings), path, self._welcome,
            source=self.followed, engine=self.engine, hits=self.hits, lookup_key=KEY,
        )  # fmt: skip
        self.host.start()

    def _welcome(self) -> dict[str, Any]:
        return {"timezone": "UTC", "flush_seconds": 0.1, "policies": self.policies, "gateways": {}, "pages": []}

    def swap(self, new: Matcher) -> None:
        self.followed.matcher = new
        self.engine.swapped(new)
        self.host.swapped(new)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.sock"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def node(path: Path, store: MemoryStore) -> AsyncIterator[Node]:
    made = Node(path, store)
    yield made
    made.host.stop()


@contextlib.asynccontextmanager
async def companion(path: Path, gateway: str = "squid-helper") -> AsyncIterator[Companion]:
    verdicts: tuple[str | None, str | None] = ("block", "police")
    made = Companion(path, gateway, "default", lambda url: verdicts if url == BLOCKED else ("allow", None))
    running = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        made.stop()
        async with asyncio.timeout(20):
            await running


async def met(one: Companion) -> HttpSession:
    async with asyncio.timeout(20):
        await one.met.wait()
        await one.supplied()
    return HttpSession(one.engine.gate("squid-helper", "default"))


def ask(session: HttpSession, url: str = BLOCKED) -> int:
    return seen(session.feed(nginx(url)))[0]


async def test_each_decides_as_the_node_does_and_follows_its_lists(node: Node, path: Path) -> None:
    async with companion(path) as one, companion(path) as two:
        sessions = [await met(one), await met(two)]
        for session in sessions:
            assert (ask(session), ask(session, "http://new.example/")) == (403, 204)
        for number in range(20):  # while one is given out the next is there already
            node.swap(matcher(f"http://new{number}.example/"))
        node.swap(matcher("http://new.example/"))
        await until(lambda: all(ask(session, "http://new.example/") == 403 for session in sessions))
        assert all(ask(session, "http://new19.example/") == 204 for session in sessions)


def mapped_tables() -> set[tuple[str, str]]:
    """Device and inode of each."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text("utf-8").splitlines()]
    return {(fields[3], fields[4]) for fields in lines if "/memfd:blocker-table" in fields}


async def test_all_map_one_table(node: Node, path: Path) -> None:
    before = mapped_tables()  # of tests before this one, perhaps
    node.swap(matcher(*(f"http://host{number}.example/" for number in range(20_000))))
    async with companion(path) as one, companion(path) as two:
        await met(one)
        await met(two)
        assert len(mapped_tables() - before) == 1, "two companions and one table"


async def test_one_that_comes_before_the_lists_gets_them_when_they_are_there(path: Path, store: MemoryStore) -> None:
    node = Node(path, store, ready=False)
    try:
        async with companion(path) as one:
            session = await met(one)
            assert ask(session) == 503
            node.swap(matcher())
            await until(lambda: ask(session) == 403)
    finally:
        node.host.stop()


async def test_hits_and_decisions_are_the_nodes(node: Node, path: Path, store: MemoryStore) -> None:
    async with companion(path) as one:
        session = await met(one)
        for _ in range(5):
            ask(session)
            ask(session, "http://harmless.example/")
        meter, waiting = node.engine.meters["squid-helper"], node.hits._pending
        await until(lambda: (meter.allow, sum(waiting.values())) == (5, 5))  # each is brought by itself
    await node.hits.flush()
    assert sum(store.cells.values()) == 5
    meter = node.engine.meters["squid-helper"]
    assert (meter.allow, meter.blocks, sum(meter.buckets)) == (5, 5, 5)


async def test_what_was_counted_while_the_node_was_away_is_brought_to_the_next(path: Path, store: MemoryStore) -> None:
    first = Node(path, store)
    async with companion(path) as one:
        session = await met(one)
        assert ask(session) == 403
        await until(lambda: bool(first.hits._pending))
        await first.hits.flush()
        first.host.stop()
        with pytest.raises(StoreUnavailable):
            await one.flush_hits("", "boot", 99, {"police|2026-W48|5|9": 1})
        assert [ask(session) for _ in range(3)] == [403] * 3, "decisions go on"
        second = Node(path, store)
        await until(lambda: sum(second.hits._pending.values()) == 3)
        await second.hits.flush()
        assert sum(store.cells.values()) == 4
        second.host.stop()


async def test_a_report_is_counted_once(node: Node, store: MemoryStore) -> None:
    cell = "police|2026-W48|5|9"
    for boot, sequence in (("a", 1), ("a", 1), ("a", 2), ("b", 1), ("a", 1), ("a", 2)):
        node.host.report(boot, sequence, {cell: 10})
    await node.hits.flush()
    assert store.cells == {cell: 30}


async def test_a_report_with_an_unknown_end_is_not_offered_to_another_node(path: Path) -> None:
    """The first node reads the report and ends without an answer; it may have counted it."""
    listening = channel.listen(path)
    loop = asyncio.get_running_loop()
    one = Companion(path, "squid-helper", "default", lambda _url: (None, None))
    running = asyncio.create_task(one.run())
    welcome = {"timezone": "UTC", "flush_seconds": 0.1, "policies": [], "key": KEY.hex()}
    reports: list[int] = []
    for boot in ("first", "second"):
        async with asyncio.timeout(20):
            accepted, _ = await loop.sock_accept(listening)
            got: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
            node = channel.Channel(accepted, keep_in(got), lambda: None)
            node.send({"welcome": {**welcome, "boot": boot}})
            await until(lambda boot=boot: one._node == boot)  # type: ignore[misc]
            asked = asyncio.create_task(one.flush_hits("", "boot", 7, {"police|2026-W48|5|9": 1}))
            if boot == "first":
                while "report" not in (message := await got.get()):
                    pass
                reports.append(message["sequence"])
                node.close()
                with pytest.raises(StoreUnavailable):
                    await asked
            else:
                await asked  # as good as stored
                assert all("report" not in message for message in list(got._queue))  # type: ignore[attr-defined]
                node.close()
    assert reports == [7]
    one.stop()
    await running
    listening.close()


def keep_in(queue: asyncio.Queue[dict[str, Any]]) -> Callable[[dict[str, Any], Sequence[int]], None]:
    return lambda message, _files: queue.put_nowait(message)


async def test_canaries_and_other_policies_reach_those_that_are_there(node: Node, path: Path) -> None:
    async with companion(path) as one:
        session = await met(one)
        node.engine.canaries = frozenset({BLOCKED})
        await until(lambda: one.engine.canaries == frozenset({BLOCKED}))
        node.policies = [{"name": "default", "lists": {"pardon": None}, "on_invalid": "allow"}]
        node.host.reconfigured()
        await until(lambda: ask(session) == 204)
        assert one.told["policies"] == node.policies


async def test_helpers_are_asked_about_canaries(node: Node, path: Path) -> None:
    probe = HelperProbe(node.host)
    assert probe.policies == []
    with pytest.raises(NoAnswer):
        await probe.ask(BLOCKED, "default")
    async with companion(path) as one, companion(path, "worker"):
        await met(one)
        await until(lambda: list(probe.policies) == ["default"])
        assert await probe.ask(BLOCKED, "default") == Answer(Verdict.BLOCK, "police")
        assert (await probe.ask("http://beside.example/", "default")).verdict is Verdict.ALLOW
        assert node.host.count("worker") == 1
    await until(lambda: node.host.count("squid-helper") == 0)


async def test_who_may_come(tmp_path: Path, store: MemoryStore) -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    node = Node(tmp_path / "a.sock", store)
    assert stat.S_IMODE((tmp_path / "a.sock").stat().st_mode) == 0o600
    shared = Node(tmp_path / "b.sock", store, group=group)
    assert stat.S_IMODE((tmp_path / "b.sock").stat().st_mode) == 0o660
    with pytest.raises(ServeError, match=r"companions\.group"):
        Node(tmp_path / "c.sock", store, group="no-such-group")
    with pytest.raises(ServeError, match="cannot be listened on"):
        Node(tmp_path / "a.sock", store)
    with pytest.raises(ServeError, match="cannot be listened on"):
        Node(tmp_path / "nowhere" / "a.sock", store)
    channel.connect(tmp_path / "a.sock").close()  # the first is untouched
    node.host.stop()
    shared.host.stop()
    assert not any(one.host.path.exists() for one in (node, shared))
