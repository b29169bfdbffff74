"""What happened to others, replayed: the accidents that are about matching and leaking.

Those that guards stop are in `test_guards_hosts.py`, canaries in `tests/control/test_canaries.py`, updates that fail in
`test_update.py` and `test_worker.py`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from blocker import Matcher, Verdict
from blocker._native import Table
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import publish
from blocker.matcher import ListOptions
from tests.ingest.checks import rules_of

if TYPE_CHECKING:
    from pathlib import Path

    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring
    from tests.redis_server import RedisServer

ARTICLE = "http://encyclopedia.example/wiki/Listed_Record"


def test_uk_2008_one_page_of_an_encyclopedia() -> None:
    """All traffic to the site went through few proxies, which it then took for vandals; other pages failed."""
    matcher = Matcher.build({"list": [ARTICLE]})
    assert matcher.decide(ARTICLE).verdict is Verdict.BLOCK
    for page in ("", "wiki/", "wiki/Listed_Record_(disambiguation)", "wiki/Listed", "wiki/Listed_Record/talk", "w/x"):
        assert matcher.decide(f"http://encyclopedia.example/{page}").verdict is Verdict.ALLOW, page
    assert matcher.decide_host("encyclopedia.example").verdict is Verdict.INSPECT
    for host in ("upload.encyclopedia.example", "example", "encyclopedia.example.test", "other.example"):
        assert matcher.decide_host(host).verdict is Verdict.ALLOW, host


@pytest.mark.parametrize("spelled", ["wiki/listed_record", "WIKI/Listed_Record", "wiki/LISTED%5FRECORD"])
def test_2008_a_difference_in_case_let_requests_through(spelled: str) -> None:
    url = f"http://Encyclopedia.Example/{spelled}"
    exact = Matcher.build({"list": [ARTICLE]})
    folded = Matcher.build({"list": [ARTICLE]}, options={"list": ListOptions(path_case="insensitive")})
    assert exact.decide(url).verdict is Verdict.ALLOW
    assert folded.decide(url).verdict is Verdict.BLOCK
    assert exact.decide("http://ENCYCLOPEDIA.example/wiki/%4cisted_Record").verdict is Verdict.BLOCK


@pytest.mark.parametrize("separator", ["", "http:/", "http://", "http:%2f%2f", "HTTP://", "//"])
def test_demon_2009_an_archive_is_not_its_pages(separator: str) -> None:
    """A listed page blocks no copy in an archive, and a listed copy no archive: what is in a path is a path."""
    listed, copy = "http://listed.example/page", f"http://archive.example/web/2009/{separator}listed.example/page"
    original, archived = Matcher.build({"list": [listed]}), Matcher.build({"list": [copy]})
    assert original.decide(copy).verdict is Verdict.ALLOW
    assert original.decide_host("archive.example").verdict is Verdict.ALLOW
    assert archived.decide(copy).verdict is Verdict.BLOCK
    for other in (listed, "http://archive.example/", "http://archive.example/web/2009/other.example/page", f"{copy}2"):
        assert archived.decide(other).verdict is Verdict.ALLOW, other
    assert Matcher.build({"list": ["http://*.listed.example"]}).decide(copy).verdict is Verdict.ALLOW


async def test_acma_2009_whoever_has_the_machine_has_no_list(
    store: Store, keyring: Keyring, redis: RedisServer, tmp_path: Path
) -> None:
    """The store's files and a node's copy, stolen, show neither host nor path nor reference's address."""
    words = ("zqhostzq", "zqpathzq", "zqqueryzq")
    line = f"http://{words[0]}.example/{words[1]}?{words[2]}"
    await publish(store, keyring, "list", PublishOptions(), rules_of([line]), reason="test", now=1.7e9)
    manifest = await store.manifest("list")
    layers = [[await store.get_blob("segment", name) for name in layer.segments] for layer in manifest.layers]
    table = Table.merge([("list", 1, False, "", layers)], keyring.lookup)
    assert Matcher(table, [("default", [("list", "enforce")], "allow")]).decide(line).verdict is Verdict.BLOCK
    table.save(tmp_path / "table")
    await asyncio.to_thread(redis.command, "SAVE")
    files = [*redis.directory.rglob("*"), tmp_path / "table"]
    kept = b"".join(path.read_bytes() for path in files if path.is_file())
    assert len(kept) > 1000
    for word in words:
        assert word.encode() not in kept
