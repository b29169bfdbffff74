"""The DNS codec beside dnspython: the zone, the filter, malformed queries, sizes, and any split of a connection."""

from __future__ import annotations

import ipaddress
import itertools
import json

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rdatatype
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocker import Matcher
from blocker._native import DnsSession
from tests.gateways.dns_desk import (
    FULL,
    LINK,
    SHORT,
    STRUCTURED_OPTION,
    ZONE,
    DnsDesk,
    errors,
    framed,
    query,
    shown,
    unframed,
)

LISTED = ("NOERROR", ["127.0.0.2"])
INSPECTED = ("NOERROR", ["127.0.0.3"])
UNLISTED: tuple[str, list[str]] = ("NXDOMAIN", [])
NIBBLES = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"
STRUCTURED = dns.edns.GenericOption(dns.edns.OptionType.make(STRUCTURED_OPTION), b"")
EARLIER_STRUCTURED = dns.edns.EDEOption(dns.edns.EDECode.OTHER, None)
PADDING = dns.edns.GenericOption(dns.edns.OptionType.PADDING, bytes(400))


@pytest.mark.parametrize(
    ("name", "answered"),
    [
        ("host.example", LISTED), ("HOST.Example", LISTED), ("www.host.example", UNLISTED),
        ("listed.example", INSPECTED),
        ("harmless.example", UNLISTED), ("shadowed.example", UNLISTED), ("test", LISTED), ("TEST", LISTED),
        ("invalid", UNLISTED), ("2.0.0.127", LISTED), ("1.0.0.127", UNLISTED), ("7.2.0.192", LISTED),
        ("192.0.2.7", UNLISTED), ("8.2.0.192", UNLISTED), (NIBBLES, LISTED), (NIBBLES.replace("d", "c"), UNLISTED),
        ("2.0.0.0.0.0.f.7.f.f.f.f" + ".0" * 20, LISTED), ("1.0.0.0.0.0.f.7.f.f.f.f" + ".0" * 20, UNLISTED),
        (r"host\.example", UNLISTED), ("under.domain.example", LISTED), (r"odd\@\000.domain.example", LISTED),
    ],
)  # fmt: skip
def test_the_zone_says_what_the_lists_say(name: str, answered: tuple[str, list[str]]) -> None:
    desk = DnsDesk()
    rules = ["http://host.example/", "http://192.0.2.7/", "http://[2001:db8::1]/", "*.domain.example"]
    desk.engine.swapped(Matcher.build({"police": [*rules, "http://listed.example/page"]}))
    for stream in (False, True):
        found = desk.asked(f"{name}.{ZONE}", stream=stream)
        assert shown(found) == answered
        assert found.flags & dns.flags.AA
        assert not found.flags & dns.flags.RA
        (soa,) = found.authority if answered is UNLISTED else found.answer
        assert soa.ttl == 30
        assert soa.name == dns.name.from_text(ZONE if answered is UNLISTED else f"{name}.{ZONE}")


def test_the_zone_names_the_list_and_says_where_to_read_more() -> None:
    desk = DnsDesk()

    def ask(name: str) -> list[str]:
        return shown(desk.asked(f"{name}.{ZONE}", "TXT", stream=True))[1]

    assert ask("host.example") == [f'"Blocked by list police; see {LINK}"']
    assert ask("listed.example") == [f'"Some pages are listed; see {LINK}"']
    assert ask("test") == [f'"An entry for testing; see {LINK}"']
    assert ask("harmless.example") == []
    short = desk.asked(f"host.example.{ZONE}", "TXT")
    assert short.flags & dns.flags.TC, "by datagram it would be an amplifier"
    assert not desk.asked(f"host.example.{ZONE}", "TXT", options=[PADDING]).flags & dns.flags.TC


