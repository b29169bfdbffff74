"""Pulls: what becomes of a list when its source is new, the same, changed, bad, or not to be had."""

from __future__ import annotations

import asyncio
import resource
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blocker._native import RuleSet
from blocker.errors import KeyMaterialError, StoreUnavailable
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import publish
from blocker.ingest.source import Source, load_sources
from blocker.ingest.update import PullResult, Stopped, pull
from blocker.store.sealing import Keyring
from tests.ingest.checks import assert_whole, rules_of
from tests.ingest.https_server import HttpsServer, Request, conditional, head, plain, raw, silence, zipped

if TYPE_CHECKING:
    from blocker.store.redis import Store
    from tests.ingest.conftest import MakeSource
    from tests.redis_server import RedisServer

# Later than any file that a test wrote a moment ago, so that its times count as settled.
LATER = 4e9
TEXT = "# a list\nhttp://a.example/\nhttp://b.example/x\n"


async def look(source: Source, store: Store, keyring: Keyring, now: float = LATER) -> PullResult:
    return await pull(source, store, keyring, clock=lambda: now)


async def test_a_file_becomes_a_list(store: Store, keyring: Keyring, file_source: MakeSource) -> None:
    result = await look(file_source(TEXT), store, keyring)
    assert (result.status, result.serial, result.lines, result.rules, result.bad) == ("published", 1, 3, 2, 0)
    assert (result.added, result.removed, result.detail, result.good) == (2, 0, "", True)
    manifest = await store.manifest("file")
    assert (manifest.reason, manifest.created, manifest.entries) == ("pull", LATER, 2)
    state = await store.source_state("file")
    assert (state["last_status"], state["last_detail"], state["last_at"]) == ("published", "", "4000000000.000")


async def test_the_same_file_is_not_read_again(store: Store, keyring: Keyring, file_source: MakeSource) -> None:
    source = file_source(TEXT)
    await look(source, store, keyring)
    result = await look(source, store, keyring, LATER + 60)
    assert (result.status, result.serial, result.lines) == ("not_modified", 1, 0)
    assert (await store.checked())["file"] == LATER + 60
    assert len(await store.history("file")) == 1


async def test_a_touched_file_of_the_same_bytes_publishes_nothing(
    store: Store, keyring: Keyring, file_source: MakeSource
) -> None:
    await look(file_source(TEXT), store, keyring)
    assert (await look(file_source(TEXT), store, keyring)).status == "not_modified"


async def test_a_young_file_is_read_until_its_times_prove_something(
    store: Store, keyring: Keyring, file_source: MakeSource
) -> None:
    source = file_source(TEXT)
    assert source.path is not None
    young = source.path.stat().st_ctime + 1

    async def reads(now: float) -> bool:
        phases: list[str] = []
        await pull(source, store, keyring, lambda phase, *_: phases.append(phase), clock=lambda: now)
        return "fetch" in phases

    assert [await reads(now) for now in (young, young, LATER, LATER)] == [True, True, True, False]


async def test_other_bytes_of_the_same_rules_publish_nothing(
    store: Store, keyring: Keyring, file_source: MakeSource
) -> None:
    await look(file_source(TEXT), store, keyring)
    other = "\ufeff" + "".join(reversed(TEXT.splitlines(keepends=True))).replace("\n", "\r\n")
    result = await look(file_source(other), store, keyring, LATER + 60)
    assert (result.status, result.serial, result.rules) == ("unchanged", 1, 2)
    assert (await store.checked())["file"] == LATER + 60
    assert (await look(file_source(other), store, keyring)).status == "not_modified"


async def test_a_changed_file_is_a_new_serial(store: Store, keyring: Keyring, file_source: MakeSource) -> None:
    await look(file_source(TEXT), store, keyring)
    result = await look(file_source(TEXT.replace("a.example", "c.example")), store, keyring)
    assert (result.status, result.serial, result.added, result.removed) == ("published", 2, 1, 1)
    rules = await assert_whole(store, keyring, "file")
    assert rules.digest() == rules_of(["http://c.example/", "http://b.example/x"]).digest()


@pytest.mark.parametrize(
    "fields",
    [
        {"action": "allow"}, {"mode": "shadow"}, {"path_case": "insensitive"}, {"www_alias": True}, {"bare": "domain"},
    ],
    ids=str,
)  # fmt: skip
async def test_changed_options_publish_an_unchanged_file(
    store: Store, keyring: Keyring, file_source: MakeSource, fields: dict[str, object]
) -> None:
    await look(file_source(TEXT), store, keyring)
    result = await look(file_source(TEXT, **fields), store, keyring)
    assert (result.status, result.serial) == ("published", 2)
    manifest = await store.manifest("file")
    for name in fields.keys() - {"bare"}:
        assert getattr(manifest, name) == fields[name]


