"""What `blocker doctor` says of zones and routes: what keeps them from going out, and what to do about it.

What only a running node knows it is asked for: its `/metrics`, and the socket of its routes. Names of lists, and
addresses other than those of the configuration, appear in none of it.
"""

from __future__ import annotations

import http.client
import socket
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from blocker.control.heartbeat import SILENT_SECONDS
from blocker.errors import BlockerError
from blocker.feeds.route_socket import SOCKET, ask_report
from blocker.feeds.route_state import STATE_FILE
from blocker.feeds.route_terms import filter_said
from blocker.feeds.signing import load_keys
from blocker.feeds.tally import Standing, label_of
from blocker.sockets import bind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from blocker.cli.context import Context
    from blocker.dns_section import DnsSettings
    from blocker.feed_section import SecondarySettings, ZoneSettings

#: Time for a node's answer, in seconds.
_PATIENCE = 5.0
#: A zone that was not compared with the store for so long is out of date, in seconds; some looks fail now and then.
_STALE_SECONDS = 60.0
#: Refreshes after which a secondary that has not asked will not come.
_REFRESHES = 3
#: After so long a notice has been answered, or will not be, in seconds.
_HEARING_SECONDS = 60.0
#: Share of listed hosts without any route from which something is wrong with more than the list; as the alert's.
_UNCOVERED = 0.5
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound


class Finding(NamedTuple):
    """One thing that was looked at: what, how it is, what was seen and what to do."""

    what: str
    state: Literal["ok", "warn", "fail"]
    detail: str


class Figures:
    """What a node's `/metrics` say."""

    def __init__(self, text: str) -> None:
        self._values: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._values[sample.name].append((sample.labels, sample.value))

    @classmethod
    def of(cls, run: Context) -> Figures | None:
        """Those of the node of this configuration; None: it does not run."""
        its = run.settings.http
        host = its.host.partition(",")[0].strip()
        connection = http.client.HTTPConnection(_EVERYWHERE.get(host, host), its.port, timeout=_PATIENCE)
        try:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            return cls(answer.read().decode()) if answer.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()

    def get(self, name: str, **labels: str) -> float | None:
        """The sum of the values with these labels; None: there is none."""
        found = [value for its, value in self._values[name] if its.items() >= labels.items()]
        return sum(found) if found else None


def zones(run: Context) -> Iterator[Finding]:
    """The findings about zones; none if they are off."""
    rpz = run.settings.feeds.rpz
    if not rpz.enabled:
        return
    try:
        load_keys(rpz.keys)
        if run.keyring.seal is None:
            yield Finding("zones", "fail", "no seal key: zones hold names in clear text; copy seal.key to this node")
    except BlockerError as error:
        yield Finding("zones", "fail", str(error))
    figures = Figures.of(run)
    if figures is None:
        yield from _port(rpz.host, rpz.port, "PORT")
        if rpz.tls_certificate is not None:
            yield from _port(rpz.host, rpz.tls_port, "TLS_PORT")
    elif figures.get("blocker_zone_tsig_keys") is None and rpz.zones:
        yield Finding("zones", "fail", "the running node serves none; it was started with another configuration")
        return
    if not rpz.zones:
        yield Finding("zones", "warn", "none is configured; add [feeds.rpz.zones.NAME]")
    shared = figures is not None and _others(run)
    for name, zone in rpz.zones.items():
        if not zone.keys and not zone.networks:
            yield Finding(f"zone {name}", "fail", "nobody may have it: set its keys (TSIG), or its networks")
        elif not zone.keys:
            yield Finding(f"zone {name}", "warn", "it has no TSIG key: whoever is in its networks, or says so, has it")
        if figures is not None:
            yield from _zone(name, zone, figures, rpz.tls_port if zone.tls_only else rpz.port, shared=shared)


def _port(host: str, port: int, name: str) -> Iterator[Finding]:
    try:
        for opened in bind(host, port, f"BLOCKER_FEEDS__RPZ__{name}"):
            opened.close()
        yield Finding("zones", "warn", f"no node answers; {host}:{port} is free; start it with `blocker serve`")
    except BlockerError as error:
        yield Finding("zones", "fail", f"no node answers, and {error}")


