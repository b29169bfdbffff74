"""Whether the URL filter lives: without it routes would lead into nothing, so they go while it does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from blocker.feeds.filter_watch import FilterWatch
from blocker.feeds.route_terms import filter_said
from blocker.route_section import RouteSettings
from tests.e2e.processes import until
from tests.feeds.knot import Knot, LoggedProcess, binary
from tests.feeds.network import Bird, ExaBgp, RouteNode
from tests.follower.support import until as becomes
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

ROUTED = ("198.18.0.7", "2001:db8::7")
SECONDS = 0.25


class Filter:
    """A server that behaves as it is told."""

    def __init__(self, says: bytes = b"") -> None:
        self.port = free_port()
        self.says = says
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self.says)
            if not self.says:
                await reader.read()  # silence, until the peer has enough
        writer.close()


class Watched:
    """A watch, and the states that it went through."""

    def __init__(self, *probes: str) -> None:
        self.settings = RouteSettings(filter_probes=probes, filter_probe_seconds=SECONDS)
        self.states: list[str] = []
        self.watch = FilterWatch(lambda: self.settings, lambda: self.states.append(self.watch.state))
        self._run = asyncio.create_task(self.watch.run())

    def configure(self, *probes: str) -> None:
        self.settings = self.settings.model_copy(update={"filter_probes": probes})

    async def becomes(self, *states: str) -> None:
        await becomes(lambda: self.states == [*states])

    async def stop(self) -> None:
        self._run.cancel()
        await asyncio.gather(self._run, return_exceptions=True)


@pytest.fixture
async def ground() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as stack:
        yield stack


async def watched(ground: contextlib.AsyncExitStack, *probes: str) -> Watched:
    made = Watched(*probes)
    ground.push_async_callback(made.stop)
    return made


async def test_it_is_down_after_three_silences_and_up_after_three_answers(ground: contextlib.AsyncExitStack) -> None:
    server = Filter()
    one = await watched(ground, f"tcp://127.0.0.1:{server.port}")
    assert (one.watch.state, one.watch.held) == ("unproven", True)
    await one.becomes("down")
    assert [*one.watch.unanswered] == [f"tcp://127.0.0.1:{server.port}"]
    await server.start()
    loop = asyncio.get_running_loop()
    began = loop.time()
    await one.becomes("down", "up")
    assert loop.time() - began >= 2 * SECONDS
    assert not one.watch.unanswered
    assert not one.watch.held
    await server.stop()
    began = loop.time()
    await one.becomes("down", "up", "down")
    assert loop.time() - began + SECONDS >= 2 * SECONDS
    assert one.watch.held


@pytest.mark.parametrize(
    ("says", "lives"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\n\r\nwithout end", True),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", False),
        (b"SSH-2.0-OpenSSH_9.2\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-", False),
        (b"", False),
    ],
)
async def test_what_is_an_answer_over_http(ground: contextlib.AsyncExitStack, says: bytes, lives: bool) -> None:
    server = Filter(says)
    await server.start()
    ground.push_async_callback(server.stop)
    one = await watched(ground, f"http://127.0.0.1:{server.port}/path?x")
    await one.becomes("up" if lives else "down")


async def test_one_of_several_that_is_silent_is_enough(ground: contextlib.AsyncExitStack) -> None:
    first, second = Filter(), Filter()
    await first.start()
    ground.push_async_callback(first.stop)
    await second.start()
    one = await watched(ground, *(f"tcp://127.0.0.1:{server.port}" for server in (first, second)))
    await one.becomes("up")
    await second.stop()
    await one.becomes("up", "down")
    assert one.watch.unanswered == (f"tcp://127.0.0.1:{second.port}",)
    one.configure(f"tcp://127.0.0.1:{first.port}")
    await one.becomes("up", "down", "up")
    one.configure()
    await one.becomes("up", "down", "up", "off")
    assert not one.watch.held
    one.configure(f"tcp://127.0.0.1:{second.port}")  # one that never answered yet
    await one.becomes("up", "down", "up", "off", "unproven", "down")


@pytest.mark.parametrize(
    "probe",
    [
        "tcp://192.0.2.80", "tcp://192.0.2.80:0x50", "tcp://192.0.2.80:80/path", "tcp://filter.example:80",
        "https://192.0.2.80/", "http://filter.example/", "http://user@192.0.2.80/", "http://[2001:db8::80/",
        "http://192.0.2.80/a b", "http://192.0.2.80:99999/", "192.0.2.80:80", "",
    ],
)  # fmt: skip
def test_probes_that_cannot_be_are_refused(probe: str) -> None:
    with pytest.raises(ValidationError, match=r"must be as tcp://192\.0\.2\.80:443"):
        RouteSettings(filter_probes=(probe,))


def test_probes_may_be_of_either_family() -> None:
    probes = ("tcp://[2001:db8::80]:443", "http://192.0.2.80/healthz")
    assert RouteSettings(filter_probes=probes).filter_probes == probes


def test_what_is_said_of_it() -> None:
    assert filter_said("up", ()) is None
    assert filter_said("off", ()) is None
    lost = "the URL filter does not answer; all routes are withdrawn until it does"
    assert filter_said("down", ["tcp://192.0.2.80:443"]) == f"{lost}: tcp://192.0.2.80:443"
    assert filter_said("down", ()) == lost, "it has begun to answer"


class Nginx(LoggedProcess):
    """A URL filter's machine, as far as it can be asked."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "nginx")
        self.port = free_port()
        (self.directory / "nginx.conf").write_text(
            "daemon off; master_process off; pid pid; error_log stderr;\n"
            "events { }\nhttp { access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3;\n"
            "uwsgi_temp_path t4; scgi_temp_path t5;\n"
            f"server {{ listen 127.0.0.1:{self.port}; location / {{ return 404; }} }} }}\n",
            "utf-8",
        )
        self.start()

    def start(self) -> None:
        self.run([binary("nginx"), "-p", str(self.directory), "-c", "nginx.conf", "-e", "stderr"])

    def send(self, one: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(one)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), aof=True) as running:
        yield running


