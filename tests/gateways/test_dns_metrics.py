"""What is told of the forwarding side of the `dns` gateway: upstreams, questions, what waits and is kept, refusals."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from blocker.gateways import dns_load, dns_metrics
from blocker.gateways.dns import DnsListener
from blocker.gateways.dns_load import DnsCounts, DnsRoom, added
from blocker.gateways.dns_metrics import DnsFamilies
from blocker.gateways.upstream_watch import UpstreamState, UpstreamWatch
from blocker.sections import DnsSettings
from tests.gateways.dns_desk import LOOPBACK, DnsDesk, query
from tests.gateways.dns_running import ask, running
from tests.gateways.dns_upstream import Upstream, address, reply, upstream
from tests.gateways.test_dns_forwarding import failing, silent
from tests.gateways.test_http_codec import Desk
from tests.hits.support import Clock
from tests.ingest.checks import until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dns.message import QueryMessage

    from tests.gateways.dns_upstream import Behaviour

ONE, TWO = "192.0.2.53", "[2001:db8::53]:5300"
UPSTREAMS = {ONE, TWO}
# Metric → kind, labels and their values.
CONTRACT: Mapping[str, tuple[str, Mapping[str, set[str]]]] = {
    "blocker_dns_upstream_up": ("gauge", {"upstream": UPSTREAMS}),
    "blocker_dns_upstream_seconds": ("gauge", {"upstream": UPSTREAMS}),
    "blocker_dns_upstream_probes": ("counter", {"upstream": UPSTREAMS, "result": {"answered", "failed", "silent"}}),
    "blocker_dns_upstream_failing_share": (
        "gauge", {"upstream": UPSTREAMS, "reason": {"silent", "failed", "stranger"}},
    ),
    "blocker_dns_questions_share": ("gauge", {"answer": {"stale", "failed", "none"}}),
    "blocker_dns_waiting": ("gauge", {}),
    "blocker_dns_waiting_limit": ("gauge", {}),
    "blocker_dns_cache_entries": ("gauge", {}),
    "blocker_dns_cache_bytes": ("gauge", {}),
    "blocker_dns_cache_limit_bytes": ("gauge", {}),
    "blocker_dns_datagrams_refused": ("counter", {"reason": {"stranger", "slipped", "dropped"}}),
}  # fmt: skip


class Host:
    """Workers that a test makes up."""

    def __init__(self) -> None:
        self.said: list[DnsCounts] = []
        self.has: list[DnsRoom] = []

    def rooms(self) -> Iterable[DnsRoom]:
        return self.has

    def take_dns(self) -> Iterable[DnsCounts]:
        said, self.said = self.said, []
        return said


class Told:
    """The metrics of a gateway, of which minutes pass when the test says so."""

    def __init__(self, listener: DnsListener, host: Host | None = None) -> None:
        self.clock = Clock(1000.0)
        self.host = host or Host()
        self.watch = UpstreamWatch(lambda: listener.settings)
        self.families = DnsFamilies(listener, self.host, self.watch, workers=host is not None, clock=self.clock)

    def text(self) -> str:
        return "".join(family.text() for family in self.families.families())

    def now(self) -> dict[tuple[str, ...], float]:
        return {row: value for family in self.families.families() for row, value in family.rows}

    def after_a_minute(self) -> dict[tuple[str, ...], float]:
        self.clock.now += dns_metrics.WINDOW_SECONDS
        return self.now()


def unheard(**more: object) -> DnsListener:
    """A gateway that does not listen."""
    return DnsListener(Desk().engine, DnsSettings.model_validate({"upstreams": [ONE, TWO], **more}))


@pytest.fixture
def all_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every question is looked at."""
    monkeypatch.setattr(dns_load, "ONE_IN", 1)
    monkeypatch.setattr(dns_metrics, "ONE_IN", 1)


def test_names_kinds_and_labels_are_the_documented_ones() -> None:
    told = Told(unheard())
    for text in UPSTREAMS:
        told.watch.states[text] = UpstreamState()
        told.watch.states[text].found("answered", 0.0123)
    families = {family.name: family for family in told.families.families()}
    assert {name: family.kind for name, family in families.items()} == {n: kind for n, (kind, _) in CONTRACT.items()}
    for name, family in families.items():
        assert family.labels == tuple(CONTRACT[name][1])
        for (_, *labels), _value in family.rows:
            assert all(one in known for one, known in zip(labels, CONTRACT[name][1].values(), strict=True))
        assert family.rows, name
        assert f"`{name}{'_total' if family.kind == 'counter' else ''}`" in (dns_metrics.__doc__ or "")
    assert told.now()["blocker_dns_upstream_seconds", ONE] == 0.015, "in steps of 5 ms"


