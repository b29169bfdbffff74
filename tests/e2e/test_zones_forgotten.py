"""A store that forgot which serials it gave, two nodes that remember different ones, and a secondary of both."""

from __future__ import annotations

import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

from redis import Redis

from tests.e2e.processes import NodeProcess, until
from tests.e2e.resolvers import ZONE, Feeding
from tests.e2e.test_zones_together import Secondary, serial_at, zone_at
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from pathlib import Path

# The serials run ahead of the clock, as after many changes in little time, or by a Redis whose clock was wrong.
AHEAD = 5000

# BIND waits long for a primary that does not answer, before it asks another one.
BIND_SECONDS = 150.0


def test_no_serial_means_two_things_and_nobody_is_left_behind(tmp_path: Path, redis: RedisServer) -> None:
    (tmp_path / "one").mkdir()
    one = Feeding(tmp_path / "one", redis, free_port())
    text = (one.directory / "blocker.toml").read_text("utf-8")
    text = text.replace(f'origin = "{ZONE}"', f'origin = "{ZONE}"\nrefresh = 1\nretry = 1')
    (one.directory / "blocker.toml").write_text(text, "utf-8")
    one.process.stop()
    key = f"{{blocker:{one.deployment}}}:zone:police"
    begun = int(time.time()) + AHEAD
    store = Redis.from_url(redis.url)
    store.hset(key, mapping={"digest": "of another time", "serial": begun, "rank": 0})
    one.process.start(ready=False)
    other_port = free_port()
    second = tmp_path / "two"
    (second / "lists").mkdir(parents=True)
    (second / "blocker.toml").write_text(text.replace(f"port = {one.zone_port}", f"port = {other_port}", 1), "utf-8")
    shutil.copytree(one.directory / "var" / "keys", second / "var" / "keys")
    other = NodeProcess(
        second, redis_url=redis.url, deployment=one.deployment, gateways__check__port=str(free_port())
    ).start(ready=False)
    assert other.process is not None
    secondary = Secondary(tmp_path / "bind", free_port(), [one.zone_port, other_port])
    ports = (one.zone_port, other_port)
    filler = [f"http://filler{at}.example/" for at in range(200)]

    def publish(name: str) -> None:
        one.push(*filler, f"http://{name}.example/")

    def has(name: str, *at: int) -> bool:
        return all(f"{name}.example" in zone_at(port)[1] for port in at)

    try:
        publish("first")
        until(lambda: {secondary.serial(), *map(serial_at, ports)} == {begun + 1}, BIND_SECONDS)
        # The other one does not see the next version, and the secondary does: it sleeps until there is one, since BIND
        # asks all its primaries as long as none has anything newer, and waits for one that does not answer.
        secondary.process.send_signal(signal.SIGSTOP)
        other.process.send_signal(signal.SIGSTOP)
        publish("second")
        until(lambda: serial_at(one.zone_port) == begun + 2)
        secondary.process.send_signal(signal.SIGCONT)
        until(lambda: secondary.serial() == begun + 2, BIND_SECONDS)
        one.process.kill()
        store.delete(key)
        publish("third")
        other.process.send_signal(signal.SIGCONT)
        until(lambda: has("third", other_port))
        assert serial_at(other_port) > begun + 2, "a serial that somebody has for something else"
        until(lambda: secondary.serial() == serial_at(other_port), BIND_SECONDS)
        assert zone_at(secondary.port, signed=False) == zone_at(other_port)
        # What was behind all the time comes to the same.
        one.process.start(ready=False)
        until(lambda: len({secondary.serial(), *map(serial_at, ports)}) == 1, BIND_SECONDS)
        assert zone_at(secondary.port, signed=False) == zone_at(one.zone_port) == zone_at(other_port)
        # All of it is lost: lists are published anew, with serials that begin anew.
        last = secondary.serial()
        store.flushall()
        publish("fourth")
        until(lambda: has("fourth", *ports))
        until(lambda: len({secondary.serial(), *map(serial_at, ports)}) == 1, BIND_SECONDS)
        assert zone_at(secondary.port, signed=False) == zone_at(one.zone_port) == zone_at(other_port)
        assert secondary.serial() > last
        # A copy of the store from before takes its place, which knows an earlier version and its serial.
        earlier: dict[Any, Any] = store.hgetall(key)
        publish("fifth")
        until(lambda: has("fifth", *ports))
        until(lambda: len({secondary.serial(), *map(serial_at, ports)}) == 1, BIND_SECONDS)
        last = secondary.serial()
        store.hset(key, mapping=earlier)
        until(
            lambda: len(found := {secondary.serial(), *map(serial_at, ports)}) == 1 and min(found) > last, BIND_SECONDS
        )
        assert zone_at(secondary.port, signed=False) == zone_at(one.zone_port) == zone_at(other_port)
        assert "fifth.example" in zone_at(one.zone_port)[1]
    finally:
        secondary.close()
        other.process.send_signal(signal.SIGCONT)
        for process in (one.process, other):
            process.__exit__(None, None, None)
        store.close()
