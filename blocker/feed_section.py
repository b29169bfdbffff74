"""The sections of the configuration about what is handed on to others; `blocker/settings.py` puts them together.

Each field's description gives default, unit and range.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path  # noqa: TC003 - pydantic reads it at run time
from typing import Annotated, Literal, Self

import dns.exception
import dns.name
from pydantic import (
    AfterValidator,
    Field,
    IPvAnyAddress,
    IPvAnyNetwork,
    SecretStr,
    model_validator,
)

from blocker.section import Frozen, Name, Port


def _is_domain(value: str) -> str:
    try:
        name = dns.name.from_text(value)
    except (dns.exception.DNSException, UnicodeError):
        raise ValueError("is no domain name") from None
    if name == dns.name.root:
        raise ValueError("is the root; a name below it is needed")
    return name.to_text().lower()


Domain = Annotated[str, AfterValidator(_is_domain)]
# RFC 8945 section 6 asks for at least SHA-256; a shorter secret than its digest is guessed more easily.
_LEAST_SECRET = 16


def _is_secret(value: SecretStr) -> SecretStr:
    try:
        secret = base64.b64decode(value.get_secret_value(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64") from None
    if len(secret) < _LEAST_SECRET:
        raise ValueError(f"is shorter than {_LEAST_SECRET} bytes; make one with `tsig-keygen`")
    return value


class TsigSettings(Frozen):
    """A key that a secondary and this node share (RFC 8945)."""

    algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"] = Field(
        "hmac-sha256", description="How messages are signed. Default hmac-sha256."
    )
    secret: Annotated[SecretStr, AfterValidator(_is_secret)] | None = Field(
        None, description="The secret in base64, at least 16 bytes; best in the environment. Or secret_file."
    )
    secret_file: Path | None = Field(
        None, description="File that holds the secret in base64, which only this user can read. Or secret."
    )

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if (self.secret is None) == (self.secret_file is None):
            raise ValueError("give either secret or secret_file")
        return self


class SecondarySettings(Frozen):
    """A resolver that takes the zone, is watched, and is told of each new version (RFC 1996)."""

    address: IPvAnyAddress = Field(description="Its IP address.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(53, description="UDP port, 1 to 65535. Default 53.")
    key: str | None = Field(None, description="Name of the key that notices to it are signed with. Default none.")
    notify: bool = Field(
        True,
        description="Whether it is told of new versions; false for one that hears no notices and looks by itself, as "
        "PowerDNS Recursor. Default true.",
    )


class ZoneSettings(Frozen):
    """A response policy zone."""

    origin: Domain = Field(description="The zone's name, such as police.rpz.example.")
    policy: Name = Field("default", description="Policy whose lists are in it. Default `default`.")
    carries: Literal["block", "inspect"] = Field(
        "block",
        description="`block`: the hosts that are blocked whole. `inspect`: those of which only the full URL can tell, "
        "sent to `addresses` or `target`; resolvers must have it before the block zone. Such a host has nothing else "
        "then: no MX, TXT or CAA, so resolvers of mail servers must not have this zone. Default block.",
    )
    action: Literal["nxdomain", "nodata", "passthru", "drop", "tcp-only", "local"] = Field(
        "nxdomain",
        description="What a resolver does with a blocked name; `local` answers `addresses` or `target`. "
        "Default nxdomain.",
    )
    addresses: tuple[IPvAnyAddress, ...] = Field(
        (), max_length=16, description="Addresses of the stop page (block) or of the URL filter (inspect). At most 16."
    )
    target: Domain | None = Field(None, description="The same as a name (CNAME), instead of addresses. Default none.")
    ttl: int = Field(60, ge=1, le=86_400, description="Seconds that resolvers' clients may keep an answer. Default 60.")
    name_server: Domain = Field("localhost.", description="Name in the NS record and the SOA. Default localhost.")
    contact: Domain = Field("hostmaster.localhost.", description="Mailbox in the SOA, written as a name.")
    refresh: int = Field(60, ge=1, le=86_400, description="Seconds between two looks of a secondary. Default 60.")
    retry: int = Field(30, ge=1, le=86_400, description="Seconds until it looks again after a failure. Default 30.")
    expire: int = Field(
        2_592_000,
        ge=3600,
        le=2**31 - 1,
        description="Seconds after which a secondary that reaches nobody drops the zone. Default 30 days.",
    )
    serial_at_least: int | None = Field(
        None,
        ge=1,
        le=2**32 - 1,
        description="The lowest serial that will do, for a zone that secondaries had from another primary with higher "
        "ones (as 2026112801). 1 to 2^32 - 1. Default none: seconds since 1970.",
    )
    keys: tuple[str, ...] = Field((), description="Names of the keys whose holders may have the zone. Default none.")
    networks: tuple[IPvAnyNetwork, ...] = Field(
        (),
        description="Networks (CIDR) that may have it without a key, for resolvers that know none; an address in a "
        "datagram can be forged, so that they may get SOAs that nobody asked for. Default none.",
    )
    secondaries: tuple[SecondarySettings, ...] = Field(
        (), description="Who takes it and is told of new versions. Default none."
    )
    tls_only: bool = Field(
        False,
        description="Whether it is transferred over TLS alone. Its serial is told in clear text too: resolvers look "
        "for it by UDP. Needs tls_certificate. Default false.",
    )

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        needs = self.carries == "inspect" or self.action == "local"
        if needs and bool(self.addresses) == bool(self.target):
            raise ValueError("give either addresses or target: where the names are to lead")
        return self

    @model_validator(mode="after")
    def _lasting(self) -> Self:
        if self.expire < self.refresh + self.retry:  # RFC 1912 section 2.2
            raise ValueError(
                "expire is less than refresh and retry together: the zone would go before it is looked for"
            )
        return self


class RpzSettings(Frozen):
    """Lists as response policy zones, for resolvers that take them by zone transfer."""

    enabled: bool = Field(False, description="Whether zones are served. Default false. Needs the seal key.")
    host: str = Field("127.0.0.1", min_length=1, max_length=255, description="Address to listen on. Default 127.0.0.1.")
    port: Port = Field(5354, description="TCP and UDP port, 0 to 65535; 0 takes a free one. Default 5354.")
    on_dns_gateway: bool = Field(
        False,
        description="Whether the dns gateway answers about the zones as well, on its own addresses and port, to "
        "whoever may have them. Default false: what customers reach has no transfers. Needs gateways.dns and "
        "gateways.workers = 0. Changes with the next start only.",
    )
    tls_port: Port = Field(
        8854,
        description="Port of transfers over TLS (RFC 9103), whose own is 853: TLS over TCP, and SOAs over UDP, since "
        "that is where resolvers look for a version before they come by TLS. Default 8854.",
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file with the certificates that resolvers are shown. Default none: no TLS."
    )
    tls_key: Path | None = Field(None, description="PEM file with the private key, without a password.")
    tls_client_ca: Path | None = Field(
        None,
        description="PEM file with the authorities of which a resolver must show a certificate (mutual TLS). Default "
        "none: it shows none, and its key or network is all there is of it.",
    )
    tls_alpn: bool = Field(
        True,
        description="Whether a resolver must say by ALPN that it speaks DNS (`dot`), as RFC 9103 section 7.1 has it; "
        "false for Unbound, which does not. Default true.",
    )
    keys: dict[str, TsigSettings] = Field(
        default_factory=dict, description="Keys by name, as in [feeds.rpz.keys.resolver]."
    )
    zones: dict[Name, ZoneSettings] = Field(
        default_factory=dict, max_length=16, description="Zones, as in [feeds.rpz.zones.police]. At most 16."
    )
    max_connections: int = Field(
        64,
        ge=1,
        le=10_000,
        description="Connections at once, also those in a handshake, at most a quarter of them (or four) of one "
        "address; one more is closed at once. Default 64.",
    )
    max_transfers: int = Field(
        8, ge=1, le=1000, description="Transfers at once; others wait up to request_seconds. Default 8."
    )
    request_seconds: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Time for a handshake, for a request to arrive and for a message to be read. Default 30.",
    )
    idle_seconds: float = Field(
        30.0, gt=0, le=3600, description="Time after which a silent connection is closed. Default 30."
    )
    history: int = Field(
        64, ge=0, le=10_000, description="Versions of each zone that can be had as differences (IXFR). Default 64."
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        origins = [zone.origin for zone in self.zones.values()]
        if len({*origins}) < len(origins):
            raise ValueError("zones: two have the same origin")
        for name in self.keys:
            _is_domain(name)
        for name, zone in self.zones.items():
            used = {*zone.keys, *(one.key for one in zone.secondaries if one.key)}
            if used - {*self.keys}:
                raise ValueError(f"zones.{name}: a key is used that [feeds.rpz.keys] does not have")
        return self

    @model_validator(mode="after")
    def _secret(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key need each other")
        if self.tls_certificate is None:
            if self.tls_client_ca is not None:
                raise ValueError("tls_client_ca needs tls_certificate and tls_key: without them there is no TLS")
            for name, zone in self.zones.items():
                if zone.tls_only:
                    raise ValueError(f"zones.{name}: tls_only needs tls_certificate and tls_key; nobody could have it")
        elif self.tls_port == self.port != 0:
            raise ValueError("tls_port is that of clear text; give it one of its own")
        return self


class FeedSettings(Frozen):
    """What is handed on to others."""

    rpz: RpzSettings = Field(default_factory=RpzSettings)