def test_the_zone_has_an_apex_and_negative_answers_that_can_be_kept() -> None:
    desk = DnsDesk()
    code, (soa,) = shown(desk.asked(ZONE, "SOA"))
    assert (code, soa.split()[0], soa.split()[-1]) == ("NOERROR", f"{ZONE}.", "30")
    assert shown(desk.asked(ZONE, "NS")) == ("NOERROR", [f"{ZONE}."])
    for name, kind in ((ZONE, "A"), (ZONE, "MX"), (f"host.example.{ZONE}", "MX")):
        found = desk.asked(name, kind, stream=True)
        assert shown(found) == ("NOERROR", [])
        assert found.authority[0].rdtype == dns.rdatatype.SOA
    desk.engine.swapped(Matcher.build({"other": ["http://other.example/"]}))
    assert shown(desk.asked(ZONE, "SOA"))[1] != [soa], "a secondary, or a person, sees that it has changed"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("blocked", "kind", "answered", "said"),
    [
        ("nxdomain", "A", ("NXDOMAIN", []), [16]), ("nxdomain", "TXT", ("NXDOMAIN", []), [16]),
        ("nodata", "A", ("NOERROR", []), [16]), ("nodata", "AAAA", ("NOERROR", []), [16]),
        ("addresses", "A", ("NOERROR", ["192.0.2.80"]), [16, 4]),
        ("addresses", "AAAA", ("NOERROR", ["2001:db8::80"]), [16, 4]),
        ("addresses", "HTTPS", ("NOERROR", []), [16]), ("addresses", "MX", ("NOERROR", []), [16]),
        ("addresses", "ANY", ("NOERROR", []), [16]),
    ],
)  # fmt: skip
def test_a_blocked_name_gets_the_configured_answer_and_the_reason(
    blocked: str, kind: str, answered: tuple[str, list[str]], said: list[int], stream: bool
) -> None:
    desk = DnsDesk(blocked=blocked, page=["192.0.2.80", "2001:db8::80"])
    options = [] if stream else [PADDING]
    found = desk.asked("hOsT.example", kind, stream=stream, options=options)
    assert shown(found) == answered
    assert [code for code, _ in errors(found)] == said
    assert found.question[0].name.to_text() == "hOsT.example."
    assert found.flags & dns.flags.RA
    assert not found.flags & dns.flags.AA
    assert {rrset.ttl for rrset in found.answer + found.authority} == {30}
    assert [rrset.rdtype for rrset in found.authority] == ([] if answered[1] else [dns.rdatatype.SOA])
    assert errors(desk.asked("host.example", kind, edns=False, stream=stream)) == []


def test_a_structured_reason_is_given_only_to_who_asks() -> None:
    desk = DnsDesk(blocked="addresses", page=["192.0.2.80"])
    assert errors(desk.asked("host.example", stream=True)) == [(16, ""), (4, "")]
    for option in (STRUCTURED, EARLIER_STRUCTURED):
        assert errors(desk.asked("host.example", stream=True, options=[option])) == [(16, FULL)]
        assert set(json.loads(FULL)) <= set("cjsol")
        padded = [option, dns.edns.GenericOption(dns.edns.OptionType.PADDING, bytes(12))]
        assert errors(desk.asked("host.example", options=padded)) == [(16, SHORT)], "what there is room for"
        assert errors(desk.asked("host.example", options=[option])) == [(16, "")]
    other = dns.edns.EDEOption(dns.edns.EDECode.BLOCKED, None)
    assert errors(desk.asked("host.example", stream=True, options=[other])) == [(16, ""), (4, "")]


def test_names_whose_pages_are_listed_go_to_the_url_filter() -> None:
    desk = DnsDesk(inspect=["192.0.2.90"])
    found = desk.asked("listed.example", stream=True)
    assert (shown(found), errors(found)) == (("NOERROR", ["192.0.2.90"]), [(4, "")])
    for kind in ("AAAA", "HTTPS", "SVCB"):
        assert shown(desk.asked("listed.example", kind)) == ("NOERROR", []), "no way past the filter"
    assert forwarded(desk, "listed.example", "MX")
    assert forwarded(DnsDesk(), "listed.example", "A"), "without a filter they are as all others"


def forwarded(desk: DnsDesk, name: str, kind: str = "A", *, edns: bool = True) -> bool:
    message = query(name, kind, edns=edns).to_wire()
    answers, questions = desk.by_datagram(message)
    return (answers, len(questions)) == ([], 1)


def test_everything_else_is_forwarded_or_refused() -> None:
    desk = DnsDesk()
    for kind in ("A", "MX", "DNSKEY", "TYPE65280"):
        assert forwarded(desk, "harmless.example", kind)
    assert forwarded(desk, ".", "NS")
    assert forwarded(desk, r"host\.example"), "one label that looks like two is another name"
    assert forwarded(desk, "harmless.example", edns=False)
    found = DnsDesk(filters=False).asked("harmless.example", stream=True)
    assert (shown(found), errors(found)) == (("REFUSED", []), [(20, "")])
    found = desk.asked("harmless.example", flags="", stream=True)
    assert (shown(found), errors(found)) == (("REFUSED", []), [(18, "")])
    assert shown(desk.asked("harmless.example", "ANY")) == ("NOERROR", ['"RFC8482" ""'])
    assert shown(desk.asked("host.example", flags="")) == ("NXDOMAIN", [])


def test_before_there_is_a_matcher_nothing_is_let_through() -> None:
    desk = DnsDesk(ready=False)
    for name in ("harmless.example", f"host.example.{ZONE}"):
        found = desk.asked(name, stream=True)
        assert (shown(found), errors(found)) == (("SERVFAIL", []), [(14, "")])


GOOD = query("host.example").to_wire()
PLAIN = query("host.example", edns=False).to_wire()


