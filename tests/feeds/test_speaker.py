"""What ExaBGP is told, and what follows from its answers; no pipes."""

from __future__ import annotations

from dataclasses import asdict, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocker.feeds.bgp import WINDOW, Form, Speaker
from blocker.feeds.bgp_sessions import INVENTORY, NEIGHBORS
from blocker.route_section import RouteSettings

if TYPE_CHECKING:
    from blocker.feeds.addresses import Address

ROUTE = Form.of(RouteSettings())
FLOW = Form.of(RouteSettings(form="flow", flow_ports=(443,), flow_protocols=("tcp", "udp")))
A, B, C = (ip_address(f"192.0.2.{at}") for at in (1, 2, 3))
SIX = ip_address("2001:db8::7")


def exchange(speaker: Speaker, refuse: str = "\0") -> list[str]:
    """Let an ExaBGP without neighbors answer until there is nothing more to say; the commands."""
    said = []
    while lines := speaker.lines():
        for line in lines:
            said.append(line)
            speaker.read("error" if refuse in line else "done")
    return [line for line in said if line not in (INVENTORY, NEIGHBORS)]


def test_a_route_has_the_community_and_goes_no_further() -> None:
    assert ROUTE.announce(A) == "announce route 192.0.2.1/32 next-hop self community [65001:451 65535:65281]"
    assert ROUTE.withdraw(A) == "withdraw route 192.0.2.1/32 next-hop self"
    six = replace(ROUTE, next_hop6="2001:db8::1")
    assert six.announce(SIX).startswith("announce route 2001:db8::7/128 next-hop 2001:db8::1 community [")


def test_a_flow_rule_redirects() -> None:
    assert FLOW.announce(A) == (
        "announce flow route { match { destination 192.0.2.1/32; protocol [ =tcp =udp ]; destination-port =443; } "
        "then { redirect 65001:451; community [65001:451 65535:65281]; } }"
    )
    assert "next-header [ =tcp =udp ];" in FLOW.announce(SIX)
    assert FLOW.withdraw(A).startswith("withdraw flow route { match { destination 192.0.2.1/32; protocol")


@pytest.mark.parametrize("form", [ROUTE, FLOW])
def test_a_form_is_what_the_node_sent(form: Form) -> None:
    sent = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(form).items()}
    assert Form.load(sent) == form


def test_it_asks_what_is_there_and_says_the_difference() -> None:
    speaker = Speaker()
    assert speaker.lines() == []
    speaker.want(ROUTE, [A, B], settled=True)
    assert speaker.lines() == [INVENTORY]
    assert speaker.lines() == [], "it waits for the answer"
    head = (
        "neighbor 192.0.2.9 local-ip 192.0.2.8 local-as 65001 peer-as 65001 router-id 192.0.2.8 family-allowed in-open"
    )
    speaker.read(f"{head} ipv4 unicast 192.0.2.3/32 next-hop self community [ 65001:451 no-export ]")
    speaker.read(f"{head} ipv4 unicast 192.0.2.4/32 next-hop self community 65001:7")
    speaker.read(f"{head} ipv4 unicast 192.0.2.128/25 next-hop self community [ 65001:451 no-export ]")
    speaker.read("done")
    assert exchange(speaker) == [ROUTE.withdraw(C), ROUTE.announce(A), ROUTE.announce(B)], "others' routes stay"
    assert speaker.idle


def test_without_a_next_hop_for_ipv6_none_of_it_is_announced_and_what_was_goes() -> None:
    speaker = Speaker()
    six = replace(ROUTE, next_hop6="2001:db8::1")
    speaker.want(six, [A, SIX], settled=True)
    assert exchange(speaker) == [six.announce(A), six.announce(SIX)]
    speaker.want(ROUTE, [A, SIX], settled=False)
    assert exchange(speaker) == [six.withdraw(SIX), ROUTE.announce(A)]
    speaker.want(ROUTE, [A, SIX], settled=True)
    assert exchange(speaker) == []
    assert FLOW.carries(SIX), "flow rules have no next hop"


def test_it_takes_over_flow_rules() -> None:
    speaker = Speaker()
    speaker.want(FLOW, [SIX], settled=True)
    speaker.lines()
    line = "neighbor x ipv6 flow flow destination-ipv6 {}/128/0 next-header [ =tcp =udp ] destination-port {} community [ 65001:451 no-export ] extended-community redirect:65001:451"  # noqa: E501
    speaker.read(line.format("2001:db8::7", "=443"))
    speaker.read(line.format("2001:db8::8", "=443"))
    speaker.read(line.format("2001:db8::9", "[ =80 =443 ]"))
    speaker.read("done")
    assert exchange(speaker) == [FLOW.withdraw(ip_address("2001:db8::8"))]