@pytest.fixture
def world(tmp_path: Path, redis: RedisServer) -> Iterator[dict[str, Any]]:
    with contextlib.ExitStack() as stack:
        knot = stack.enter_context(Knot(tmp_path))
        knot.serve(popular="198.51.100.1", www__popular="popular", pages=ROUTED)
        nginx = stack.enter_context(Nginx(tmp_path))
        bird = stack.enter_context(Bird(tmp_path))
        node = RouteNode(
            tmp_path, redis, [knot.address], filter_probes=[f"http://127.0.0.1:{nginx.port}/"],
            filter_probe_seconds=2.0,
        )  # fmt: skip
        stack.enter_context(node.process)
        stack.enter_context(ExaBgp(tmp_path, bird, node.socket))
        node.push("http://pages.example/listed/")
        bird.becomes(*ROUTED)
        until(lambda: node.report()["settled"])
        yield {"nginx": nginx, "bird": bird, "node": node}


def test_a_filter_that_hangs_or_dies_loses_all_routes_until_it_answers(world: dict[str, Any]) -> None:
    nginx, bird, node = world["nginx"], world["bird"], world["node"]
    until(lambda: node.metric("blocker_route_filter_up") == 1)
    nginx.send(signal.SIGSTOP)  # connections to it still open
    bird.becomes()
    assert node.metric("blocker_route_filter_up") == 0
    assert node.metric("blocker_routes_refused", reason="filter-down") == 2
    assert set(node.why().values()) == {("waiting", "filter-down")}
    probe = f"http://127.0.0.1:{nginx.port}/"
    assert node.report()["filter"] == {"state": "down", "unanswered": [probe]}
    said = [detail for state, detail in node.doctor()["routes"] if state == "fail"]
    assert said == [f"the URL filter does not answer; all routes are withdrawn until it does: {probe}"]
    nginx.send(signal.SIGCONT)
    bird.becomes(*ROUTED)
    until(lambda: node.report()["settled"])

    nginx.kill()
    bird.becomes()
    # Nor does a node that starts meanwhile announce anything; and a stop by hand holds beside it.
    node.process.stop()
    node.process.start()
    until(lambda: node.metric("blocker_route_feeds") == 1)
    until(lambda: node.report()["filter"]["state"] == "down")
    until(lambda: len(node.why()) == 2)
    assert bird.routes() == set()
    node.command("routes", "withdraw")
    nginx.start()
    until(lambda: node.report()["filter"]["state"] == "up")
    assert set(node.why().values()) == {("waiting", "stopped")}
    assert bird.routes() == set()
    node.command("routes", "resume")
    bird.becomes(*ROUTED)


def test_a_node_that_starts_while_the_filter_is_away_leaves_what_is_there_until_it_is_sure(
    world: dict[str, Any],
) -> None:
    """One lost look at a start takes nothing back."""
    nginx, bird, node = world["nginx"], world["bird"], world["node"]
    node.process.stop()
    nginx.kill()
    node.rewrite("filter_probe_seconds", 20)  # so that it has looked no more than twice when its feed is back
    node.process.start()
    until(lambda: node.metric("blocker_route_feeds") == 1)
    assert node.report()["filter"]["state"] == "unproven"
    assert bird.routes() == set(ROUTED)
    assert not node.report()["settled"]
    nginx.start()
    until(lambda: node.report()["filter"]["state"] == "up")
    until(lambda: node.report()["settled"])
    assert bird.routes() == set(ROUTED)
    assert bird.received()[1] == 0, "no route was withdrawn"
