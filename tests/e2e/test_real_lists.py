"""Real lists through the whole chain: files, pull, Redis, follower, and then every rule and every request is asked.

What a rule means is judged by the oracle elsewhere (tests/test_real_data.py); here the chain must lose and add nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocker import Matcher, _native
from blocker.follower import Follower
from blocker.ingest.source import load_sources
from blocker.ingest.update import pull
from blocker.snapshot import Snapshot
from blocker.store.redis import Store
from blocker.store.sealing import Keyring
from tests.data_dir import needs_shared_data, shared_lines, traffic
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BATCH = 20_000
# List: format, file, column of the entry, value of the column before it.
LISTS = {
    "domains": ("domain", "lists/maltrail/maltrail_domains.tsv.zst", 0, b""),
    "urls": ("url", "lists/tweetfeed_iocs.tsv.zst", 2, b"url"),
}


def write_sources(directory: Path) -> dict[str, list[bytes]]:
    entries = {}
    for name, (form, file, column, kind) in LISTS.items():
        rows = (line.split(b"\t") for line in shared_lines(file))
        entries[name] = [row[column] for row in rows if not kind or row[column - 1] == kind]
        (directory / f"{name}.txt").write_bytes(b"\n".join(entries[name]))
        (directory / f"{name}.toml").write_text(f'format = "{form}"\npath = "{name}.txt"\n', "utf-8")
    return entries


def built_directly(entries: dict[str, list[bytes]], key: bytes) -> Matcher:
    lists = []
    for name, (form, *_) in LISTS.items():
        parser = _native.LineParser(form)
        parser.feed(b"\n".join(entries[name]))
        lists.append((name, 1, False, "", parser.finish().nodes(key)))
    return Matcher.of(_native.Table.build(lists, key))


def verdicts(matcher: Matcher, urls: Sequence[bytes]) -> list[tuple[str, str | None, str | None]]:
    found: list[tuple[str, str | None, str | None]] = []
    for start in range(0, len(urls), BATCH):
        decisions = matcher.decide_many(urls[start : start + BATCH])
        found += [(decision.verdict, decision.list, decision.kind) for decision in decisions]
    return found


@needs_shared_data
async def test_real_lists_survive_the_whole_chain(tmp_path: Path) -> None:
    entries = write_sources(tmp_path)
    keyring = Keyring.load_or_create(tmp_path / "keys", create=True)
    with RedisServer(tmp_path / "redis") as redis:
        async with await Store.open(redis.url, "test", keyring=keyring) as store:
            sources, errors = load_sources(tmp_path)
            assert not errors
            results = {source.name: await pull(source, store, keyring) for source in sources}
            follower = Follower(
                lambda: Store.open(redis.url, "test", keyring=keyring),
                Snapshot(tmp_path / "snapshot", keyring.lookup),
                keyring.lookup,
            )
            await follower.sync(store)
    assert {result.status for result in results.values()} == {"published"}
    assert results["domains"].rules > 1_150_000
    assert results["urls"].rules > 400_000
    matcher = follower.matcher
    assert matcher is not None
    bad = {name: {number for number, _ in result.errors} for name, result in results.items()}
    for name, lines in entries.items():
        good = [line for number, line in enumerate(lines, 1) if number not in bad[name] and line.strip()]
        assert len(good) == results[name].rules
        assert {verdict for verdict, *_ in verdicts(matcher, good)} == {"block"}
    requests = list(traffic())
    assert verdicts(matcher, requests) == verdicts(built_directly(entries, keyring.lookup), requests)
    # And after a restart without Redis, from the copy on disk.
    again = Snapshot(tmp_path / "snapshot", keyring.lookup).load()
    assert again is not None
    assert verdicts(Matcher.of(again), requests) == verdicts(matcher, requests)
