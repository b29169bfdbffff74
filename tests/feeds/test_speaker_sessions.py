"""What is told again for a router that lacks it, and what is made of ExaBGP's words about its neighbors; no pipes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from blocker.feeds.bgp import Form, Speaker
from blocker.feeds.bgp_sessions import INVENTORY, NEIGHBORS
from blocker.route_section import RouteSettings

ROUTE = replace(Form.of(RouteSettings()), next_hop6="2001:db8::1")
A, B, SIX = (ip_address(one) for one in ("192.0.2.1", "192.0.2.2", "2001:db8::7"))
ALL = ("ipv4 unicast", "ipv6 unicast", "ipv4 flow", "ipv6 flow")


class Exabgp:
    """As ExaBGP 4.2 answers: its text was taken from one."""

    def __init__(self, speaker: Speaker, **routers: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
        self.speaker = speaker
        self.routers = routers
        self.up = set(routers)
        self.has: dict[str, set[str]] = {name: set() for name in routers}
        self.commands: list[str] = []

    def exchange(self) -> list[str]:
        """Answer until there is nothing more to say; the commands."""
        self.commands = []
        while lines := self.speaker.lines():
            for line in lines:
                self.answer(line)
        return self.commands

    def answer(self, line: str) -> None:
        if line == NEIGHBORS:
            for name, (ours, theirs) in self.routers.items():
                up = name in self.up
                self.speaker.read(f"Neighbor {name}")
                self.speaker.read(f"state                    {'ESTABLISHED' if up else 'IDLE'}")
                self.speaker.read("asn4:                        enabled         enabled")
                for one in ours:
                    remote = ("enabled" if one in theirs else "disabled") if up else "n/a"
                    self.speaker.read(f"{one}:                enabled         {remote}        disabled")
        elif line == INVENTORY:
            for name, routes in self.has.items():
                for one in sorted(routes):
                    self.speaker.read(
                        f"neighbor {name} local-ip 192.0.2.8 local-as 65001 peer-as 65001 router-id 192.0.2.8 "
                        f"family-allowed in-open {'ipv6' if ':' in one else 'ipv4'} unicast {one} next-hop self "
                        "community [ 65001:451 no-export ]"
                    )
        else:
            self.commands.append(line)
            verb, _, prefix, *_ = line.split()
            family = f"{'ipv6' if ':' in prefix else 'ipv4'} unicast"
            for name, (ours, _) in self.routers.items():
                if family in ours:
                    (self.has[name].add if verb == "announce" else self.has[name].discard)(prefix)
        self.speaker.read("done")


def started(**routers: tuple[tuple[str, ...], tuple[str, ...]]) -> tuple[Speaker, Exabgp]:
    speaker = Speaker()
    speaker.want(ROUTE, [A, SIX], settled=True)
    exabgp = Exabgp(speaker, **routers)
    exabgp.exchange()
    speaker.look()
    exabgp.exchange()
    return speaker, exabgp


def test_a_router_carries_what_both_ends_have_a_family_for() -> None:
    speaker, exabgp = started(r1=(ALL, ALL), r2=(ALL, ALL[:1]), r3=(ALL[:1], ALL))
    assert speaker.idle
    assert speaker.sessions.carried(speaker.told) == {"r1": (True, 2), "r2": (True, 1), "r3": (True, 1)}
    speaker.look()
    assert exabgp.exchange() == [], "what a neighbor cannot have is not told again"
    speaker.change([B], [])
    exabgp.exchange()
    assert speaker.sessions.carried(speaker.told) == {"r1": (True, 3), "r2": (True, 2), "r3": (True, 2)}


def test_a_session_that_goes_carries_nothing_and_one_that_comes_is_looked_at_at_once() -> None:
    speaker, exabgp = started(r1=(ALL, ALL))
    speaker.read("neighbor r1 down - peer reset, message [closing connection] error[done]")
    assert speaker.sessions.carried(speaker.told) == {"r1": (False, 0)}
    assert speaker.lines() == []
    speaker.read("neighbor r1 connected")
    assert speaker.lines() == []
    exabgp.has["r1"].clear()
    speaker.read("neighbor r1 up")
    assert not speaker.idle
    assert exabgp.exchange() == [ROUTE.announce(A), ROUTE.announce(SIX)]
    assert speaker.sessions.carried(speaker.told) == {"r1": (True, 2)}


def test_what_a_router_lacks_for_good_is_told_again_once_until_a_session_comes() -> None:
    speaker, exabgp = started(r1=(ALL, ALL))
    exabgp.routers["r2"], exabgp.has["r2"] = (ALL, ALL), _Deaf()
    exabgp.up.add("r2")
    speaker.look()
    assert exabgp.exchange() == [ROUTE.announce(A), ROUTE.announce(SIX)]
    assert speaker.sessions.carried(speaker.told)["r2"] == (True, 0)
    speaker.look()
    assert exabgp.exchange() == []
    speaker.read("neighbor r2 up")
    assert exabgp.exchange() == [ROUTE.announce(A), ROUTE.announce(SIX)]


class _Deaf(set[str]):
    def add(self, _: str) -> None:
        pass


def test_what_no_router_should_have_is_withdrawn_once_all_is_known() -> None:
    speaker, exabgp = started(r1=(ALL, ALL))
    exabgp.has["r1"].add("192.0.2.9/32")
    speaker.want(ROUTE, [A, SIX], settled=False)
    speaker.look()
    assert exabgp.exchange() == []
    speaker.want(ROUTE, [A, SIX], settled=True)
    speaker.look()
    assert exabgp.exchange() == [ROUTE.withdraw(ip_address("192.0.2.9"))]
    assert exabgp.has["r1"] == {"192.0.2.1/32", "2001:db8::7/128"}


def test_changes_while_exabgp_is_asked_are_not_taken_for_faults() -> None:
    speaker, exabgp = started(r1=(ALL, ALL))
    speaker.look()
    asked = speaker.lines()
    speaker.change([B], [A])
    for line in asked:
        exabgp.answer(line)
    assert exabgp.exchange() == [ROUTE.withdraw(A), ROUTE.announce(B)]
    other = replace(ROUTE, communities=("65001:451", "65001:9", "65535:65281"))
    speaker.look()
    asked = speaker.lines()
    speaker.want(other, [B, SIX], settled=True)
    for line in asked:
        exabgp.answer(line)
    assert exabgp.exchange() == [other.announce(B), other.announce(SIX)]


def test_what_was_refused_is_tried_again_when_a_session_comes() -> None:
    speaker = Speaker()
    speaker.want(ROUTE, [A], settled=True)
    speaker.lines()
    speaker.read("done")
    for line in speaker.lines():
        speaker.read("error" if line.startswith("announce") else "done")
    assert (speaker.errors, speaker.lines()) == (1, [])
    speaker.read("neighbor r1 up")
    assert Exabgp(speaker, r1=(ALL, ALL)).exchange() == [ROUTE.announce(A)]


def test_an_exabgp_that_acknowledges_nothing_is_not_asked_again() -> None:
    speaker = Speaker()
    speaker.want(ROUTE, [A], settled=True)
    speaker.lines()
    speaker.silent()
    assert speaker.lines() == [ROUTE.announce(A)]
    speaker.silent()
    speaker.look()
    assert speaker.lines() == []
    assert speaker.idle
    speaker.read("done")
    assert speaker.lines() == [NEIGHBORS, INVENTORY], "until it does"
