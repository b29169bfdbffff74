"""Verified sources over https, what is kept until they are verified, and what a pull makes of them."""

from __future__ import annotations

import hashlib
import os
import stat
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blocker.ingest.fetch import open_source
from blocker.ingest.update import pull
from tests.ingest.checks import LATER, assert_whole, look
from tests.ingest.https_server import Answer, HttpsServer, Request, conditional, head, plain, raw, silence, zipped
from tests.ingest.test_verify import BODY, OTHER, SUM, fault_of, fetch, minisig, minisign_key

if TYPE_CHECKING:
    import asyncio

    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring
    from tests.ingest.conftest import MakeSource
    from tests.ingest.https_server import Certificate


def serving(**answers: Answer | bytes) -> Answer:
    """Each target its own answer; `list` is /list."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        found = answers[request.target.lstrip("/")]
        await (plain(found) if isinstance(found, bytes) else found)(request, writer)

    return answer


# --- over https ------------------------------------------------------------------------------------------------------


def web_table(server: HttpsServer) -> dict[str, str]:
    return {"minisign_key": minisign_key(), "signature_url": server.url("/sig")}


async def test_a_packed_list_is_verified_unpacked(server: HttpsServer, web_source: MakeSource) -> None:
    server.answer = serving(list=zipped(BODY), sig=zipped(minisig()), sums=SUM.encode())
    source = web_source(verify={**web_table(server), "sha256_url": server.url("/sums")})
    found = await fetch(source)
    assert found is not None
    assert found[0] == BODY
    assert [request.target for request in server.requests] == ["/sums", "/sig", "/list"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (raw(head("404 Not Found", content_length=0)), "answered status 404, expected 200"),
        (silence, "took longer than timeout_seconds = 0.3"),
        (raw(head(content_length=10**12), b"x"), "announces 1000000000000 bytes, more than max_bytes = 65536"),
        (raw(head(transfer_encoding="chunked"), *[b"400\r\n%s\r\n" % (b"#" * 1024)] * 3000), "larger than max_bytes"),
        (raw(head(content_length=400), minisig()), "answer was cut"),
        (plain(b""), "empty"),
        (raw(head("302 Found", location="https://elsewhere.example/", content_length=0)), "redirects to another host"),
    ],
    ids=["404", "late", "huge", "endless", "cut", "empty", "away"],
)  # fmt: skip
async def test_a_list_whose_signature_does_not_come_is_unverified(
    server: HttpsServer, web_source: MakeSource, answer: Answer, said: str
) -> None:
    server.answer = serving(list=BODY, sig=answer)
    patience = {"timeout_seconds": 0.3} if answer is silence else {}
    text = await fault_of(web_source(verify=web_table(server), **patience))
    assert said in text
    assert text.endswith("; the list is unverified without its verify.signature_url and stays as it is")
    assert "/list" not in [request.target for request in server.requests]


async def test_credentials_go_along_to_the_same_origin_only(
    server: HttpsServer, web_source: MakeSource, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIST_SECRET", "T")
    server.answer = serving(list=BODY, sig=minisig())
    async with HttpsServer(certificate) as other:
        other.answer = server.answer
        for place in (server, other):
            assert await fetch(web_source(credentials={"token_env": "LIST_SECRET"}, verify=web_table(place)))
        assert ["authorization" in request.headers for request in other.requests] == [False]
    assert ["authorization" in request.headers for request in server.requests] == [True, True, True]


# --- what is kept meanwhile ------------------------------------------------------------------------------------------


async def test_the_file_kept_meanwhile_is_private_nameless_and_closed(
    file_source: MakeSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spool").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "spool"))
    body = b"#" * 3_000_000
    source = file_source(body, verify={"sha256": hashlib.sha256(body).hexdigest()})
    async with open_source(source, {}, now=LATER) as download:
        assert download is not None
        chunks = download.chunks()
        assert len(await anext(chunks)) <= 2**20
        spool = download._spool
        assert spool is not None
        status = os.fstat(spool.fileno())
        assert (stat.S_IMODE(status.st_mode), status.st_nlink, status.st_size) == (0o600, 0, 3_000_000)
        assert list((tmp_path / "spool").iterdir()) == []
    assert spool.closed
    await chunks.aclose()  # type: ignore[attr-defined]


async def test_no_room_to_keep_it_is_an_error(file_source: MakeSource, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
        text = await fault_of(file_source(BODY, verify={"sha256": SUM}))
    assert text.startswith("file: cannot be kept until it is verified: ")


async def test_a_full_disk_is_an_error(file_source: MakeSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", partial(Path("/dev/full").open, "r+b"))
    for body in (BODY, b"#" * 3_000_000):
        text = await fault_of(file_source(body, verify={"sha256": SUM}))
        assert text == "file: cannot be kept until it is verified: No space left on device; make room, or set TMPDIR"


async def test_limits_hold_before_it_is_kept(server: HttpsServer, web_source: MakeSource) -> None:
    server.answer = raw(head(transfer_encoding="chunked"), *[b"400\r\n%s\r\n" % (b"#" * 1024)] * 3000)
    assert "larger than max_bytes = 5000" in await fault_of(web_source(verify={"sha256": SUM}, max_bytes=5000))
    server.answer = plain(b"")
    assert "empty" in await fault_of(web_source(verify={"sha256": SUM}))


# --- pulls -----------------------------------------------------------------------------------------------------------


async def test_an_unverified_list_is_neither_parsed_nor_published(
    server: HttpsServer, web_source: MakeSource, store: Store, keyring: Keyring
) -> None:
    source = web_source(verify=web_table(server))
    server.answer = serving(list=conditional(BODY, '"1"'), sig=minisig())
    assert (await look(source, store, keyring)).status == "published"
    remembered = await store.source_state("web")
    forged = BODY + b"http://c.example/\nno entry\n"
    server.answer = serving(list=conditional(forged, '"2"'), sig=minisig())
    for _ in range(2):  # nothing is remembered that would let it through the second time
        result = await look(source, store, keyring)
        assert (result.status, result.serial, result.lines, result.bad) == ("failed", 1, 0, 0)
        assert "unverified: " in result.detail
    state = await store.source_state("web")
    assert {name: state[name] for name in ("etag", "proof", "sha256")} == {
        name: remembered[name] for name in ("etag", "proof", "sha256")
    }
    assert len(await assert_whole(store, keyring, "web")) == 2
    server.answer = serving(list=conditional(forged, '"2"'), sig=minisig(forged))
    assert (await pull(web_source(verify=web_table(server), max_bad_share=0.5), store, keyring)).status == "published"


async def test_a_changed_signature_key_or_sum_is_looked_at_though_the_list_is_not_modified(
    server: HttpsServer, web_source: MakeSource, store: Store, keyring: Keyring
) -> None:
    source, same = web_source(verify=web_table(server)), conditional(BODY, '"1"')
    server.answer = serving(list=same, sig=minisig())
    statuses = [(await look(source, store, keyring)).status for _ in range(2)]
    assert statuses == ["published", "not_modified"]
    assert "if-none-match" in server.requests[-1].headers
    # Another signature of the same list: read again, found to be the same, remembered.
    server.answer = serving(list=same, sig=minisig(algorithm=b"Ed"))
    assert (await look(source, store, keyring)).status == "not_modified"
    assert "if-none-match" not in server.requests[-1].headers
    assert (await look(source, store, keyring)).status == "not_modified"
    assert "if-none-match" in server.requests[-1].headers
    # A signature that is withdrawn, damaged or of another list.
    for bad in (raw(head("404 Not Found", content_length=0)), minisig(b"other"), b"x"):
        server.answer = serving(list=same, sig=bad)
        assert (await look(source, store, keyring)).status == "failed"
    # Another key, sum or none in the source.
    server.answer = serving(list=same, sig=minisig())
    for table in ({**web_table(server), "minisign_key": minisign_key(OTHER)}, {"sha256": "0" * 64}):
        assert (await look(web_source(verify=table), store, keyring)).status == "failed"
    assert (await look(web_source(verify={"sha256": SUM}), store, keyring)).status == "unchanged"


async def test_a_changed_sum_is_looked_at_though_the_file_did_not_change(
    file_source: MakeSource, tmp_path: Path, store: Store, keyring: Keyring
) -> None:
    sums = tmp_path / "sums"
    sums.write_text(SUM)
    source = file_source(BODY, verify={"sha256_path": sums})
    assert [(await look(source, store, keyring)).status for _ in range(2)] == ["published", "not_modified"]
    sums.write_text("0" * 64)
    assert (await look(source, store, keyring)).status == "failed"