def _zone(name: str, zone: ZoneSettings, figures: Figures, port: int, *, shared: bool) -> Iterator[Finding]:
    what = f"zone {name}"
    serial = figures.get("blocker_zone_serial", zone=name)
    if serial is None:
        yield Finding(
            what, "fail", "no version yet, so it is answered SERVFAIL: publish a list that its policy enforces, and "
            "see the node's log for `zones not brought up to date`",
        )  # fmt: skip
        return
    checked = figures.get("blocker_zone_check_age_seconds", zone=name)
    left = figures.get("blocker_zone_left_out_rules", zone=name) or 0
    records = figures.get("blocker_zone_records", zone=name) or 0
    shown = f"serial {serial:.0f}, {records:.0f} records, {left:.0f} rules left out that DNS cannot carry"
    if checked is None or checked > _STALE_SECONDS:
        since = "since its start" if checked is None else f"for {checked:.0f} s"
        yield Finding(what, "warn", f"{shown}; not brought up to date {since}: see the node's log, and Redis above")
    else:
        yield Finding(what, "ok", shown)
    for reason, remedy in (
        ("signature", "the same key name, algorithm and secret on both sides? clocks within 300 s?"),
        ("access", "name the secondary's key in keys, or its network in networks"),
        ("clear", "have the secondary transfer over TLS, from tls_port; see deploy/"),
        (
            "handshake",
            "does the secondary trust the certificate, show one of tls_client_ca, and speak TLS 1.3 and ALPN?",
        ),
        ("busy", "raise feeds.rpz.max_transfers"),
        ("connections", "raise feeds.rpz.max_connections, and let secondaries alone reach the port"),
    ):
        if count := figures.get("blocker_zone_failures_total", zone=name, reason=reason):
            yield Finding(what, "warn", f"{count:.0f} requests failed by {reason}: {remedy}")
    if count := figures.get("blocker_zone_notices_total", zone=name, result="refused"):
        yield Finding(what, "warn", f"{count:.0f} notices were refused: allow them at the secondary (allow-notify)")
    for secondary in zone.secondaries:
        yield _secondary(name, secondary, zone.refresh, figures, port, shared=shared)


def _others(run: Context) -> bool:
    """Whether the deployment has other nodes that live, any of which may be a secondary's first primary."""

    async def beats() -> bool:
        async with await run.open_store() as store:
            found = await store.beats()
        return any(beat.node != run.settings.node and silent < SILENT_SECONDS for beat, silent in found)

    try:
        return run.run(beats())
    except BlockerError:  # said elsewhere
        return False


def _secondary(
    name: str, its: SecondarySettings, refresh: int, figures: Figures, port: int, *, shared: bool
) -> Finding:
    what = f"secondary {label_of(its)} of {name}"

    def figure(which: str, **labels: str) -> float | None:
        return figures.get(f"blocker_zone_secondary_{which}", zone=name, secondary=label_of(its), **labels)

    age, lag, heard = figure("age_seconds"), figure("lag"), figure("notice_age_seconds")
    built = figures.get("blocker_zone_build_age_seconds", zone=name) or 0
    deaf = its.notify and built > _HEARING_SECONDS and (heard is None or heard > built)
    if age is None:
        if built < _REFRESHES * refresh:
            return Finding(what, "warn", "has not come yet; it has time")
        if shared and not deaf:  # it lives, or says nothing anyhow
            return Finding(what, "ok", "has not asked this node; it asks the first of its primaries that answers")
        detail = f"never came: does it name this node as primary, and may it reach port {port} by TCP and UDP?"
        return Finding(what, "warn", detail)
    if figure("state", state=Standing.AHEAD):
        detail = (
            "its serial is higher than this node's. If that lasts longer than this node needs to have what its other "
            "primaries have, it never takes a version: delete the zone's file at the secondary and have it transfer "
            "anew, or set serial_at_least above it"
        )
        return Finding(what, "fail", detail)
    behind = "behind" if lag is None else f"{lag:.0f} behind"
    if figure("state", state=Standing.BEHIND) and built > refresh:
        detail = (
            f"{behind}: it asks, and gets no transfer: allow TCP port {port}; or it does not take what it gets, or "
        )
        return Finding(what, "warn", f"{detail}has a higher serial from elsewhere: see its log")
    if age > _REFRESHES * refresh:
        return Finding(what, "warn", f"last asked {age:.0f} s ago, though it should every {refresh} s: is it there?")
    if deaf:
        detail = f"does not answer notices: allow UDP to port {its.port} of it; or say `notify = false` of it"
        return Finding(what, "warn", detail)
    known = "its version shows with the next one" if figure("state", state=Standing.UNKNOWN) else behind
    return Finding(what, "ok", f"asked {age:.0f} s ago, {known}")


def routes(run: Context) -> Iterator[Finding]:
    """The findings about routes; none if they are off and nobody has any."""
    settings = run.settings.routes
    if not settings.enabled:
        if (run.settings.data_dir / STATE_FILE).exists():
            yield Finding(
                "routes", "warn", "they are off, and ExaBGP may still have some: with node and ExaBGP running they are "
                f"withdrawn; if ExaBGP is no more, remove {STATE_FILE} from data_dir",
            )  # fmt: skip
        return
    if settings.popular_top == 0:
        yield Finding("routes", "warn", "popular_top = 0: no popular name's addresses are kept from being routed")
    yield from _resolvers(settings.resolvers, run.settings.gateways.dns)
    try:
        report = run.run(ask_report(settings.unix or run.settings.data_dir / SOCKET))
    except BlockerError as error:
        yield Finding("routes", "fail", str(error))
        return
    yield from _announced(report, settings.max_routes)
    yield from _covered(report)
    if count := sum(one["reason"] == "no-next-hop" for one in report["addresses"]):
        yield Finding(
            "routes", "warn", f"{count} IPv6 addresses of listed hosts are not announced, so that their pages are "
            "reached over IPv6 without the URL filter: set routes.next_hop6 to its IPv6 address",
        )  # fmt: skip
    yield from _feeds(report)
    for server, results in report["resolvers"].items():
        if results.get("failed", 0) and not results.get("answered", 0) + results.get("absent", 0):
            yield Finding("resolver", "fail", f"{server} answers nothing; nothing that it was asked for leaves")


