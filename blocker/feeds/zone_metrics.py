"""The zones' metrics. Labels are closed: zones and secondaries as configured, and kinds of this program.

| metric                                    | labels               | is                                                |
|-------------------------------------------|----------------------|---------------------------------------------------|
| `blocker_zone_records`                    | zone                 | its records, SOA and NS counted                   |
| `blocker_zone_left_out_rules`             | zone, reason         | rules DNS cannot say: address, digest, name       |
| `blocker_zone_build_age_seconds`          | zone                 | since this node made the version, if it did       |
| `blocker_zone_check_age_seconds`          | zone                 | since it last was what the store has              |
| `blocker_zone_refresh_seconds`            | zone                 | after which a secondary looks again (SOA)         |
| `blocker_zone_expire_seconds`             | zone                 | after which one that reaches nobody drops it      |
| `blocker_zone_history_versions`           | zone                 | earlier versions that can be had as differences   |
| `blocker_zone_tsig_keys`                  | zone                 | keys that may have it; 0: networks alone          |
| `blocker_zone_certificate_expiry_seconds` |                      | until the first certificate for TLS ends; none:   |
|                                           |                      | no TLS. Negative: it has                          |
| `blocker_zone_transfers_total`            | zone, question,      | axfr, ixfr to the end; whole, difference,         |
|                                           | sent, transport      | current; over tls (RFC 9103), in clear text       |
| `blocker_zone_transfer_bytes_total`       | zone, question       | of their messages; of those that were cut too     |
| `blocker_zone_failures_total`             | zone, reason         | access, clear, signature, unready, busy; cut      |
|                                           |                      | transfers; connections refused and handshakes,    |
|                                           |                      | which count for every zone                        |
| `blocker_zone_notices_total`              | zone, result         | datagrams sent, acknowledged, refused, unanswered |
| `blocker_zone_secondary_lag`              | zone, secondary      | by how much its serial is behind; none: not known |
| `blocker_zone_secondary_behind_seconds`   | zone, secondary      | for how long it has been; none: not known         |
| `blocker_zone_secondary_age_seconds`      | zone, secondary      | since it last asked; none: not since the start    |
| `blocker_zone_secondary_expected_seconds` | zone, secondary      | since this node looks out for it                  |
| `blocker_zone_secondary_state`            | zone, secondary,     | 1 for the one that holds: current, behind, ahead, |
|                                           | state                | unknown                                           |
| `blocker_zone_secondary_notice_age_`      | zone, secondary      | since it last acknowledged a notice; none: not    |
| `seconds`                                 |                      | since the start, or `notify = false`              |

A secondary is behind by its own word, or as far as it must be: a version that came while nothing was known of it is one
that it does not have yet, and a transfer that was sent is not taken until it says so, or looks and leaves it at that.
Serial, names and state of a zone are `RpzFeed.families`. A zone's serials are seconds of versions, so a lag is about
the time by which a secondary's lists are older, but after a store that forgot serials, which leap a day then. For how
long a secondary has been behind is measured, and knows nothing of leaps. A secondary of several primaries asks one of
them and leaves the others alone: what a node knows of one that does not ask it may be old.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from blocker.feeds.tally import Failure, Notice, Sent, Standing, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from blocker.feeds.transfer import Served

_LEFT_OUT = ("address", "digest", "name")
_QUESTIONS = ("axfr", "ixfr")


class ZoneCounts(Collector):
    """What is scraped of the zones.

    Args:
        served: The zones as they are now.
        expires: When the certificate ends, in Unix seconds; None: there is none.

    Cost: some 100 µs a zone.
    """

    def __init__(
        self, served: Callable[[], Iterable[Served]], expires: Callable[[], float | None] = lambda: None
    ) -> None:
        self._served = served
        self._expires = expires

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        zones = list(self._served())
        yield from _versions(zones)
        yield from _ages(zones)
        yield _certificate(self._expires())
        yield from _transfers(zones)
        yield from _secondaries(zones)


def _versions(zones: Iterable[Served]) -> Iterator[Metric]:
    records = GaugeMetricFamily("blocker_zone_records", "Records of a zone.", labels=["zone"])
    left_out = GaugeMetricFamily("blocker_zone_left_out_rules", "Rules that DNS cannot say.", labels=["zone", "reason"])
    history = GaugeMetricFamily(
        "blocker_zone_history_versions", "Earlier versions that can be had as differences.", labels=["zone"]
    )
    keys = GaugeMetricFamily("blocker_zone_tsig_keys", "Keys whose holders may have a zone.", labels=["zone"])
    refresh = GaugeMetricFamily("blocker_zone_refresh_seconds", "After which a secondary looks again.", labels=["zone"])
    expire = GaugeMetricFamily(
        "blocker_zone_expire_seconds", "After which a secondary that reaches nobody drops a zone.", labels=["zone"]
    )
    for served in zones:
        name, version = served.plan.name, served.version
        keys.add_metric([name], len(served.plan.settings.keys))
        refresh.add_metric([name], served.plan.settings.refresh)
        expire.add_metric([name], served.plan.settings.expire)
        history.add_metric([name], len(served.history))
        if version is None:
            continue
        records.add_metric([name], version.record_count)
        for reason, count in zip(_LEFT_OUT, version.zone.left_out, strict=True):
            left_out.add_metric([name, reason], count)
    yield from (records, left_out, history, keys, refresh, expire)


def _ages(zones: Iterable[Served]) -> Iterator[Metric]:
    now = time.time()
    built = GaugeMetricFamily(
        "blocker_zone_build_age_seconds", "Since this node made the version that is served.", labels=["zone"]
    )
    checked = GaugeMetricFamily(
        "blocker_zone_check_age_seconds", "Since a zone last was what the store has.", labels=["zone"]
    )
    for served in zones:
        for family, at in ((built, served.tally.built), (checked, served.tally.checked)):
            if at is not None:
                family.add_metric([served.plan.name], max(0.0, now - at))
    yield from (built, checked)


def _certificate(expires: float | None) -> Metric:
    left = GaugeMetricFamily(
        "blocker_zone_certificate_expiry_seconds", "Until the first certificate for transfers over TLS ends."
    )
    if expires is not None:
        left.add_metric([], expires - time.time())
    return left


def _transfers(zones: Iterable[Served]) -> Iterator[Metric]:
    sent = CounterMetricFamily(
        "blocker_zone_transfers", "Transfers sent to the end.", labels=["zone", "question", "sent", "transport"]
    )
    size = CounterMetricFamily(
        "blocker_zone_transfer_bytes", "Bytes of transfers' messages.", labels=["zone", "question"]
    )
    failed = CounterMetricFamily(
        "blocker_zone_failures", "Requests refused and transfers cut.", labels=["zone", "reason"]
    )
    notices = CounterMetricFamily("blocker_zone_notices", "What became of notices.", labels=["zone", "result"])
    for served in zones:
        name, tally = served.plan.name, served.tally
        for question in _QUESTIONS:
            size.add_metric([name, question], tally.bytes[question])
            for what in Sent:
                if (question, what) == ("axfr", Sent.WHOLE) or question == "ixfr":
                    for transport in Transport:
                        sent.add_metric([name, question, what, transport], tally.sent[question, what, transport])
        for reason in Failure:
            failed.add_metric([name, reason], tally.failed[reason])
        for result in Notice:
            notices.add_metric([name, result], tally.notices[result])
    yield from (sent, size, failed, notices)


def _secondaries(zones: Iterable[Served]) -> Iterator[Metric]:
    now = time.time()
    labels = ["zone", "secondary"]
    lag = GaugeMetricFamily("blocker_zone_secondary_lag", "By how much a secondary's serial is behind.", labels=labels)
    behind = GaugeMetricFamily(
        "blocker_zone_secondary_behind_seconds", "For how long a secondary has been behind.", labels=labels
    )
    age = GaugeMetricFamily("blocker_zone_secondary_age_seconds", "Since a secondary last asked.", labels=labels)
    expected = GaugeMetricFamily(
        "blocker_zone_secondary_expected_seconds", "Since a secondary is looked out for.", labels=labels
    )
    heard = GaugeMetricFamily(
        "blocker_zone_secondary_notice_age_seconds", "Since a secondary last acknowledged a notice.", labels=labels
    )
    state = GaugeMetricFamily(
        "blocker_zone_secondary_state", "How a secondary's version compares: 1 or 0.", labels=[*labels, "state"]
    )
    for served in zones:
        for secondary, contact in served.tally.contacts.items():
            of = [served.plan.name, secondary]
            expected.add_metric(of, max(0.0, now - contact.expected))
            for family, at in ((age, contact.asked), (heard, contact.heard)):
                if at is not None:
                    family.add_metric(of, max(0.0, now - at))
            if served.version is None:
                continue
            serial = served.version.serial
            standing = contact.standing(serial)
            for one in Standing:
                state.add_metric([*of, one], one is standing)
            if contact.serial is not None and standing is not Standing.AHEAD:
                lag.add_metric(of, (serial - contact.serial) % 2**32)
                behind.add_metric(of, 0.0 if contact.behind is None else max(0.0, now - contact.behind))
    yield from (lag, behind, age, expected, heard, state)
