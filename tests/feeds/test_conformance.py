"""Odd and broken messages over real sockets, at the zones' own port and the dns gateway's: the right code, and on."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import TYPE_CHECKING

import dns.edns
import dns.message
import dns.name
import dns.rcode
import dns.tsig
import pytest

from tests.feeds.support import KEYRING, ORIGIN, Primary, plan, query, records, version
from tests.gateways.dns_desk import query as client_query
from tests.gateways.dns_running import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOST = "127.0.0.1"
LONGEST = 65_535
DEADLINE = 10.0
PLAIN = query("SOA", key=None).to_wire()
QUESTION = PLAIN[12:]
NAME = QUESTION[:-4]
OPT = b"\0\x29\x04\xd0\0\0\0\0"


def framed(wire: bytes) -> bytes:
    return struct.pack("!H", len(wire)) + wire


def head(questions: int = 1, additional: int = 0, flags: int = 0) -> bytes:
    return struct.pack("!6H", 77, flags, questions, 0, 0, additional)


def padded(*, key: str | None = "resolver") -> bytes:
    """The longest query there is."""
    asked = query("SOA", key=key)
    room = LONGEST - len(query("SOA", key=key, use_edns=0).to_wire()) - 4
    padding = dns.edns.GenericOption(dns.edns.OptionType.PADDING, bytes(room))
    asked = query("SOA", key=key, use_edns=0, options=[padding])
    return asked.to_wire(max_size=LONGEST)


def tsig(algorithm: str) -> bytes:
    """A signature of another algorithm, made of nothing."""
    data = dns.name.from_text(algorithm).to_wire() or b""
    data += struct.pack("!HIHH", 0, 0, 300, 32) + bytes(32) + struct.pack("!HHH", 77, 0, 0)
    owner = dns.name.from_text("resolver").to_wire() or b""
    return owner + struct.pack("!HHIH", 250, 255, 0, len(data)) + data


def signed() -> bytes:
    """A query as a secondary signs it; RFC 8945, section 5.2.3: it holds for five minutes."""
    return query("SOA").to_wire()


def cases() -> dict[str, tuple[bytes, str | None]]:
    """Messages and the codes they get, or None where any code will do; signed now, since signatures expire."""
    whole = signed()
    return {
        "longest": (padded(), "NOERROR"),
        "longest, of nobody": (padded(key=None), "REFUSED"),
        "longest garbage": (head(additional=3) + QUESTION + b"\xff" * (LONGEST - 12 - len(QUESTION)), "FORMERR"),
        "longest garbage without a name": (head() + b"\x3f" * (LONGEST - 12), "FORMERR"),
        "head alone": (head(), "FORMERR"),
        "no question": (head(0), "FORMERR"),
        "no question, one there": (head(0) + QUESTION, "FORMERR"),
        "two questions": (head(2) + QUESTION * 2, "FORMERR"),
        "cut in its name": (PLAIN[:20], "FORMERR"),
        "cut in its type": (PLAIN[:-3], "FORMERR"),
        "cut in its signature": (whole[:-9], "FORMERR"),
        "something after it": (PLAIN + b"\0", "FORMERR"),
        "a label that leads to itself": (head() + b"\xc0\x0c\0\6\0\1", "FORMERR"),
        "a loop of two": (head() + b"\1a\xc0\x0c\0\6\0\1", "FORMERR"),
        "a pointer beyond the end": (head() + b"\xff\xff\0\6\0\1", "FORMERR"),
        "a pointer beyond the end, later": (head(additional=1) + QUESTION + b"\xff\xff\0\1\0\1\0\0\0\0\0\0", "FORMERR"),
        "a pointer into the head": (head(additional=1) + QUESTION + b"\xc0\x00\0\1\0\1\0\0\0\0\0\4abcd", None),
        "a loop in a record": (
            head(additional=1) + QUESTION + struct.pack("!H", 0xC000 | 12 + len(QUESTION)) + b"\0\1\0\1\0\0\0\0\0\0",
            "FORMERR",
        ),
        "a label of a kind there is not": (head() + b"\x40aa\0\0\6\0\1", "FORMERR"),
        "a name that is too long": (head() + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\6\0\1", "FORMERR"),
        "another class": (head() + NAME + b"\0\6\0\3", "REFUSED"),
        "a transfer in another class": (head() + NAME + b"\0\xfc\0\3", "NOTAUTH"),
        "any class": (head() + NAME + b"\0\6\0\xff", "REFUSED"),
        "inverse query": (head(flags=0x0800) + QUESTION, "NOTIMP"),
        "status": (head(flags=0x1000) + QUESTION, "NOTIMP"),
        "notify": (head(flags=0x2400) + QUESTION, "NOTIMP"),
        "update": (head(flags=0x2800) + QUESTION, "NOTIMP"),
        "an opcode that nobody has": (head(flags=0x7800) + QUESTION, "NOTIMP"),
        "EDNS of another version": (head(additional=1) + QUESTION + b"\0\0\x29\x04\xd0\0\1\0\0\0\0", "BADVERS"),
        "two OPT records": (head(additional=2) + QUESTION + (b"\0" + OPT + b"\0\0") * 2, "FORMERR"),
        "an OPT record of a name": (head(additional=1) + QUESTION + b"\1a\0" + OPT + b"\0\0", "FORMERR"),
        "an option that is cut": (head(additional=1) + QUESTION + b"\0" + OPT + b"\0\3\0\x0a\0", "FORMERR"),
        "signature not last": (whole[:10] + b"\0\2" + whole[12:] + b"\0" + OPT + b"\0\0", "FORMERR"),
        "two signatures": (whole[:10] + b"\0\2" + whole[12:] + whole[len(PLAIN) :], "FORMERR"),
        "an unknown algorithm": (head(additional=1) + QUESTION + tsig("hmac-of-nobody."), "BADKEY"),
        "a weaker algorithm": (head(additional=1) + QUESTION + tsig("hmac-md5.sig-alg.reg.int."), "BADKEY"),
        "a forged signature": (whole[:-20] + bytes(14) + whole[-6:], "BADSIG"),
        "of nobody": (PLAIN, "REFUSED"),
    }


@contextlib.asynccontextmanager
async def serving(*, gateway: bool) -> AsyncIterator[tuple[Primary, int]]:
    """A zone, at its own port or at the dns gateway's."""
    its = Primary(plan(), request_seconds=5.0)
    its.publish(version(its.served.plan, 7, [f"http://name{at}.example/" for at in range(50)]))
    async with its.listening() as port, running(networks=["192.0.2.0/24"]) as listener:
        listener.hand_over(its.listener)
        yield its, listener.port if gateway else port


