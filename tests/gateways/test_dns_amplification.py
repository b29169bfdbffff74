"""What the `dns` gateway says of itself by datagram is under twice its query, whoever asks what; and can be kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import example, given
from hypothesis import settings as tried
from hypothesis import strategies as st

from blocker import Matcher
from tests.gateways.dns_desk import STRUCTURED_OPTION, DnsDesk, query, shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# The shortest names there are, and long ones.
SHORT, LONG = "z", ".".join(["zone" * 15] * 3)
PAGES = ["192.0.2.80", "192.0.2.81", "2001:db8::80", "2001:db8::81"]
FILTERS: list[dict[str, Any]] = [
    {"blocked": "nxdomain"}, {"blocked": "nodata"}, {"blocked": "addresses", "page": PAGES}, {"filters": False},
    {"blocked": "nxdomain", "ready": False},
]  # fmt: skip
OPTIONS = st.lists(
    st.sampled_from(
        [
            dns.edns.GenericOption(dns.edns.OptionType.make(STRUCTURED_OPTION), b""),
            dns.edns.EDEOption(dns.edns.EDECode.OTHER, None),
            dns.edns.GenericOption(dns.edns.OptionType.PADDING, bytes(20)),
            dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"cookies!"),
        ]
    ),
    max_size=3,
)
KINDS = [
    "A", "AAAA", "TXT", "SOA", "NS", "MX", "ANY", "HTTPS", "SVCB", "DS", "AXFR", "IXFR", "OPT", "TYPE250", "TYPE0",
]  # fmt: skip
# Blocked, its pages listed, in the zone and listed, in the zone and not, the zone itself, of nobody.
STARTS = ["b.c", "a.b.c", "x" * 63 + ".b.c", "i.c", "a.i.c", "test.{}", "b.c.{}", "i.c.{}", "nx.{}", "n.{}", "{}", "."]
DESKS: dict[tuple[int, str], DnsDesk] = {}


def desk(at: int, zone: str) -> DnsDesk:
    if (at, zone) not in DESKS:
        made = DnsDesk(inspect=PAGES, zone=zone, **FILTERS[at])
        if FILTERS[at].get("ready", True):
            made.engine.swapped(Matcher.build({"police": ["*.b.c", "http://i.c/page", "*.i.c/page"]}))
        DESKS[at, zone] = made
    return DESKS[at, zone]


QUERIES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(KINDS),
        "flags": st.sampled_from(["RD", "", "RD CD"]),
        "klass": st.sampled_from(["IN", "IN", "IN", "CH", "ANY"]),
    },
    optional={
        "options": OPTIONS,
        "dnssec": st.booleans(),
        "payload": st.sampled_from([0, 512, 1232, 65_535]),
        "edns": st.just(True),
    },
)


@tried(max_examples=2000, deadline=None)
@given(
    st.integers(0, len(FILTERS) - 1), st.sampled_from([SHORT, "bl.test", LONG]), st.sampled_from(STARTS), QUERIES,
    st.integers(0, 255), st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=2),
)  # fmt: skip
@example(0, SHORT, "{}", {"kind": "SOA", "flags": "", "klass": "IN"}, 0, [])
@example(0, SHORT, "n.{}", {"kind": "A", "flags": "", "klass": "IN"}, 0, [])
@example(2, SHORT, "b.c", {"kind": "AAAA", "flags": "RD", "klass": "IN", "edns": True}, 0, [])
def test_no_answer_is_twice_as_long_as_its_query(
    at: int, zone: str, start: str, how: Mapping[str, Any], opcode: int, changes: list[tuple[int, int]]
) -> None:
    asked = query(start.format(zone), **{"edns": len(how) > 3, **how}).to_wire()
    damaged = bytearray(asked)
    damaged[2] = damaged[2] & 0x87 | (opcode & 0x78 if opcode > 200 else 0)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    answers, _ = desk(at, zone).by_datagram(bytes(damaged))
    for answer in answers:
        assert len(answer) < 2 * len(damaged)


@pytest.mark.parametrize("rate", [0, 1])
@pytest.mark.parametrize("refuses", [False, True])
def test_nobody_who_is_no_client_gets_more_than_was_sent(rate: int, refuses: bool) -> None:
    stranger = DnsDesk()
    stranger.service.admit([], refuses, rate)
    for name in ("b.c", ".", "bl.test", "nx.bl.test"):
        for edns in (False, True):
            asked = query(name, edns=edns).to_wire()
            answers, _ = stranger.by_datagram(asked)
            assert len(answers) == refuses
            assert all(len(answer) <= len(asked) for answer in answers)


@pytest.mark.parametrize(
    ("name", "kept"), [("104.103.102.101.bl.test", True), ("nx.host.example.bl.test", True), ("n.z", False)]
)
@pytest.mark.parametrize("edns", [False, True])
def test_negative_answers_can_be_kept_unless_the_name_is_very_short(name: str, kept: bool, edns: bool) -> None:
    asked = DnsDesk(zone="z" if name == "n.z" else "bl.test")
    assert len(query(name).question[0].name.to_wire() or b"") >= (20 if kept else 0)
    for stream in (False, True):
        found = asked.asked(name, edns=edns, stream=stream)
        assert shown(found) == ("NXDOMAIN", [])
        assert not found.flags & dns.flags.TC
        assert [rrset.rdtype for rrset in found.authority] == [dns.rdatatype.SOA] * (kept or stream)


def test_who_gets_no_soa_by_datagram_gets_it_over_a_connection() -> None:
    asked = DnsDesk(zone="z")
    found = asked.asked("z", "SOA", edns=False)
    assert found.flags & dns.flags.TC
    assert not found.answer
    found = asked.asked("z", "SOA", edns=False, stream=True)
    assert found.rcode() == dns.rcode.NOERROR
    assert found.answer[0][0].mname.to_text() == "z."
