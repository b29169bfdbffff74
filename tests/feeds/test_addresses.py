"""Addresses that are never routed: as Python's own networks say, and quickly, since hostile answers have thousands."""

from __future__ import annotations

import time
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocker.feeds.addresses import SPECIAL, Networks, is_special, neighbourhood

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blocker.feeds.addresses import Address, Network

NETWORKS = st.builds(
    lambda address, length: ip_network((address, min(length, address.max_prefixlen)), strict=False),
    st.ip_addresses(), st.integers(0, 128),
)  # fmt: skip


def borders(network: Network) -> Iterable[Address]:
    """A network's ends, and what is beside them."""
    kind = IPv4Address if network.version == 4 else IPv6Address
    first, last = int(network.network_address), int(network.broadcast_address)
    return (kind(at) for at in (first - 1, first, last, last + 1) if 0 <= at < 1 << network.max_prefixlen)


@given(st.lists(NETWORKS, max_size=8), st.lists(st.ip_addresses(), max_size=8))
def test_an_address_is_in_networks_if_it_is_in_one_of_them(networks: list[Network], others: list[Address]) -> None:
    made = Networks(networks)
    for address in (*others, *(one for network in networks for one in borders(network))):
        assert (address in made) == any(address in network for network in networks)


@pytest.mark.parametrize("network", SPECIAL, ids=str)
def test_special_networks_are_special_to_their_ends(network: Network) -> None:
    for address in borders(network):
        handed_out = address.version == 4 or address in ip_network("2000::/3")
        assert is_special(address) == (not handed_out or any(address in one for one in SPECIAL))


@pytest.mark.parametrize(
    "text",
    ["::ffff:11.1.1.1", "::11.1.1.1", "64:ff9b::11.1.1.1", "64:ff9b:1::b01:101", "64:ff9b:1:ffff:ffff:ffff:b01:101",
     "2002:b01:101::1", "2001:0:b01:101::1", "2001:1ff:ffff::1", "fe80::5efe:b01:101"],
)  # fmt: skip
def test_ipv4_inside_ipv6_is_special(text: str) -> None:
    assert is_special(ip_address(text))


def test_a_neighbourhood_is_what_others_accept_a_route_for() -> None:
    for first, second, same in (
        ("11.1.1.200", "11.1.1.1", True), ("11.1.1.200", "11.1.2.200", False), ("2a00:1:2:3::4", "2a00:1:2:f::", True),
        ("2a00:1:2::", "2a00:1:3::", False), ("0.0.1.0", "::1", False), ("0.0.1.0", "0:0:1::", False),
    ):  # fmt: skip
        assert (neighbourhood(ip_address(first)) == neighbourhood(ip_address(second))) is same


def test_a_thousand_networks_are_asked_like_one() -> None:
    addresses = [IPv4Address((11 << 24) + at) for at in range(4000)]

    def seconds(count: int) -> float:
        networks = Networks(ip_network(f"12.{at // 256}.{at % 256}.0/24") for at in range(count))
        best = float("inf")
        for _ in range(5):
            begun = time.perf_counter()
            assert not any(address in networks for address in addresses)
            best = min(best, time.perf_counter() - begun)
        return best

    assert seconds(1000) < 5 * seconds(1)
