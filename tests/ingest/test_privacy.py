"""What is on a list, and the address it comes from, appear in no log, exception, result or Redis value."""

from __future__ import annotations

import asyncio
import io
import logging
import traceback
from typing import TYPE_CHECKING

import pytest

from blocker.errors import BlockerError
from blocker.ingest.source import Source
from blocker.ingest.update import pull
from blocker.ingest.worker import IngestWorker, Pacing
from tests.ingest.checks import until
from tests.ingest.https_server import Answer, Certificate, HttpsServer, conditional, head, plain, raw, silence, zipped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring
    from tests.ingest.conftest import MakeSource
    from tests.redis_server import RedisServer

# Stands in every entry of the list and in every part of the address but its host.
MARK = "zxqmark"
ENTRIES = f"""# {MARK}
http://{MARK}.example/
http://gallery.example/{MARK}/page?{MARK}=1
http://*.{MARK}.test/{MARK}/
""".encode()
BAD = ENTRIES + f"hhttp://{MARK}.example/\n{MARK}\n".encode() + b"\xff" + MARK.encode() + b"\n"

ANSWERS: list[Answer] = [
    conditional(ENTRIES, f'"{MARK[:3]}"'),
    conditional(ENTRIES, f'"{MARK[:3]}"'),
    zipped(ENTRIES + b"http://more.example/\n"),
    plain(BAD),
    plain(ENTRIES + b"\0"),
    plain(b"# " + MARK.encode()),
    raw(head(content_length=len(ENTRIES) + 1), ENTRIES),
    raw(head(content_length=len(ENTRIES), content_encoding="gzip"), ENTRIES),
    raw(head("302 Found", location=f"https://{MARK}.example/{MARK}", content_length=0)),
    raw(head("302 Found", location=f"/{MARK}?{MARK}", content_length=0)),
    raw(head(f"500 {MARK}", content_length=0, x_reason=MARK)),
    raw(f"{MARK}\r\n\r\n".encode()),
    silence,
]


@pytest.fixture
def every_log() -> Iterator[io.StringIO]:
    """All that any logger says at any level, in full, whatever level it was held at."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s %(pathname)s"))
    root = logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in (
        "asyncio", "blocker", "httpx", "httpcore", "httpcore.connection", "httpcore.http11", "redis", "anyio",
    ))]  # fmt: skip
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(1)
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def told(error: BaseException) -> str:
    """Everything a traceback could show of an exception."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=False)
    return "".join(shown.format()) + repr(error) + str(error.args)


async def test_no_mark_leaves_the_process(
    server: HttpsServer, web_source: MakeSource, store: Store, redis: RedisServer, keyring: Keyring,
    every_log: io.StringIO, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    asyncio.get_running_loop().set_debug(True)
    address = server.url(f"/{MARK}/list?token={MARK}", user=f"{MARK}:{MARK}@")
    source = web_source(url=address)
    brief = source.model_copy(update={"timeout_seconds": 0.5})  # for the answer that does not come
    seen: list[str] = [repr(source), str(source)]
    statuses = []
    for answer in ANSWERS:
        server.answer = answer
        result = await pull(brief if answer is silence else source, store, keyring)
        statuses.append(result.status)
        seen.append(repr(result))
    assert statuses == ["published", "not_modified", "published", "refused", "refused", "refused", *["failed"] * 7]
    assert server.requests[0].target == f"/{MARK}/list?token={MARK}"
    for broken in (
        source.model_copy(update={"ca_file": None}),  # an unknown authority
        web_source(url=address.replace(f":{server.port}", ":1")),
    ):
        seen.append(repr(await pull(broken, store, keyring)))
    await redis.astop()
    with pytest.raises(BlockerError) as caught:
        await pull(source, store, keyring)
    seen.append(told(caught.value))
    values = b"".join(file.read_bytes() for file in redis.directory.rglob("*") if file.is_file())
    assert b"source:web" in values  # the files are those that hold what was written
    output = capsys.readouterr()
    for text in (*seen, every_log.getvalue(), output.out, output.err, values.decode("latin-1"), redis.log()):
        assert MARK not in text.lower()
    assert "list is published anew" not in output.out


async def test_no_mark_is_logged_by_the_worker(
    tmp_path: Path, server: HttpsServer, certificate: Certificate, store: Store, keyring: Keyring,
    every_log: io.StringIO, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "good.txt").write_bytes(ENTRIES)
    (lists / "good.toml").write_text('format = "url"\npath = "good.txt"\n', encoding="utf-8")
    (lists / "bad.txt").write_bytes(BAD)
    (lists / "bad.toml").write_text('format = "url"\npath = "bad.txt"\n', encoding="utf-8")
    (lists / "web.toml").write_text(
        f'format = "url"\nurl = "{server.url(f"/{MARK}")}"\nca_file = "{certificate.authority}"\n', encoding="utf-8"
    )
    (lists / "http.toml").write_text(f'format = "url"\nurl = "http://h.example/{MARK}"\n', encoding="utf-8")
    server.answer = raw(head("404 Not Found", content_length=0))
    worker = IngestWorker(lists, store, keyring, pacing=Pacing(reload=0.01))
    task = asyncio.create_task(worker.run())
    await until(lambda: len(worker.health()) == 3 and all(entry.last for entry in worker.health()))
    text = repr(worker.health()) + repr(worker.source_errors)
    worker.stop()
    await task
    output = capsys.readouterr()
    logged = output.out + output.err + every_log.getvalue()
    assert "list published" in logged
    assert "status 404" in logged
    assert "http.toml" in logged
    assert MARK not in (text + logged).lower()


async def test_the_libraries_do_log_addresses_and_only_a_fetch_is_quiet(
    server: HttpsServer, web_source: MakeSource, store: Store, keyring: Keyring, every_log: io.StringIO
) -> None:
    """Without the filter the test above would fail; with it other users of the libraries are left alone."""
    import ssl

    import httpx

    server.answer = plain(ENTRIES)
    source = web_source(f"/{MARK}")
    await pull(source, store, keyring)
    assert MARK not in every_log.getvalue()
    async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=source.ca_file)) as client:
        await client.get(server.url(f"/{MARK}"))
    assert MARK in every_log.getvalue()


def test_a_source_shows_its_host_only() -> None:
    source = Source.model_validate(
        {"name": "web", "format": "url", "url": f"https://{MARK}:{MARK}@lists.example/{MARK}?{MARK}"}
    )
    assert source.host == "lists.example"
    assert MARK not in repr(source) + str(source) + str(source.model_dump()) + source.fingerprint()
