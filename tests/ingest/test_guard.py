"""What refuses an update, and that neither bad lines nor a huge one do harm."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blocker.errors import UpdateRefused
from blocker.ingest.guard import refuse_bad_share, refuse_empty
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import publish
from blocker.ingest.update import pull
from tests.ingest.checks import LATER, assert_whole, look, rules_of

if TYPE_CHECKING:
    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring
    from tests.ingest.conftest import MakeSource

TEXT = "# a list\nhttp://a.example/\nhttp://b.example/x\n"


@pytest.mark.parametrize(
    ("good", "bad", "share", "refused"),
    [
        (0, 0, 0, False), (100, 0, 0, False), (100, 1, 0, True), (99, 1, 0.01, False), (98, 2, 0.01, True),
        (0, 1, 0.99, True), (0, 1, 1, False), (10**9, 10**7, 0.01, False),
    ],
)  # fmt: skip
def test_the_share_of_bad_entries_is_a_limit_and_not_a_border(good: int, bad: int, share: float, refused: bool) -> None:
    try:
        refuse_bad_share(good=good, bad=bad, max_share=share)
    except UpdateRefused:
        assert refused
    else:
        assert not refused


def test_only_a_list_with_entries_is_kept_from_becoming_empty() -> None:
    refuse_empty(entries=0, before=0)
    refuse_empty(entries=1, before=5)
    with pytest.raises(UpdateRefused, match="the list has 5"):
        refuse_empty(entries=0, before=5)


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
    again = await look(file_source(with_bad_lines(1000, 5)), store, keyring)
    assert again.status == "not_modified"
    assert (await store.source_state("file"))["last_bad"] == "5"


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
    result = await look(file_source(b"\x7fELF\x00\x00" + bytes(range(256)) * 100), store, keyring)
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