def with_opt(rdata: bytes, *, version: int = 0, owner: bytes = b"\0") -> bytes:
    head = PLAIN[:10] + b"\0\1" + PLAIN[12:]
    return head + owner + b"\0\x29\x04\xd0\0" + bytes([version]) + b"\0\0" + len(rdata).to_bytes(2, "big") + rdata


LONGEST = 65_535
BROKEN = [
    (PLAIN[:12], 1), (PLAIN[:-1], 1), (PLAIN[:-5], 1), (PLAIN + b"\0", 1), (GOOD[:-1], 1), (GOOD + b"x", 1),
    (PLAIN[:5] + b"\2" + PLAIN[6:] + PLAIN[12:], 1), (PLAIN[:5] + b"\0" + PLAIN[6:12], 1),
    (PLAIN[:7] + b"\1" + PLAIN[8:] + PLAIN[12:] + b"\0\0\0\0\0\0", 1),
    (PLAIN[:12] + b"\xc0\x0c\0\1\0\1", 1), (PLAIN[:12] + b"\1a\xc0\x0c\0\1\0\1", 1),
    (PLAIN[:12] + b"\x40aa\0\0\1\0\1", 1), (PLAIN[:12] + b"\x80aa\0\0\1\0\1", 1),
    (PLAIN[:12] + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1", 1),
    (with_opt(b"\0\x0a\0\x08short"), 1), (with_opt(b"\0\x0a\0"), 1), (with_opt(b"", owner=b"\1a\0"), 1),
    (with_opt(b"") + b"\0\0\x29\x04\xd0\0\0\0\0\0\0", 1), (with_opt(b"", owner=b"\xc0\xff"), 1),
    (with_opt(b"", version=1), 16), (query("host.example", "OPT").to_wire(), 1),
    (PLAIN[:2] + b"\x21" + PLAIN[3:], 4), (PLAIN[:2] + b"\x29" + PLAIN[3:], 4),
    (PLAIN[:2] + b"\x79" + PLAIN[3:], 4),
    (query("host.example", "TYPE250").to_wire(), 4), (query("host.example", "TYPE0").to_wire(), 4),
    (query("host.example", "MAILB").to_wire(), 4), (query("host.example", "AXFR").to_wire(), 5),
    (query(ZONE, "AXFR").to_wire(), 5), (query(ZONE, "IXFR").to_wire(), 5),
    (query("version.bind", "TXT", klass="CH").to_wire(), 5), (query("host.example", klass="ANY").to_wire(), 5),
    (with_opt(b"")[:11] + b"\2" + with_opt(b"")[12:] + b"\xff\xff\0\1\0\1\0\0\0\0\0\0", 1),
]  # fmt: skip


# By number: messages have random ids, and all processes that run tests must call these by the same names.
@pytest.mark.parametrize(("asked", "code"), BROKEN, ids=range(len(BROKEN)))
def test_what_cannot_be_answered_gets_the_code_that_says_so(asked: bytes, code: int) -> None:
    desk = DnsDesk()
    for way in (desk.by_datagram, desk.over_stream):
        (answer,), questions = way(asked)
        assert questions == []
        if asked[2] & 0x78 == 0:
            found = dns.message.from_wire(answer)
            assert found.rcode() == code
        else:
            assert answer[3] & 0xF == code
        assert answer[:2] == asked[:2]
        assert len(answer) < 2 * len(asked)
    cells = desk.engine.meters
    cells.collect()
    assert cells["dns"].allow == cells["dns"].blocks == 0


def test_a_version_of_edns_that_is_unknown_is_told_the_one_that_is_known() -> None:
    (answer,), _ = DnsDesk().by_datagram(with_opt(b"", version=1))
    found = dns.message.from_wire(answer)
    assert (found.edns, found.payload) == (0, 1232)


@pytest.mark.parametrize(
    "asked", [b"", b"\0" * 11, GOOD[:2] + b"\x81" + GOOD[3:], PLAIN[:2] + b"\xf9" + PLAIN[3:]],
    ids=["empty", "short", "answer", "answer of another kind"],
)  # fmt: skip
def test_what_is_no_query_gets_no_answer(asked: bytes) -> None:
    assert DnsDesk().by_datagram(asked) == ([], [])


@pytest.mark.parametrize("length", [0, 1, 11])
def test_who_sends_less_than_a_header_over_a_connection_is_disconnected(length: int) -> None:
    session = DnsSession(DnsDesk().service, False)
    assert session.feed(framed(bytes(length)) + framed(GOOD), 0.0) == (b"", [])
    assert session.closing


def test_the_longest_message_is_read() -> None:
    padding = dns.edns.GenericOption(dns.edns.OptionType.PADDING, bytes(65_535 - len(GOOD) - 4))
    longest = query("host.example", options=[padding]).to_wire(max_size=65_535)
    assert len(longest) == 65_535
    session = DnsSession(DnsDesk().service, False)
    half, _ = session.feed(framed(longest)[:40_000], 0.0)
    assert (half, session.unfinished) == (b"", True)
    (answer,) = unframed(session.feed(framed(longest)[40_000:], 0.0)[0])
    assert dns.message.from_wire(answer).rcode() == 3
    assert not session.unfinished


def test_a_connection_goes_on_after_what_cannot_be_answered() -> None:
    head = PLAIN[:10] + b"\0\3" + PLAIN[12:]
    longest = [(head + b"\xff" * (LONGEST - len(head)), 1), (PLAIN[:12] + b"\x3f" * (LONGEST - 12), 1)]
    for asked, code in BROKEN + longest:
        answers, questions = DnsDesk().over_stream(asked, GOOD)
        assert (len(answers), questions) == (2, [])
        assert (answers[0][:2], answers[0][3] & 0xF) == (asked[:2], code & 0xF)
        assert shown(dns.message.from_wire(answers[1])) == ("NXDOMAIN", [])


def test_canaries_count_as_nothing_and_all_else_as_at_other_gateways() -> None:
    desk = DnsDesk()
    for name in ("host.example", "listed.example", "harmless.example", f"host.example.{ZONE}"):
        desk.by_datagram(query(name).to_wire())
    desk.engine.canaries = frozenset({"http://host.example/"})
    desk.by_datagram(query("host.example").to_wire(), query("HOST.example").to_wire())
    desk.engine.meters.collect()
    meter = desk.engine.meters["dns"]
    assert (meter.allow, meter.inspect, meter.blocks, meter.invalid) == (1, 1, 2, 0)
    assert [(name, count) for name, _shadow, count in desk.dns_gate.take_hits()] == [("police", 2)]


def test_strangers_and_floods_get_nothing_that_is_worth_a_forged_address() -> None:
    desk = DnsDesk()
    desk.service.admit([], False, 0)
    assert desk.by_datagram(GOOD) == ([], [])
    desk.service.admit([], True, 0)
    (refusal,), _ = desk.by_datagram(GOOD)
    assert dns.message.from_wire(refusal).rcode() == 5
    assert len(refusal) < len(GOOD)
    desk.service.admit([(ipaddress.ip_address("127.0.0.0"), 8)], False, 4)
    answers, _ = desk.by_datagram(*[GOOD] * 20)
    truncated = [answer for answer in answers if answer[2] & 2]
    assert (len(answers), len(truncated)) == (14, 6), "two seconds' worth, then every second one as truncated"
    assert all(len(answer) < len(GOOD) for answer in truncated)
    desk.now += 1
    answers, _ = desk.by_datagram(*[GOOD] * 5)
    assert sum(not answer[2] & 2 for answer in answers) == 4


NAMES = st.sampled_from(["host.example", "listed.example", "harmless.example", f"test.{ZONE}", ZONE, ".", "x" * 63])
MESSAGES = st.builds(
    lambda name, kind, edns, flags: query(name, kind, edns=edns, flags=flags).to_wire(),
    NAMES, st.sampled_from(["A", "AAAA", "TXT", "SOA", "ANY", "AXFR", "HTTPS"]), st.booleans(),
    st.sampled_from(["", "RD"]),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(MESSAGES, st.binary(min_size=12, max_size=60)), max_size=6), st.lists(st.integers(0, 400)))
