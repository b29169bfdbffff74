"""What the zone server answers to whom, and that no bytes make it fail."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rrset
import dns.tsig
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blocker.feeds.tally import Failure, Sent, Transport
from blocker.feeds.transfer import MESSAGE_BYTES
from blocker.feeds.zone_metrics import ZoneCounts
from tests.feeds.support import KEYRING, ORIGIN, SECRET, Primary, plan, query, records, version

if TYPE_CHECKING:
    from typing import Any

NAMES = [f"http://name{at}.example/" for at in range(5000)]


def primary(lines: list[str] | None = None, **its: Any) -> Primary:  # noqa: ANN401 - any field's own type
    made = Primary(plan(**its))
    made.publish(version(made.served.plan, 7, ["http://*.a.example", "http://b.example/"] if lines is None else lines))
    return made


def code(wires: list[bytes]) -> str:
    """The one answer's code, whatever its signature."""
    (wire,) = wires
    return dns.rcode.to_text(dns.message.from_wire(wire, keyring=False).rcode())


async def test_a_zone_is_sent_in_order_signed_and_compressed() -> None:
    asked = query("AXFR", use_edns=0)
    wires = await primary(NAMES).ask(asked)
    found = records(wires, asked)
    assert [record[1] for record in found[:2]] == ["SOA", "NS"]
    assert sorted(name for name, kind, _ in found if kind == "CNAME") == sorted(
        f"name{at}.example.{ORIGIN}" for at in range(5000)
    )
    assert sum(map(len, wires)) < 5002 * 40
    assert dns.message.from_wire(wires[0], keyring=False).edns == 0


async def test_many_messages_are_one_chain() -> None:
    lines = [f"http://*.{'x' * 60}.{'y' * 50}{at}.example" for at in range(3000)]
    asked = query("AXFR")
    wires = await primary(lines).ask(asked)
    assert len(wires) > 5
    assert max(map(len, wires)) <= MESSAGE_BYTES
    assert sum(map(len, wires)) < 3000 * 170, "each name once, and all under it as a pointer"
    assert len(records(wires, asked)) == 6003
    with pytest.raises(dns.tsig.BadSignature):
        records([wires[0], *wires[2:]], asked)


async def test_local_data_and_other_actions() -> None:
    for its, told in (
        (
            {"action": "local", "addresses": ["192.0.2.80", "2001:db8::80"]},
            {("A", "192.0.2.80"), ("AAAA", "2001:db8::80")},
        ),
        ({"action": "local", "target": "stop.example"}, {("CNAME", "stop.example.")}),
        ({"action": "nodata"}, {("CNAME", "*.")}),
        ({"action": "passthru"}, {("CNAME", "rpz-passthru.")}),
        ({"action": "drop"}, {("CNAME", "rpz-drop.")}),
        ({"action": "tcp-only"}, {("CNAME", "rpz-tcp-only.")}),
    ):
        asked = query("AXFR")
        found = records(await primary(**its).ask(asked), asked)
        assert {(kind, data) for name, kind, data in found if name == f"*.a.example.{ORIGIN}"} == told


@pytest.mark.parametrize("kind", ["AXFR", "IXFR", "SOA", "NS", "A", "ANY", "TXT"])
async def test_nobody_without_a_key_or_network_learns_anything(kind: str) -> None:
    for asked in (query(kind, key=None), query(kind, key="other")):
        if kind == "IXFR":
            asked.authority = [soa(1)]
        for tcp in (True, False):
            (wire,) = await primary().ask(asked, tcp=tcp)
            told = dns.message.from_wire(wire, keyring=KEYRING, request_mac=asked.mac or b"")
            assert told.rcode() == dns.rcode.REFUSED
            assert not told.answer
            assert len(wire) <= len(asked.to_wire()), "nothing to amplify with"


async def test_a_network_stands_in_for_a_key() -> None:
    its = primary(keys=(), networks=["192.0.2.0/24", "2001:db8::/32"])
    asked = query("AXFR", key=None)
    for peer in ("192.0.2.7", "2001:db8::7"):
        assert len(records(await its.ask(asked, peer=peer), asked)) == 6
    for peer in ("198.51.100.7", "2001:db9::7"):
        assert code(await its.ask(asked, peer=peer)) == "REFUSED"
    assert code(await its.ask(query("AXFR"), peer="192.0.2.7")) == "REFUSED", "a key that may not, even from there"


