"""The section of the `dns` gateway."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path  # noqa: TC003 - pydantic reads it at run time
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, IPvAnyAddress, IPvAnyNetwork, model_validator

from blocker.section import Frozen, Link, Name, Port, StreamSettings


def _is_endpoint(value: str) -> str:
    parts = urlsplit(f"//{value}")
    if parts.port == 0:
        raise ValueError("port 0 is none")
    ip_address(parts.hostname or "")
    return value


#: A name of letters, digits, hyphens and underscores.
DnsName = Annotated[str, Field(max_length=250, pattern=r"^([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?$")]
#: An address, and a port where it is not 53.
Upstream = Annotated[str, Field(pattern=r"^([0-9.]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$"), AfterValidator(_is_endpoint)]


class DnsReasonSettings(Frozen):
    """What resolvers' clients are told about why a name is blocked."""

    error: Literal["blocked", "censored", "filtered"] = Field(
        "blocked",
        description="Extended DNS Error (RFC 8914): blocked (15, the operator's own policy; the default), censored "
        "(16, imposed from outside) or filtered (17, asked for by the client).",
    )
    organization: str = Field("", max_length=100, description="Who blocks; empty leaves it out, as of all below.")
    text: str = Field("", max_length=300, description="Why; for the client's user.")
    language: str = Field(
        "en", pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", description="Language tag (RFC 5646) of these. Default en."
    )
    contact: tuple[Annotated[str, Field(max_length=100, pattern=r"^(mailto|tel):[!-~]+$")], ...] = Field(
        (), max_length=4, description="Where to complain: mailto: and tel: addresses."
    )


class DnsSettings(StreamSettings):
    """A DNS server: a zone that says what the lists say, a filtering resolver, or both; over UDP, TCP and TLS."""

    enabled: bool = Field(
        False,
        description="Whether this gateway listens. Default: if there is a zone or an upstream.",
    )
    port: Port = Field(5353, description="UDP and TCP port, 0 to 65535; 0 takes a free one. Default 5353.")
    idle_seconds: float = Field(
        30.0, gt=0, le=86_400, description="Time after which a silent connection is closed. Default 30 (RFC 7766)."
    )
    tls_port: Port = Field(8853, description="TCP port of DNS over TLS (RFC 7858), whose own is 853. Default 8853.")
    tls_certificate: Path | None = Field(None, description="PEM file with the certificates. Default none: no TLS.")
    tls_key: Path | None = Field(None, description="PEM file with the private key.")
    tls_name: DnsName | None = Field(
        None,
        max_length=240,
        description="Name of this resolver, in the certificate. Clients that look for an encrypted one (RFC 9462) are "
        "told it, and come over TLS by themselves. Default none: they are told that there is none.",
    )
    tls_told_port: Port | None = Field(
        None, ge=1, description="Port that they are told, if it is another that leads to tls_port. Default tls_port."
    )
    networks: tuple[IPvAnyNetwork, ...] = Field(
        ("127.0.0.0/8", "::1/128"),
        validate_default=True,
        description="Clients that are answered (CIDR); this machine always is. Default loopback.",
    )
    refuse: bool = Field(False, description="Whether others are told that they are refused. Default no: nothing.")
    rate: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="UDP answers a second to each IPv4 /24 and IPv6 /56, with two seconds' worth saved up. Default "
        "1000. 0: any number, as for resolvers that ask for many. Otherwise none of them has more than an eighth of "
        "the connections and of `max_waiting` either.",
    )
    zone: DnsName | None = Field(None, description="Zone that says what the lists say (RFC 5782). Default none.")
    zone_servers: tuple[DnsName, ...] = Field((), description="Its name servers (NS). Default the zone's own name.")
    link: Link | None = Field(None, description="Where to read more, for the zone's TXT records. Default none.")
    upstreams: tuple[Upstream, ...] = Field(
        (),
        max_length=8,
        description="Resolvers that are asked about all other names, in this order: 192.0.2.53, [2001:db8::53]:5300.",
    )
    upstream_seconds: float = Field(1.5, gt=0, le=30, description="Time for one of them to answer. Default 1.5.")
    upstream_probe: Literal["."] | DnsName = Field(
        ".",
        description="Name whose NS the node itself asks each of them for every 5 seconds, to know whether it answers. "
        "Default the root, `.`, which every full resolver knows.",
    )
    max_waiting: int = Field(
        4096, ge=1, le=1_000_000, description="Queries that wait for them; one more fails at once. Default 4096."
    )
    blocked: Literal["nxdomain", "nodata", "addresses"] = Field(
        "nxdomain", description="What a blocked name gets: nxdomain, nodata, or addresses. Default nxdomain."
    )
    stop_addresses: tuple[IPvAnyAddress, ...] = Field((), max_length=8, description="The stop page's, for `addresses`.")
    inspect_addresses: tuple[IPvAnyAddress, ...] = Field(
        (),
        max_length=8,
        description="The URL filter's, for names whose pages are listed. Nobody signed them: a client that checks "
        "DNSSEC itself loses such a host whole if its zone is signed. Default none: as all others.",
    )
    aliases: bool = Field(
        True,
        description="Whether a name is blocked too whose answer leads over a blocked one (CNAME), as response policy "
        "zones have it. Default true.",
    )
    withheld: tuple[DnsName, ...] = Field(
        ("use-application-dns.net",),
        max_length=64,
        description="Names that do not exist here, nor what is below them. Default use-application-dns.net, so that "
        "Firefox does not leave for another resolver by itself; iCloud Private Relay asks for mask.icloud.com and "
        "mask-h2.icloud.com.",
    )
    ttl: int = Field(30, ge=10, le=60, description="Time for which such answers may be kept, in seconds. Default 30.")
    reason: DnsReasonSettings = Field(default_factory=DnsReasonSettings)
    reasons: dict[Name, DnsReasonSettings] = Field(
        default_factory=dict, description="Of lists with reasons of their own, as in [gateways.dns.reasons.police]."
    )
    structured_option: int = Field(
        0,
        ge=0,
        le=65_535,
        description="EDNS option that asks for structured errors, until it has a number "
        "(draft-ietf-dnsop-structured-dns-error). Default 0: only the sign of its earlier versions is understood.",
    )
    cache_bytes: int = Field(
        64 * 2**20, ge=0, le=2**36, description="Memory for others' answers, in each process. 0: none. Default 64 MiB."
    )
    max_ttl: int = Field(86_400, ge=1, le=604_800, description="Seconds that none is kept longer. Default a day.")
    stale_seconds: int = Field(
        0, ge=0, le=604_800, description="Seconds that one is used longer when nobody answers (RFC 8767). Default 0."
    )

    def share_of(self, places: int) -> int:
        """How many of so many places clients of one IPv4 /24 or IPv6 /56 may have; 0: any number, as at any rate."""
        return max(1, places // 8) if self.rate else 0

    @model_validator(mode="before")
    @classmethod
    def _enabled_if_it_has_a_use(cls, data: Any) -> Any:  # noqa: ANN401 - pydantic's own
        if isinstance(data, dict) and "enabled" not in data:
            return {**data, "enabled": bool(data.get("zone") or data.get("upstreams"))}
        return data

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.enabled and not (self.zone or self.upstreams):
            raise ValueError("set a zone, upstreams, or both")
        if self.blocked == "addresses" and not self.stop_addresses:
            raise ValueError("stop_addresses: `addresses` needs some")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key need each other")
        if self.tls_name is not None and not (self.tls_certificate and self.upstreams):
            raise ValueError("tls_name needs tls_certificate, tls_key and upstreams")
        return self
