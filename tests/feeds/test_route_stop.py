"""No routes any more: by hand until they are resumed, by the configuration for good, and for one host by exceptions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.processes import program, until
from tests.feeds.knot import Knot
from tests.feeds.network import Bird, ExaBgp, RouteNode
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGES = ("http://pages.example/listed/", "http://pages.example/other.html", "http://more.example/x")
ALL = ("198.18.0.7", "2001:db8::7", "198.18.0.9")
# Of a machine that is busy with other tests; on an idle one it is about one second.
SECONDS = 30


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), aof=True) as running:
        yield running


class World:
    """A node with three routes, and a router that has them."""

    def __init__(self, directory: Path, redis: RedisServer) -> None:
        self.knot = Knot(directory)
        self.knot.serve(popular="198.51.100.1", www__popular="popular", pages=ALL[:2], more=ALL[2])
        self.bird = Bird(directory)
        self.node = RouteNode(directory, redis, [self.knot.address])
        self.exabgp = ExaBgp(directory, self.bird, self.node.socket)
        self.state = directory / "var" / "routes.state"
        self.node.push(*PAGES)
        self.bird.becomes(*ALL)
        until(lambda: self.node.report()["settled"])

    def close(self) -> None:
        for one in (self.exabgp, self.bird, self.knot):
            one.stop()
        self.node.process.__exit__(None, None, None)

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [*program(), *words], env=self.node.process.environment, cwd=self.node.directory, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    def hang_up(self) -> None:
        self.node.process.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]


@pytest.fixture
def world(tmp_path: Path, redis: RedisServer) -> Iterator[World]:
    made = World(tmp_path, redis)
    yield made
    made.close()


def test_all_routes_are_withdrawn_until_they_are_resumed(world: World) -> None:
    bird, node = world.bird, world.node
    assert node.command("routes", "withdraw", "--reason", "the filter is full") == {"routes": 3}
    until(lambda: not bird.routes(), SECONDS)
    shown = world.run("routes")
    assert "withdrawn by hand since 20" in shown
    assert "(the filter is full); `blocker routes resume` ends it" in shown
    assert set(node.why().values()) == {("waiting", "stopped")}
    assert node.metric("blocker_route_stopped") == 1
    assert node.metric("blocker_routes_refused", reason="stopped") == 3
    assert [state for state, said in node.doctor()["routes"] if "by hand" in said] == ["fail"]
    assert "the filter is full" not in node.process.log()

    # Neither a new listed host nor a restart of any of them brings routes.
    world.knot.serve(new="198.18.0.11")
    node.push(*PAGES, "http://new.example/x")
    until(lambda: "198.18.0.11" in node.why())
    for end in (node.process.stop, node.process.kill):
        end()
        node.process.start()
        until(lambda: node.metric("blocker_route_feeds") == 1)
        until(lambda: node.metric("blocker_route_stopped") == 1)
    node.kill_feed(world.exabgp)
    until(lambda: len(node.why()) == 4)
    assert bird.routes() == set()

    assert node.command("routes", "resume")["routes"] == 4
    bird.becomes(*ALL, "198.18.0.11")
    assert node.metric("blocker_route_stopped") == 0
    assert node.command("routes", "resume")["since"] is None
    until(lambda: node.report()["settled"])


def test_a_stop_that_came_just_before_the_node_was_killed_holds_for_an_exabgp_that_still_has_all(world: World) -> None:
    """The node dies before its state is written, and ExaBGP's feed before it has heard of the stop."""
    until(world.state.exists)
    os.kill(world.exabgp.feed(), signal.SIGSTOP)
    world.node.command("routes", "withdraw")
    world.node.process.kill()
    os.kill(world.exabgp.feed(), signal.SIGKILL)
    assert world.bird.routes() == set(ALL)
    world.node.process.start()
    until(lambda: not world.bird.routes(), SECONDS)


def test_routes_that_are_turned_off_in_the_file_are_withdrawn_at_a_reload(world: World) -> None:
    bird, node = world.bird, world.node
    node.rewrite("enabled", False)
    world.hang_up()
    until(lambda: not bird.routes(), SECONDS)
    # The feed writes its state as it ends, and it goes once ExaBGP has nothing more.
    until(lambda: "all routes are withdrawn" in node.process.log())
    assert not world.state.exists()
    assert node.metric("blocker_routes", family="ipv4") == 0
    assert node.metric("blocker_route_retreating") == 0
    assert "routes" not in node.doctor()
    assert "routes are off" in world.run("routes")
    # On they come with a start.
    node.rewrite("enabled", True)
    world.hang_up()
    until(lambda: '"routes.enabled"' in node.process.log() or "routes.enabled" in node.process.log())
    assert bird.routes() == set()
    node.process.stop()
    node.process.start()
    bird.becomes(*ALL)


def test_a_node_that_is_started_without_routes_takes_back_those_it_had(world: World) -> None:
    bird, node = world.bird, world.node
    node.process.stop()
    assert bird.routes() == set(ALL)
    node.rewrite("enabled", False)
    world.exabgp.stop()
    node.process.start()
    assert node.metric("blocker_route_retreating") == 1
    assert [state for state, _ in node.doctor()["routes"]] == ["warn"]
    world.exabgp.start()
    until(lambda: node.metric("blocker_route_retreating") == 0)
    assert bird.routes() == set()
    node.process.stop()
    node.process.start()
    assert not node.socket.exists(), "there is nothing to take back any more"


def test_a_node_that_is_started_without_routes_takes_them_back_from_an_exabgp_that_went_on(world: World) -> None:
    node = world.node
    node.process.stop()
    node.rewrite("enabled", False)
    node.process.start()
    until(lambda: not world.bird.routes(), SECONDS)
    until(lambda: not world.state.exists())


def test_a_host_of_which_everything_is_excepted_has_no_route(world: World) -> None:
    bird, node = world.bird, world.node
    day = (datetime.now(UTC) + timedelta(days=9)).strftime("%Y-%m-%d")

    def hold(url: str) -> str:
        told: Any = node.command("lists", "hold", url, "--until", day, "--reason", "argued about")
        return str(told["number"])

    hold("http://pages.example")
    number = hold(PAGES[0])
    hold("http://more.example")
    until(lambda: node.ask(PAGES[0]) == "allow")
    until(lambda: node.report()["settled"])
    assert bird.routes() == set(ALL), "a page of each is blocked still"
    hold(PAGES[1])
    bird.becomes(ALL[2])
    (spared,) = node.report("--hosts")["hosts"]
    assert (spared["host"], spared["why"]) == ("pages.example", "excepted")
    node.command("lists", "unhold", number)
    bird.becomes(*ALL)
    assert json.loads(world.run("routes", "--json").splitlines()[-1])["counts"]["hosts"] == {}
