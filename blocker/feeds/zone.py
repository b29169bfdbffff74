"""A zone as the configuration describes it, and one version of it: which records it has, and in which order they go.

Pure. What is said of which name is worked out in the native core (`blocker/native/src/zone/`); here is how each is
said: `CNAME .` (NXDOMAIN), `CNAME *.` (NODATA), the actions named `rpz-…`, or local data.

Sources: draft-vixie-dnsop-dns-rpz section 3; RFC 1035 section 3.3.13 (SOA); RFC 1982 (serials).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dns.name
import dns.rdata
from dns.rdataclass import IN
from dns.rdatatype import AAAA, CNAME, NS, SOA, A

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dns.rdata import Rdata

    from blocker._native import Zone
    from blocker.feed_section import ZoneSettings

#: Type, TTL, data: a record without its owner, as the native core takes it.
Record = tuple[int, int, bytes]
_TARGETS = {
    "nxdomain": ".", "nodata": "*.", "passthru": "rpz-passthru.", "drop": "rpz-drop.", "tcp-only": "rpz-tcp-only.",
}  # fmt: skip
_HALF = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a zone is to be.

    Attributes:
        name: What the configuration calls it.
        origin: Its name.
        settings: The rest.
        effects: What is said of a name that is blocked, to be inspected, passed: its records' data.
    """

    name: str
    origin: dns.name.Name
    settings: ZoneSettings
    effects: tuple[tuple[Rdata, ...], tuple[Rdata, ...], tuple[Rdata, ...]]

    @classmethod
    def of(cls, name: str, settings: ZoneSettings) -> Plan:
        """The plan of one table of [feeds.rpz.zones]."""
        local = _local(settings)
        blocked = local if settings.carries == "block" and settings.action == "local" else None
        action = "nxdomain" if settings.action == "local" else settings.action
        effects = (blocked or (_cname(_TARGETS[action]),), local, (_cname(_TARGETS["passthru"]),))
        return cls(name=name, origin=dns.name.from_text(settings.origin), settings=settings, effects=effects)

    @property
    def inspect(self) -> bool:
        """Whether it is about hosts to be inspected."""
        return self.settings.carries == "inspect"

    @property
    def wire_origin(self) -> bytes:
        """Its name on the wire."""
        return self.origin.to_wire() or b""

    @property
    def records(self) -> list[list[Record]]:
        """What is said of a name, for the native core."""
        return [[_record(data, self.settings.ttl) for data in effect] for effect in self.effects]

    def soa(self, serial: int) -> Rdata:
        """The start of authority of a version."""
        its = self.settings
        fields = f"{its.name_server} {its.contact} {serial} {its.refresh} {its.retry} {its.expire} {its.ttl}"
        return dns.rdata.from_text(IN, SOA, fields)

    @property
    def ns(self) -> Rdata:
        """The one name server; resolvers never ask it."""
        return dns.rdata.from_text(IN, NS, self.settings.name_server)

    @property
    def said(self) -> str:
        """What all of its records but the names are, the serial aside; differences go between equal ones only."""
        said = repr((self.settings.origin, self.records, _record(self.soa(0), self.settings.ttl), str(self.ns)))
        return hashlib.sha256(said.encode()).hexdigest()

    def digest(self, zone: Zone) -> bytes:
        """SHA-256 of all that a secondary would have of it, the serial aside."""
        said = repr((self.settings.origin, self.records, _record(self.soa(0), 0), zone.digest()))
        return hashlib.sha256(said.encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A zone as it is handed on.

    Attributes:
        plan: What it is.
        serial: Of its SOA.
        zone: Its names.
        mark: What the store knows it by; empty where no store has numbered it.
        since: The first serial of which the store knows what it means; None where no store has numbered it.
    """

    plan: Plan
    serial: int
    zone: Zone
    mark: str = ""
    since: int | None = None

    @property
    def soa(self) -> Record:
        """Its start of authority, for the native core."""
        return _record(self.plan.soa(self.serial), self.plan.settings.ttl)

    @property
    def record_count(self) -> int:
        """Its records, SOA and NS counted."""
        said = zip(self.zone.counts[1:], self.plan.effects, strict=True)
        return 2 + sum(owners * len(effect) for owners, effect in said)

    def whole(self) -> list[Record | Zone]:
        """What an AXFR sends (RFC 5936 section 2.2)."""
        return [self.soa, _record(self.plan.ns, self.plan.settings.ttl), self.zone, self.soa]

    def lines(self) -> Iterator[str]:
        """It as a master file (RFC 1035 section 5), names relative to its own."""
        plan, ttl = self.plan, self.plan.settings.ttl
        yield f"$ORIGIN {plan.origin}"
        yield f"$TTL {ttl}"
        yield f"@ IN SOA {plan.soa(self.serial)}"
        yield f"@ IN NS {plan.ns}"
        said = [[], *([f"{_TYPES[int(data.rdtype)]} {data}" for data in effect] for effect in plan.effects)]
        for at in range(0, len(self.zone), _BATCH):
            for name, own, below in self.zone.names(at, _BATCH):
                yield from (f"{name} {record}" for record in said[own])
                yield from (f"*.{name} {record}" for record in said[below])


_TYPES = {int(A): "A", int(AAAA): "AAAA", int(CNAME): "CNAME"}
# Names handed over at once by the native core.
_BATCH = 4096


def is_newer(serial: int, other: int) -> bool:
    """Whether a serial comes after another (RFC 1982 section 3.2)."""
    return serial != other and (serial - other) % 2**32 < _HALF


def _local(settings: ZoneSettings) -> tuple[Rdata, ...]:
    if settings.target is not None:
        return (_cname(settings.target),)
    return tuple(
        dns.rdata.from_text(IN, A if address.version == 4 else AAAA, str(address)) for address in settings.addresses
    )


def _cname(target: str) -> Rdata:
    return dns.rdata.from_text(IN, CNAME, target)


def _record(data: Rdata, ttl: int) -> Record:
    return int(data.rdtype), ttl, data.to_wire() or b""
