"""What is published is enforced, at once, and what is not is not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from blocker._native import MAX_LISTS
from blocker.follower import Follower
from blocker.matcher import Policy
from tests.follower.support import (
    KEYRING,
    Deployment,
    page,
    running,
    serials,
    until,
    verdict,
)

if TYPE_CHECKING:
    from blocker.store.redis import Store


class TestFollowing:
    async def test_without_lists_there_is_no_matcher_and_no_fault(self, deployment: Deployment) -> None:
        async with running(deployment.follower()) as follower:
            await until(lambda: follower.status.store_up)
            assert follower.matcher is None
            assert (follower.status.source, follower.status.detail) == ("none", "")
            assert follower.status.lag_seconds == 0

    async def test_boots_from_manifests_and_segments(self, deployment: Deployment) -> None:
        await deployment.publish("block", page("one"), page("two"))
        await deployment.publish("except", page("two"), action="allow")
        await deployment.publish("trial", page("three"), mode="shadow")
        async with running(deployment.follower()) as follower:
            await until(lambda: follower.status.source == "store")
            assert serials(follower) == {"block": 1, "except": 1, "trial": 1}
            assert [verdict(follower, page(name)) for name in ("one", "two", "three")] == ["block", "allow", "allow"]
            assert follower.matcher is not None
            assert follower.matcher.decide(page("three")).shadow == ("trial",)
            status = follower.status
            assert (status.store_up, status.detail, status.lag_seconds) == (True, "", 0)
            assert status.epoch == await deployment.store.epoch()
            assert status.checked.keys() == {"block", "except", "trial"}

    async def test_policies_are_those_of_every_matcher(self, deployment: Deployment) -> None:
        await deployment.publish("block", page("one"))
        policies = [Policy(name="none", lists={})]
        async with running(deployment.follower(policies=policies)) as follower:
            for serial in (1, 2):
                await until(lambda serial=serial: serials(follower) == {"block": serial})  # type: ignore[misc]
                assert follower.matcher is not None
                assert follower.matcher.decide(page("one"), "none").verdict == "allow"
                await deployment.publish("block", page("one"), page("two"))

    async def test_commits_wake_it_at_once(self, deployment: Deployment) -> None:
        async with running(deployment.follower()) as follower:
            await until(lambda: follower.status.store_up)
            delays = []
            for number in range(1, 11):
                await deployment.publish("block", *(page(f"number{at}") for at in range(number)))
                committed = time.monotonic()
                await until(lambda number=number: serials(follower) == {"block": number})  # type: ignore[misc]
                delays.append(time.monotonic() - committed)
                assert verdict(follower, page(f"number{number - 1}")) == "block"
            assert sorted(delays)[len(delays) // 2] < 1.0

    async def test_deltas_add_and_take_away(self, deployment: Deployment) -> None:
        many = [page(f"number{at}") for at in range(400)]
        async with running(deployment.follower()) as follower:
            await deployment.publish("block", *many)
            for serial in range(2, 22):  # past the point where layers are folded
                await deployment.publish("block", *many[serial:], page(f"new{serial}"))
            await until(lambda: serials(follower) == {"block": 21})
            assert len((await deployment.store.manifest("block")).layers) < 20
            assert verdict(follower, page("new21")) == "block"
            assert [verdict(follower, page(name)) for name in ("new20", "number20")] == ["allow", "allow"]
            assert all(verdict(follower, url) == "block" for url in many[21:])

    async def test_older_content_at_a_new_serial(self, deployment: Deployment) -> None:
        await deployment.publish("block", page("one"))
        old = await deployment.store.manifest("block")
        await deployment.publish("block", page("two"))
        async with running(deployment.follower()) as follower:
            await until(lambda: serials(follower) == {"block": 2})
            await deployment.commit(old, reason="rollback")
            await until(lambda: serials(follower) == {"block": 3})
            assert [verdict(follower, page(name)) for name in ("one", "two")] == ["block", "allow"]

    async def test_a_head_that_went_back_is_followed(self, deployment: Deployment) -> None:
        """A failover of Redis forgot the last commits."""
        await deployment.publish("block", page("one"))
        head = (await deployment.store.heads())["block"]
        await deployment.publish("block", page("two"))
        async with running(deployment.follower(poll_seconds=0.2)) as follower:
            await until(lambda: serials(follower) == {"block": 2})
            deployment.redis.command("HSET", deployment.key("heads"), "block", head.to_json())
            await until(lambda: serials(follower) == {"block": 1})
            assert verdict(follower, page("one")) == "block"

    async def test_a_list_may_become_empty(self, deployment: Deployment) -> None:
        await deployment.publish("block", page("one"))
        async with running(deployment.follower()) as follower:
            await until(lambda: serials(follower) == {"block": 1})
            await deployment.publish("block")
            await until(lambda: serials(follower) == {"block": 2})
            assert verdict(follower, page("one")) == "allow"

    async def test_a_retired_list_leaves(self, deployment: Deployment) -> None:
        await deployment.publish("first", page("one"))
        await deployment.publish("second", page("two"))
        async with running(deployment.follower()) as follower:
            await until(lambda: len(serials(follower)) == 2)
            await deployment.retire("second")
            await until(lambda: serials(follower) == {"first": 1})
            assert verdict(follower, page("two")) == "allow"
            assert follower.status.detail == ""
            await deployment.publish("second", page("two"))  # by hand
            await until(lambda: serials(follower) == {"first": 1, "second": 3})
            assert verdict(follower, page("two")) == "block"

    async def test_a_list_that_was_retired_returns_in_another_life_of_the_store(self, deployment: Deployment) -> None:
        await deployment.publish("other", page("zero"))
        await deployment.publish("block", page("one"))
        digest = (await deployment.store.manifest("block")).digest
        await deployment.commit(await deployment.store.manifest("block"), retired=True)
        async with running(deployment.follower()) as follower:
            await until(lambda: serials(follower) == {"other": 1})
            deployment.redis.command("FLUSHALL")
            await deployment.publish("block", page("two"))
            await deployment.publish("block", page("one"))
            assert (await deployment.store.manifest("block")).digest == digest  # the very head that was retired
            await until(lambda: serials(follower).get("block") == 2)
            assert verdict(follower, page("one")) == "block"

    async def test_more_lists_than_a_table_takes(self, deployment: Deployment) -> None:
        names = [f"list{number:02}" for number in range(MAX_LISTS + 2)]
        for name in names:
            await deployment.publish(name, page(name))
        async with running(deployment.follower(poll_seconds=0.2)) as follower:
            told = "66 lists, at most 64; left out: list64, list65; retire some"
            await until(lambda: follower.status.detail == told)
            assert len(serials(follower)) == MAX_LISTS
            assert follower.status.lag_seconds > 0
            assert [verdict(follower, page(name)) for name in ("list63", "list64")] == ["block", "allow"]
            await deployment.publish("list00", page("changed"))  # those that are there move on
            await until(lambda: serials(follower)["list00"] == 2)
            assert verdict(follower, page("changed")) == "block"
            await deployment.retire("list01")
            await until(lambda: "list64" in serials(follower))
            await deployment.retire("list02")
            await until(lambda: "list65" in serials(follower) and not follower.status.detail)
            assert len(serials(follower)) == MAX_LISTS


class TestStoreAway:
    async def test_starts_from_the_snapshot_and_catches_up(self, deployment: Deployment) -> None:
        await deployment.publish("block", page("one"))
        async with running(deployment.follower()):
            await until(lambda: deployment.snapshot.load() is not None)
        await deployment.redis.akill()
        follower = deployment.follower()
        await follower.load_snapshot()
        assert (serials(follower), follower.status.source) == ({"block": 1}, "snapshot")
        async with running(follower):
            await until(lambda: "cannot be reached" in follower.status.detail)
            assert not follower.status.store_up
            assert follower.status.lag_seconds > 0
            assert verdict(follower, page("one")) == "block"
            await deployment.redis.astart()
            await deployment.publish("block", page("two"))
            await until(lambda: serials(follower) == {"block": 2})
            await until(lambda: follower.status.store_up)
            assert (follower.status.source, follower.status.detail) == ("store", "")

    async def test_keeps_its_lists_through_every_restart(self, deployment: Deployment) -> None:
        await deployment.publish("block", page("one"))
        async with running(deployment.follower()) as follower:
            await until(lambda: serials(follower) == {"block": 1})
            for serial in range(2, 5):
                await deployment.redis.akill()
                await until(lambda: not follower.status.store_up)
                assert verdict(follower, page("one")) == "block"
                await deployment.redis.astart()
                await deployment.publish("block", page("one"), page(f"number{serial}"))
                await until(lambda serial=serial: serials(follower) == {"block": serial})  # type: ignore[misc]

    async def test_an_emptied_store_takes_nothing_away(self, deployment: Deployment) -> None:
        await deployment.publish("first", page("one"))
        await deployment.publish("second", page("two"))
        async with running(deployment.follower(poll_seconds=0.2)) as follower:
            await until(lambda: follower.status.source == "store")
            epoch = follower.status.epoch
            deployment.redis.command("FLUSHALL")
            await until(lambda: follower.status.epoch != epoch)
            status = follower.status
            assert status.store_up
            assert status.detail == (
                "list first left the store; its last serial stays; list second left the store; its last serial stays"
            )
            assert status.lag_seconds > 0
            assert [verdict(follower, page(name)) for name in ("one", "two")] == ["block", "block"]
            await deployment.publish("first", page("three"))  # serial 1 once more, of another life
            await until(lambda: follower.status.detail == "list second left the store; its last serial stays")
            assert serials(follower) == {"first": 1, "second": 1}
            assert [verdict(follower, page(name)) for name in ("one", "two", "three")] == ["allow", "block", "block"]
            await deployment.publish("second", page("two"))
            await until(lambda: follower.status.detail == "")
            assert follower.status.lag_seconds == 0

    async def test_a_fault_of_our_own_is_no_end(self, deployment: Deployment) -> None:
        await deployment.publish("block", page("one"))
        faults = [RuntimeError("zxqmark"), OSError("zxqmark")]

        async def connect() -> Store:
            if faults:
                raise faults.pop()
            return await deployment.connect()

        follower = Follower(connect, deployment.snapshot, KEYRING.lookup)
        async with running(follower):
            await until(lambda: "OSError" in follower.status.detail)
            assert "zxqmark" not in follower.status.detail
            await until(lambda: serials(follower) == {"block": 1})