async def test_what_only_tunes_does_not_publish(store: Store, keyring: Keyring, file_source: MakeSource) -> None:
    source = file_source(TEXT)
    await look(source, store, keyring)
    tuned = source.model_copy(update={"title": "t", "interval_seconds": 7, "max_bytes": 1_000_000})
    assert (await look(tuned, store, keyring)).status == "not_modified"


# --- over https ------------------------------------------------------------------------------------------------------


async def test_etags_are_remembered(
    server: HttpsServer, web_source: MakeSource, store: Store, keyring: Keyring
) -> None:
    source = web_source()
    server.answer = conditional(TEXT.encode(), '"one"')
    assert (await look(source, store, keyring)).status == "published"
    assert (await look(source, store, keyring)).status == "not_modified"
    assert server.requests[-1].headers["if-none-match"] == '"one"'
    server.answer = conditional(TEXT.encode() + b"http://c.example/\n", '"two"')
    assert (await look(source, store, keyring)).status == "published"
    server.answer = conditional(TEXT.encode() + b"http://c.example/\n", '"three"')
    assert (await look(source, store, keyring)).status == "not_modified"  # another ETag, the same bytes
    await look(source, store, keyring)
    assert [request.headers.get("if-none-match") for request in server.requests] == [
        None, '"one"', '"one"', '"two"', '"three"',
    ]  # fmt: skip


async def test_another_address_is_not_asked_with_the_old_ones_etag(
    server: HttpsServer, web_source: MakeSource, store: Store, keyring: Keyring
) -> None:
    server.answer = conditional(TEXT.encode(), '"one"')
    await look(web_source("/a"), store, keyring)
    assert (await look(web_source("/b"), store, keyring)).status == "unchanged"
    assert "if-none-match" not in server.requests[-1].headers


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (raw(head(content_length=99), TEXT.encode()), "cut"),
        (raw(head("503 Service Unavailable", content_length=0)), "status 503"),
        (plain(b""), "empty"),
        (silence, "took longer"),
    ],
    ids=["cut", "503", "empty", "silent"],
)
async def test_a_failed_download_leaves_the_list_and_its_age(
    server: HttpsServer, web_source: MakeSource, store: Store, keyring: Keyring, answer: object, said: str
) -> None:
    source = web_source(timeout_seconds=0.5)
    server.answer = conditional(TEXT.encode(), '"one"')
    await look(source, store, keyring)
    server.answer = answer  # type: ignore[assignment]  # a table of answers
    result = await look(source, store, keyring, LATER + 60)
    assert (result.status, result.serial, result.good) == ("failed", 1, False)
    assert said in result.detail
    assert (await store.checked())["web"] == LATER
    state = await store.source_state("web")
    assert (state["last_status"], state["last_detail"]) == ("failed", result.detail)
    server.answer = conditional(TEXT.encode(), '"one"')
    assert (await look(source, store, keyring)).status == "not_modified"  # what was known still holds


# --- guards ----------------------------------------------------------------------------------------------------------


def with_bad_lines(total: int, bad: int) -> str:
    """A file of `total` entries, every so many of them bad, between comments."""
    step = total // bad
    lines = [f"hhttp://bad-{n}.example/" if n % step == 0 else f"http://good-{n}.example/" for n in range(total)]
    return "# head\n\n" + "\n".join(lines)


async def test_few_bad_lines_are_reported_and_the_rest_goes_on(
    store: Store, keyring: Keyring, file_source: MakeSource
) -> None:
    result = await look(file_source(with_bad_lines(1000, 5)), store, keyring)
    assert (result.status, result.lines, result.rules, result.bad) == ("published", 1002, 995, 5)
    assert [line for line, _ in result.errors] == [3, 203, 403, 603, 803]
    assert all("bad-" not in reason for _, reason in result.errors)


async def test_many_bad_lines_refuse_the_update(store: Store, keyring: Keyring, file_source: MakeSource) -> None:
    await look(file_source(TEXT), store, keyring)
    result = await look(file_source(with_bad_lines(1000, 20)), store, keyring)
    assert (result.status, result.serial, result.bad, len(result.errors)) == ("refused", 1, 20, 20)
    assert result.detail.startswith("file: 20 of 1000 entries are bad (2.00%), max_bad_share allows 1.00%")
    assert len(await assert_whole(store, keyring, "file")) == 2
    allowed = await look(file_source(with_bad_lines(1000, 20), max_bad_share=0.02), store, keyring)
    assert (allowed.status, allowed.added) == ("published", 980)


async def test_repeated_entries_count_as_good(store: Store, keyring: Keyring, file_source: MakeSource) -> None:
    result = await look(file_source("http://a.example/\n" * 199 + "hhttp://x/\n"), store, keyring)
    assert (result.status, result.rules, result.added) == ("published", 199, 1)


