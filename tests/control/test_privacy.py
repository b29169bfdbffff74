"""Nothing of a request is anywhere afterwards: not in a log, a metric, an error, or the store.

Marks stand for everything that a request can carry. They go through every route and every way to fail, with logging at
its lowest level, over the real server, with hits flushed to a real Redis. Then all that is left behind is searched.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import httpx
import pytest
import structlog
from redis import Redis

import blocker
from blocker.control.app import create_app
from blocker.control.server import ControlServer
from blocker.errors import StoreUnavailable
from blocker.gateways.engine import VerdictEngine
from blocker.hits.counters import HitCounter
from blocker.hits.exporter import Exporter
from blocker.store.redis import Store
from tests.control.support import raw
from tests.hits.support import Clock, Followed, Status
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from blocker.settings import Settings

MARK = "zqmarkqz"
HOST = f"{MARK}.example"
URL = f"http://{MARK}user:{MARK}password@{HOST}:8080/{MARK}/page?{MARK}=1#{MARK}"
MANY = [URL, HOST, f"http://{HOST}/", f"//{MARK}", f"/{MARK}", f"http://[{MARK}", MARK * 9000, f"http://{HOST}/%00%ff"]
HEADERS = {
    "user-agent": MARK, "referer": URL, "cookie": f"session={MARK}", "authorization": f"Bearer {MARK}",
    "x-forwarded-for": f"{MARK}, 203.0.113.99", "forwarded": f"for={MARK}", "x-original-url": URL,
    "x-authenticated-user": MARK, "accept-language": f"{MARK}, en", "x-request-id": MARK, "traceparent": MARK,
}  # fmt: skip
BODIES = [
    MARK.encode(), b'{"urls":["' + URL.encode(), json.dumps({"urls": MANY}).encode(),
    json.dumps({MARK: [MARK]}).encode(),
    json.dumps({"urls": [MARK, {MARK: MARK}, 1], MARK: MARK}).encode(), json.dumps([MARK]).encode(),
    json.dumps({"urls": [URL], "policy": MARK}).encode(), json.dumps({"urls": [URL] * 1001}).encode(),
    f'{{"urls":["{MARK}\\ud800"]}}'.encode(), MARK.encode() * 20_000,
]  # fmt: skip
BROKEN = [
    f"GET /{MARK} HTTP/1.1\r\n{MARK}\r\n\r\n", f"{MARK}\r\n\r\n", f"GET /{MARK} HTTP/x\r\n\r\n",
    f"POST /v1/check HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {MARK}\r\n\r\n",
    f"POST /v1/check HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n{MARK}\r\n",
    f"GET /{MARK * 40_000} HTTP/1.1\r\n", f"GET {URL} HTTP/1.0\r\n\r\n", f"CONNECT {HOST}:443 HTTP/1.0\r\n\r\n",
    f"GET /v1/check?url={URL} HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: {MARK}\r\n\r\n",
]  # fmt: skip


class Scene:
    """A node with a real Redis, and everything that it leaves behind."""

    def __init__(self, settings: Settings, redis: RedisServer, store: Store) -> None:
        self.redis = redis
        self.follower = Followed(matcher=self.matcher())
        self.clock = Clock(1_795_989_600.0)
        self.hits = HitCounter(store, node="node", zone=ZoneInfo("UTC"), clock=self.clock)
        self.engine = VerdictEngine(self.follower, self.hits)
        self.exporter = Exporter(self.engine.meters, self.hits, self.follower, clock=self.clock)
        self.app = create_app(self.engine, self.follower, settings, self.exporter, clock=self.clock)
        self.server = ControlServer(self.app, "127.0.0.1", 0)

    @staticmethod
    def matcher() -> blocker.Matcher:
        """Blocks the marked host, and shadows it, so that every mark is a hit."""
        return blocker.Matcher.build(
            {"listed": [f"http://{HOST}/{MARK}/", f"{HOST}/{MARK}"], "quiet": [f"http://{HOST}/"]}, shadow=("quiet",)
        )

    def requests(self) -> Iterator[tuple[str, str, bytes | None]]:
        """Each method and path, each marked."""
        query = httpx.QueryParams({"url": URL})
        paths = [
            f"/v1/check?{query}", f"/v1/check?url={URL}", f"/v1/check?{query}&{MARK}={MARK}",
            f"/v1/check?{query}&policy={MARK}", f"/v1/check?policy={MARK}", f"/v1/hosts/{HOST}",
            f"/v1/hosts/{HOST}?policy={MARK}", f"/v1/hosts/{MARK}%00%20", f"/v1/hosts/{HOST}?{MARK}",
            f"/v1/lists?{MARK}", f"/v1/lists/{MARK}", f"/healthz?{MARK}", f"/readyz?{MARK}", f"/metrics?{MARK}",
            f"/blocked?url={URL}", f"/blocked?list={MARK}", f"/blocked?list=police&{MARK}", f"/docs?{MARK}",
            f"/openapi.json?{MARK}", f"/?{MARK}", f"/{MARK}", f"/{MARK}/../../etc",
        ]  # fmt: skip
        yield from ((method, path, None) for method, path in itertools.product(("GET", "HEAD", "DELETE"), paths))
        yield from ((method, "/v1/check", body) for method, body in itertools.product(("POST", "PUT"), BODIES))

    async def ask_everything(self) -> list[tuple[int, str]]:
        """Every request once; what came back, of which only errors must be free of marks."""
        answers = []
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.server.port}", timeout=60) as client:
            for method, path, body in self.requests():
                answer = await client.request(method, path, content=body, headers=HEADERS)
                answers.append((answer.status_code, f"{answer.headers} {answer.text}"))
        for request in BROKEN:
            answer_text = (await raw(self.server.port, request.encode())).decode("latin-1")
            assert answer_text.startswith("HTTP/1.1 "), request
            answers.append((int(answer_text[9:12]), answer_text))
        return answers

    def left_in_redis(self) -> str:
        """Every key and every value."""
        with Redis(unix_socket_path=str(self.redis.socket), decode_responses=True) as client:
            readers: dict[str, Any] = {
                "hash": client.hgetall, "set": client.smembers, "string": client.get,
                "zset": lambda key: client.zrange(key, 0, -1), "stream": client.xrange,
            }  # fmt: skip
            keys: Any = client.keys("*")
            return "\n".join(f"{key} {readers[str(client.type(key))](key)}" for key in keys)


@pytest.fixture
async def scene(settings: Settings, tmp_path: Path, logged: io.StringIO) -> AsyncIterator[Scene]:
    assert logged is not None
    async with RedisServer(tmp_path) as redis, await Store.open(redis.url, "test") as store:
        made = Scene(settings, redis, store)
        await made.server.start()
        yield made
        await made.server.stop()


def assert_unmarked(*texts: str) -> None:
    for text in texts:
        assert MARK not in text.lower()
        assert "203.0.113.99" not in text


async def test_nothing_of_a_request_is_left_behind(
    scene: Scene, logged: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    assert await scene.hits.flush()
    answers = await scene.ask_everything()
    assert {200, 307, 400, 404, 405, 413, 422, 451} <= {status for status, _ in answers}
    assert_unmarked(*(text for status, text in answers if status >= 400))
    assert await scene.hits.flush()
    scene.clock.now += 3600
    assert await scene.hits.flush()
    metrics = scene.exporter.render().decode()
    assert 'blocker_hits_total{list="listed",weekday="sun",hour="22"} 0.0' not in metrics, "they were hits"
    in_redis = scene.left_in_redis()
    assert "listed|2026-W48|7|22" in in_redis
    assert_unmarked(metrics, in_redis, logged.getvalue(), *capfd.readouterr())


async def test_nothing_of_a_request_is_left_behind_when_everything_fails(
    scene: Scene, logged: io.StringIO, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **_kwargs: object) -> Any:  # noqa: ANN401
        url = args
        try:
            int(MARK)
        except ValueError as error:
            error.add_note(MARK)
            raise RuntimeError(f"{url} {MARK}") from error

    for method in ("check", "check_host", "answer", "matcher"):
        monkeypatch.setattr(scene.engine, method, broken)
    monkeypatch.setattr(scene.exporter, "render", broken)
    monkeypatch.setattr(type(scene.follower), "status", property(broken), raising=False)
    answers = await scene.ask_everything()
    assert [status for status, _ in answers].count(500) > 10
    assert_unmarked(*(text for status, text in answers if status >= 400))
    assert "RuntimeError" in logged.getvalue()
    assert_unmarked(logged.getvalue(), *capfd.readouterr())


async def test_nothing_of_a_request_is_left_behind_before_the_first_matcher(
    scene: Scene, logged: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    scene.follower.matcher = None
    scene.follower.status = Status(store_up=False, source="none")
    answers = await scene.ask_everything()
    assert 503 in {status for status, _ in answers}
    assert_unmarked(*(text for status, text in answers if status >= 400))
    assert_unmarked(scene.exporter.render().decode(), scene.left_in_redis(), logged.getvalue(), *capfd.readouterr())


async def test_a_flush_that_fails_logs_no_cell(scene: Scene, logged: io.StringIO) -> None:
    """A cell in a log line would tell when there was a hit."""
    assert await scene.hits.flush()
    scene.engine.check(URL)
    scene.redis.stop()
    assert not await scene.hits.flush()
    assert not await scene.hits.flush()
    await scene.redis.astart()
    assert await scene.hits.flush()
    events = [json.loads(line)["event"] for line in logged.getvalue().splitlines()]
    assert events == ["hits wait in memory until the store is back", "hits are flushed to the store again"]
    for word in ("listed", "W48", "|"):
        assert word not in logged.getvalue()


async def test_our_own_clients_log_no_address_at_any_level(scene: Scene, logged: io.StringIO) -> None:
    for name in ("httpx", "httpcore", "uvicorn.error", "uvicorn.access", "asyncio", "redis", "fastapi", "h11"):
        logger = logging.getLogger(name)
        logger.setLevel(1)  # as if somebody had asked for all of it
        logger.error("%s asked for %s", MARK, URL)
        logger.error(f"fault\n{MARK}: {URL}")  # noqa: G004 - libraries do this
    await scene.ask_everything()
    assert "asked for" in logged.getvalue()
    assert_unmarked(logged.getvalue())


async def test_a_task_whose_exception_nobody_saw_is_logged_without_it(logged: io.StringIO) -> None:
    async def failing() -> None:
        raise ValueError(MARK)

    loop = asyncio.get_running_loop()
    task = asyncio.create_task(failing())
    await asyncio.wait([task])
    loop.call_exception_handler(
        {"message": f"Task exception was never retrieved\n{MARK}", "exception": task.exception(), "task": task}
    )
    structlog.get_logger("blocker").error("seen", exc_info=task.exception())
    assert "ValueError" in logged.getvalue()
    assert_unmarked(logged.getvalue())
    assert_unmarked(str(StoreUnavailable("away")))
