"""Names whose servers fail, through real look-ups: they keep neither places nor addresses of others for ever, and an
outage of the resolvers changes nothing. The clock is the test's, so that days pass at once."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address
from typing import TYPE_CHECKING

import dns.message
import dns.rdatatype

from blocker.feeds import route_state
from blocker.feeds.lookups import Lookups, Pace, _Entry
from blocker.feeds.resolve import Resolvers
from blocker.feeds.routes import Limits, Reason, RouteTable
from blocker.store.sealing import Sealer
from tests.gateways.dns_upstream import reply, upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from blocker.feeds.resolve import Answer, Failing
    from tests.gateways.dns_upstream import Upstream

HOUR, DAY = 3600.0, 86_400.0
SEALER = Sealer(bytes(32))
LISTED, OTHER = "listed.example", "other.example"


class Source:
    """A resolver and the zones behind it: what it says of a name's A and AAAA records; nothing said is a failure."""

    def __init__(self) -> None:
        self.says: dict[tuple[str, str], Sequence[str]] = {(OTHER, "A"): ["11.9.9.9"], (OTHER, "AAAA"): []}
        self.out = False
        self.address = ""

    def site(
        self, a: Sequence[str] | None, aaaa: Sequence[str] | None = None, https: Sequence[str] | None = None
    ) -> None:
        """Where the listed name is; None for a family, or HTTPS records, that fail."""
        for kind, addresses in (("A", a), ("AAAA", aaaa), ("HTTPS", https)):
            self.says.pop((LISTED, kind), None)
            if addresses is not None:
                self.says[LISTED, kind] = addresses

    def behave(self, _upstream: Upstream, asked: dns.message.QueryMessage, _stream: bool) -> list[bytes]:
        question = asked.question[0]
        kind = dns.rdatatype.to_text(question.rdtype)
        said = self.says.get((question.name.to_text(omit_final_dot=True), kind))
        if said is None or self.out:
            return [reply(asked, rcode="SERVFAIL").to_wire()]
        return [reply(asked, *(f"300 {kind} {address}" for address in said)).to_wire()]


class World:
    """Sources, the look-ups that ask them, and the routes that come of it."""

    def __init__(self, sources: Sequence[Source], table: RouteTable) -> None:
        self.now = 0.0
        self.table = table
        self.sources = sources
        self._failing: dict[str, Failing] = {OTHER: {}, LISTED: {}}
        self._begin()
        table.listed(self._failing, 0.0)

    async def restart(self, directory: Path) -> None:
        """A node's end and the beginning of another."""
        failed = {name: self.resolvers.failed_for(failing) for name, failing in self._failing.items()}
        await route_state.StateFile(directory / "state", SEALER, self.table).save(failed.items(), self.now)
        await self.resolvers.close()
        loaded = route_state.load(directory / "state", SEALER, self.now)
        assert loaded is not None
        known, self._failing = loaded
        self.table = RouteTable(self.table._limits)
        self.table.restore(*known)
        self._begin()

    def _begin(self) -> None:
        servers = [one.address for one in self.sources]
        self.resolvers = Resolvers(servers, seconds=15.0, tries=2, give_up_seconds=DAY, clock=lambda: self.now)
        self.table.popular_known = True

    async def wait(self, seconds: float) -> None:
        """Let time go by, in hours, at each of which both names are looked up."""
        end = self.now + seconds
        while self.now < end:
            self.now += min(HOUR, end - self.now)
            for name, failing in self._failing.items():
                answer = await self.resolvers.look_up(name, failing)
                if answer is not None:
                    self.table.answered(name, answer.addresses, self.now, complete=answer.complete)
            self.table.step(self.now)

    @property
    def routed(self) -> set[str]:
        """The routes, without the other name's."""
        return {str(address) for address in self.table.announced} - {"11.9.9.9"}


