"""The zones' metrics: names, labels, and for how long a secondary has been behind, whatever serials do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from blocker.feed_section import SecondarySettings
from blocker.feeds import tally, zone_metrics
from blocker.feeds.tally import Failure, Notice, Sent, Transport
from blocker.feeds.zone_metrics import ZoneCounts
from tests.feeds.support import query, version
from tests.feeds.test_transfer import primary, soa
from tests.hits.support import Clock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.feeds.support import Primary

SECONDARY = "192.0.2.7:53"
DAY = 86_400
# Metric, with its suffix → labels and their values.
CONTRACT: Mapping[str, Mapping[str, Sequence[str]]] = {
    "blocker_zone_records": {"zone": ["police"]},
    "blocker_zone_left_out_rules": {"zone": ["police"], "reason": ["address", "digest", "name"]},
    "blocker_zone_build_age_seconds": {"zone": ["police"]},
    "blocker_zone_check_age_seconds": {"zone": ["police"]},
    "blocker_zone_refresh_seconds": {"zone": ["police"]},
    "blocker_zone_expire_seconds": {"zone": ["police"]},
    "blocker_zone_history_versions": {"zone": ["police"]},
    "blocker_zone_tsig_keys": {"zone": ["police"]},
    "blocker_zone_certificate_expiry_seconds": {},
    "blocker_zone_transfers_total": {
        "zone": ["police"],
        "question": ["axfr", "ixfr"],
        "sent": [*Sent],
        "transport": [*Transport],
    },
    "blocker_zone_transfer_bytes_total": {"zone": ["police"], "question": ["axfr", "ixfr"]},
    "blocker_zone_failures_total": {"zone": ["police"], "reason": [*Failure]},
    "blocker_zone_notices_total": {"zone": ["police"], "result": [*Notice]},
    "blocker_zone_secondary_lag": {"zone": ["police"], "secondary": [SECONDARY]},
    "blocker_zone_secondary_behind_seconds": {"zone": ["police"], "secondary": [SECONDARY]},
    "blocker_zone_secondary_age_seconds": {"zone": ["police"], "secondary": [SECONDARY]},
    "blocker_zone_secondary_expected_seconds": {"zone": ["police"], "secondary": [SECONDARY]},
    "blocker_zone_secondary_state": {"zone": ["police"], "secondary": [SECONDARY], "state": [*tally.Standing]},
}
SETTINGS = SecondarySettings.model_validate({"address": "192.0.2.7"})


ASKED: dict[str, Any] = {
    "networks": ["192.0.2.0/24"],
    "secondaries": [{"address": "192.0.2.7"}],
    "refresh": 300,
    "expire": 7200,
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(1_700_000_000.0)
    monkeypatch.setattr(tally, "time", SimpleNamespace(time=made))
    monkeypatch.setattr(zone_metrics, "time", SimpleNamespace(time=made))
    return made


def shown(its: Primary) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by metric and labels."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for metric in ZoneCounts(lambda: [its.served]).collect():
        for sample in metric.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def secondary(its: Primary, what: str) -> float | None:
    return shown(its).get(f"blocker_zone_secondary_{what}", {}).get(("police", SECONDARY))


async def asks(its: Primary, has: int | None) -> None:
    """The secondary looks, and says what it has, if anything."""
    asked = query("SOA" if has is None else "IXFR", key=None)
    if has is not None:
        asked.authority = [soa(has)]
    await its.ask(asked, tcp=False, peer="192.0.2.7")


async def test_names_and_labels_are_the_documented_ones(clock: Clock) -> None:
    its = primary(**ASKED)
    its.served.tally.built = its.served.tally.checked = clock.now
    await asks(its, 7)
    seen: dict[str, Mapping[str, set[str]]] = {}
    for metric in ZoneCounts(lambda: [its.served], lambda: clock.now + DAY).collect():
        for sample in metric.samples:
            of = seen.setdefault(sample.name, {label: set() for label in sample.labels})
            for label, value in sample.labels.items():
                of[label].add(value)
    assert seen == {name: {label: set(values) for label, values in of.items()} for name, of in CONTRACT.items()}
    assert all(f"`{name}`" in (zone_metrics.__doc__ or "") for name in CONTRACT)
    found = shown(its)
    assert found["blocker_zone_refresh_seconds"] == {("police",): 300}
    assert found["blocker_zone_expire_seconds"] == {("police",): 7200}


async def test_for_how_long_a_secondary_is_behind_is_time_and_not_serials(clock: Clock) -> None:
    its = primary(**ASKED)
    clock.now += 50
    assert (secondary(its, "behind_seconds"), secondary(its, "age_seconds")) == (None, None)
    assert secondary(its, "expected_seconds") == 50
    await asks(its, None)
    assert secondary(its, "behind_seconds") is None, "it does not say what it has"
    await asks(its, 7)
    clock.now += 1000
    assert secondary(its, "behind_seconds") == 0
    its.publish(version(its.served.plan, 7 + DAY, ["http://c.example/"]))  # as after a store that forgot
    clock.now += 10
    assert (secondary(its, "behind_seconds"), secondary(its, "lag")) == (10, DAY)
    its.publish(version(its.served.plan, 8 + DAY, ["http://d.example/"]))
    clock.now += 10
    await asks(its, 7)
    await asks(its, None)
    assert (secondary(its, "behind_seconds"), secondary(its, "age_seconds")) == (20, 0), "since the first it lacks"
    await asks(its, 7 + DAY)
    assert secondary(its, "behind_seconds") == 20
    await asks(its, 8 + DAY)
    assert secondary(its, "behind_seconds") == 0
    clock.now += 500
    assert (secondary(its, "behind_seconds"), secondary(its, "age_seconds")) == (0, 500)


async def test_one_that_was_behind_at_the_start_is_so_since_it_said_so_and_a_transfer_ends_it(clock: Clock) -> None:
    its = primary(**ASKED)
    await asks(its, 3)
    clock.now += 40
    assert secondary(its, "behind_seconds") == 40
    await its.ask(query("AXFR", key=None), peer="192.0.2.7")
    await asks(its, 7)
    assert (secondary(its, "behind_seconds"), secondary(its, "lag")) == (0, 0)
    await asks(its, 9)
    assert secondary(its, "behind_seconds") is None, "it has another node's, or one of nobody's: it is ahead"
    assert shown(its)["blocker_zone_secondary_state"]["police", SECONDARY, "ahead"] == 1


async def test_secondaries_that_are_configured_anew_are_looked_out_for_since_then(clock: Clock) -> None:
    its = primary(**ASKED)
    clock.now += 100
    its.served.tally.expect([SETTINGS, SETTINGS.model_copy(update={"port": 5353})])
    clock.now += 1
    expected = shown(its)["blocker_zone_secondary_expected_seconds"]
    assert expected == {("police", SECONDARY): 101, ("police", "192.0.2.7:5353"): 1}