def told(wire: bytes) -> str:
    """The code of an answer; the signature's, where it has one that says one."""
    found = dns.message.from_wire(wire, keyring=False, continue_on_error=True)
    if found.tsig is not None and found.tsig[0].error:
        assert found.rcode() == dns.rcode.NOTAUTH
        return dns.rcode.to_text(dns.rcode.Rcode(found.tsig[0].error), tsig=True)
    return dns.rcode.to_text(found.rcode())


async def message(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(DEADLINE):
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        return await reader.readexactly(length)


@pytest.mark.parametrize("gateway", [False, True])
async def test_each_gets_its_code_and_a_connection_goes_on_only_with_who_may_have_the_zone(*, gateway: bool) -> None:
    async with serving(gateway=gateway) as (its, port):
        for what, (wire, expected) in cases().items():
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(framed(wire))
            answered = await message(reader)
            assert (answered[:2], told(answered)) == (wire[:2], expected or told(answered)), what
            # At the gateway it belongs to whom its first message is about, by a name that is there and counted.
            if gateway and not (wire[12:].startswith(NAME) and wire[5]):
                writer.write(framed(PLAIN))
                assert told(await message(reader)) == "REFUSED", what
            elif told(answered) == "NOERROR":  # RFC 7766, section 6.2.1: it is used again
                asked = query("AXFR")
                writer.write(framed(asked.to_wire()))
                assert len(records([await message(reader)], asked)) == 53, what
            else:
                assert await reader.read() == b"", what
            writer.close()
        assert its.sent() == 1


@pytest.mark.parametrize("gateway", [False, True])
async def test_each_gets_the_same_code_as_a_datagram(*, gateway: bool) -> None:
    async with serving(gateway=gateway) as (_its, port):
        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        class Client(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, _address: object) -> None:
                heard.put_nowait(data)

        transport, _ = await loop.create_datagram_endpoint(Client, remote_addr=(HOST, port))
        for what, (wire, expected) in cases().items():
            if len(wire) > 1232:
                continue
            transport.sendto(wire)
            answered = await heard.get()
            assert (answered[:2], told(answered)) == (wire[:2], expected or told(answered)), what
            assert len(answered) < 2 * len(wire), what
        transport.close()


@pytest.mark.parametrize("gateway", [False, True])
@pytest.mark.parametrize("length", [0, 1, 11])
async def test_who_sends_less_than_a_header_is_disconnected(length: int, *, gateway: bool) -> None:
    async with serving(gateway=gateway) as (_its, port):
        for before in ([], [signed()]):
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(b"".join(map(framed, [*before, bytes(length), signed()])))
            for _ in before:
                assert told(await message(reader)) == "NOERROR", "what was asked before is answered"
            assert await reader.read() == b""
            writer.close()


@pytest.mark.parametrize("gateway", [False, True])
async def test_questions_before_the_answers_and_an_end_after_them(*, gateway: bool) -> None:
    async with serving(gateway=gateway) as (_its, port):
        reader, writer = await asyncio.open_connection(HOST, port)
        asked = [query("AXFR") for _ in range(5)]
        writer.write(b"".join(framed(one.to_wire()) for one in asked))
        writer.write_eof()
        for one in asked:
            assert len(records([await message(reader)], one)) == 53
        assert await reader.read() == b"", "RFC 7766, section 6.2.3: who has asked all it wants still gets it"
        writer.close()


async def test_names_of_others_on_a_connection_that_was_about_a_zone_are_refused() -> None:
    async with serving(gateway=True) as (_its, port):
        reader, writer = await asyncio.open_connection(HOST, port)
        for wire, expected in ((signed(), "NOERROR"), (client_query("host.example").to_wire(), "REFUSED")):
            writer.write(framed(wire))
            assert told(await message(reader)) == expected
        writer.close()


def test_the_cases_are_what_they_say() -> None:
    made = cases()
    assert len(made["longest"][0]) == len(made["longest garbage"][0]) == LONGEST
    assert dns.message.from_wire(made["longest"][0], keyring=KEYRING).had_tsig
    assert dns.message.from_wire(signed(), keyring=KEYRING).had_tsig
    with pytest.raises(dns.tsig.BadSignature):
        dns.message.from_wire(made["a forged signature"][0], keyring=KEYRING)
    assert ORIGIN.encode()[:6] in NAME
