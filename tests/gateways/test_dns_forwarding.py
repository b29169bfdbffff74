"""Other resolvers as bad as they come, and what is kept of what they say."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import dns.edns
import dns.flags
import dns.message
import dns.rrset

from blocker import Matcher
from tests.gateways.dns_desk import errors, query, shown
from tests.gateways.dns_running import ask, running
from tests.gateways.dns_upstream import Upstream, address, reply, upstream
from tests.gateways.test_http_codec import Desk
from tests.ingest.checks import until
from tests.redis_server import free_port

if TYPE_CHECKING:
    from dns.message import QueryMessage

SOA = "600 SOA ns.example. admin.example. 1 3600 600 86400 120"


async def test_what_is_asked_of_others_has_nothing_of_the_client() -> None:
    subnet = dns.edns.ECSOption("198.51.100.0", 24)
    cookie = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"zzcookie")
    async with upstream(address) as other, running(other, cache_bytes=0) as listener:
        for number in range(20):
            await ask(listener, f"harmless{number}.example", options=[subnet, cookie], dnssec=number % 2 == 0)
        assert len({message.id for message in other.asked}) > 15
        assert len({port for _, port in other.sources}) > 15
        names = [message.question[0].name.to_text() for message in other.asked]
        assert any(name != name.lower() for name in names)
        for number, message in enumerate(other.asked):
            assert (message.edns, message.options, message.payload) == (0, (), 1232)
            assert bool(message.ednsflags & dns.flags.DO) == (number % 2 == 0)
            assert names[number].lower() == f"harmless{number}.example."


async def test_what_others_answer_is_passed_on_whole() -> None:
    signature = "300 RRSIG A 13 2 300 20300101000000 20200101000000 1 example. c2lnbmF0dXJl"

    def behave(_: Upstream, asked: QueryMessage, _stream: bool) -> list[bytes]:
        answer = reply(asked, "300 A 192.0.2.1", "250 TYPE65280 \\# 4 01020304", signature)
        answer.flags |= dns.flags.AD
        answer.use_edns(0, dns.flags.DO, 1232, options=[dns.edns.EDEOption(dns.edns.EDECode.CACHED_ERROR, "so")])
        return [answer.to_wire()]

    async with upstream(behave) as other, running(other) as listener:
        for _ in range(2):  # from the other, then from what is kept
            found = await ask(listener, "harmless.example", dnssec=True)
            assert len(shown(found)[1]) == 3
            assert found.flags & dns.flags.AD
            assert found.ednsflags & dns.flags.DO
            assert errors(found) == [(13, "so")]
        assert len(other.asked) == 1
        plain = await ask(listener, "harmless.example", edns=False)
        assert not plain.flags & dns.flags.AD
        assert plain.edns == -1
        assert len(other.asked) == 2, "without DNSSEC it is another question"


async def test_a_question_of_many_is_asked_once() -> None:
    async with upstream(address) as other, running(other, cache_bytes=0) as listener:
        other.go.clear()
        asking = [asyncio.create_task(ask(listener, name)) for name in ["Same.example", "sAME.example"] * 10]
        await other.arrived.wait()
        await until(lambda: listener.forwarder.waiting == 20)
        other.go.set()
        answers = await asyncio.gather(*asking)
        assert len(other.asked) == 1
        assert {shown(answer)[1][0] for answer in answers} == {"192.0.2.33"}
        assert [answer.question[0].name.to_text()[:4] for answer in answers] == ["Same", "sAME"] * 10


async def test_over_the_limit_of_waiting_questions_they_fail_at_once() -> None:
    async with upstream(address) as other, running(other, max_waiting=3) as listener:
        other.go.clear()
        asking = [asyncio.create_task(ask(listener, f"{number}.example")) for number in range(3)]
        await until(lambda: listener.forwarder.waiting == 3)
        found = await ask(listener, "more.example")
        assert (shown(found), errors(found)) == (("SERVFAIL", []), [(23, "")])
        assert shown(await ask(listener, "host.example")) == ("NXDOMAIN", []), "lists go on"
        other.go.set()
        await asyncio.gather(*asking)


def truncating(_: Upstream, asked: QueryMessage, stream: bool) -> list[bytes]:
    answer = reply(asked, *(f"300 TXT {'x' * 250}" for _ in range(1)), "300 A 192.0.2.7")
    if not stream:
        answer.answer.clear()
        answer.flags |= dns.flags.TC
    return [answer.to_wire()]


async def test_a_truncated_answer_is_asked_for_again_over_tcp() -> None:
    async with upstream(truncating) as other, running(other) as listener:
        assert len(shown(await ask(listener, "long.example"))[1]) == 2
        assert (len(other.asked), len(other.asked_over_tcp)) == (1, 1)


async def test_an_answer_that_a_client_does_not_take_is_truncated_and_whole_over_tcp() -> None:
    def behave(_: Upstream, asked: QueryMessage, _stream: bool) -> list[bytes]:
        answer = reply(asked)
        name = asked.question[0].name
        answer.answer.append(dns.rrset.from_text(name, 300, "IN", "TXT", *(f"{at}{'x' * 200}" for at in range(4))))
        return [answer.to_wire()]

    async with upstream(behave) as other, running(other) as listener:
        for options in ({"edns": False}, {"payload": 512}):
            found = await ask(listener, "long.example", "TXT", **options)
            assert found.flags & dns.flags.TC
            assert found.answer == []
        assert not (await ask(listener, "long.example", "TXT", payload=4096)).flags & dns.flags.TC
        assert len((await ask(listener, "long.example", "TXT", tcp=True)).answer[0]) == 4


async def test_strangers_are_not_believed() -> None:
    def behave(_: Upstream, asked: QueryMessage, stream: bool) -> list[bytes]:
        forged = reply(asked, "300 A 203.0.113.66")
        forged.id ^= 1
        cased = bytearray(reply(asked, "300 A 203.0.113.66").to_wire())
        cased[13] ^= 0x20
        other = reply(query("elsewhere.example"), "300 A 203.0.113.66")
        other.id = asked.id
        return [forged.to_wire(), bytes(cased), other.to_wire(), asked.to_wire(), b"", b"x", *address(_, asked, stream)]

    async with upstream(behave) as one, running(one) as listener:
        assert shown(await ask(listener, "wanted.example")) == ("NOERROR", ["192.0.2.33"])
        assert one.asked_over_tcp == []


async def test_who_guesses_on_and_on_has_the_question_moved_to_tcp() -> None:
    def behave(_: Upstream, asked: QueryMessage, stream: bool) -> list[bytes]:
        forged = reply(asked, "300 A 203.0.113.66")
        forged.id ^= 1
        return address(_, asked, stream) if stream else [forged.to_wire()] * 20

    async with upstream(behave) as one, running(one) as listener:
        assert shown(await ask(listener, "wanted.example")) == ("NOERROR", ["192.0.2.33"])


async def test_a_resolver_that_changes_letters_case_is_asked_over_tcp() -> None:
    def behave(_: Upstream, asked: QueryMessage, stream: bool) -> list[bytes]:
        wire = address(_, asked, stream)[0]
        return [wire[:12] + wire[12:].lower() if b"\xc0" in wire else wire]

    async with upstream(behave) as one, running(one) as listener:
        assert shown(await ask(listener, "a-long-name-with-many-letters.example")) == ("NOERROR", ["192.0.2.33"])
        assert len(one.asked_over_tcp) == 1


def failing(_: Upstream, asked: QueryMessage, _stream: bool) -> list[bytes]:
    return [reply(asked, rcode="SERVFAIL").to_wire()]


def silent(_upstream: Upstream, _asked: QueryMessage, _stream: bool) -> list[bytes]:
    return []


async def test_the_next_one_is_asked_where_one_fails_or_is_silent_or_away() -> None:
    away = free_port()
    async with (
        upstream(failing) as one,
        upstream(silent) as two,
        upstream(address) as three,
        running(one, two, away, three, cache_bytes=0, upstream_seconds=2.0) as listener,
    ):
        for number in range(4):
            assert shown(await ask(listener, f"{number}.example")) == ("NOERROR", ["192.0.2.33"])
        assert (len(one.asked), len(two.asked), len(three.asked)) == (4, 2, 4), "the silent one is asked last now"


async def test_where_nobody_answers_the_client_is_told() -> None:
    async with upstream(silent) as one, running(one, upstream_seconds=0.3) as listener:
        found = await ask(listener, "harmless.example")
        assert (shown(found), errors(found)) == (("SERVFAIL", []), [(23, "")])
        assert len(one.asked) == 2
    async with upstream(failing) as one, running(one) as listener:
        for _ in range(3):
            assert shown(await ask(listener, "harmless.example")) == ("SERVFAIL", [])
        assert len(one.asked) == 2, "a failure is kept for a moment"


async def test_answers_are_kept_for_their_time_and_no_longer() -> None:
    def behave(_: Upstream, asked: QueryMessage, _stream: bool) -> list[bytes]:
        match asked.question[0].name.to_text().lower().split(".")[0]:
            case "short":
                return [reply(asked, "1 A 192.0.2.1", "300 TXT x").to_wire()]
            case "none":
                return [reply(asked, rcode="NXDOMAIN", soa=SOA).to_wire()]
            case "empty":
                return [reply(asked, soa=SOA).to_wire()]
            case "unsaid":
                return [reply(asked).to_wire()]
            case _:
                return [reply(asked, "4294967295 A 192.0.2.1").to_wire()]

    async with upstream(behave) as one, running(one) as listener:
        for name, times in (("none", 1), ("empty", 1), ("unsaid", 2), ("endless", 2)):
            before = len(one.asked)
            first, second = [await ask(listener, f"{name}.example") for _ in range(2)]
            assert shown(first) == shown(second)
            assert len(one.asked) - before == times, name
        kept = -1
        while len(one.asked) != kept:  # until one is answered from what is kept, within its second
            kept = len(one.asked)
            assert shown(await ask(listener, "SHORT.example"))[0] == "NOERROR"

        async def over() -> bool:
            await ask(listener, "short.example")
            return len(one.asked) > kept

        while not await over():
            pass


async def test_an_answer_whose_time_is_over_is_used_if_nobody_else_answers() -> None:
    behaviour = [lambda _one, asked, _stream: [reply(asked, "1 A 192.0.2.1").to_wire()]]
    async with (
        upstream(lambda *asked: behaviour[0](*asked)) as one,
        running(one, stale_seconds=3600, upstream_seconds=0.1) as listener,
    ):
        assert shown(await ask(listener, "once.example")) == ("NOERROR", ["192.0.2.1"])
        behaviour[0] = failing

        async def stale() -> dns.message.Message:
            return await ask(listener, "once.example")

        while not errors(found := await stale()):
            pass
        assert (shown(found), errors(found), found.answer[0].ttl) == (("NOERROR", ["192.0.2.1"]), [(3, "")], 30)
        behaviour[0] = silent
        assert errors(await stale()) == [(3, "")]


async def test_a_list_has_the_last_word_over_what_is_kept() -> None:
    desk = Desk()
    async with upstream(address) as one, running(one, desk=desk) as listener:
        assert shown(await ask(listener, "later.example")) == ("NOERROR", ["192.0.2.33"])
        assert listener.service.kept == 1
        desk.engine.swapped(Matcher.build({"police": ["http://later.example/"]}))
        assert shown(await ask(listener, "later.example")) == ("NXDOMAIN", [])
        found = await ask(listener, "harmless.example", flags="")
        assert shown(found) == ("REFUSED", []), "nobody finds out what others asked"
