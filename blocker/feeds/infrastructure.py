"""Addresses that belong to nobody's site: the operator's own, as far as the configuration and this machine tell, and
those that half of the internet depends on.

A listed site can have any address in its DNS. Were the URL filter's own routed, packets for it would go in circles;
were a resolver's or a root server's, a list of pages would stop names.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import ipaddress
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from blocker.feeds.addresses import Networks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocker.feeds.addresses import Address, Network
    from blocker.settings import Settings

# IANA's root hints (https://www.internic.net/domain/named.root), a to m; b has had its address since November 2023.
_ROOT_SERVERS = (
    "198.41.0.4", "2001:503:ba3e::2:30", "170.247.170.2", "2801:1b8:10::b", "192.33.4.12", "2001:500:2::c",
    "199.7.91.13", "2001:500:2d::d", "192.203.230.10", "2001:500:a8::e", "192.5.5.241", "2001:500:2f::f",
    "192.112.36.4", "2001:500:12::d0d", "198.97.190.53", "2001:500:1::53", "192.36.148.17", "2001:7fe::53",
    "192.58.128.30", "2001:503:c27::2:30", "193.0.14.129", "2001:7fd::1", "199.7.83.42", "2001:500:9f::42",
    "202.12.27.33", "2001:dc3::35",
)  # fmt: skip
# What their operators publish, each with its variants that filter or validate: the largest, asked by whole countries.
_PUBLIC_RESOLVERS = (
    # Google: developers.google.com/speed/public-dns
    "8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844", "2001:4860:4860::64", "2001:4860:4860::6464",
    # Cloudflare: developers.cloudflare.com/1.1.1.1
    "1.1.1.1", "1.0.0.1", "1.1.1.2", "1.0.0.2", "1.1.1.3", "1.0.0.3", "2606:4700:4700::1111", "2606:4700:4700::1001",
    "2606:4700:4700::1112", "2606:4700:4700::1002", "2606:4700:4700::1113", "2606:4700:4700::1003",
    "2606:4700:4700::64", "2606:4700:4700::6400",
    # Quad9: quad9.net/service/service-addresses-and-features
    "9.9.9.9", "149.112.112.112", "9.9.9.10", "149.112.112.10", "9.9.9.11", "149.112.112.11", "2620:fe::fe",
    "2620:fe::9", "2620:fe::10", "2620:fe::fe:10", "2620:fe::11", "2620:fe::fe:11",
    # OpenDNS: opendns.com/setupguide
    "208.67.222.222", "208.67.220.220", "208.67.222.123", "208.67.220.123", "2620:119:35::35", "2620:119:53::53",
    "2620:119:35::123", "2620:119:53::123",
    # AdGuard: adguard-dns.io/public-dns.html
    "94.140.14.14", "94.140.15.15", "94.140.14.15", "94.140.15.16", "94.140.14.140", "94.140.14.141",
    "2a10:50c0::ad1:ff", "2a10:50c0::ad2:ff", "2a10:50c0::bad1:ff", "2a10:50c0::bad2:ff", "2a10:50c0::1:ff",
    "2a10:50c0::2:ff",
)  # fmt: skip
_INFRASTRUCTURE = Networks(ipaddress.ip_network(text) for text in (*_ROOT_SERVERS, *_PUBLIC_RESOLVERS))
# netdevice(7): asks for all interfaces' addresses, each a name and an IPv4 socket address in a union of 24 bytes.
_SIOCGIFCONF = 0x8912
_CONFIGURATION, _INTERFACE = struct.Struct("iP"), struct.Struct("16sPPhBBB0P")
_MOST_INTERFACES = 4096
_INET6 = Path("/proc/net/if_inet6")


def is_infrastructure(address: Address) -> bool:
    """Whether it is a root server's, or one of the large public resolvers'."""
    return address in _INFRASTRUCTURE


def own_addresses(settings: Settings) -> list[Network]:
    """What is the operator's own beside `guards.own_networks`: what the configuration names, and this machine's.

    What the configuration names as a host's name is not looked up, and not among them.
    """
    found: list[Network] = []
    for text in (*_configured(settings), *machine_addresses()):
        with contextlib.suppress(ValueError):
            found.append(ipaddress.ip_network(text))
    return found


def machine_addresses() -> list[str]:
    """The addresses of this machine's interfaces; none of a family that Linux does not tell."""
    found: list[str] = []
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        room = array.array("B", bytes(_INTERFACE.size * _MOST_INTERFACES))
        where, size = room.buffer_info()
        size, _ = _CONFIGURATION.unpack(fcntl.ioctl(asked, _SIOCGIFCONF, _CONFIGURATION.pack(size, where)))
        # sockaddr_in: family and port come before the address.
        addresses = (room[at + 20 : at + 24].tobytes() for at in range(0, size, _INTERFACE.size))
        found += map(socket.inet_ntoa, addresses)
    with contextlib.suppress(OSError):
        lines = _INET6.read_text("ascii").splitlines()
        found += (str(ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))) for line in lines)
    return found


def _configured(settings: Settings) -> Iterator[str]:
    routes, dns, rpz = settings.routes, settings.gateways.dns, settings.feeds.rpz
    yield routes.next_hop
    yield routes.next_hop6 or ""
    for server in (*routes.resolvers, *dns.upstreams):
        yield urlsplit(f"//{server}").hostname or ""
    yield from map(str, (*dns.inspect_addresses, *dns.stop_addresses))
    for zone in rpz.zones.values():
        yield from map(str, (*zone.addresses, *(one.address for one in zone.secondaries)))
    listening: list[Any] = [settings.http, rpz, *(gateway for _, gateway in settings.gateways)]
    yield from (getattr(one, "host", "") for one in listening)
