"""The sections of the configuration, each a frozen model; `blocker/settings.py` puts them together.

Each field's description gives default, unit and range.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path  # noqa: TC003 - pydantic reads it at run time
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, IPvAnyAddress, IPvAnyNetwork, model_validator

from blocker._native import canonicalize
from blocker.errors import InvalidURL
from blocker.rules import Verdict

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Role(StrEnum):
    """A part of a node that can be switched on by itself."""

    INGEST = "ingest"  # pulls the sources and publishes
    CONTROL = "control"  # HTTP control plane; it needs and starts the follower


class Mode(StrEnum):
    """What a list does in a policy."""

    ENFORCE = "enforce"  # blocks or excepts
    SHADOW = "shadow"  # decided and counted, never blocks


class Section(BaseModel):
    """What all sections have in common: nothing unknown, and no change once read."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class HttpSettings(Section):
    """Where the control plane listens."""

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        max_length=255,
        description="Address to listen on. Default 127.0.0.1: only this machine.",
    )
    port: Port = Field(8080, description="TCP port, 0 to 65535; 0 takes a free one. Default 8080.")
    max_batch: int = Field(10_000, ge=1, le=100_000, description="URLs in one POST /v1/check. Default 10 000.")
    max_push_bytes: int = Field(
        2**30,
        ge=2**16,
        le=2**40,
        description="Largest pushed list in bytes, packed or not. Default 1 GiB.",
    )
    max_body_bytes: int = Field(
        16 * 2**20,
        ge=2**16,
        le=2**30,
        description="Largest request body in bytes, 64 KiB to 1 GiB. Default 16 MiB; larger is answered 413.",
    )


class HitSettings(Section):
    """How hits are kept and released."""

    bin: int = Field(8, ge=1, le=1000, description="Released cells are rounded up to a multiple of this. Default 8.")
    flush_seconds: float = Field(
        1.0, gt=0, le=1.0, description="Seconds between flushes to the store, at most 1. Default 1: what a kill loses."
    )


class PolicySettings(Section):
    """A named choice of lists for one customer or listener."""

    lists: dict[Name, Mode | None] = Field(
        default_factory=dict,
        description="List name to mode (enforce, shadow; left out: the list's own). Order decides which list is named "
        "when several block equally. Empty: every list in its own mode. At most 64.",
    )
    on_invalid: Literal[Verdict.ALLOW, Verdict.BLOCK] = Field(
        Verdict.ALLOW, description="Verdict for a text that is no URL: allow or block. Default allow."
    )


def _is_url(value: str) -> str:
    try:
        canonicalize(value)
    except InvalidURL as error:
        raise ValueError(str(error)) from None
    return value


#: A page that a list carries for testing. 2048: what every proxy passes on.
CanaryUrl = Annotated[str, Field(max_length=2048), AfterValidator(_is_url)]


#: An address as it may stand in a header and in a link. ASCII: a name in its xn-- form.
Link = Annotated[str, Field(max_length=500, pattern=r"^https?://[!#-;=?-~]+$")]


class StreamSettings(Section):
    """Where a gateway of a stream protocol listens, and what it bears with from a peer."""

    enabled: bool = Field(True, description="Whether this gateway listens. Default true.")
    host: str = Field("127.0.0.1", min_length=1, max_length=255, description="Address to listen on. Default 127.0.0.1.")
    port: Port = Field(0, description="TCP port; 0 takes a free one.")
    unix: Path | None = Field(None, description="Unix socket to listen on as well. Default none.")
    unix_mode: int = Field(0o660, ge=0, le=0o777, description="Mode of the unix socket. Default 0o660.")
    policy: Name = Field("default", description="Policy that it decides by. Default `default`.")
    max_connections: int = Field(
        1024, ge=1, le=100_000, description="Connections at once; one more is closed at once. Default 1024."
    )
    request_seconds: float = Field(
        10.0, gt=0, le=3600, description="Time for a request to arrive whole, and for an answer to be read. Default 10."
    )
    idle_seconds: float = Field(
        75.0, gt=0, le=86_400, description="Time after which a silent connection is closed. Default 75: over nginx' 60."
    )
    drain_seconds: float = Field(
        2.0, ge=0, le=300, description="Time that lasting connections get at a stop to ask once more. Default 2."
    )


class CheckSettings(StreamSettings):
    """HTTP sub-requests of nginx, Envoy, Traefik and Caddy."""

    port: Port = Field(8081, description="TCP port, 0 to 65535; 0 takes a free one. Default 8081.")


class IcapSettings(StreamSettings):
    """ICAP request modification for Squid and other proxies."""

    port: Port = Field(1344, description="TCP port, 0 to 65535; 0 takes a free one. Default 1344.")


class SpoeSettings(StreamSettings):
    """HAProxy's Stream Processing Offload Engine."""

    port: Port = Field(12345, description="TCP port, 0 to 65535; 0 takes a free one. Default 12345.")