@contextlib.asynccontextmanager
async def world(count: int = 1, **limits: float) -> AsyncIterator[World]:
    sources = [Source() for _ in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        for one in sources:
            one.address = f"127.0.0.1:{(await stack.enter_async_context(upstream(one.behave))).port}"
        made = World(sources, RouteTable(Limits(**limits)))  # type: ignore[arg-type]  # whole numbers are floats too
        try:
            yield made
        finally:
            await made.resolvers.close()


async def test_a_family_that_always_fails_keeps_no_address_of_the_other() -> None:
    async with world(per_host=2) as made:
        (source,) = made.sources
        source.site(["11.0.0.1", "11.0.0.2"])
        await made.wait(HOUR)
        source.site(["11.0.0.3"])
        await made.wait(HOUR)
        assert made.routed == {"11.0.0.1", "11.0.0.2"}
        assert made.table.reason(ip_address("11.0.0.3"), LISTED) is Reason.HOST_LIMIT, "for slot_seconds"
        await made.wait(HOUR)
        assert "11.0.0.3" in made.routed
        await made.wait(DAY)
        assert made.routed == {"11.0.0.3"}, "where it was a third party may be by now"


async def test_a_family_that_fails_for_ever_is_given_up() -> None:
    async with world() as made:
        (source,) = made.sources
        source.site(["11.0.0.1"], ["2a00::1"])
        await made.wait(HOUR)
        source.site(["11.0.0.1"], None)
        await made.wait(DAY)
        await made.wait(DAY)
        assert made.routed == {"11.0.0.1", "2a00::1"}, "a day until it is given up, and the hold-down"
        await made.wait(2 * HOUR)
        assert made.routed == {"11.0.0.1"}
        assert made.table.names[LISTED].absent is None
        source.site(["11.0.0.1"], ["2a00::1"])
        await made.wait(HOUR)
        assert made.routed == {"11.0.0.1", "2a00::1"}


async def test_a_name_that_fails_for_days_is_nowhere_while_others_are_answered() -> None:
    async with world() as made:
        (source,) = made.sources
        source.site(["11.0.0.1"], [])
        await made.wait(HOUR)
        source.site(None)
        await made.wait(DAY)
        assert made.table.names[LISTED].absent is None
        await made.wait(2 * HOUR)
        assert made.table.names[LISTED].absent == HOUR + DAY + HOUR
        await made.wait(DAY)
        assert made.routed == set()
        source.site(["11.0.0.2"])
        await made.wait(HOUR)
        assert made.routed == {"11.0.0.2"}
        assert made.table.names[LISTED].absent is None


async def test_a_name_that_fails_is_given_up_however_often_the_node_is_restarted(tmp_path: Path) -> None:
    async with world() as made:
        (source,) = made.sources
        source.site(["11.0.0.1"], [])
        await made.wait(HOUR)
        source.site(None)
        for _ in range(6):
            await made.wait(4 * HOUR)
            assert made.table.names[LISTED].absent is None
            await made.restart(tmp_path)
        await made.wait(2 * HOUR)
        assert made.table.names[LISTED].absent == HOUR + DAY + HOUR
        # What answers again has failed for no time.
        source.site(["11.0.0.1"], [])
        await made.wait(HOUR)
        await made.restart(tmp_path)
        source.site(None)
        await made.wait(0.9 * DAY)
        assert made.table.names[LISTED].absent is None


async def test_a_popular_name_that_fails_is_never_given_up() -> None:
    """Its addresses are a third party's, whatever its servers do."""
    async with world() as made:
        (source,) = made.sources
        answers: dict[str, Answer | None] = {}
        lookups: Lookups[str] = Lookups(made.resolvers, Pace(), answers.__setitem__)
        lookups.want({LISTED: LISTED})
        entry = lookups._entries[LISTED]
        source.site(None)
        for _ in range(10):
            await made.wait(0.5 * DAY)
            await lookups._look(entry)
            assert answers == {LISTED: None}
        source.site(["11.0.0.1"])
        await lookups._look(entry)
        await made.wait(3 * DAY)
        await lookups._look(entry)
        answer = answers[LISTED]
        assert answer is not None
        assert answer.complete == {4}, "what its other family had stays"
        assert not list(lookups.failed())


async def test_a_name_that_answers_now_and_then_is_not_given_up() -> None:
    async with world() as made:
        (source,) = made.sources
        source.site(["11.0.0.1"], [])
        await made.wait(HOUR)
        for _ in range(5):
            source.site(None)
            await made.wait(0.9 * DAY)
            source.site(["11.0.0.1"], [])
            await made.wait(HOUR)
        seen = made.table.names[LISTED]
        assert (seen.absent, [one.gone for one in seen.at.values()]) == (None, [None])


async def test_an_outage_of_the_resolvers_changes_nothing_however_long_and_its_end_neither() -> None:
    async with world() as made:
        (source,) = made.sources
        source.site(["11.0.0.1"], ["2a00::1"])
        await made.wait(HOUR)
        before = made.table.names[LISTED]
        source.out = True
        await made.wait(30 * DAY)
        assert made.routed == {"11.0.0.1", "2a00::1"}
        # It comes back, and other names are answered sooner than this one.
        source.out = False
        source.site(None)
        await made.wait(0.5 * DAY)
        assert made.table.names[LISTED] == before
        source.site(["11.0.0.1"], ["2a00::1"])
        await made.wait(3 * DAY)
        assert made.routed == {"11.0.0.1", "2a00::1"}
        assert made.table.names[LISTED].at == before.at


async def test_outages_again_and_again_do_not_add_up_while_a_name_is_answered() -> None:
    async with world() as made:
        (source,) = made.sources
        source.site(["11.0.0.1"], ["2a00::1"])
        for _ in range(30):
            source.out = False
            await made.wait(HOUR)
            source.out = True
            await made.wait(0.9 * DAY)
        assert made.routed == {"11.0.0.1", "2a00::1"}


async def test_where_https_records_led_is_held_when_they_fail_and_they_keep_nothing_else() -> None:
    async with world(per_host=2) as made:
        (source,) = made.sources
        source.site(["11.0.0.1"], [], ["1 . ipv4hint=11.0.0.2"])
        await made.wait(HOUR)
        assert made.routed == {"11.0.0.1", "11.0.0.2"}
        source.site(["11.0.0.3"], [])
        await made.wait(2 * HOUR)
        assert "11.0.0.3" in made.routed, "a place is free for it, since the failure is no reason to keep one"
        assert len(made.routed) == 2
        await made.wait(DAY)
        assert made.routed == {"11.0.0.3"}
        source.site(["11.0.0.3"], [], ["1 . ipv4hint=11.0.0.2"])
        await made.wait(HOUR)
        assert made.routed == {"11.0.0.3", "11.0.0.2"}


async def test_what_one_resolver_never_answers_is_what_the_others_say() -> None:
    """One of them validates, and the name's signatures are broken: it fails for ever."""
    async with world(2) as made:
        first, second = made.sources
        for source in (first, second):
            source.site(["11.0.0.1"], [])
        await made.wait(HOUR)
        first.site(["11.0.0.2"], [])
        second.site(None)
        await made.wait(DAY)
        assert made.routed == {"11.0.0.1", "11.0.0.2"}, "it may be what the other would have said"
        await made.wait(DAY + 2 * HOUR)
        assert made.routed == {"11.0.0.2"}


async def test_a_resolver_that_is_out_gives_nothing_up_and_one_that_answers_does() -> None:
    async with world(2) as made:
        first, second = made.sources
        for source in (first, second):
            source.site(["11.0.0.1"], [])
        await made.wait(HOUR)
        second.out = True
        first.site(["11.0.0.2"], [])
        await made.wait(0.9 * DAY)
        assert made.routed == {"11.0.0.1", "11.0.0.2"}
        second.out = False
        await made.wait(10 * DAY)
        assert made.routed == {"11.0.0.1", "11.0.0.2"}, "the second still says the first address"


async def test_a_name_that_fails_is_asked_for_more_and_more_seldom_but_in_an_outage_every_minute() -> None:
    async with world() as made:
        lookups: Lookups[str] = Lookups(made.resolvers, Pace(least=60.0, most=3600.0), lambda *_: None)

        def waits(*failures: int) -> list[int]:
            """Seconds until the next look after so many failures, without the tenth that spreads them."""
            waited = [lookups._wait(_Entry("", LISTED, failures=count), None) for count in failures]
            return [max(one for one in (2, 4, 60, 64, 128, 2048, 3600) if one <= wait <= 1.1 * one) for wait in waited]

        await made.wait(HOUR)
        assert waits(1, 2, 7, 11, 12, 16) == [2, 4, 128, 2048, 3600, 3600]
        made.now += 59.0
        assert waits(12) == [3600]
        made.now += 1.0
        assert {*waits(7, 11, 12, 16)} <= {60, 64}
        await made.wait(HOUR)
        assert waits(12) == [3600]
