"""Addresses that no route feed may ever name: what the IANA registries set apart, and the operator's own.

Python's `is_global` is not enough: it takes IPv4 inside IPv6 for global, and knows neither 3fff::/20 nor 5f00::/16. So
the registries' blocks are here, each with its reference; of IPv6 only 2000::/3 is handed out to anybody at all.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# IANA IPv4 and IPv6 Special-Purpose Address Registries, and multicast. Blocks that the registries call globally
# reachable are in it too: what is there belongs to a service, and to no site.
SPECIAL: Sequence[Network] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network, RFC 791
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",  # private, RFC 1918
        "100.64.0.0/10",  # shared behind carrier-grade NAT, RFC 6598
        "127.0.0.0/8",  # loopback, RFC 1122
        "169.254.0.0/16",  # link local, RFC 3927
        "192.0.0.0/24",  # IETF protocols, RFC 6890
        "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24",  # documentation, RFC 5737
        "192.31.196.0/24", "192.175.48.0/24",  # AS112, RFC 7535 and 7534
        "192.52.193.0/24",  # AMT, RFC 7450
        "192.88.99.0/24",  # 6to4 relays, RFC 7526
        "198.18.0.0/15",  # benchmarks, RFC 2544
        "224.0.0.0/4",  # multicast, RFC 5771
        "240.0.0.0/4",  # reserved and broadcast, RFC 1112
        "2001::/23",  # IETF protocols, Teredo among them, RFC 2928
        "2001:db8::/32", "3fff::/20",  # documentation, RFC 3849 and 9637
        "2002::/16",  # 6to4, RFC 3056
        "2620:4f:8000::/48",  # AS112, RFC 7534
    )
)  # fmt: skip
_HANDED_OUT = ipaddress.IPv6Network("2000::/3")


class Networks:
    """Some networks, to ask whether an address is in one of them.

    Cost: a microsecond, whatever their number: one look for each length of their prefixes. A hostile name can have
    thousands of addresses.
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        self._at: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        for one in networks:
            self._at[one.version].setdefault(int(one.netmask), set()).add(int(one.network_address))

    def __contains__(self, address: Address) -> bool:
        number = int(address)
        for mask, there in self._at[address.version].items():  # noqa: SIM110 - twice as quick as any()
            if number & mask in there:
                return True
        return False


_SPECIAL = Networks(SPECIAL)


def is_special(address: Address) -> bool:
    """Whether an address is set apart by IANA, so that no site of the internet can be reached at it."""
    return address in _SPECIAL or (address.version == 6 and address not in _HANDED_OUT)


def neighbourhood(address: Address) -> int:
    """A number for the network that is usually one operator's: /24 of IPv4, /48 of IPv6 (what most others accept)."""
    return int(address) >> 8 if address.version == 4 else int(address) >> 80 | 1 << 48
