"""Two real nodes with lists of every kind, a Redis, and a Prometheus that scrapes them and knows weeks before.

- `first` looks at sources, has all gateways in its one process, zones, and routes for a real router. It forwards to
  the dns gateway of `second` and to a resolver that is away; a resolver has its zone. Of its lists `pages` is good
  and has canaries and rules with an end, `broken` is refused, `police` was pushed and its next version waits for a
  second person, `trial` is in shadow mode.
- `second` serves its gateways by two workers and has an older `police`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

from tests.certificates import Authority
from tests.dashboards import past
from tests.dashboards.boards import Window, load
from tests.dashboards.prometheus_server import PrometheusServer, dated, variables
from tests.e2e.node import Node
from tests.e2e.processes import until
from tests.e2e.zone_client import has_looked
from tests.feeds.network import Bird, ExaBgp
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

LISTED = "http://listed.example/gallery/1.jpg"
FREE = "http://free.example/"
SOURCES = {
    "pages": (
        'format = "csv"\ncanaries = ["http://canary.example/page"]\npath = "pages.txt"\ninterval_seconds = 5\n',
        "url,expires\nhttp://canary.example/page,\nhttp://pages.example/a,{ends}\nhttp://pages.example/b,\n",
    ),
    "broken": ('format = "url"\npath = "broken.txt"\n', "no list\nat all\n<html>\n"),
    "trial": ('format = "url"\nmode = "shadow"\npath = "trial.txt"\n', "http://trial.example/\n"),
}  # fmt: skip


class Scene:
    """All of it; a context."""

    def __init__(self, directory: Path) -> None:
        self._stack = contextlib.ExitStack()
        self.redis = self._stack.enter_context(RedisServer(directory / "redis"))
        self.resolver = free_port()  # of the second, which is the first's
        self.zones = free_port()
        self.first = _first(directory / "first", self.redis, self.zones, self.resolver)
        self.second = _second(directory / "second", self.redis, self.resolver)
        for node in (self.first, self.second):
            self._stack.enter_context(node.process)
        self.targets = [f"127.0.0.1:{node.process.port}" for node in (self.first, self.second)]
        router = self._stack.enter_context(Bird(directory))
        self._stack.enter_context(ExaBgp(directory, router, self.first.directory / "var" / "routes.sock"))
        self._fill()
        before = self.first.process.get("/metrics")[1].decode()  # what was a day ago
        self.first.push("http://listed.example/gallery/", *_MANY[:45])
        done = self.first.command("lists", "push", "police", self._file("few", _MANY[:5]), "--publish")
        assert done["status"] == "waiting", done
        self.past_end = int((time.time() - 60) // past.HOUR * past.HOUR)
        history = asyncio.run(self._history(before))
        self.prometheus = self._stack.enter_context(
            PrometheusServer(directory / "prometheus", self.targets, iter(history))
        )
        until(lambda: self.prometheus.scrapes(2) >= 3)
        self._wait_for(
            b'blocker_list_expiry_seconds{list="pages"}', b'blocker_proposals_waiting{list="police"} 1.0',
            b'blocker_list_changed_rules{list="police",change="removed"} 5.0', b'result="refused"} 1.0',
            b"blocker_route_neighbor_up{",
        )  # fmt: skip
        self.scraped()

    def ask(self, count: int) -> None:
        """Have each node decide: so many blocks, as many others, in a second and more."""
        for _ in range(count):
            assert self.first.ask(LISTED) == "block"
            assert self.second.ask(FREE) == "allow"

    def scraped(self, *, more: int = 3) -> None:
        """Wait for scrapes that begin after this."""
        before = self.prometheus.scrapes(2)
        until(lambda: self.prometheus.scrapes(2) >= before + more)

    def window(self, board: str, *, seconds: int = 600) -> Window:
        """The present of a dashboard; of hits, the end of what is known of them."""
        values = variables(self.prometheus, load(board))
        if board == "hits":
            return Window(end=self.past_end + 30, seconds=14 * 86_400, values=values, scrape=15)
        live = {"node": self.targets}
        ends: list[float] = []

        def is_up() -> bool:  # a scrape that took too long leaves nothing to see at that moment
            ends.append(time.time())
            return [float(one.values[0][1]) for one in self.prometheus.instant("up", ends[-1])] == [1, 1]

        until(is_up)
        return Window(end=ends[-1], seconds=seconds, values=values | live, points=seconds)

    def _fill(self) -> None:
        for node in (self.first, self.second):
            node.push("http://listed.example/gallery/", *_MANY)
        ends = (datetime.now(UTC) + timedelta(days=2)).date()
        for name, (source, text) in SOURCES.items():
            (self.first.directory / "lists" / f"{name}.txt").write_text(text.format(ends=ends), "utf-8")
            (self.first.directory / "lists" / f"{name}.toml").write_text(source, "utf-8")
        (self.first.directory / "lists" / "unusable.toml").write_text('format = "nothing"\n', "utf-8")
        self._wait_for(
            *(b'blocker_canary_ok{list="pages",gateway="%s"}' % gateway
              for gateway in (b"check", b"control", b"dns", b"icap", b"spoe")),
            *(b'blocker_list_head_serial{list="%s"}' % name for name in (b"pages", b"police")),
        )  # fmt: skip
        until(lambda: has_looked(self.zones, _ZONE))
        for node, url in ((self.first, LISTED), (self.second, LISTED)):
            until(lambda node=node, url=url: node.ask(url) == "block")  # type: ignore[misc]

    def _wait_for(self, *samples: bytes) -> None:
        """Until the first node tells of all these; what it reads of the store it reads every 15 seconds."""
        until(lambda: all(sample in self.first.process.get("/metrics")[1] for sample in samples))

    async def _history(self, before: str) -> list[str]:
        lines = [line async for line in past.scraped(self.past_end)]
        yesterday = self.past_end - 23 * past.HOUR
        for hour in range(-2, 1):
            lines += dated(before, self.targets[0], yesterday + hour * past.HOUR)
        return lines

    def _file(self, name: str, lines: list[str]) -> str:
        path = self.first.directory / f"{name}.txt"
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return path.name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


_MANY = [f"http://many{number}.example/page" for number in range(50)]
_ZONE = "police.rpz.example."
_PROBE = "bl.second.example"
_CONFIGURATION = """
canary_seconds = 1
[routes]
enabled = true
resolvers = ["127.0.0.1:{nobody}"]
lookup_seconds = 0.2
lookup_tries = 1
filter_probes = ["tcp://127.0.0.1:{zones}"]
[guards]
floor = 10
popular_domains = "popular.csv"
own_networks = ["198.51.100.0/24"]
[gateways.dns]
zone = "bl.isp.example"
upstreams = ["127.0.0.1:{resolver}", "127.0.0.1:{nobody}"]
upstream_probe = "{probe}"
[feeds.rpz]
enabled = true
port = {zones}
tls_port = 0
tls_certificate = "{shown.certificate}"
tls_key = "{shown.key}"
[feeds.rpz.zones.police]
origin = "police.rpz.example"
networks = ["127.0.0.0/8"]
secondaries = [{{ address = "127.0.0.1", port = {secondary} }}]
"""


def _first(directory: Path, redis: RedisServer, zones: int, resolver: int) -> Node:
    directory.mkdir()
    (directory / "popular.csv").write_text("popular.example\n", "utf-8")
    return Node(
        directory, redis,
        _CONFIGURATION.format(
            nobody=free_port(), zones=zones, resolver=resolver, probe=_PROBE, secondary=free_port(),
            shown=Authority(directory / "authority").sign(),
        ),
        node="first", roles=("control", "ingest"),
    )  # fmt: skip


def _second(directory: Path, redis: RedisServer, resolver: int) -> Node:
    directory.mkdir()
    return Node(
        directory, redis, node="second", gateways__workers="2", gateways__dns__zone=_PROBE,
        gateways__dns__port=str(resolver),
    )  # fmt: skip