def test_any_split_is_the_whole_and_the_same_as_by_datagram(messages: list[bytes], cuts: list[int]) -> None:
    desk, data = DnsDesk(), b"".join(map(framed, messages))

    def feed(pieces: list[bytes]) -> tuple[bytes, list[bytes], bool]:
        session = DnsSession(desk.service, False)
        results = [session.feed(piece, 0.0) for piece in pieces]
        keys = [question.key for _, questions in results for question in questions]
        return b"".join(written for written, _ in results), keys, session.closing

    whole = feed([data])
    borders = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert feed([data[a:b] for a, b in itertools.pairwise(borders)]) == whole
    assert feed([data[at : at + 1] for at in range(len(data))]) == whole
    answers, questions = desk.by_datagram(*messages)
    assert [question.key for question in questions] == whole[1]
    assert [answer[:2] for answer in answers] == [answer[:2] for answer in unframed(whole[0])]


@settings(max_examples=500, deadline=None)
@given(MESSAGES, st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=3))
def test_whatever_is_answered_can_be_read_by_others(message: bytes, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(message)
    for at, value in changes:
        damaged[at % len(damaged)] = value
    answers, _ = DnsDesk().by_datagram(bytes(damaged))
    for answer in answers:
        assert answer[:2] == damaged[:2]
        if dns.opcode.from_flags(int.from_bytes(damaged[2:4], "big")) == dns.opcode.QUERY:
            found = dns.message.from_wire(answer)
            assert found.flags & dns.flags.QR
