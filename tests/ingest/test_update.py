"""Pulls: what becomes of a list when its source is new, the same, changed, bad, or not to be had."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from blocker.errors import KeyMaterialError, StoreUnavailable
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import publish
from blocker.ingest.update import Stopped, pull
from blocker.store.sealing import Keyring
from tests.ingest.checks import LATER, assert_whole, look, rules_of
from tests.ingest.https_server import HttpsServer, Request, conditional, head, plain, raw, silence, zipped

if TYPE_CHECKING:
    from blocker.store.redis import Store
    from tests.ingest.conftest import MakeSource
    from tests.redis_server import RedisServer

TEXT = "# a list\nhttp://a.example/\nhttp://b.example/x\n"


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
    source = web_source()
    brief = source.model_copy(update={"timeout_seconds": 0.5})  # for the answer that does not come
    server.answer = conditional(TEXT.encode(), '"one"')
    await look(source, store, keyring)
    server.answer = answer  # type: ignore[assignment]  # a table of answers
    result = await look(brief if answer is silence else source, store, keyring, LATER + 60)
    assert (result.status, result.serial, result.good) == ("failed", 1, False)
    assert said in result.detail
    assert (await store.checked())["web"] == LATER
    state = await store.source_state("web")
    assert (state["last_status"], state["last_detail"]) == ("failed", result.detail)
    server.answer = conditional(TEXT.encode(), '"one"')
    assert (await look(source, store, keyring)).status == "not_modified"  # what was known still holds


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
