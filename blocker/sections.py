"""The sections of the configuration, each a frozen model; `blocker/settings.py` puts them together.

Each field's description gives default, unit and range.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003 - pydantic reads it at run time
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, IPvAnyNetwork

from blocker._native import canonicalize
from blocker.dns_section import DnsReasonSettings as DnsReasonSettings
from blocker.dns_section import DnsSettings as DnsSettings
from blocker.errors import InvalidURL
from blocker.rules import Verdict
from blocker.section import NAME_PATTERN as NAME_PATTERN
from blocker.section import Frozen
from blocker.section import Name as Name
from blocker.section import Port as Port
from blocker.section import StreamSettings as StreamSettings


class Role(StrEnum):
    """A part of a node that can be switched on by itself."""

    INGEST = "ingest"  # pulls the sources and publishes
    CONTROL = "control"  # HTTP control plane; it needs and starts the follower


class Mode(StrEnum):
    """What a list does in a policy."""

    ENFORCE = "enforce"  # blocks or excepts
    SHADOW = "shadow"  # decided and counted, never blocks


class HttpSettings(Frozen):
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
    https_only: bool = Field(
        False,
        description="Whether people sign in to the console over https alone, through a proxy in front of it. Default "
        "false: a cookie is marked Secure wherever the browser says that it speaks https.",
    )
    session_seconds: float = Field(
        1800.0,
        ge=60,
        le=28_800,
        description="Time after which a console that nobody uses is signed out, 60 to 28 800. Default 1800. After "
        "eight hours it is in any case.",
    )
    max_body_bytes: int = Field(
        16 * 2**20,
        ge=2**16,
        le=2**30,
        description="Largest request body in bytes, 64 KiB to 1 GiB. Default 16 MiB; larger is answered 413.",
    )


class HitSettings(Frozen):
    """How hits are kept and released."""

    bin: int = Field(8, ge=1, le=1000, description="Released cells are rounded up to a multiple of this. Default 8.")
    flush_seconds: float = Field(
        1.0, gt=0, le=1.0, description="Seconds between flushes to the store, at most 1. Default 1: what a kill loses."
    )
    keep_weeks: int = Field(
        104,
        ge=5,
        le=1040,
        description="ISO weeks of which cells are kept for reports, the present one included; of older ones only the "
        "released sums without their weeks are. Default 104: two years.",
    )


class PolicySettings(Frozen):
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


class CheckSettings(StreamSettings):
    """HTTP sub-requests of nginx, Envoy, Traefik and Caddy."""

    port: Port = Field(8081, description="TCP port, 0 to 65535; 0 takes a free one. Default 8081.")


class IcapSettings(StreamSettings):
    """ICAP request modification for Squid and other proxies."""

    port: Port = Field(1344, description="TCP port, 0 to 65535; 0 takes a free one. Default 1344.")


class SpoeSettings(StreamSettings):
    """HAProxy's Stream Processing Offload Engine."""

    port: Port = Field(12345, description="TCP port, 0 to 65535; 0 takes a free one. Default 12345.")


class EnvoySettings(Frozen):
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


class GatewaySettings(Frozen):
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
    dns: DnsSettings = Field(default_factory=DnsSettings)
    envoy: EnvoySettings = Field(default_factory=EnvoySettings)


class CompanionSettings(Frozen):
    """Where workers and Squid's helpers meet the node; see `blocker/gateways/host.py`."""

    unix: Path | None = Field(
        None, description="Unix socket. Default node.sock in data_dir, where only the node's own user comes."
    )
    group: str | None = Field(
        None,
        description="Group whose members may connect too, such as proxy for Squid's helpers; who connects gets the "
        "lookup key. Default none: the node's own user alone.",
    )


class CanarySettings(Frozen):
    """Pages that a list carries for testing; `blocker/gateways/canaries.py` says what is looked at."""

    blocked: tuple[CanaryUrl, ...] = Field(
        min_length=1,
        max_length=8,
        repr=False,
        description="1 to 8 addresses that the list must block. One with a path tests a rule for that path: what is "
        "beside it must stay reachable. One without tests a rule for the whole host.",
    )


class GuardSettings(Frozen):
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
        (),
        description="The operator's own networks (CIDR); no rule may block an address in them as a whole, and none of "
        "them is routed: routes need some. Default none.",
    )