@pytest.mark.usefixtures("all_drawn")
async def test_an_outage_is_seen_within_a_minute_and_its_end_too() -> None:
    behaviour: list[Behaviour] = [silent]
    async with (
        upstream(lambda *asked: behaviour[0](*asked)) as one,
        running(one, cache_bytes=0, upstream_seconds=0.1) as listener,
    ):
        told, name = Told(listener), f"127.0.0.1:{one.port}"
        await asyncio.gather(*(ask(listener, f"{number}.example") for number in range(20)))
        assert told.now()["blocker_dns_questions_share", "none"] == 0, "the minute is not over"
        found = told.after_a_minute()
        assert found["blocker_dns_questions_share", "none"] == 1
        assert found["blocker_dns_upstream_failing_share", name, "silent"] == 1
        assert found["blocker_dns_upstream_failing_share", name, "failed"] == 0
        behaviour[0] = address
        listener.configure(listener.settings.model_copy(update={"upstream_seconds": 20.0}))
        await asyncio.gather(*(ask(listener, f"{number}.example", tcp=number % 2 == 0) for number in range(20)))
        found = told.after_a_minute()
        assert {found["blocker_dns_questions_share", fate] for fate in dns_metrics.FATES} == {0}
        assert {found["blocker_dns_upstream_failing_share", name, why] for why in dns_metrics.REASONS} == {0}


@pytest.mark.usefixtures("all_drawn")
async def test_failures_strangers_and_late_answers_are_told_apart() -> None:
    def forging(one: Upstream, asked: QueryMessage, stream: bool) -> list[bytes]:
        forged = reply(asked, "300 A 203.0.113.66")
        forged.id ^= 1
        return [forged.to_wire(), *address(one, asked, stream)]

    async with (
        upstream(failing) as one,
        upstream(forging) as two,
        running(one, two, cache_bytes=0) as listener,
    ):
        told = Told(listener)
        for number in range(20):
            await ask(listener, f"{number}.example", tcp=number % 2 == 0)
        found = told.after_a_minute()
        shares = {key[1:]: value for key, value in found.items() if key[0] == "blocker_dns_upstream_failing_share"}
        first, second = (f"127.0.0.1:{other.port}" for other in (one, two))
        assert shares == {
            (first, "silent"): 0, (first, "failed"): 1, (first, "stranger"): 0,
            (second, "silent"): 0, (second, "failed"): 0, (second, "stranger"): 1,
        }  # fmt: skip
        assert {found["blocker_dns_questions_share", fate] for fate in dns_metrics.FATES} == {0}, "all were answered"
    behaviour = [lambda _one, asked, _stream: [reply(asked, "1 A 192.0.2.1").to_wire()]]
    async with (
        upstream(lambda *asked: behaviour[0](*asked)) as one,
        running(one, stale_seconds=3600) as listener,
    ):
        told = Told(listener)
        await asyncio.gather(*(ask(listener, f"{number}.example") for number in range(8)))
        told.after_a_minute()
        behaviour[0] = failing
        stale = told.now()
        while not stale["blocker_dns_questions_share", "stale"]:
            # Their second is over at some time, and a failure is kept for five.
            await asyncio.gather(*(ask(listener, f"{number}.example", tcp=True) for number in range(8)))
            await ask(listener, "never.example")
            stale = told.after_a_minute()
        assert stale["blocker_dns_questions_share", "failed"] <= stale["blocker_dns_questions_share", "stale"]


@pytest.mark.usefixtures("all_drawn")
async def test_what_waits_is_the_most_at_once_in_steps_and_what_is_kept_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with upstream(address) as one, running(one, max_waiting=200, cache_bytes=2**21) as listener:
        told = Told(listener)
        one.go.clear()
        asking = [asyncio.create_task(ask(listener, f"{number}.example")) for number in range(150)]
        await until(lambda: listener.forwarder.waiting == 150)
        one.go.set()
        await asyncio.gather(*asking)
        monkeypatch.setattr(dns_metrics._random, "randrange", lambda step: step - 1)
        found = told.after_a_minute()
        assert found["blocker_dns_waiting",] == 128
        assert found["blocker_dns_waiting_limit",] == 200
        assert listener.service.kept == 150
        assert 150 * 300 < listener.service.kept_bytes < 150 * 1000
        assert (found["blocker_dns_cache_entries",], found["blocker_dns_cache_bytes",]) == (1024, 2**20)
        assert found["blocker_dns_cache_limit_bytes",] == 2**21
        monkeypatch.setattr(dns_metrics._random, "randrange", lambda _step: 0)
        found = told.after_a_minute()
        assert (found["blocker_dns_waiting",], found["blocker_dns_cache_bytes",]) == (0, 0)


