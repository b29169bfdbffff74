"""What is never routed whatever a listed site says: the operator's own addresses, and everybody's."""

from __future__ import annotations

import contextlib
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from blocker.feeds.addresses import Networks, is_special
from blocker.feeds.infrastructure import (
    _PUBLIC_RESOLVERS,
    _ROOT_SERVERS,
    is_infrastructure,
    machine_addresses,
    own_addresses,
)
from blocker.settings import load

if TYPE_CHECKING:
    from pathlib import Path

CONFIGURATION = """
[http]
host = "198.51.100.1"
[guards]
popular_domains = "popular.csv"
own_networks = ["198.51.100.200/29"]
[routes]
enabled = true
next_hop = "198.51.100.2"
next_hop6 = "2001:db8::2"
resolvers = ["198.51.100.3", "198.51.100.4:5300", "[2001:db8::4]:5300"]
[gateways.check]
host = "control.isp.example"
[gateways.icap]
host = "198.51.100.5"
[gateways.dns]
host = "2001:db8::6"
upstreams = ["198.51.100.7", "[2001:db8::7]:53"]
blocked = "addresses"
stop_addresses = ["198.51.100.8", "2001:db8::8"]
inspect_addresses = ["198.51.100.9"]
[feeds.rpz]
host = "198.51.100.10"
[feeds.rpz.zones.police]
origin = "police.rpz.example"
carries = "inspect"
addresses = ["198.51.100.11"]
secondaries = [{ address = "198.51.100.12" }]
"""
NAMED = [*(f"198.51.100.{at}" for at in range(1, 13) if at != 6), *(f"2001:db8::{at}" for at in (2, 4, 6, 7, 8))]


def test_every_address_that_the_configuration_names_is_own(tmp_path: Path) -> None:
    path = tmp_path / "blocker.toml"
    path.write_text(CONFIGURATION, "utf-8")
    own = Networks(own_addresses(load(path)))
    assert [one for one in NAMED if ip_address(one) not in own] == []
    assert ip_address("198.51.100.13") not in own
    assert ip_address("198.51.100.201") not in own, "who has the guards' networks adds them"


def test_this_machine_s_addresses_are_own(tmp_path: Path) -> None:
    found = machine_addresses()
    assert {"127.0.0.1"} <= set(found)
    for text in found:
        address = ip_address(text)
        if address.is_link_local:  # needs the name of an interface
            continue
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as bound:
            bound.bind((text, 0))  # none but its own
    # Those by which it reaches others: nothing is sent.
    for family, other in ((socket.AF_INET, "192.0.2.200"), (socket.AF_INET6, "2001:db8::200")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((other, 9))
            assert probe.getsockname()[0] in found
    path = tmp_path / "blocker.toml"
    path.write_text(CONFIGURATION, "utf-8")
    own = Networks(own_addresses(load(path)))
    assert all(ip_address(text) in own for text in found)


@pytest.mark.parametrize("texts", [_ROOT_SERVERS, _PUBLIC_RESOLVERS])
def test_the_tables_hold_public_addresses_of_both_families_once(texts: tuple[str, ...]) -> None:
    addresses = [ip_address(text) for text in texts]
    assert [str(one) for one in addresses] == list(texts)
    assert len(set(addresses)) == len(addresses)
    assert {one.version for one in addresses} == {4, 6}
    assert not any(is_special(one) for one in addresses)
    assert all(map(is_infrastructure, addresses))


def test_the_thirteen_root_servers_have_two_addresses_each() -> None:
    assert sum(ip_address(text).version == 4 for text in _ROOT_SERVERS) == 13
    assert sum(ip_address(text).version == 6 for text in _ROOT_SERVERS) == 13
    assert not is_infrastructure(ip_address("198.41.0.5"))
