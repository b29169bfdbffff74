"""A rollback among pulls, followers and other publishes: it lasts, holds at once, and any sequence stays whole."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import publish
from blocker.ingest.rollback import rollback
from blocker.ingest.update import PULL_REASON
from blocker.store.redis import Store
from tests.follower.support import KEYRING, Deployment, page, running, verdict
from tests.follower.support import until as until_true
from tests.ingest.checks import LATER, assert_whole, look, pages
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from blocker.store.sealing import Keyring
    from tests.ingest.conftest import MakeSource

NAME = "pages"
NOW = 1_700_000_000.0


async def test_the_next_pull_of_an_unchanged_source_leaves_it(
    store: Store, keyring: Keyring, file_source: MakeSource
) -> None:
    source = file_source("http://a.example/\n")
    await look(source, store, keyring)
    source = file_source("http://b.example/\n")
    await look(source, store, keyring)
    await rollback(store, keyring, "file", 1, reason=PULL_REASON, now=LATER)
    assert (await store.manifest("file")).reason != PULL_REASON
    for later in (60, 120):
        assert (await look(source, store, keyring, LATER + later)).status == "not_modified"
    # Even a file that must be read again, since its times prove nothing, is the same file.
    assert (await look(file_source("http://b.example/\n"), store, keyring, NOW)).status == "not_modified"
    first, head = await store.manifest("file", 1), await store.manifest("file")
    assert (head.serial, head.digest) == (3, first.digest)
    changed = await look(file_source("http://c.example/\n"), store, keyring)
    assert (changed.status, changed.serial, changed.added, changed.removed) == ("published", 4, 1, 1)


async def test_a_worker_that_died_after_its_commit_does_not_undo_it(
    redis: RedisServer, store: Store, keyring: Keyring, file_source: MakeSource
) -> None:
    class Dying(Store):
        async def set_source_state(self, list: str, mapping: Mapping[str, str]) -> None:  # noqa: A002, ARG002 - as it is there
            raise asyncio.CancelledError

    await look(file_source("http://a.example/\n"), store, keyring)
    source = file_source("http://b.example/\n")
    async with await Dying.open(redis.url, "test", keyring=keyring) as dying:
        with pytest.raises(asyncio.CancelledError):
            await look(source, dying, keyring)
    assert (await store.manifest("file")).serial == 2
    await rollback(store, keyring, "file", 1, now=LATER)
    assert (await look(source, store, keyring, LATER + 60)).status == "not_modified"
    assert (await store.manifest("file")).digest == (await store.manifest("file", 1)).digest


async def test_a_follower_enforces_it_within_a_second(tmp_path: Path) -> None:
    async with (
        RedisServer(tmp_path / "redis") as redis,
        await Store.open(redis.url, "test", keyring=KEYRING) as store,
    ):
        deployment = Deployment(redis, store, tmp_path / "snapshot")
        await deployment.publish("list", page("a"))
        await deployment.publish("list", page("b"))
        async with running(deployment.follower()) as follower:
            await until_true(lambda: follower.matcher is not None and verdict(follower, page("b")) == "block")
            took = []
            for serial, stays, goes in [(1, page("a"), page("b")), (2, page("b"), page("a"))] * 3:
                started = time.monotonic()
                await rollback(store, KEYRING, "list", serial, now=time.time())
                await until_true(lambda stays=stays: verdict(follower, stays) == "block")  # type: ignore[misc]
                took.append(time.monotonic() - started)
                assert verdict(follower, goes) == "allow"
            assert min(took) < 1


# --- any sequence ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


publishes = st.tuples(
    st.integers(0, 6), st.sampled_from([0, 5, 60]), st.builds(PublishOptions, www_alias=st.booleans())
)
steps = st.lists(publishes | st.integers(0, 9), min_size=1, max_size=8)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_any_sequence_of_publishes_and_rollbacks(
    shared_redis: RedisServer, keyring: Keyring, steps: list[tuple[int, int, PublishOptions] | int]
) -> None:
    """Each serial folds to the trie of its rules, and no serial is used twice."""

    async def run() -> None:
        async with await Store.open(shared_redis.url, "test", keyring=keyring) as store:
            shared_redis.command("FLUSHALL")
            texts: list[tuple[bytes, PublishOptions]] = []  # by serial, from 1
            for step in steps:
                if isinstance(step, tuple):
                    start, count, options = step
                    rules = pages(range(start, start + count))
                    wanted = (rules.dump(), options)
                    result = await publish(store, keyring, NAME, options, rules, reason="test", now=NOW)
                elif not texts:
                    continue
                else:
                    wanted = texts[step % len(texts)]
                    result = await rollback(store, keyring, NAME, step % len(texts) + 1, now=NOW)
                assert result.unchanged is (bool(texts) and texts[-1] == wanted)
                if not result.unchanged:
                    texts.append(wanted)
                assert result.serial == len(texts)
            history = await store.history(NAME)
            assert [manifest.serial for manifest in history] == [*range(len(texts), 0, -1)]
            for manifest in history:
                rules = await assert_whole(store, keyring, NAME, manifest.serial)
                assert (rules.dump(), PublishOptions.of(manifest)) == texts[manifest.serial - 1]

    asyncio.run(run())
