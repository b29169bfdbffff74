"""The section of the configuration that is about routes; each field's description gives default, unit and range."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path  # noqa: TC003 - pydantic reads it at run time
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, IPvAnyNetwork, model_validator

from blocker.section import Frozen, Name

_SERVER = re.compile(r"(?P<v4>[0-9.]+)(?::(?P<port4>\d{1,5}))?|\[(?P<v6>[0-9a-fA-F:.]+)\](?::(?P<port6>\d{1,5}))?")
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
#: RFC 1997: goes no further than the network's own edge.
NO_EXPORT = "65535:65281"
# Documentation and benchmarks: RFC 5737, 2544, 3849 and 9637.
_TRIAL = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15", "2001:db8::/32", "3fff::/20")


def _server(text: str) -> str:
    found = _SERVER.fullmatch(text)
    try:
        if found is None:
            raise ValueError  # noqa: TRY301 - one message for all of it
        (IPv4Address if found["v4"] else IPv6Address)(found["v4"] or found["v6"])
        port = int(found["port4"] or found["port6"] or 53)
        if not 1 <= port <= 65535:
            raise ValueError  # noqa: TRY301 - as above
    except ValueError:
        raise ValueError("must be an address, such as 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:53") from None
    return text


def _community(text: str) -> str:
    numbers = text.split(":")
    if len(numbers) != 2 or not all(one.isascii() and one.isdigit() and int(one) <= 65535 for one in numbers):
        raise ValueError("must be two numbers up to 65535, such as 65001:451")
    high, low = map(int, numbers)
    if (high, low) == (65535, 666):
        raise ValueError("65535:666 is BLACKHOLE (RFC 7999): traffic would be discarded, and must reach the URL filter")
    if high in (0, 65535):
        raise ValueError("must not be from 0:… or 65535:…, which are reserved (RFC 1997); NO_EXPORT is always added")
    return f"{high}:{low}"


def _next_hop(text: str) -> str:
    if text == "self":
        return text
    try:
        return _reachable(IPv4Address(text))
    except ValueError:
        raise ValueError("must be an IPv4 address that a router can send to, or self") from None


def _next_hop6(text: str) -> str:
    if text == "self":
        raise ValueError(
            "must be the URL filter's IPv6 address: in a session over IPv4 there is no self of IPv6, what ExaBGP sends "
            "instead ends the session, and all routes with it"
        )
    try:
        return _reachable(IPv6Address(text))
    except ValueError:
        raise ValueError("must be an IPv6 address that a router can send to") from None


def _reachable(address: IPv4Address | IPv6Address) -> str:
    """The text of an address that may be a next hop: routers end the session over some that may not be."""
    mapped = isinstance(address, IPv6Address) and address.ipv4_mapped is not None
    if address.is_unspecified or address.is_multicast or address.is_reserved or address.is_link_local or mapped:
        raise ValueError
    return str(address)


def _host(text: str) -> str:
    name = text.lower().removesuffix(".")
    if _HOST.fullmatch(name) is None:
        raise ValueError("must be a host name; in its xn-- form if it is not ASCII")
    return name


def _trial(network: IPvAnyNetwork) -> IPvAnyNetwork:
    for text in _TRIAL:
        one = IPvAnyNetwork(text)  # type: ignore[operator]  # pydantic makes a network of it
        if network.version == one.version and network.subnet_of(one):
            return network
    raise ValueError(f"must be inside one of {', '.join(_TRIAL)}")


def _probe(text: str) -> str:
    try:
        parts = urlsplit(text)
        port = parts.port
        if parts.hostname is None or parts.username is not None or not text.isprintable() or " " in text:
            raise ValueError  # noqa: TRY301 - one message for all of it
        ip_address(parts.hostname)  # a name would have to be resolved
        if parts.scheme == "tcp":
            if port is None or parts.path or parts.query or parts.fragment:
                raise ValueError  # noqa: TRY301 - as above
        elif parts.scheme != "http":
            raise ValueError  # noqa: TRY301 - as above
    except ValueError:
        raise ValueError("must be as tcp://192.0.2.80:443 or http://192.0.2.80:8080/path, with an address") from None
    return text


Server = Annotated[str, AfterValidator(_server)]
Community = Annotated[str, AfterValidator(_community)]
NextHop = Annotated[str, AfterValidator(_next_hop)]
NextHop6 = Annotated[str, AfterValidator(_next_hop6)]
HostName = Annotated[str, AfterValidator(_host)]
Probe = Annotated[str, AfterValidator(_probe)]
TrialNetwork = Annotated[IPvAnyNetwork, AfterValidator(_trial)]


class RouteSettings(Frozen):
    """Addresses of listed hosts, announced by BGP so that only their traffic comes to the URL filter."""

    enabled: bool = Field(
        False,
        description="Whether this node resolves listed hosts and feeds ExaBGP. Needs the seal key. Default false.",
    )
    unix: Path | None = Field(
        None, description="Unix socket for `blocker bgp-feed` and `blocker routes`. Default routes.sock in data_dir."
    )
    group: str | None = Field(
        None,
        description="Group whose members may connect to it too, such as exabgp. Default none: the node's user alone.",
    )
    policy: Name = Field("default", description="Policy whose lists are routed. Default `default`.")
    whole_hosts: bool = Field(
        False,
        description="Whether hosts that are listed whole are routed too, which a resolver stops otherwise. "
        "Default false: only hosts of which single pages are listed.",
    )
    resolvers: tuple[Server, ...] = Field(
        (),
        max_length=8,
        description="Up to 8 resolvers, as address, address:port or [address]:port, that say where customers go. "
        "They must not rewrite listed names, as [gateways.dns] and resolvers with [feeds.rpz] do.",
    )
    quorum: int = Field(
        1,
        ge=1,
        le=8,
        description="How many resolvers must say an address of a listed host for it to count; of popular names any's "
        "word counts. Default 1: any; see resolve.py.",
    )
    lookup_seconds: float = Field(
        5.0, gt=0, le=60, description="Time for one resolver's answer, in seconds. Default 5."
    )
    lookup_tries: int = Field(3, ge=1, le=10, description="Packets sent to one resolver in that time. Default 3.")
    lookups_per_second: float = Field(100.0, gt=0, le=10_000, description="Names looked up in a second. Default 100.")
    lookups_at_once: int = Field(64, ge=1, le=4096, description="Names looked up at once. Default 64.")
    https_records: bool = Field(
        True,
        description="Whether HTTPS records (RFC 9460) are asked for too, and the names that they lead to: browsers may "
        "go there. Three questions a name and resolver instead of two; two more for a service's target, three for an "
        "alias's, 24 at the most. Default true.",
    )
    min_ttl_seconds: float = Field(
        60.0, ge=1, le=86_400, description="A host is not looked up again sooner, in seconds. Default 60."
    )
    max_ttl_seconds: float = Field(
        3600.0, ge=1, le=604_800, description="A host is looked up again by then, in seconds. Default 3600."
    )
    dead_after_seconds: float = Field(
        259_200.0,
        ge=0,
        description="A host that is nowhere for so long is reported as dead. Default 259 200: three days.",
    )
    popular_top: int = Field(
        1000, ge=0, le=100_000,
        description="So many names from the beginning of guards.popular_domains are looked up, and www. of them; "
        "no address of theirs is routed, and no listed host under them. Default 1000; 0 looks none up.",
    )  # fmt: skip
    popular_exempt: tuple[HostName, ...] = Field(
        (),
        description="Names, and all under them, that may be routed although they are popular or under a popular name: "
        "the filter bears their traffic, or they are a dynamic DNS service, whose customers are elsewhere. Default "
        "none.",
    )
    never_networks: tuple[IPvAnyNetwork, ...] = Field(
        (),
        description="Networks (CIDR), single addresses among them, that are never routed; what is leaves at once when "
        "they are set, at SIGHUP too. Default none.",
    )
    never_names: tuple[HostName, ...] = Field(
        (),
        max_length=1000,
        description="Names, and all under them, that are never routed, at once as never_networks; nor are addresses of "
        "theirs, and of www. of them, for other hosts. They are looked up at the resolvers. Default none.",
    )
    max_per_host: int = Field(16, ge=1, le=1000, description="Routes for one host. Default 16.")
    max_routes: int = Field(10_000, ge=1, le=1_000_000, description="Routes in all. Default 10 000.")
    changes_per_minute: int = Field(
        600, ge=1, le=1_000_000, description="Routes announced or withdrawn in a minute. Default 600."
    )
    withdraw_seconds: float = Field(
        30.0, ge=0, le=3600, description="No withdrawal waits longer for changes_per_minute, in seconds. Default 30."
    )
    hold_down_seconds: float = Field(
        86_400.0,
        ge=0,
        le=2_592_000,
        description="A route stays so long after its host has moved. A host whose servers fail for so long, and for "
        "max_ttl_seconds, counts as nowhere. Default 86 400: a day.",
    )
    slot_seconds: float = Field(
        600.0, ge=0, le=86_400,
        description="At max_per_host, an address that its host has left keeps its place so long. Default 600 seconds.",
    )  # fmt: skip
    form: Literal["route", "flow"] = Field(
        "route",
        description="`route`: host routes (RFC 4271), all traffic. `flow`: FlowSpec (RFC 8955), some ports of it.",
    )
    communities: tuple[Community, ...] = Field(
        ("65001:451",), max_length=16,
        description="Communities of each route, by which routers know it. Never BLACKHOLE; NO_EXPORT is always added. "
        "Default 65001:451.",
    )  # fmt: skip
    next_hop: NextHop = Field("self", description="Next hop of IPv4 routes: an address, or self. Default self.")
    next_hop6: NextHop6 | None = Field(
        None,
        description="Next hop of IPv6 routes: an address. Default none: no IPv6 route is announced, and what listed "
        "hosts have of IPv6 passes by the URL filter.",
    )
    filter_probes: tuple[Probe, ...] = Field(
        (), max_length=8,
        description="Where the URL filter is asked whether it lives: tcp://address:port, which must let itself be "
        "connected to, or http://address[:port]/path, which must answer, and not with a status of 500 or more. While "
        "one does not, no routes are announced; see filter_watch.py. At most 8. Default none: it is not asked.",
    )  # fmt: skip
    filter_probe_seconds: float = Field(
        5.0, ge=0.1, le=60, description="Time between two such looks, and for an answer, in seconds. Default 5.",
    )  # fmt: skip
    flow_redirect: Community = Field(
        "65001:451", description="Route target of the VRF that FlowSpec redirects to. Default 65001:451."
    )
    flow_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = Field(
        (80, 443),
        min_length=1,
        max_length=16,
        description="Destination ports that FlowSpec redirects. Default 80, 443.",
    )
    flow_protocols: tuple[Literal["tcp", "udp"], ...] = Field(
        ("tcp", "udp"), min_length=1,
        description="Protocols that FlowSpec redirects. Default both: HTTP/3 is UDP, and would pass by the filter.",
    )  # fmt: skip
    when_stopped: Literal["keep", "withdraw"] = Field(
        "keep",
        description="When the node is stopped in order: keep the routes (the URL filter goes on with its lists), "
        "or withdraw them (nothing is filtered by address any more). A node that dies withdraws none. Default keep.",
    )
    trial_networks: tuple[TrialNetwork, ...] = Field(
        (), description="Networks for documentation and benchmarks that may be routed, for trials. Default none."
    )

    @model_validator(mode="after")
    def _fits(self) -> RouteSettings:
        if self.enabled and not self.resolvers:
            raise ValueError("resolvers: routes need at least one")
        if self.resolvers and self.quorum > len(self.resolvers):
            raise ValueError("quorum: there are not so many resolvers")
        if self.min_ttl_seconds > self.max_ttl_seconds:
            raise ValueError("min_ttl_seconds: must not be above max_ttl_seconds")
        return self

    @property
    def families(self) -> frozenset[int]:
        """Which of IPv4 (4) and IPv6 (6) are announced: flow rules have no next hop, and need none."""
        return frozenset((4, 6) if self.form == "flow" or self.next_hop6 is not None else (4,))
