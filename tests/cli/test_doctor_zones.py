"""What `doctor` says of secondaries, from what a node's metrics say of them."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, generate_latest

from blocker.cli.doctor_feeds import Figures, Finding, _secondary
from blocker.feed_section import SecondarySettings
from blocker.feeds.tally import Contact
from blocker.feeds.zone_metrics import ZoneCounts
from tests.feeds.support import Primary, plan, version

SERIAL = 1_795_827_600
ITS = SecondarySettings.model_validate({"address": "192.0.2.53"})


def said(contact: Contact, *, built: float = 1000, shared: bool = False, notify: bool = True) -> Finding:
    """The finding about a secondary, of a version made so many seconds ago."""
    its = ITS.model_copy(update={"notify": notify})
    primary = Primary(plan(secondaries=[its.model_dump()]))
    primary.publish(version(primary.served.plan, SERIAL, ["http://b.example/"]))
    tally = primary.served.tally
    tally.contacts = dict.fromkeys(tally.contacts, contact)
    tally.built = time.time() - built
    registry = CollectorRegistry()
    registry.register(ZoneCounts(lambda: [primary.served]))
    figures = Figures(generate_latest(registry).decode())
    found = _secondary("police", its, 60, figures, 5354, shared=shared)
    assert found.what == "secondary 192.0.2.53:53 of police"
    return found


def contact(serial: int | None = SERIAL, asked: float | None = 5, heard: float | None = 999, again: int = 0) -> Contact:
    """A secondary that asked and acknowledged a notice so many seconds ago."""
    now = time.time()
    return Contact(
        asked=None if asked is None else now - asked, serial=serial, again=again,
        heard=None if heard is None else now - heard,
    )  # fmt: skip


def test_a_secondary_that_has_the_version() -> None:
    assert said(contact()) == ("secondary 192.0.2.53:53 of police", "ok", "asked 5 s ago, 0 behind")
    assert said(contact(serial=None)).detail == "asked 5 s ago, its version shows with the next one"
    assert said(contact(serial=None)).state == "ok"


def test_a_secondary_that_does_not() -> None:
    behind = said(contact(serial=SERIAL - 3600))
    assert behind.state == "warn"
    assert behind.detail.startswith("3600 behind: it asks, and gets no transfer: allow TCP port 5354; or ")
    assert said(contact(serial=SERIAL - 3600), built=30).state == "ok", "it has time"
    assert said(contact(serial=None, again=3)).detail.startswith("behind: it asks")
    ahead = said(contact(serial=2_026_112_801))
    assert ahead.state == "fail"
    assert "delete the zone's file at the secondary" in ahead.detail
    assert said(contact(asked=500)).detail == "last asked 500 s ago, though it should every 60 s: is it there?"


def test_a_secondary_that_hears_nothing() -> None:
    for heard in (None, 1001):
        deaf = said(contact(heard=heard))
        assert (deaf.state, "`notify = false`" in deaf.detail) == ("warn", True)
        assert said(contact(heard=heard), notify=False).state == "ok"
        assert said(contact(heard=heard), built=30).state == "ok", "it has time"


def test_a_secondary_that_never_came() -> None:
    never = contact(serial=None, asked=None)
    assert said(never, built=30).detail == "has not come yet; it has time"
    alone = said(never)
    assert (alone.state, alone.detail[:10]) == ("warn", "never came")
    assert said(never, shared=True).state == "ok", "other nodes are primaries too, and it acknowledges notices"
    silent = contact(serial=None, asked=None, heard=None)
    assert said(silent, shared=True).state == "warn"
    assert said(silent, shared=True, notify=False).state == "ok"
