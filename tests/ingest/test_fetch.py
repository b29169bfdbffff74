"""Opening sources: what is a whole list, what is not, and what an error may say."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import os
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocker.errors import FetchError
from blocker.ingest._gzip import Gunzip
from blocker.ingest.fetch import open_source
from blocker.ingest.source import Source
from tests.ingest.checks import LATER
from tests.ingest.https_server import (
    Answer,
    HttpsServer,
    Request,
    conditional,
    head,
    make_certificate,
    plain,
    raw,
    silence,
    zipped,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.ingest.conftest import MakeSource

BODY = b"http://a.example/\nhttp://b.example/x\n"


async def fetch(source: Source, state: Mapping[str, str] | None = None) -> tuple[bytes, dict[str, str]] | None:
    async with open_source(source, state or {}, now=LATER) as download:
        if download is None:
            return None
        data = b"".join([chunk async for chunk in download.chunks()])
        return data, download.state()


async def fault_of(source: Source) -> str:
    with pytest.raises(FetchError) as caught:
        await fetch(source)
    return str(caught.value)


# --- https: whole ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        plain(BODY),
        zipped(BODY),
        raw(head(content_length=len(BODY)), *(bytes([byte]) for byte in BODY)),
        raw(head(transfer_encoding="chunked"), b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)),
        raw(head(transfer_encoding="chunked", content_encoding="gzip"),
            b"%x\r\n%s\r\n0\r\n\r\n" % (len(gzip.compress(BODY)), gzip.compress(BODY))),
        # Two gzip members are one stream (RFC 1952 section 2.2).
        raw(head(content_length=len(gzip.compress(BODY[:9]) + gzip.compress(BODY[9:])), content_encoding="x-gzip"),
            gzip.compress(BODY[:9]) + gzip.compress(BODY[9:])),
    ],
    ids=["plain", "gzip", "byte by byte", "chunked", "gzip chunked", "two members"],
)  # fmt: skip
async def test_a_whole_answer_is_read(server: HttpsServer, web_source: MakeSource, answer: Answer) -> None:
    server.answer = answer
    found = await fetch(web_source())
    assert found == (BODY, {"sha256": hashlib.sha256(BODY).hexdigest()})


async def test_the_request_says_who_asks_and_asks_for_gzip_only(server: HttpsServer, web_source: MakeSource) -> None:
    server.answer = plain(BODY)
    await fetch(web_source("/a/list?since=1"))
    (request,) = server.requests
    assert request.target == "/a/list?since=1"
    assert request.headers["user-agent"].startswith("blocker/0")
    assert request.headers["accept-encoding"] == "gzip"
    assert "if-none-match" not in request.headers


async def test_what_has_not_changed_is_not_sent_again(server: HttpsServer, web_source: MakeSource) -> None:
    server.answer = conditional(BODY, '"one"')
    found = await fetch(web_source())
    assert found is not None
    assert found[1]["etag"] == '"one"'
    assert await fetch(web_source(), found[1]) is None
    server.answer = conditional(BODY + b"#\n", '"two"')
    changed = await fetch(web_source(), found[1])
    assert changed is not None
    assert changed[1]["etag"] == '"two"'


async def test_a_date_serves_where_there_is_no_etag(server: HttpsServer, web_source: MakeSource) -> None:
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    server.answer = plain(BODY, last_modified=date)
    found = await fetch(web_source())
    assert found is not None
    server.answer = raw(head("304 Not Modified"))
    assert await fetch(web_source(), found[1]) is None
    assert server.requests[-1].headers["if-modified-since"] == date.lower()


@pytest.mark.parametrize("etag", ["no quotes", '"' + "x" * 300 + '"', '"a"b"', '"\x80"'])
async def test_an_odd_validator_is_not_remembered(server: HttpsServer, web_source: MakeSource, etag: str) -> None:
    server.answer = raw(
        b"HTTP/1.1 200 OK\r\netag: %s\r\nlast-modified: yesterday\r\ncontent-length: %d\r\n\r\n"
        % (etag.encode("latin-1"), len(BODY)), BODY,
    )  # fmt: skip
    found = await fetch(web_source())
    assert found is not None
    assert found[1].keys() == {"sha256"}


async def test_a_redirect_on_the_same_origin_is_followed(server: HttpsServer, web_source: MakeSource) -> None:
    away = raw(head("308 Permanent Redirect", location=server.url("/b"), content_length=0))

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await (away if request.target == "/a" else plain(BODY))(request, writer)

    server.answer = answer
    assert await fetch(web_source(url=server.url("/a", user="user:word@"))) is not None
    assert [request.target for request in server.requests] == ["/a", "/b"]
    basic = "basic " + base64.b64encode(b"user:word").decode().lower()
    assert [request.headers["authorization"] for request in server.requests] == [basic, basic]


# --- https: not whole ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (raw(head(content_length=len(BODY) + 1), BODY), "answer was cut"),
        (raw(head(content_length=len(BODY)), BODY[:5]), "answer was cut"),
        (raw(head(transfer_encoding="chunked"), b"%x\r\n%s\r\n" % (len(BODY), BODY)), "answer was cut"),
        (raw(head(content_length=5), b""), "answer was cut"),
        (raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n"), "answer was cut"),
        (raw(head(content_length="5x"), BODY), "no HTTP"),
        (raw(b"220 mail.example ESMTP\r\n"), "no HTTP"),
        (raw(head(), BODY), "answers without a length"),
        (plain(b""), "empty"),
        (zipped(b""), "empty"),
        (raw(head("500 Internal Server Error", content_length=0)), "answered status 500"),
        (raw(head("403 Forbidden", content_length=0)), "answered status 403"),
        (raw(head("206 Partial Content", content_length=len(BODY)), BODY), "answered status 206"),
        (raw(head("204 No Content")), "answered status 204"),
        (raw(head("304 Not Modified")), "answered status 304"),
        (raw(head("302 Found", content_length=0)), "answered status 302"),
        (raw(head("302 Found", location="https://elsewhere.example/x", content_length=0)), "redirects to another host"),
        (raw(head("302 Found", location="//127.0.0.2/x", content_length=0)), "redirects to another host"),
        (raw(head("302 Found", location="http://127.0.0.1/x", content_length=0)), "redirects to another host"),
        (raw(head("302 Found", location="https://127.0.0.1:1/x", content_length=0)), "redirects to another host"),
        (raw(head("302 Found", location="https://127.0.0.1:port/", content_length=0)), "no HTTP"),
        (raw(head("302 Found", location="/list", content_length=0)), "redirects more than 5 times"),
        (raw(head(content_length=len(BODY), content_encoding="br"), BODY), "content encoding"),
        (raw(head(content_length=len(BODY), content_encoding="gzip, gzip"), BODY), "content encoding"),
        (raw(head(content_length=len(BODY), content_encoding="gzip"), BODY), "not the gzip"),
        (raw(head(content_length=len(gzip.compress(BODY)) + 4, content_encoding="gzip"), gzip.compress(BODY) + b"JUNK"),
         "not the gzip"),
        (raw(head(content_length=len(gzip.compress(BODY)) - 3, content_encoding="gzip"), gzip.compress(BODY)[:-3]),
         "compressed body was cut"),
    ],
)  # fmt: skip
async def test_what_is_no_whole_list_is_an_error(
    server: HttpsServer, web_source: MakeSource, answer: Answer, said: str
) -> None:
    server.answer = answer
    text = await fault_of(web_source("/path-MARK?query-MARK", url=server.url("/MARK?MARK", user="MARK:MARK@")))
    assert said in text
    assert text.startswith("web: 127.0.0.1: ")
    assert "MARK" not in text


async def test_a_larger_file_than_allowed_is_refused_before_it_is_read(
    server: HttpsServer, web_source: MakeSource
) -> None:
    server.answer = raw(head(content_length=10**12), BODY)
    assert "announces 1000000000000 bytes, more than max_bytes = 100" in await fault_of(web_source(max_bytes=100))


async def test_a_larger_file_than_allowed_is_refused_while_it_is_read(
    server: HttpsServer, web_source: MakeSource
) -> None:
    server.answer = raw(head(transfer_encoding="chunked"), *[b"400\r\n%s\r\n" % (b"#" * 1024)] * 10_000)
    assert "larger than max_bytes = 100000" in await fault_of(web_source(max_bytes=100_000))


async def test_a_gzip_bomb_is_refused_at_the_limit(server: HttpsServer, web_source: MakeSource) -> None:
    bomb = gzip.compress(b"\n" * 2**28, 1)
    assert len(bomb) < 2**21
    server.answer = raw(head(content_length=len(bomb), content_encoding="gzip"), bomb)
    assert "larger than max_bytes = 20000000" in await fault_of(web_source(max_bytes=20_000_000))


@pytest.mark.parametrize(
    "answer",
    [silence, raw(head(content_length=5), b"#")],
    ids=["no answer", "cut, and closed late"],
)
async def test_a_slow_server_is_given_up(server: HttpsServer, web_source: MakeSource, answer: Answer) -> None:
    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        await answer(request, writer)
        await silence(request, writer)

    server.answer = slow
    assert "took longer than timeout_seconds = 0.2" in await fault_of(web_source(timeout_seconds=0.2))


async def test_a_server_that_drips_is_given_up(server: HttpsServer, web_source: MakeSource) -> None:
    async def drip(_request: object, writer: asyncio.StreamWriter) -> None:
        writer.write(head(transfer_encoding="chunked"))
        while True:
            writer.write(b"1\r\n#\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    server.answer = drip
    assert "took longer than timeout_seconds = 0.3" in await fault_of(web_source(timeout_seconds=0.3))


async def test_a_host_that_is_not_there_is_named(web_source: MakeSource) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        address = f"https://127.0.0.1:{taken.getsockname()[1]}/MARK"
        text = await fault_of(web_source(url=address))
    assert text.startswith("web: 127.0.0.1: cannot connect: ")
    assert "MARK" not in text


async def test_an_unknown_authority_is_refused(server: HttpsServer, web_source: MakeSource) -> None:
    server.answer = plain(BODY)
    assert "certificate refused: " in await fault_of(web_source(ca_file=None))
    assert not server.requests


async def test_another_hosts_certificate_is_refused(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, host="other.example")
    async with HttpsServer(certificate) as server:
        source = Source.model_validate(
            {"name": "web", "format": "url", "url": server.url("/MARK"), "ca_file": certificate.authority}
        )
        text = await fault_of(source)
    assert "certificate refused: " in text
    assert "MARK" not in text


async def test_a_ca_file_that_is_none_is_named(web_source: MakeSource, tmp_path: Path) -> None:
    assert "ca_file cannot be read" in await fault_of(web_source(ca_file=tmp_path / "gone.pem"))
    (tmp_path / "empty.pem").write_text("nothing")
    assert "ca_file cannot be read" in await fault_of(web_source(ca_file=tmp_path / "empty.pem"))


async def test_plain_http_on_this_machine_works() -> None:
    async with HttpsServer(None) as server:
        server.answer = plain(BODY)
        found = await fetch(Source.model_validate({"name": "web", "format": "url", "url": server.url()}))
    assert found is not None
    assert found[0] == BODY


# --- files -----------------------------------------------------------------------------------------------------------


async def test_a_file_is_read_once_and_again_when_it_changes(file_source: MakeSource) -> None:
    source = file_source(BODY)
    found = await fetch(source)
    assert found is not None
    assert (found[0], found[1]["sha256"]) == (BODY, hashlib.sha256(BODY).hexdigest())
    assert await fetch(source, found[1]) is None
    file_source(BODY + b"#")
    assert await fetch(source, found[1]) is not None


async def test_the_same_size_and_time_do_not_hide_a_change(file_source: MakeSource) -> None:
    source = file_source(BODY)
    assert source.path is not None
    os.utime(source.path, (1e9, 1e9))
    found = await fetch(source)
    assert found is not None
    file_source(BODY.replace(b"a.example", b"c.example"))
    os.utime(source.path, (1e9, 1e9))
    assert await fetch(source, found[1]) is not None


async def test_a_young_files_times_prove_nothing(file_source: MakeSource) -> None:
    source = file_source(BODY)
    assert source.path is not None
    now = source.path.stat().st_ctime + 1
    async with open_source(source, {}, now=now) as download:
        assert download is not None
        assert [chunk async for chunk in download.chunks()] == [BODY]
        assert download.state().keys() == {"sha256"}


async def test_a_file_that_changes_while_it_is_read_is_refused(file_source: MakeSource) -> None:
    source = file_source(b"#" * 3_000_000)
    assert source.path is not None
    async with open_source(source, {}, now=LATER) as download:
        assert download is not None
        chunks = download.chunks()
        await anext(chunks)
        with source.path.open("ab") as file:
            file.write(b"more\n")
        with pytest.raises(FetchError, match="file changed while it was read"):
            [chunk async for chunk in chunks]


async def test_a_file_replaced_while_it_is_read_is_the_old_one(file_source: MakeSource, tmp_path: Path) -> None:
    source = file_source(b"#" * 3_000_000)
    assert source.path is not None
    (tmp_path / "new").write_bytes(BODY)
    size = 0
    async with open_source(source, {}, now=LATER) as download:
        assert download is not None
        async for chunk in download.chunks():
            size += len(chunk)
            if (tmp_path / "new").exists():
                (tmp_path / "new").rename(source.path)
    assert size == 3_000_000


async def test_files_that_are_no_list_are_named(file_source: MakeSource, tmp_path: Path) -> None:
    empty = file_source(b"")
    assert await fault_of(empty) == "file: empty; a list without entries holds a comment"
    large = file_source(b"#" * 11, max_bytes=10)
    assert await fault_of(large) == "file: file has 11 bytes, more than max_bytes = 10"
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("gone", "No such file"), ("folder", "no regular file"), ("pipe", "no regular file")):
        source = Source.model_validate({"name": "file", "format": "url", "path": tmp_path / name})
        assert said in await fault_of(source)


# --- gzip ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.integers(1, 40), st.integers(1, 50))
def test_every_split_of_a_gzip_stream_unpacks_the_same(members: list[bytes], split: int, most: int) -> None:
    packed = b"".join(map(gzip.compress, members))
    gunzip = Gunzip()
    pieces = [piece for at in range(0, len(packed), split) for piece in gunzip.feed(packed[at : at + split], most)]
    assert b"".join(pieces) == b"".join(members)
    assert all(0 < len(piece) <= most for piece in pieces)
    assert gunzip.complete


@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_cut_gzip_stream_is_never_complete(body: bytes, data: st.DataObject) -> None:
    packed = gzip.compress(body)
    gunzip = Gunzip()
    assert b"".join(gunzip.feed(packed[: data.draw(st.integers(0, len(packed) - 1))], 1000)) in (
        body,
        body[:0],
        *(body[:end] for end in range(len(body))),
    )
    assert not gunzip.complete