async def test_shown_errors_are_bounded(store: Store, keyring: Keyring, file_source: MakeSource) -> None:
    result = await look(file_source("hhttp://x/\n" * 5000, max_bad_share=1), store, keyring)
    assert (result.status, result.bad, len(result.errors)) == ("published", 5000, 100)


async def test_a_binary_file_is_refused(store: Store, keyring: Keyring, file_source: MakeSource) -> None:
    result = await look(file_source(b"PK\x03\x04\x00\x00" + bytes(range(256)) * 100), store, keyring)
    assert (result.status, result.serial) == ("refused", None)
    assert "binary" in result.detail
    assert await store.heads() == {}


async def test_a_source_that_would_empty_its_list_is_refused(
    store: Store, keyring: Keyring, file_source: MakeSource
) -> None:
    await look(file_source(TEXT), store, keyring)
    result = await look(file_source("# nothing today\n"), store, keyring)
    assert (result.status, result.serial) == ("refused", 1)
    assert "has no entries, the list has 2" in result.detail


async def test_a_list_may_begin_empty(store: Store, keyring: Keyring, file_source: MakeSource) -> None:
    result = await look(file_source("# nothing yet\n"), store, keyring)
    assert (result.status, result.serial, result.added) == ("published", 1, 0)
    assert (await look(file_source("# still nothing\n"), store, keyring)).status == "unchanged"


async def test_a_retired_list_stays_retired(store: Store, keyring: Keyring, file_source: MakeSource) -> None:
    await look(file_source(TEXT), store, keyring)
    manifest = await store.manifest("file")
    await store.commit(replace(manifest, serial=2, retired=True, reason="withdrawn"), expected=1)
    result = await look(file_source(TEXT + "http://c.example/\n"), store, keyring)
    assert (result.status, result.serial) == ("refused", 2)
    assert "retired" in result.detail
    await publish(store, keyring, "file", PublishOptions(), rules_of(["http://a.example/"]), reason="back", now=LATER)
    assert not (await store.manifest("file")).retired


# --- hands and rivals ------------------------------------------------------------------------------------------------


async def test_a_rollback_stays_until_the_source_changes(
    store: Store, keyring: Keyring, file_source: MakeSource
) -> None:
    await look(file_source(TEXT), store, keyring)
    changed = TEXT + "http://c.example/\n"
    source = file_source(changed)
    await look(source, store, keyring)
    first = await store.manifest("file", 1)
    await store.commit(replace(first, serial=3, reason="rollback to serial 1"), expected=2)
    assert (await look(source, store, keyring)).status == "not_modified"
    assert (await look(file_source(changed), store, keyring)).status == "not_modified"
    assert (await store.manifest("file")).rules_digest == first.rules_digest
    result = await look(file_source(changed + "http://d.example/\n"), store, keyring)
    assert (result.status, result.serial, result.added) == ("published", 4, 2)


async def test_what_is_known_is_not_used_upon_another_pulls_serial(
    server: HttpsServer, web_source: MakeSource, store: Store, keyring: Keyring
) -> None:
    """Two workers: one commits an old download last, the other's state is written last. The next must read again."""
    source = web_source()
    server.answer = conditional(TEXT.encode(), '"new"')
    await look(source, store, keyring)
    await publish(store, keyring, "web", PublishOptions(), rules_of(["http://old.example/"]), reason="pull", now=LATER)
    result = await look(source, store, keyring)
    assert (result.status, result.serial) == ("published", 3)
    assert len(await assert_whole(store, keyring, "web")) == 2


async def test_a_head_that_went_back_is_published_again(
    server: HttpsServer, web_source: MakeSource, store: Store, redis: RedisServer, keyring: Keyring
) -> None:
    """A failover may forget the last commits; what is remembered of the source must not outlive them."""
    source = web_source()
    server.answer = conditional(TEXT.encode(), '"one"')
    await look(source, store, keyring)
    redis.command("HDEL", "{blocker:test}:heads", "web")
    assert (await look(source, store, keyring)).status == "published"


async def test_two_pulls_at_once_end_whole(
    server: HttpsServer, web_source: MakeSource, store: Store, keyring: Keyring
) -> None:
    texts = [TEXT.encode(), TEXT.replace("a.example", "z.example").encode()]

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await plain(texts[len(server.requests) % 2])(request, writer)

    server.answer = answer
    for _ in range(10):
        results = await asyncio.gather(*(look(web_source(), store, keyring) for _ in range(3)))
        assert all(result.good for result in results)
    history = await store.history("web", 1000)
    assert [manifest.serial for manifest in history] == [*range(len(history), 0, -1)]
    allowed = {rules_of(text.decode().splitlines()).digest() for text in texts}
    for manifest in history:
        assert (await assert_whole(store, keyring, "web", manifest.serial)).digest() in allowed


