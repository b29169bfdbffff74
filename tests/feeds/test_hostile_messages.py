"""Messages made to cost a parser as much as they can: answered by a code, for little more than a query costs."""

from __future__ import annotations

import asyncio
import struct
import sys
from typing import TYPE_CHECKING, Any

import dns.edns
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocker.feeds.glance import is_plain
from blocker.feeds.notify import Notifier
from blocker.feeds.tally import Notice, Tally
from tests.e2e.processes import until as hold
from tests.feeds.support import KEYRING, ORIGIN, Primary, plan, query, version
from tests.feeds.test_conformance import HOST, framed, message, padded, serving, told

if TYPE_CHECKING:
    from types import FrameType

ZONE = query("SOA", key=None).to_wire()[12:-4]
# A name of the zone with as many labels as there can be: also the dns gateway hands this over.
LONG_NAME = b"\x01a" * ((255 - len(ZONE)) // 2) + ZONE
SOA_IN = b"\0\6\0\1"
TO_IT = b"\xc0\x0c"
SIZES = [969, 4096, 65_535]


def head(answers: int = 0, authority: int = 0, additional: int = 0) -> bytes:
    return struct.pack("!6H", 77, 0, 1, answers, authority, additional)


def record(kind: int, data: bytes, owner: bytes = TO_IT) -> bytes:
    return owner + struct.pack("!HHIH", kind, 1, 1, len(data)) + data


def hostile(size: int) -> dict[str, bytes]:
    """Messages of at most this many bytes."""
    asked = LONG_NAME + SOA_IN
    room = size - 12 - len(asked)
    name_server = record(2, TO_IT)
    many = room // len(name_server)
    inside = room - len(record(1, b""))
    option = struct.pack("!HH", 18, 2) + TO_IT
    # Names that lie within each other, each led to by the one after it.
    chain = b"".join(struct.pack("!H", 0xC000 | 12 + at) for at in range(0, min(room, 0x3F00) - 20, 2))
    made = {
        "answers": head(answers=many) + asked + name_server * many,
        "authorities": head(authority=many) + asked + name_server * many,
        "additional": head(additional=many) + asked + name_server * many,
        "records without data": head(additional=room // 12) + asked + record(65280, b"") * (room // 12),
        "names in a record": head(additional=1) + asked + record(55, b"\0\1\1\0\2x" + TO_IT * (inside // 2 - 4)),
        "names in options": head(additional=1) + asked + record(41, option * (inside // 6), b"\0"),
        "options": head(additional=1) + asked + record(41, struct.pack("!HH", 15, 0) * (inside // 4), b"\0"),
        "pointers": head(additional=2) + asked + record(41, b"\0\x0c" + struct.pack("!H", len(chain)) + chain, b"\0")
        + record(250, struct.pack("!H", 0xC000 | 12 + len(asked) + 15 + len(chain) - 2) * 2),
        "labels": head() + b"\x01a" * (room // 2) + b"\0" + SOA_IN,
    }  # fmt: skip
    assert max(map(len, made.values())) <= size + len(asked)
    return made


async def work(its: Primary, wire: bytes, *, tcp: bool = True) -> tuple[int, list[bytes]]:
    """Lines of Python that a message costs, and its answer: the same on every machine, however busy."""
    lines = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:  # noqa: ANN401 - as `sys.settrace` has it
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        answer = await its.ask(wire, tcp=tcp)
    finally:
        sys.settrace(before)
    return lines, answer


def primary() -> Primary:
    its = Primary(plan())
    its.publish(version(its.served.plan, 7, ["http://b.example/"]))
    return its


@pytest.mark.parametrize("size", SIZES)
async def test_each_costs_no_more_than_a_query(size: int) -> None:
    its = primary()
    ordinary, _ = await work(its, query("SOA").to_wire())
    assert ordinary > 100
    for what, wire in hostile(size).items():
        for tcp in (True, False):
            cost, (answered,) = await work(its, wire, tcp=tcp)
            assert told(answered) == "FORMERR", what
            assert len(answered) == 12, what
            assert cost < 2 * ordinary, what
    assert its.sent() == 0
    assert not its.served.tally.failed


@pytest.mark.parametrize("edns", [b"", b"\0\0\x29\x04\xd0\0\0\0\0\0\0"])
async def test_a_name_of_many_labels_costs_no_more_when_it_is_refused(edns: bytes) -> None:
    its = primary()
    ordinary, _ = await work(its, query("SOA").to_wire())
    wire = head(additional=bool(edns)) + LONG_NAME + SOA_IN + edns
    cost, (answered,) = await work(its, wire)
    assert told(answered) == "REFUSED"
    assert answered[12:] == wire[12:], "the question as it came, and an OPT record for one"
    assert cost < ordinary
    asked = dns.message.make_query(dns.message.from_wire(wire).question[0].name, "SOA")
    asked.use_tsig(KEYRING)
    wrong = asked.to_wire()
    cost, (answered,) = await work(its, wrong[:-20] + bytes(14) + wrong[-6:])
    assert told(answered) == "BADSIG"
    assert cost < 3 * ordinary


@pytest.mark.parametrize("gateway", [False, True])
async def test_each_is_answered_by_its_code_over_sockets(*, gateway: bool) -> None:
    async with serving(gateway=gateway) as (_its, port):
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        class Client(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, _address: object) -> None:
                heard.put_nowait(data)

        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Client, remote_addr=(HOST, port))
        for size in SIZES:
            for what, wire in hostile(size).items():
                if gateway and what == "labels":  # no name of a zone, so the gateway's own
                    continue
                reader, writer = await asyncio.open_connection(HOST, port)
                writer.write(framed(wire[:65_535]))
                assert told(await message(reader)) == "FORMERR", (what, size)
                writer.close()
                transport.sendto(wire[:65_507])
                assert told(await heard.get()) == "FORMERR", (what, size)
        transport.sendto(query("SOA").to_wire())
        assert told(await heard.get()) == "NOERROR"
        transport.close()


FRAGMENTS = st.sampled_from(
    [
        LONG_NAME, ZONE, TO_IT, b"\0", b"\x01a", b"\xc0\x0e", b"\xc0\x40", b"\xff\xff", SOA_IN, record(2, TO_IT),
        record(6, TO_IT * 2 + bytes(20)), record(41, b"", b"\0"), record(41, b"\0\x0c\0\0" * 9, b"\0"),
        record(250, TO_IT + bytes(16)), record(250, LONG_NAME + bytes(16), LONG_NAME), record(64, TO_IT * 50),
    ]
)  # fmt: skip


@given(st.tuples(*[st.sampled_from([0, 1, 2, 3, 65_535])] * 4), st.lists(st.tuples(FRAGMENTS, st.integers(1, 200))))
@settings(max_examples=150, deadline=None)
async def test_no_message_costs_much(counts: tuple[int, ...], parts: list[tuple[bytes, int]]) -> None:
    its = primary()
    limit = 2 * (await work(its, query("SOA").to_wire()))[0]
    wire = struct.pack("!6H", 77, 0, *counts) + b"".join(part * times for part, times in parts)
    for whole in (wire, head() + LONG_NAME + SOA_IN + wire[12:]):
        cost, _ = await work(its, whole[:65_535])
        assert cost < limit


async def test_what_good_queries_have_is_plain() -> None:
    incremental = query(
        "IXFR", key=None, use_edns=0, options=[dns.edns.GenericOption(dns.edns.OptionType.COOKIE, bytes(8))]
    )
    incremental.authority = [dns.rrset.from_text(ORIGIN, 0, "IN", "SOA", "ns.test. mail.test. 7 1 1 1 1")]
    incremental.use_tsig(KEYRING)
    for wire in (query("AXFR").to_wire(), query("SOA", key=None).to_wire(), incremental.to_wire(), padded()):
        assert is_plain(wire)
        assert not is_plain(wire + b"\0")
        assert not is_plain(wire[:-1])


class Liar(asyncio.DatagramProtocol):
    """A secondary that answers a notice by all that is hostile, and then by what it should."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, address: Any) -> None:  # noqa: ANN401 - asyncio's own
        notice = dns.message.from_wire(data, keyring=KEYRING)
        for wire in hostile(4096).values():
            self.transport.sendto(data[:2] + b"\xa4\0" + wire[4:], address)
        self.transport.sendto(dns.message.make_response(notice).to_wire(), address)


async def test_answers_to_notices_are_looked_at_before_they_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Liar, local_addr=(HOST, 0))
    port = transport.get_extra_info("sockname")[1]
    its = version(plan(secondaries=[{"address": HOST, "port": port, "key": "resolver"}]), 7, [])
    read: list[int] = []
    parse = dns.message.from_wire

    def noted(wire: bytes, **more: Any) -> dns.message.Message:  # noqa: ANN401 - dnspython's own
        read.append(len(wire))
        return parse(wire, **more)

    monkeypatch.setattr(dns.message, "from_wire", noted)
    tally = Tally()
    notifier = Notifier()
    notifier.announce(its, KEYRING, tally)
    await asyncio.to_thread(hold, lambda: tally.notices[Notice.ACKNOWLEDGED] == 1)
    await notifier.stop()
    transport.close()
    assert max(read) < 512, "nothing hostile among what was parsed"