def _resolvers(resolvers: Sequence[str], gateway: DnsSettings) -> Iterator[Finding]:
    """Whether any of them is this node's own gateway, which does not say of listed names where they are."""
    for server in resolvers if gateway.enabled else ():
        parts = urlsplit(f"//{server}")
        address, port = str(parts.hostname), parts.port or 53
        if port == gateway.port and (address == gateway.host or (gateway.host in _EVERYWHERE and _is_here(address))):
            yield Finding(
                "resolver", "fail", f"{server} is this node's own dns gateway, which rewrites listed names: name in "
                "routes.resolvers what it asks itself (gateways.dns.upstreams)",
            )  # fmt: skip


def _is_here(address: str) -> bool:
    """Whether an address is one of this machine's."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as opened:
        try:
            opened.bind((address, 0))
        except OSError:
            return False
    return True


def _covered(report: Mapping[str, Any]) -> Iterator[Finding]:
    count, listed = sum(report["uncovered"].values()), report["listed"]
    if not listed:
        return
    by = ", ".join(f"{number} {reason}" for reason, number in sorted(report["uncovered"].items()))
    shown = f"{count} of {listed} without any route" + (f": {by}" if by else "")
    if count > _UNCOVERED * listed and report["settled"]:
        yield Finding("listed hosts", "fail", f"{shown}; do the resolvers say where they are, and not what lists say?")
    else:
        yield Finding("listed hosts", "ok", shown)


def _announced(report: Mapping[str, Any], most: int) -> Iterator[Finding]:
    count = report["routes"]
    held = sum(one["state"] == "held" for one in report["addresses"])
    shown = f"{count} of at most {most} routes, {held} of them held for hosts that moved"
    if report["stopped"] is not None:
        yield Finding(
            "routes", "fail", "withdrawn by hand: listed pages are reached; end it by `blocker routes resume`"
        )
    elif (of_filter := filter_said(**report["filter"])) is not None:
        yield Finding("routes", "fail", of_filter)
    elif not report["popular_known"]:
        yield Finding("routes", "warn", f"{shown}; nothing new: the popular names are not looked up yet; see resolvers")
    elif count >= most:
        yield Finding("routes", "fail", f"{shown}; there is no room: raise routes.max_routes, or shorten the lists")
    elif not report["settled"]:
        yield Finding("routes", "warn", f"{shown}; not settled yet: lists or lookups are under way")
    else:
        yield Finding("routes", "ok", shown)


def _feeds(report: Mapping[str, Any]) -> Iterator[Finding]:
    if not report["feeds"]:
        yield Finding("ExaBGP", "fail", "no `blocker bgp-feed` is connected: is ExaBGP running? see deploy/exabgp")
    for feed in report["feeds"]:
        shown = f"has {feed['told']} of {report['routes']} routes"
        parent = _parent(feed["pid"])
        if "exabgp" not in parent:
            yield Finding("ExaBGP", "warn", f"{shown}, but its feed was not started by ExaBGP ({parent or 'unknown'})")
        elif feed["errors"]:
            yield Finding("ExaBGP", "warn", f"{shown}, and refused {feed['errors']} commands: see its configuration")
        elif feed["told"] != report["routes"] and report["settled"]:
            yield Finding("ExaBGP", "warn", f"{shown}; it may be catching up: look again")
        else:
            yield Finding("ExaBGP", "ok", shown)
        yield from _routers(feed["neighbors"], report["routes"])


def _routers(neighbors: Mapping[str, Any], wanted: int) -> Iterator[Finding]:
    if not neighbors:
        yield Finding(
            "routers", "fail", "ExaBGP names no neighbor of the feed's: does one have `api { processes [ blocker ]; "
            "neighbor-changes; }`, and is exabgp.api.ack on? if so, restart it",
        )  # fmt: skip
    for name, (up, count) in sorted(neighbors.items()):
        what, shown = f"router {name}", f"its session carries {count} of {wanted} routes"
        if not up:
            yield Finding(
                what, "fail", "no session, so no routes: see the router (`birdc show protocols`), and port 179"
            )
        elif count < wanted:
            yield Finding(what, "fail", f"{shown}: does it take both families? see `family` at both ends")
        else:
            yield Finding(what, "ok", f"{shown}; whether it uses them: `birdc show route` on it")


def _parent(pid: int) -> str:
    """The command line of a process' parent; empty if it cannot be seen."""
    try:
        parent = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1]
        return Path(f"/proc/{parent}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")[:80]
    except (OSError, IndexError):
        return ""