# --- store, keys, stop, progress -------------------------------------------------------------------------------------


async def test_a_store_that_is_away_is_an_exception(
    redis: RedisServer, store: Store, keyring: Keyring, file_source: MakeSource
) -> None:
    source = file_source(TEXT)
    await redis.astop()
    with pytest.raises(StoreUnavailable):
        await look(source, store, keyring)
    await redis.astart()
    assert (await look(source, store, keyring)).status == "published"


async def test_a_missing_seal_key_is_an_exception(store: Store, keyring: Keyring, file_source: MakeSource) -> None:
    with pytest.raises(KeyMaterialError, match="no seal key"):
        await look(file_source(TEXT), store, Keyring(lookup=keyring.lookup))


async def test_stopping_gives_up_a_download(
    server: HttpsServer, web_source: MakeSource, store: Store, keyring: Keyring
) -> None:
    stopping, asked = asyncio.Event(), asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await silence(request, writer)

    server.answer = answer
    work = asyncio.create_task(pull(web_source(), store, keyring, stopping=stopping))
    await asked.wait()
    stopping.set()
    with pytest.raises(Stopped):
        await work
    assert await store.heads() == {}
    assert await store.source_state("web") == {}


@pytest.mark.parametrize("make", [plain, zipped], ids=["plain", "zipped"])
async def test_progress_is_told(
    server: HttpsServer, web_source: MakeSource, store: Store, keyring: Keyring, make: object
) -> None:
    body = b"".join(b"http://site.example/%d\n" % number for number in range(100_000))
    server.answer = make(body)  # type: ignore[operator]  # a table of answers
    told: list[tuple[str, int, int | None]] = []
    await pull(web_source(), store, keyring, lambda *step: told.append(step))
    assert [phase for index, (phase, *_) in enumerate(told) if index == 0 or told[index - 1][0] != phase] == [
        "fetch", "plan", "upload",
    ]  # fmt: skip
    fetched = [step for step in told if step[0] == "fetch"]
    assert fetched[-1][1] == len(body)
    assert {total for _, _, total in fetched} == {len(body) if make is plain else None}
    assert all(done <= total for _, done, total in told if total is not None)
    assert told[-1][1] == told[-1][2]


# --- size ------------------------------------------------------------------------------------------------------------


def resident_bytes() -> int:
    """Memory of this process now (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


async def test_a_line_of_a_hundred_megabytes_takes_no_memory(
    store: Store, keyring: Keyring, file_source: MakeSource
) -> None:
    source = file_source("http://a.example/\n", max_bad_share=0.5)
    assert source.path is not None
    with source.path.open("ab") as file:
        file.write(b"http://b.example/")
        for _ in range(100):
            file.write(b"x" * 2**20)
        file.write(b"\nhttp://c.example/\n")
    before, most = resident_bytes(), 0

    def watch(_phase: str, _done: int, _total: int | None) -> None:
        nonlocal most
        most = max(most, resident_bytes())

    result = await pull(source, store, keyring, watch)
    assert (result.status, result.rules, result.bad) == ("published", 2, 1)
    assert result.errors == ((2, "line is too long"),)
    assert most - before < 50 * 2**20


# --- the samples -----------------------------------------------------------------------------------------------------


async def test_the_sample_lists_pull_without_a_bad_line(store: Store, keyring: Keyring) -> None:
    loaded = load_sources(Path(__file__).parents[2] / "lists")
    assert loaded.errors == ()
    assert [source.name for source in loaded.sources] == [
        "exceptions", "sample-domains", "sample-hosts", "sample-shadow", "sample-urls",
    ]  # fmt: skip
    for source in loaded.sources:
        result = await look(source, store, keyring)
        assert (result.status, result.bad) == ("published", 0)
        kinds = {rule[0] for rule in await assert_whole(store, keyring, source.name)}
        if source.name == "sample-urls":
            assert kinds == {"host", "prefix", "exact"}
    assert (await store.manifest("exceptions")).action == "allow"
    assert (await store.manifest("sample-shadow")).mode == "shadow"


def test_the_readme_of_the_samples_names_every_field() -> None:
    text = (Path(__file__).parents[2] / "lists" / "README.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    named = {word for row in rows for word in row.split("|")[1].replace("`", "").replace(",", " ").split()}
    assert set(Source.model_fields) <= named


async def test_rules_made_by_hand_publish_beside_pulls(store: Store, keyring: Keyring) -> None:
    rules = RuleSet()
    rules.add("exact", "gallery.example", "/listed/page.html", None, False, "ref-1", "")
    done = await publish(store, keyring, "by-hand", PublishOptions(), rules, reason="by hand", now=LATER)
    assert (done.serial, done.entries) == (1, 1)