async def test_wrong_signatures_are_told_by_code() -> None:
    its = primary()
    stranger = dns.message.make_query(ORIGIN, "AXFR")
    stranger.use_tsig({dns.name.from_text("stranger"): dns.tsig.Key("stranger", SECRET)})
    (wire,) = await its.ask(stranger)
    assert (code([wire]), error(wire)) == ("NOTAUTH", "BADKEY")
    weaker = dns.message.make_query(ORIGIN, "AXFR")
    weaker.use_tsig(dns.tsig.Key("resolver", SECRET, "hmac-sha1."))
    assert error((await its.ask(weaker))[0]) == "BADKEY"
    forged = query("AXFR").to_wire()
    (wire,) = await its.ask(forged[:20] + bytes([forged[20] ^ 0x20]) + forged[21:])
    assert (code([wire]), error(wire)) == ("NOTAUTH", "BADSIG")
    wrong = dns.message.make_query(ORIGIN, "AXFR")
    wrong.use_tsig(dns.tsig.Key("resolver", b"another secret of its own", "hmac-sha256."))
    assert error((await its.ask(wrong))[0]) == "BADSIG"


async def test_a_wrong_clock_is_told_what_time_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    asked = query("AXFR")
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: now - 3600)
        wire = asked.to_wire()
    (answered,) = await primary().ask(wire)
    assert (code([answered]), error(answered)) == ("NOTAUTH", "BADTIME")
    told = dns.message.from_wire(answered, keyring=False)
    assert told.tsig is not None
    assert abs(int.from_bytes(told.tsig[0].other, "big") - now) < 60
    assert told.tsig[0].mac, "it is signed, so that nobody else can set clocks"


async def test_other_zones_classes_and_opcodes() -> None:
    its = primary()
    assert code(await its.ask(query("AXFR", "other.test."))) == "NOTAUTH"
    assert code(await its.ask(query("AXFR", f"a.example.{ORIGIN}"))) == "NOTAUTH"
    assert code(await its.ask(query("SOA", "other.test."))) == "REFUSED"
    assert code(await its.ask(query("AXFR", rdclass="CH"))) == "NOTAUTH"
    assert code(await its.ask(query("CNAME", f"a.example.{ORIGIN}"))) == "REFUSED", "entries are not to be asked for"
    assert code(await its.ask(query("AXFR"), tcp=False)) == "FORMERR"
    assert code(await its.ask(query("IXFR"))) == "FORMERR", "without the version that is there"
    for opcode in (dns.opcode.NOTIFY, dns.opcode.UPDATE, dns.opcode.STATUS):
        asked = dns.message.make_query(ORIGIN, "SOA")
        asked.set_opcode(opcode)
        assert code(await its.ask(asked)) == "NOTIMP"
    answer = dns.message.make_response(query("AXFR", key=None))
    assert await its.ask(answer.to_wire()) == [], "an answer gets none"
    its.served.version = None
    assert code(await its.ask(query("AXFR"))) == "SERVFAIL", "an empty zone would unblock everything"


async def test_soa_and_ixfr_by_serial() -> None:
    its = primary(NAMES)
    its.publish(version(its.served.plan, 8, NAMES[:-1]))
    (wire,) = await its.ask(asked := query("SOA"), tcp=False)
    told = dns.message.from_wire(wire, keyring=KEYRING, request_mac=asked.mac or b"")
    assert told.answer[0][0].serial == 8
    assert told.flags & dns.flags.AA
    for serial, tcp, count in ((7, True, 5), (8, True, 1), (9, True, 1), (3, True, 5002), (7, False, 1)):
        asked = query("IXFR", key=None)
        asked.authority = [soa(serial)]
        asked.use_tsig(KEYRING, dns.name.from_text("resolver"))
        assert len(records(await its.ask(asked, tcp=tcp), asked)) == count, (serial, tcp)


def test_names_of_served_zones_are_known() -> None:
    server = primary().server
    assert server.answers(dns.name.from_text(ORIGIN))
    assert server.answers(dns.name.from_text(f"X.{ORIGIN.upper()}"))
    assert not server.answers(dns.name.from_text("rpz.test"))


