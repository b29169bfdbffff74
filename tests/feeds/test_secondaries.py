"""What is said of secondaries: never that one is in step which does not have the version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dns.rrset
import pytest

from blocker.feeds.tally import REFUSALS, Standing
from blocker.feeds.zone_metrics import ZoneCounts
from tests.feeds.support import KEYRING, ORIGIN, Primary, plan, query, version

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDARY = "192.0.2.53"
FIRST = 1_795_827_600


class Watched(Primary):
    """A primary, its one secondary, and what is said of it."""

    def __init__(self) -> None:
        super().__init__(plan(secondaries=[{"address": SECONDARY, "key": "resolver"}]))
        self.serial = FIRST
        self.next()

    def next(self) -> None:
        """Publish another version, an hour later."""
        self.serial += 3600
        self.publish(version(self.served.plan, self.serial, [f"http://b{self.serial}.example/"]))

    async def look(self) -> None:
        await self.ask(query("SOA"), tcp=False, peer=SECONDARY)

    async def take(self, known: int | None = None, *, tcp: bool = True) -> None:
        """Have the zone sent, from a version on."""
        asked = query("AXFR" if known is None else "IXFR", key=None)
        if known is not None:
            asked.authority = [dns.rrset.from_text(ORIGIN, 0, "IN", "SOA", f"ns. mail. {known} 1 1 1 1")]
        asked.use_tsig(KEYRING)
        await self.ask(asked, tcp=tcp, peer=SECONDARY)

    def said(self) -> tuple[str, float | None]:
        """State and lag, as they are scraped."""
        samples = [one for family in ZoneCounts(lambda: [self.served]).collect() for one in family.samples]
        lags = [one.value for one in samples if one.name == "blocker_zone_secondary_lag"]
        states = [one for one in samples if one.name == "blocker_zone_secondary_state"]
        assert {one.labels["state"] for one in states} == {*Standing}
        (state,) = (one.labels["state"] for one in states if one.value)
        return state, lags[0] if lags else None


async def test_who_only_looks_is_behind_from_the_next_version_on() -> None:
    its = Watched()
    assert its.said() == ("unknown", None)
    await its.look()
    await its.look()
    assert its.said() == ("unknown", None), "it may have it since before this node's start"
    for hours in (1, 2, 3):
        its.next()
        await its.look()
        await its.look()
        assert its.said() == ("behind", 3600 * hours), "TCP does not get through"
    await its.take(its.serial - 3600)
    assert its.said() == ("behind", 3600), "it has said which one it has"


async def test_what_is_sent_counts_when_it_is_not_asked_for_again() -> None:
    its = Watched()
    await its.take()
    await its.look()
    assert its.said() == ("unknown", None), "the look may lead to another transfer"
    await its.look()
    assert its.said() == ("current", 0)
    its.next()
    assert its.said() == ("behind", 3600)
    for _ in range(5):  # a secondary that rejects what it gets: it looks, and takes it again
        await its.look()
        await its.take(its.serial - 3600)
        await its.look()
        await its.take()
        assert its.said() == ("behind", 3600)
    await its.look()
    await its.look()
    assert its.said() == ("current", 0)


async def test_who_names_what_it_was_sent_has_it() -> None:
    its = Watched()
    await its.take()
    for tcp in (True, False):
        await its.take(its.serial, tcp=tcp)
        assert its.said() == ("current", 0)
    its.next()
    await its.take(its.serial - 3600)
    its.next()  # the next one comes before it has looked
    await its.take(its.serial - 3600)
    assert its.said() == ("behind", 3600)
    await its.take(its.serial)
    assert its.said() == ("current", 0)


@pytest.mark.parametrize("ask", [Watched.take, lambda its: its.take(0, tcp=True)])
async def test_who_takes_a_zone_again_and_again_does_not_have_it(ask: Callable[[Watched], Any]) -> None:
    its = Watched()
    for at in range(REFUSALS + 1):
        await its.look()
        await ask(its)
        assert its.said()[0] != "current", at
    assert its.said()[0] == "behind"


async def test_a_question_by_datagram_that_names_an_older_version_is_no_look() -> None:
    its = Watched()
    await its.take(FIRST)
    for _ in range(3):
        await its.take(FIRST, tcp=False)
        assert its.said() == ("behind", 3600)


async def test_a_serial_from_elsewhere_is_ahead_and_not_in_step() -> None:
    its = Watched()
    await its.take(2_026_112_801)
    assert its.said() == ("ahead", None)
    its.next()
    await its.look()
    assert its.said() == ("ahead", None)
    await its.take()
    await its.look()
    await its.look()
    assert its.said() == ("current", 0), "its file was deleted"