@pytest.mark.usefixtures("all_drawn")
async def test_questions_over_the_limit_are_among_those_that_nobody_answers() -> None:
    async with upstream(address) as one, running(one, max_waiting=1) as listener:
        told = Told(listener)
        one.go.clear()
        first = asyncio.create_task(ask(listener, "first.example"))
        await until(lambda: listener.forwarder.waiting == 1)
        for number in range(19):
            await ask(listener, f"{number}.example")
        one.go.set()
        await first
        assert told.after_a_minute()["blocker_dns_questions_share", "none"] == 0.95


def test_datagrams_of_strangers_and_over_the_rate_are_counted_by_what_they_got() -> None:
    desk = DnsDesk()
    asked = [query("host.example").to_wire()] * 10
    desk.service.admit([], False, 0)
    desk.by_datagram(*asked)
    assert desk.service.refused == (10, 0, 0)
    desk.service.admit(LOOPBACK, False, 1)  # a second's worth for two
    answers, _ = desk.by_datagram(*asked)
    assert len(answers) == 2 + 4
    assert desk.service.refused == (10, 4, 4)


def test_workers_are_added_up_and_what_one_counted_outlives_it() -> None:
    host = Host()
    told = Told(unheard(), host)
    room = DnsRoom(100, 0, 0, 1000)
    one = DnsCounts({ONE: {"asked": 20, "silent": 20}}, {"none": 20}, 10, [1, 2, 3])
    two = DnsCounts({ONE: {"asked": 20}}, {"answer": 20}, 10, [1, 0, 0])
    host.has, host.said = [room, room], [one, two]
    found = told.now()
    assert (found["blocker_dns_waiting_limit",], found["blocker_dns_cache_limit_bytes",]) == (200, 2000)
    assert [found["blocker_dns_datagrams_refused_total", why] for why in dns_metrics.REFUSALS] == [2, 2, 3]
    host.has = [room]
    found = told.after_a_minute()
    assert found["blocker_dns_upstream_failing_share", ONE, "silent"] == 0.5
    assert found["blocker_dns_questions_share", "none"] == 0.5
    assert found["blocker_dns_waiting",] == 20 * dns_load.ONE_IN // 64 * 64 == 128
    assert found["blocker_dns_waiting_limit",] == 100
    assert [found["blocker_dns_datagrams_refused_total", why] for why in dns_metrics.REFUSALS] == [2, 2, 3]


def test_reports_of_one_process_become_one() -> None:
    one = DnsCounts({ONE: {"asked": 2, "silent": 1}}, {"none": 1}, 3, [1, 0, 2])
    two = DnsCounts({ONE: {"asked": 1}, TWO: {"asked": 1}}, {"none": 1, "stale": 1}, 2, [0, 5, 1])
    assert added([one, two]) == (
        {ONE: {"asked": 3, "silent": 1}, TWO: {"asked": 1}},
        {"none": 2, "stale": 1},
        3,
        [1, 5, 3],
    )


def test_resolvers_are_those_of_the_present_configuration() -> None:
    listener = unheard()
    told = Told(listener)
    told.watch.states[ONE] = UpstreamState()
    told.watch.states[ONE].found("silent", 1.0)
    assert told.now()["blocker_dns_upstream_up", ONE] == 1, "one lost datagram is none"
    told.watch.states[ONE].found("failed", 1.0)
    found = told.now()
    assert (found["blocker_dns_upstream_up", ONE], found["blocker_dns_upstream_probes_total", ONE, "failed"]) == (0, 1)
    assert ("blocker_dns_upstream_seconds", ONE) not in found, "it never answered"
    assert ("blocker_dns_upstream_up", TWO) not in found, "nobody has looked yet"
    listener.configure(listener.settings.model_copy(update={"upstreams": (TWO,)}))
    assert not [key for key in told.now() if ONE in key]