PLAIN = query("SOA", key=None).to_wire()
HEAD = PLAIN[:4] + b"\0\1\0\0\0\0\0\0"
LATER = PLAIN[:10] + b"\0\1" + PLAIN[12:] + b"\0\0\x29\x04\xd0\0\1\0\0\0\0"


REFUSED = [
    (HEAD, "FORMERR"), (PLAIN[:-1], "FORMERR"), (PLAIN[:-4], "FORMERR"), (PLAIN + b"\0", "FORMERR"),
    (HEAD + b"\xc0\x0c\0\6\0\1", "FORMERR"), (HEAD + b"\1a\xc0\x0c\0\6\0\1", "FORMERR"),
    (HEAD + b"\x40aa\0\0\6\0\1", "FORMERR"), (HEAD + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\6\0\1", "FORMERR"),
    (PLAIN[:5] + b"\0" + PLAIN[6:12], "FORMERR"), (PLAIN[:5] + b"\2" + PLAIN[6:] + PLAIN[12:], "FORMERR"),
    (PLAIN[:2] + b"\x10" + PLAIN[3:], "NOTIMP"), (PLAIN[:2] + b"\x28" + PLAIN[3:], "NOTIMP"),
    (LATER, "BADVERS"), (query("SOA", key=None, rdclass="CH").to_wire(), "REFUSED"),
    (query("SOA", key=None, rdclass="ANY").to_wire(), "REFUSED"), (PLAIN, "REFUSED"),
    (query("AXFR", key=None).to_wire(), "REFUSED"), (query("ANY", key=None).to_wire(), "REFUSED"),
    (query("TXT", f"b.example.{ORIGIN}", key=None).to_wire(), "REFUSED"),
]  # fmt: skip


# By number: messages have random ids, and all processes that run tests must call these by the same names.
@pytest.mark.parametrize(("wire", "expected"), REFUSED, ids=range(len(REFUSED)))
@pytest.mark.parametrize("tcp", [False, True])
async def test_what_is_refused_gets_its_code_and_nothing_to_amplify_with(
    wire: bytes, expected: str, *, tcp: bool
) -> None:
    (answered,) = await primary().ask(wire, tcp=tcp)
    assert code([answered]) == expected
    assert answered[:2] == wire[:2]
    assert len(answered) < 2 * len(wire)


@pytest.mark.parametrize("kind", ["SOA", "AXFR", "IXFR", "NS"])
async def test_signed_requests_over_udp_are_no_amplifier(kind: str) -> None:
    asked = query(kind, key=None)
    if kind == "IXFR":
        asked.authority = [soa(1)]
    asked.use_tsig(KEYRING, dns.name.from_text("resolver"))
    wire = asked.to_wire()
    for sent in (wire, wire[:-20] + bytes(20)):
        (answered,) = await primary(NAMES).ask(sent, tcp=False)
        assert len(answered) < 2 * len(sent)


@pytest.mark.parametrize("origin", [ORIGIN, "z."])
async def test_an_unsigned_request_over_udp_gets_little_and_only_in_the_zones_networks(origin: str) -> None:
    its = primary(NAMES, origin=origin, keys=(), networks=["192.0.2.0/24"])
    for kind in ("SOA", "NS", "IXFR", "AXFR", "CNAME"):
        for edns in (-1, 0):
            asked = query(kind, origin, key=None, use_edns=edns)
            if kind == "IXFR":
                asked.authority = [dns.rrset.from_text(origin, 0, "IN", "SOA", "a. b. 1 1 1 1 1")]
            wire = asked.to_wire()
            (answered,) = await its.ask(wire, tcp=False, peer="192.0.2.7")
            # A SOA is what a secondary comes for; a forged address gets one of some 90 bytes, in those networks alone.
            assert len(answered) < (4 if kind in ("SOA", "NS") else 2) * len(wire)
            assert len(answered) <= 100
            (refused,) = await its.ask(wire, tcp=False, peer="198.51.100.7")
            assert len(refused) <= len(wire)


async def test_what_was_refused_is_counted_by_reason_and_zone() -> None:
    its = primary()
    await its.ask(query("AXFR", key=None))
    await its.ask(query("SOA", key="other"), tcp=False)
    await its.ask(query("SOA", "other.test.", key=None))
    forged = query("AXFR").to_wire()
    await its.ask(forged[:20] + bytes([forged[20] ^ 0x20]) + forged[21:])
    assert its.served.tally.failed == {Failure.ACCESS: 2, Failure.SIGNATURE: 1}
    await its.ask(query("AXFR"))
    for serial in (7, 3):
        asked = query("IXFR", key=None)
        asked.authority = [soa(serial)]
        asked.use_tsig(KEYRING, dns.name.from_text("resolver"))
        await its.ask(asked)
    sent = {("axfr", Sent.WHOLE): 1, ("ixfr", Sent.CURRENT): 1, ("ixfr", Sent.WHOLE): 1}
    assert its.served.tally.sent == {(*what, Transport.CLEAR): count for what, count in sent.items()}
    answer = its.server.respond(query("AXFR").to_wire(), tcp=True, peer=None)
    await anext(answer)
    await answer.aclose()
    assert its.served.tally.failed[Failure.CUT] == 1


async def test_secondaries_are_known_by_address_and_key_and_others_are_not_kept() -> None:
    secondaries = [
        {"address": "192.0.2.7", "key": "resolver"}, {"address": "192.0.2.8", "port": 5353}, {"address": "192.0.2.9"},
    ]  # fmt: skip
    its = primary(secondaries=secondaries, networks=["192.0.2.0/24", "203.0.113.0/24"])
    await its.ask(query("SOA", key=None), peer="192.0.2.7")  # not signed, so it is somebody else there
    asked = query("IXFR", key=None)
    asked.authority = [soa(3)]
    await its.ask(asked, peer="192.0.2.8", tcp=False)
    await its.ask(query("AXFR", key=None), peer="203.0.113.99")
    counts = ZoneCounts(lambda: [its.served])
    found = {
        (sample.name, tuple(sample.labels.values())): sample.value
        for metric in counts.collect()
        for sample in metric.samples
    }
    assert found["blocker_zone_secondary_lag", ("police", "192.0.2.8:5353")] == 4
    others = [
        key
        for key, value in found.items()
        if "secondary" in key[0] and value and "expected" not in key[0] and "192.0.2.8:5353" not in key[1]
    ]
    assert {key[1][2:] for key in others} == {("unknown",)}
    assert "203.0.113.99" not in str(found)
    assert "example" not in str(found)
    assert found["blocker_zone_records", ("police",)] == 2 + its.served.version.zone.counts[1]  # type: ignore[union-attr]
    await its.ask(query("AXFR"), peer="192.0.2.7")
    assert its.served.tally.contacts["192.0.2.7:53"].sent == 7


@given(
    st.one_of(st.binary(max_size=600), st.tuples(st.integers(0, len(query("AXFR").to_wire())), st.binary(max_size=8)))
)
@example((12, None))
@example((11, None))
@example(b"\0\1\0\0\0\1\0\0\0\0\0\0\xc0\x0c\0\6\0\1")
@settings(max_examples=400, deadline=None)
async def test_no_bytes_do_harm(sent: bytes | tuple[int, bytes | None]) -> None:
    """Any bytes, and a good query with some written over at a place, or cut there; signed now, as signatures expire."""
    if isinstance(sent, tuple):
        at, over = sent
        good = query("AXFR").to_wire()
        wire = good[:at] + (b"" if over is None else over + good[at + len(over) :])
    else:
        wire = sent
    for tcp in (True, False):
        answers = await primary().ask(wire, tcp=tcp)
        for answer in answers:
            assert answer[:2] == wire[:2]
            assert struct.unpack_from("!H", answer, 2)[0] & 0x8000
            if dns.message.from_wire(answer, keyring=False).answer:
                dns.message.from_wire(wire, keyring=KEYRING)  # raises where the signature does not hold


def soa(serial: int) -> dns.rrset.RRset:
    return dns.rrset.from_text(ORIGIN, 0, "IN", "SOA", f"localhost. hostmaster.localhost. {serial} 1 1 1 1")


def error(wire: bytes) -> str:
    """The code in the signature."""
    told = dns.message.from_wire(wire, keyring=False)
    assert told.tsig is not None
    return dns.rcode.to_text(dns.rcode.Rcode(told.tsig[0].error), tsig=True)