class EnvoySettings(Section):
    """Envoy's external authorization over gRPC."""

    enabled: bool = Field(
        False,
        description="Whether this gateway listens. Default false: gRPC takes 16 MB and seven threads, and Envoy can "
        "ask the check gateway too, for a tenth of the processor time.",
    )
    host: str = Field(
        "127.0.0.1",
        min_length=1,
        max_length=255,
        description="Address to listen on; gRPC takes 0.0.0.0 for IPv6 as well. Default 127.0.0.1.",
    )
    port: Port = Field(9001, description="TCP port, 0 to 65535; 0 takes a free one. Default 9001.")
    policy: Name = Field("default", description="Policy that it decides by. Default `default`.")
    max_connections: int = Field(
        1024, ge=1, le=100_000, description="Connections at once; one more is closed at once. Default 1024."
    )
    max_requests: int = Field(
        1024,
        ge=1,
        le=100_000,
        description="Checks under way at once, of all connections; one more is answered RESOURCE_EXHAUSTED. "
        "Default 1024.",
    )
    request_seconds: float = Field(
        10.0, gt=0, le=3600, description="Time for a new connection to say that it speaks HTTP/2. Default 10."
    )
    idle_seconds: float = Field(
        300.0, gt=0, le=86_400, description="Time after which a connection without checks is closed. Default 300."
    )
    drain_seconds: float = Field(
        2.0, ge=0, le=300, description="Time that checks under way get at a stop to be answered. Default 2."
    )


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


class DnsReasonSettings(Section):
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
        "1000. 0: any number, as for resolvers that ask for many.",
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
    max_waiting: int = Field(
        4096, ge=1, le=1_000_000, description="Queries that wait for them; one more fails at once. Default 4096."
    )
    blocked: Literal["nxdomain", "nodata", "addresses"] = Field(
        "nxdomain", description="What a blocked name gets: nxdomain, nodata, or addresses. Default nxdomain."
    )
    stop_addresses: tuple[IPvAnyAddress, ...] = Field((), max_length=8, description="The stop page's, for `addresses`.")
    inspect_addresses: tuple[IPvAnyAddress, ...] = Field(
        (), max_length=8, description="The URL filter's, for names whose pages are listed. Default none: as all others."
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
        return self


class GatewaySettings(Section):
    """What proxies and resolvers ask."""

    workers: int = Field(
        0,
        ge=0,
        le=256,
        description="Processes that serve the stream gateways, each with a listening socket of its own (SO_REUSEPORT) "
        "and max_connections for itself. Default 0: the node's own process serves them.",
    )
    check: CheckSettings = Field(default_factory=CheckSettings)
    icap: IcapSettings = Field(default_factory=IcapSettings)
    spoe: SpoeSettings = Field(default_factory=SpoeSettings)
    envoy: EnvoySettings = Field(default_factory=EnvoySettings)
    dns: DnsSettings = Field(default_factory=DnsSettings)


class CompanionSettings(Section):
    """Where workers and Squid's helpers meet the node; see `blocker/gateways/host.py`."""

    unix: Path | None = Field(
        None, description="Unix socket. Default node.sock in data_dir, where only the node's own user comes."
    )
    group: str | None = Field(
        None,
        description="Group whose members may connect too, such as proxy for Squid's helpers; who connects gets the "
        "lookup key. Default none: the node's own user alone.",
    )


class CanarySettings(Section):
    """Pages that a list carries for testing; `blocker/gateways/canaries.py` says what is looked at."""

    blocked: tuple[CanaryUrl, ...] = Field(
        min_length=1,
        max_length=8,
        repr=False,
        description="1 to 8 addresses that the list must block. One with a path tests a rule for that path: what is "
        "beside it must stay reachable. One without tests a rule for the whole host.",
    )


class GuardSettings(Section):
    """What is still usual for a list, and what none may block as a whole; see blocker/ingest/guard.py."""

    max_growth: float = Field(
        1.0, ge=0, description="New share of a list's rules above which it waits for approval. Default 1: doubling."
    )
    max_shrink: float = Field(
        0.3, ge=0, le=1, description="Lost share of a list's rules above which it waits for approval. Default 0.3."
    )
    floor: int = Field(
        1000, ge=0, description="Changes of at most so many rules never wait for their number. Default 1000."
    )
    max_first: int = Field(
        5_000_000, ge=0, description="Rules above which a first version waits for approval. Default 5 000 000."
    )
    whole_host_paths: int = Field(
        10, ge=1, description="Listed pages on a host from which a rule for all of it waits for approval. Default 10."
    )
    popular_domains: Path | None = Field(
        None, description="File of popular domains, a name a line or rank,name; none may be blocked as a whole."
    )
    popular_top: int = Field(
        0, ge=0, description="So many names from the beginning of popular_domains; 0 is all. Default 0."
    )
    own_names: tuple[str, ...] = Field(
        (), description="The operator's own domains; no rule may block one, one under it or one above it as a whole."
    )
    own_networks: tuple[IPvAnyNetwork, ...] = Field(
        (), description="The operator's own networks (CIDR); no rule may block an address in them as a whole."
    )