@pytest.mark.parametrize("settled", [True, False])
def test_what_an_earlier_process_left_to_another_next_hop_is_told_anew_or_taken_back_as_it_was(settled: bool) -> None:
    old = replace(ROUTE, next_hop="192.0.2.80", next_hop6="2001:db8::80")
    new = replace(ROUTE, next_hop="192.0.2.81", next_hop6="2001:db8::81")
    speaker = Speaker()
    speaker.want(new, [A, SIX], settled=settled)
    speaker.lines()
    head = (
        "neighbor 192.0.2.{} local-ip 192.0.2.8 local-as 65001 peer-as 65001 router-id 192.0.2.8 family-allowed in-open"
    )
    for neighbor, route in (
        (1, "ipv4 unicast 192.0.2.1/32 next-hop 192.0.2.80 community [ 65001:451 no-export ]"),
        (2, "ipv4 unicast 192.0.2.1/32 next-hop 192.0.2.81 community [ 65001:451 no-export ]"),  # at one of two only
        (1, "ipv4 unicast 192.0.2.2/32 next-hop 192.0.2.80 community [ 65001:451 no-export ]"),
        (1, "ipv6 unicast 2001:db8::7/128 next-hop 2001:db8::80 community [ 65001:451 no-export ]"),
        (1, "ipv4 unicast 192.0.2.3/32 next-hop 192.0.2.81 community [ 65001:451 65001:9 no-export ]"),
    ):
        speaker.read(f"{head.format(neighbor)} {route}")
    speaker.read("done")
    if settled:
        taken = [old.withdraw(B), new.withdraw(C)]
        assert exchange(speaker) == [*taken, new.announce(A), new.announce(SIX)]
    else:
        assert exchange(speaker) == [new.announce(one) for one in (A, B, C, SIX)]
    speaker.want(new, [A, SIX], settled=settled)
    assert exchange(speaker) == [], "what is as it should be is not told again"


def test_flow_rules_to_another_vrf_are_told_anew() -> None:
    speaker = Speaker()
    speaker.want(FLOW, [A, B], settled=True)
    speaker.lines()
    line = "neighbor x ipv4 flow flow destination-ipv4 {}/32 protocol [ =tcp =udp ] destination-port =443 community [ 65001:451 no-export ] extended-community redirect:65001:{}"  # noqa: E501
    speaker.read(line.format(A, 451))
    speaker.read(line.format(B, 452))
    speaker.read(line.format(C, 452))
    speaker.read("done")
    assert exchange(speaker) == [replace(FLOW, flow_redirect="65001:452").withdraw(C), FLOW.announce(B)]


def test_nothing_is_withdrawn_before_the_node_knows_all() -> None:
    speaker = Speaker()
    speaker.want(ROUTE, [A, B], settled=True)
    exchange(speaker)
    speaker.want(ROUTE, [], settled=False)
    assert exchange(speaker) == []
    speaker.change([C], [B])
    assert exchange(speaker) == [ROUTE.withdraw(B), ROUTE.announce(C)], "but what the node says goes"
    speaker.want(ROUTE, [C], settled=True)
    assert exchange(speaker) == [ROUTE.withdraw(A)]


def test_another_form_replaces_a_route_and_not_a_flow_rule() -> None:
    speaker = Speaker()
    speaker.want(ROUTE, [A], settled=True)
    exchange(speaker)
    other = replace(ROUTE, communities=("65001:9", "65535:65281"))
    speaker.want(other, [A], settled=True)
    assert exchange(speaker) == [other.announce(A)]
    speaker.want(FLOW, [A], settled=True)
    assert exchange(speaker) == [other.withdraw(A), FLOW.announce(A)]
    speaker.want(replace(FLOW, flow_ports=(80,)), [A], settled=True)
    assert exchange(speaker) == [FLOW.withdraw(A), replace(FLOW, flow_ports=(80,)).announce(A)]


def test_what_exabgp_refuses_is_counted_and_tried_again_with_the_next_full_set() -> None:
    speaker = Speaker()
    speaker.want(ROUTE, [A, B], settled=True)
    exchange(speaker, refuse="announce route 192.0.2.1/")
    assert (speaker.errors, set(speaker.told)) == (1, {B})
    speaker.change([C], [])
    assert exchange(speaker) == [ROUTE.announce(C)]
    speaker.want(ROUTE, [A, B, C], settled=True)
    assert exchange(speaker) == [ROUTE.announce(A)]


def test_no_more_commands_are_on_their_way_than_pipes_take() -> None:
    speaker = Speaker()
    many = [ip_address(f"198.18.{at // 250}.{at % 250}") for at in range(1000)]
    speaker.want(ROUTE, many, settled=True)
    speaker.lines()
    speaker.read("done")
    assert len(speaker.lines()) == WINDOW
    assert speaker.lines() == []
    speaker.read("a line that means nothing")
    speaker.read("done")
    assert len(speaker.lines()) == 1
    speaker.silent()
    assert len(speaker.lines()) == WINDOW, "an ExaBGP that acknowledges nothing is told all the same"


@given(
    st.lists(
        st.tuples(st.sampled_from(["all", "early", "change"]), st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9))),
        max_size=20,
    ),
    st.integers(1, 5),
)
def test_exabgp_ends_with_what_is_wanted_whatever_came_before(
    steps: list[tuple[str, set[int], set[int]]], answers: int
) -> None:
    speaker, peer, wanted = Speaker(), set[str](), set[int]()
    unanswered: list[str] = []

    def turn(count: int) -> None:
        unanswered.extend(speaker.lines())
        for line in unanswered[:count]:
            if line not in (INVENTORY, NEIGHBORS):
                verb, _, prefix, *_ = line.split()
                (peer.add if verb == "announce" else peer.discard)(prefix)
            speaker.read("done")
        del unanswered[:count]

    for kind, first, second in steps:
        if kind == "change":
            wanted = (wanted - second) | first
            speaker.change(map(address, first), map(address, second))
        else:
            wanted = first if kind == "all" else wanted | first
            speaker.want(ROUTE, map(address, first), settled=kind == "all")
        turn(answers)
    speaker.want(ROUTE, map(address, wanted), settled=True)
    for _ in range(200):
        turn(answers)
    assert peer == {f"{address(at)}/32" for at in wanted}
    assert speaker.idle


def address(at: int) -> Address:
    return ip_address(f"192.0.2.{at}")
