"""Credentials of a source: what is sent, to whom, and that a secret is nowhere else."""

from __future__ import annotations

import asyncio
import base64
import os
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

from blocker.errors import FetchError, SourceError
from blocker.ingest.fetch import open_source
from blocker.ingest.source import Source, load_source
from blocker.ingest.update import pull
from tests.ingest.checks import LATER
from tests.ingest.https_server import Answer, HttpsServer, Request, head, make_certificate, plain, raw
from tests.ingest.test_privacy import every_log, told
from tests.ingest.test_verify import fault_of

if TYPE_CHECKING:
    import io
    from pathlib import Path

    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring
    from tests.ingest.conftest import MakeSource
    from tests.ingest.https_server import Certificate
    from tests.redis_server import RedisServer

__all__ = ["every_log"]

BODY = b"http://a.example/\n"
MARK = "zxqmark"
URL = 'format = "url"\nurl = "https://h.example/x"\n[credentials]\n'


async def fetch(source: Source) -> bytes:
    async with open_source(source, {}, now=LATER) as download:
        assert download is not None
        return b"".join([chunk async for chunk in download.chunks()])


def secret(path: Path, text: str | bytes = MARK, mode: int = 0o600) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def only_for(header: str, value: str) -> Answer:
    """200 for whoever sends exactly this header, 401 for everyone else."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        known = request.exact.get(header) == value
        await (plain(BODY) if known else raw(head("401 Unauthorized", content_length=0)))(request, writer)

    return answer


# --- what is sent ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["file", "env"])
@pytest.mark.parametrize(
    ("fields", "name", "text", "header", "value"),
    [
        ({"user": "client"}, "password", "pass:W\u00f6rd ", "authorization",
         "Basic " + base64.b64encode("client:pass:W\u00f6rd ".encode()).decode()),
        ({}, "token", "To.k-en_~+/==", "authorization", "Bearer To.k-en_~+/=="),
        ({"header_name": "X-Api-Key"}, "header_value", "Some Value", "x-api-key", "Some Value"),
    ],
    ids=["basic", "bearer", "header"],
)  # fmt: skip
async def test_a_secret_opens_the_list_and_a_wrong_one_does_not(
    server: HttpsServer, web_source: MakeSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str,
    fields: dict[str, str], name: str, text: str, header: str, value: str,
) -> None:  # fmt: skip
    server.answer = only_for(header, value)

    def holding(what: str) -> Source:
        if place == "file":
            return web_source(credentials={**fields, f"{name}_file": secret(tmp_path / "secret", what)})
        monkeypatch.setenv("LIST_SECRET", what)
        return web_source(credentials={**fields, f"{name}_env": "LIST_SECRET"})

    assert await fetch(holding(text)) == BODY
    if place == "file":  # as an editor leaves it
        assert await fetch(holding(text + "\n")) == BODY
        assert await fetch(holding(text + "\r\n")) == BODY
    assert "answered status 401" in await fault_of(holding("Wrong"))
    assert "answered status 401" in await fault_of(web_source())


async def test_a_token_and_a_header_go_together(server: HttpsServer, web_source: MakeSource, tmp_path: Path) -> None:
    server.answer = plain(BODY)
    token, value = secret(tmp_path / "token", "T"), secret(tmp_path / "value", "V")
    await fetch(web_source(credentials={"token_file": token, "header_name": "X-Key", "header_value_file": value}))
    (request,) = server.requests
    assert (request.exact["authorization"], request.exact["x-key"]) == ("Bearer T", "V")


async def test_a_changed_secret_is_used_at_the_next_look(
    server: HttpsServer, web_source: MakeSource, tmp_path: Path
) -> None:
    server.answer = only_for("authorization", "Bearer new")
    source = web_source(credentials={"token_file": secret(tmp_path / "token", "old")})
    assert "answered status 401" in await fault_of(source)
    secret(tmp_path / "token", "new")
    assert await fetch(source) == BODY


async def test_a_redirect_carries_no_credentials_to_another_origin(
    server: HttpsServer, web_source: MakeSource, certificate: Certificate, tmp_path: Path
) -> None:
    token = secret(tmp_path / "token")
    async with HttpsServer(certificate) as other:
        other.answer = plain(BODY)
        for place in (other.url("/x"), other.url("/x", host="localhost"), server.url("/x", host="localhost")):
            server.answer = raw(head("302 Found", location=place, content_length=0))
            text = await fault_of(web_source(credentials={"token_file": token}))
            assert "redirects to another host" in text
        assert other.requests == []
    assert [request.target for request in server.requests] == ["/list"] * 3


async def test_a_redirect_on_the_same_origin_carries_them(
    server: HttpsServer, web_source: MakeSource, tmp_path: Path
) -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        there = request.target == "/there"
        await (plain(BODY) if there else raw(head("302 Found", location="/there", content_length=0)))(request, writer)

    server.answer = answer
    await fetch(web_source(credentials={"token_file": secret(tmp_path / "token", "T")}))
    assert [request.exact["authorization"] for request in server.requests] == ["Bearer T"] * 2


# --- client certificate ----------------------------------------------------------------------------------------------


async def test_a_server_that_wants_a_client_certificate(certificate: Certificate, tmp_path: Path) -> None:
    (tmp_path / "stranger").mkdir()
    client, stranger = make_certificate(tmp_path), make_certificate(tmp_path / "stranger")

    def showing(files: Certificate | None, **other: Path) -> Source:
        fields: dict[str, object] = {"name": "web", "format": "url", "url": server.url("/list"),
                                     "ca_file": certificate.authority}  # fmt: skip
        if files is not None:
            files.key.chmod(0o600)
            fields["credentials"] = {"client_certificate_file": files.chain, "client_key_file": files.key, **other}
        return Source.model_validate(fields)

    async with HttpsServer(certificate, clients=client.authority) as server:
        server.answer = plain(BODY)
        assert await fetch(showing(client)) == BODY
        assert [request.subject for request in server.requests] == ["Test server"]
        for refused in (showing(None), showing(stranger)):
            text = await fault_of(refused)
            assert "web: 127.0.0.1: connection failed: " in text or "cannot connect: TLS failed" in text
        mixed = await fault_of(showing(client, client_key_file=stranger.key))
        assert "cannot be used; expected a PEM certificate and its own PEM key" in mixed
        key = serialization.load_pem_private_key(client.key.read_bytes(), None)
        secret(client.key, key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x"),
        ))  # fmt: skip
        assert "not encrypted" in await fault_of(showing(client))
        files = showing(client)
        client.key.chmod(0o640)
        assert f"mode 0640 lets others at the secret; run chmod 600 {client.key}" in await fault_of(files)
        client.key.unlink()
        assert "client_key_file: " in await fault_of(files)
        assert len(server.requests) == 1


# --- where secrets may be --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o777])
async def test_a_secret_that_others_can_read_is_not_used(
    server: HttpsServer, web_source: MakeSource, tmp_path: Path, mode: int
) -> None:
    path = secret(tmp_path / "token", mode=mode)
    text = await fault_of(web_source(credentials={"token_file": path}))
    said = f"{path}: mode {mode:04o} lets others at the secret; run chmod 600 {path}"
    assert text == f"web: 127.0.0.1: credentials.token_file: {said}"
    assert server.requests == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "expected a token (RFC 6750), not empty"),
        (b"\n", "expected a token (RFC 6750), not empty"),
        (b"two MARK\n", "expected a token"),
        (b"MARK\r\nX-Other: 1", "expected a token"),
        (b"MARK\n\n", "expected a token"),
        (b"MARK\xff", "is no UTF-8 text"),
        (b"M" * 8193, "has more than 8192 bytes"),
    ],
)
async def test_what_is_no_secret_is_named(
    server: HttpsServer, web_source: MakeSource, tmp_path: Path, data: bytes, said: str
) -> None:
    text = await fault_of(web_source(credentials={"token_file": secret(tmp_path / "token", data)}))
    assert said in text
    assert "MARK" not in text
    assert server.requests == []


async def test_a_secret_that_is_not_there_is_named(
    web_source: MakeSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = await fault_of(web_source(credentials={"token_env": "LIST_SECRET"}))
    assert "credentials.token_env: environment variable LIST_SECRET is not set; set it" in text
    monkeypatch.setenv("LIST_SECRET", "line\nMARK")
    assert "MARK" not in await fault_of(web_source(credentials={"token_env": "LIST_SECRET"}))
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, said in (("gone", "No such file"), ("pipe", "no regular file"), (".", "no regular file")):
        assert said in await fault_of(web_source(credentials={"token_file": tmp_path / name}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (URL + 'user = "u"\npassword = "MARK"\n', "credentials: password: no secret may stand in a source file, which"),
        (URL + 'token = "MARK"\n', "use token_file or token_env"),
        (URL + 'header_name = "X-K"\nheader_value = "MARK"\n', "use header_value_file or header_value_env"),
        (URL + 'client_key = "MARK"\n', "use client_key_file"),
        (URL + 'pasword = "MARK"\n', "credentials.pasword: unknown field; allowed: user, password_file"),
        (URL, "the table is empty"),
        (URL + 'user = "u"\n', "user needs password_file or password_env"),
        (URL + 'password_env = "P"\n', "user needs password_file or password_env"),
        (URL + 'user = "u:MARK"\npassword_env = "P"\n', "credentials.user: "),
        (URL + 'token_env = "T"\ntoken_file = "t"\n', "only one of token_file and token_env"),
        (URL + 'token_env = "T"\nuser = "u"\npassword_env = "P"\n', "user and token cannot both be sent"),
        (URL + 'token_env = "no name"\n', "credentials.token_env: "),
        (URL + 'header_name = "X-K"\n', "header_name needs header_value_file"),
        (URL + 'header_value_env = "V"\n', "header_name needs header_value_file"),
        (URL + 'header_name = "a b"\nheader_value_env = "V"\n', "credentials.header_name: "),
        (URL + 'header_name = "Authorization"\nheader_value_env = "V"\n', "set by the download itself"),
        (URL + 'client_key_file = "k"\n', "client_certificate_file and client_key_file go together"),
        ('format = "url"\npath = "x"\n[credentials]\ntoken_env = "T"\n', "credentials go with url only"),
        (URL.replace("//h", "//u:MARK@h") + 'token_env = "T"\n', "take the user out of url"),
        (URL.replace("[credentials]\n", 'credentials = "MARK"\n'), "credentials: "),
    ],
)  # fmt: skip
def test_a_wrong_table_is_named_and_no_secret_is_shown(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SourceError) as caught:
        load_source(tmp_path / "x.toml")
    assert said in str(caught.value)
    assert "MARK" not in told(caught.value)


def test_files_are_taken_from_the_directory_of_the_source(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(URL + 'token_file = "t"\n', encoding="utf-8")
    credentials = load_source(tmp_path / "x.toml").credentials
    assert credentials is not None
    assert credentials.token_file == tmp_path / "t"


def test_another_client_is_another_list(web_source: MakeSource) -> None:
    tables: list[object] = [None, *({"user": user, "password_env": "P"} for user in "ab"), {"token_env": "T"}]
    assert len({web_source(credentials=table).fingerprint() for table in tables}) == 4


async def test_no_secret_leaves_the_process(
    server: HttpsServer, web_source: MakeSource, store: Store, redis: RedisServer, keyring: Keyring, tmp_path: Path,
    every_log: io.StringIO, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    asyncio.get_running_loop().set_debug(True)
    path, odd = secret(tmp_path / "secret"), secret(tmp_path / "odd", f"{MARK}\x01")
    monkeypatch.setenv("LIST_SECRET", MARK)
    tables: list[dict[str, object]] = [
        {"user": "u", "password_file": path}, {"token_env": "LIST_SECRET"},
        {"header_name": "X-Key", "header_value_file": path},
        {"user": "u", "password_file": odd}, {"token_file": odd}, {"header_name": "X-Key", "header_value_file": odd},
    ]  # fmt: skip
    answers = [plain(BODY), raw(head("401 Unauthorized", content_length=0)), raw(b"nothing\r\n\r\n"),
               raw(head("302 Found", location="https://h.example/", content_length=0))]  # fmt: skip
    seen = []
    for table in tables:
        source = web_source(credentials=table)
        seen += [repr(source), str(source), source.model_dump_json(), source.fingerprint()]
        for answer in answers:
            server.answer = answer
            seen.append(repr(await pull(source, store, keyring)))
            with pytest.raises(FetchError) as caught:
                await fetch(source.model_copy(update={"ca_file": None}))
            seen.append(told(caught.value))
    assert len(server.requests) == 12
    await redis.astop()
    values = b"".join(file.read_bytes() for file in redis.directory.rglob("*") if file.is_file())
    assert b"source:web" in values
    output = capsys.readouterr()
    basic = base64.b64encode(f"u:{MARK}".encode()).decode()
    for text in (*seen, every_log.getvalue(), output.out, output.err, values.decode("latin-1"), redis.log()):
        assert MARK not in text
        assert basic not in text
