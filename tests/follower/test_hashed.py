"""Lists of digests through the store: published, followed, taken back, and kept on disk."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from blocker.ingest.cleartext import load_rules
from blocker.ingest.formats import FormatOptions, find_format
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import publish
from tests.bpjm_file import SAMPLE_ENTRIES, bpjm_file
from tests.follower.support import KEYRING, running, serials, until, verdict

if TYPE_CHECKING:
    from blocker._native import RuleSet
    from tests.follower.support import Deployment

PAGE = "http://www.pages.example/gallery/secret/x"
HOST = "http://hashed.example/any"


def parsed(*entries: tuple[str, str]) -> RuleSet:
    parser = find_format("bpjm").parser(FormatOptions())
    parser.feed(bpjm_file(entries))
    return parser.finish()


async def put(deployment: Deployment, rules: RuleSet) -> int:
    done = await publish(deployment.store, KEYRING, "digests", PublishOptions(), rules, reason="test", now=time.time())
    return done.serial


async def test_a_list_of_digests_is_published_followed_and_changed(deployment: Deployment) -> None:
    assert await deployment.publish("plain", "http://plain.example/x") == 1
    async with running(deployment.follower()) as follower:
        await until(lambda: "plain" in serials(follower))
        assert verdict(follower, HOST) == "allow"
        await put(deployment, parsed(*SAMPLE_ENTRIES))
        await until(lambda: serials(follower).get("digests") == 1)
        assert [verdict(follower, url) for url in (HOST, PAGE, "http://plain.example/x")] == ["block"] * 3
        # The first entry leaves, and nothing else does.
        await put(deployment, parsed(*SAMPLE_ENTRIES[1:]))
        await until(lambda: serials(follower).get("digests") == 2)
        assert [verdict(follower, url) for url in (HOST, PAGE)] == ["allow", "block"]


async def test_what_is_stored_is_what_was_read(deployment: Deployment) -> None:
    rules = parsed(*SAMPLE_ENTRIES)
    await put(deployment, rules)
    stored = await load_rules(deployment.store, KEYRING, "digests")
    assert stored.digest() == rules.digest()


async def test_a_node_that_starts_from_its_snapshot_knows_them(deployment: Deployment) -> None:
    await put(deployment, parsed(*SAMPLE_ENTRIES))
    async with running(deployment.follower()):
        await until(lambda: deployment.snapshot.load() is not None)
    await deployment.redis.akill()
    follower = deployment.follower()
    await follower.load_snapshot()
    assert [verdict(follower, url) for url in (HOST, PAGE)] == ["block"] * 2
