"""Resolvers that pass on whatever a hostile server thinks of, asked by the real look-ups: what is believed of it, that
no look comes oftener or later than the pace says, and that the routes harm nobody."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset
import pytest
import structlog

from blocker.feeds.lookups import Lookups, Pace
from blocker.feeds.resolve import Resolvers
from blocker.feeds.routes import Limits, Reason, RouteTable
from blocker.feeds.sightings import FAMILIES
from tests.gateways.dns_upstream import Upstream, reply, upstream
from tests.loop_time import loop_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from blocker.feeds.resolve import Answer

    Trick = Callable[[dns.message.QueryMessage, bool, int], Sequence[bytes]]

HONEST, POPULAR, OWN = "11.0.0.1", "11.1.1.1", "11.2.2.2"
CROWD = [f"11.{16 + at // 250}.0.{at % 250}" for at in range(500)]
# Addresses of IPv6 in which the popular and the own address are.
EMBEDDED = [
    "::ffff:11.1.1.1", "::11.1.1.1", "64:ff9b::11.1.1.1", "64:ff9b:1::11.2.2.2", "2002:b01:101::1", "2001:0:b01:101::1",
    "2001:0:4136:e378:8000:63bf:f4fe:fefe", "fe80::5efe:11.1.1.1",
]  # fmt: skip


def says(*records: str) -> Trick:
    """An answer with these records for one family, and none for the other; each as `OWNER TTL TYPE DATA`."""

    def trick(asked: dns.message.QueryMessage, _stream: bool, _turn: int) -> list[bytes]:
        answer = reply(asked)
        kind = dns.rdatatype.to_text(asked.question[0].rdtype)
        for owner, ttl, of, data in (record.split(" ", 3) for record in records):
            if of in (kind, "CNAME"):
                answer.answer.append(dns.rrset.from_text(f"{owner}.example.", int(ttl), "IN", of, data))
        return [answer.to_wire()]

    return trick


def a(*addresses: str, ttl: int = 60) -> Trick:
    """An answer with these addresses, and none of IPv6."""

    def trick(asked: dns.message.QueryMessage, stream: bool, _turn: int) -> list[bytes]:
        if asked.question[0].rdtype != dns.rdatatype.A:
            return [reply(asked).to_wire()]
        whole = reply(asked, *(f"{ttl} A {one}" for one in addresses))
        if not stream and len(addresses) > 20:
            whole = reply(asked)
            whole.flags |= dns.flags.TC
        return [whole.to_wire(max_size=65_535)]

    return trick


def only_a(trick: Trick) -> Trick:
    """This for A, and that there is nothing for AAAA."""
    return lambda asked, stream, turn: (
        trick(asked, stream, turn) if asked.question[0].rdtype == dns.rdatatype.A else [reply(asked).to_wire()]
    )


def truncated(asked: dns.message.QueryMessage, stream: bool, _turn: int) -> list[bytes]:
    answer = reply(asked)
    answer.flags |= dns.flags.TC
    return [] if stream else [answer.to_wire()]


def wrong_id(asked: dns.message.QueryMessage, _stream: bool, _turn: int) -> list[bytes]:
    right = reply(asked, "60 A 11.0.0.66").to_wire()
    return [bytes((right[0] ^ 1,)) + right[1:]]


def wrong_question(asked: dns.message.QueryMessage, _stream: bool, _turn: int) -> list[bytes]:
    other = dns.message.make_query("honest.example", "A")
    other.id = asked.id
    return [reply(other, "60 A 11.0.0.66").to_wire()]


def failure(asked: dns.message.QueryMessage, _stream: bool, _turn: int) -> list[bytes]:
    return [reply(asked, rcode="SERVFAIL").to_wire()]


def no_six(asked: dns.message.QueryMessage, stream: bool, turn: int) -> Sequence[bytes]:
    six = asked.question[0].rdtype == dns.rdatatype.AAAA
    return failure(asked, stream, turn) if six else a("11.0.0.2")(asked, stream, turn)


TRICKS: dict[str, Trick] = {
    "honest": a(HONEST),
    "none": a("11.0.0.3", ttl=0),
    "high": a("11.0.0.4", ttl=2**31),
    "highest": a("11.0.0.5", ttl=2**32 - 1),
    "long": a("11.0.0.6", ttl=2**31 - 1),
    "chain": says(
        "chain 60 CNAME c0.example.", *(f"c{at} {60 - at} CNAME c{at + 1}.example." for at in range(20)),
        "c20 60 A 11.0.0.7",
    ),
    "backwards": says("end 60 A 11.0.0.8", "middle 60 CNAME END.example.", "backwards 60 CNAME Middle.example."),
    "loop": says("loop 60 CNAME round.example.", "round 60 CNAME loop.example.", "other 60 A 11.0.0.66"),
    "own-tail": says("own-tail 60 CNAME own-tail.example.", "own-tail 60 A 11.0.0.9"),
    "beside": says("beside 60 A 11.0.0.10", "honest 60 A 11.0.0.66", "victim 1 A 11.0.0.67"),
    "elsewhere": says("honest 60 A 11.0.0.66"),
    "nowhere": lambda asked, _stream, _turn: [reply(asked, rcode="NXDOMAIN").to_wire()],
    "empty": says(),
    "crowd": a(*CROWD),
    "flux": lambda asked, stream, turn: a(f"11.3.{turn // 250}.{turn % 250}", ttl=0)(asked, stream, turn),
    "no-six": no_six,
    "failing": failure,
    "truncated": only_a(truncated),
    "garbage": lambda asked, _stream, _turn: [b"\xff" * 40, asked.to_wire()[:2] + b"\x81\x80" + b"\xff" * 30],
    "cut": lambda asked, stream, turn: [a("11.0.0.66")(asked, stream, turn)[0][:-3]],
    "wrong-id": only_a(wrong_id),
    "wrong-question": only_a(wrong_question),
    "silent": only_a(lambda _asked, _stream, _turn: []),
    "embedded": says("embedded 60 A 11.0.0.11", *(f"embedded 60 AAAA {one}" for one in EMBEDDED)),
    "thief": a(POPULAR, OWN, "11.0.0.12", "127.0.0.1", "224.0.0.1", "0.0.0.1", "255.255.255.255"),
    "hinted": says(
        "hinted 60 A 11.0.0.13", "hinted 9 HTTPS 1 . port=8443 ipv4hint=11.0.0.14,11.1.1.1,11.2.2.2,127.0.0.1",
    ),
    "aliased": says("aliased 60 A 11.0.0.15", "aliased 60 HTTPS 0 target.example."),
    "popular": a(POPULAR),
}  # fmt: skip
#: Where HTTPS records lead.
TARGETS = {"target": says("target 60 A 11.1.1.1", "target 60 A 11.0.0.16", "target 60 HTTPS 0 aliased.example.")}
HALF = frozenset((6,))
#: Addresses, time and families of which it is complete; None where nothing is believed.
BELIEVED: dict[str, tuple[set[str], float, frozenset[int]] | None] = {
    "honest": ({HONEST}, 60, FAMILIES),
    "none": ({"11.0.0.3"}, 0, FAMILIES),
    "high": ({"11.0.0.4"}, 0, FAMILIES),
    "highest": ({"11.0.0.5"}, 0, FAMILIES),
    "long": ({"11.0.0.6"}, 2**31 - 1, FAMILIES),
    "chain": ({"11.0.0.7"}, 41, FAMILIES),
    "backwards": ({"11.0.0.8"}, 60, FAMILIES),
    "loop": (set(), 60, FAMILIES),
    "own-tail": ({"11.0.0.9"}, 60, FAMILIES),
    "beside": ({"11.0.0.10"}, 60, FAMILIES),
    "elsewhere": (set(), math.inf, FAMILIES),
    "nowhere": (set(), math.inf, FAMILIES),
    "empty": (set(), math.inf, FAMILIES),
    "crowd": (set(CROWD), 60, FAMILIES),
    "no-six": ({"11.0.0.2"}, 0, frozenset((4,))),
    "failing": None,
    "truncated": (set(), 0, HALF),
    "garbage": None,
    "cut": None,
    "wrong-id": (set(), 0, HALF),
    "wrong-question": (set(), 0, HALF),
    "silent": (set(), 0, HALF),
    "embedded": ({"11.0.0.11", *EMBEDDED}, 60, FAMILIES),
    "hinted": ({"11.0.0.13", "11.0.0.14", POPULAR, OWN, "127.0.0.1"}, 9, FAMILIES),
    "aliased": ({"11.0.0.15", POPULAR, "11.0.0.16"}, 60, FAMILIES),
}


class Hostile:
    """The server. When each name was asked for by UDP is in `asked`."""

    def __init__(self) -> None:
        self.asked: dict[str, list[float]] = {}
        self.address = ""

    def behave(self, _upstream: Upstream, asked: dns.message.QueryMessage, stream: bool) -> Sequence[bytes]:
        question = asked.question[0]
        label = question.name.labels[0].decode().lower()
        times = self.asked.setdefault(label, [])
        if not stream and question.rdtype == dns.rdatatype.A:
            times.append(asyncio.get_running_loop().time())
        return {**TRICKS, **TARGETS}[label](asked, stream, len(times))


@pytest.fixture
async def hostile() -> AsyncIterator[Hostile]:
    made = Hostile()
    async with upstream(made.behave) as running:
        made.address = f"127.0.0.1:{running.port}"
        yield made


@pytest.mark.parametrize("label", BELIEVED)
async def test_what_is_believed(hostile: Hostile, label: str) -> None:
    believed = BELIEVED[label]
    # Only what never gets an answer that counts has its time cut short.
    seconds, tries = (0.3, 2) if believed is None else (3.0, 2) if believed[2] == HALF else (15.0, 6)
    resolvers = Resolvers([hostile.address], seconds=seconds, tries=tries)
    try:
        answer = await resolvers.look_up(f"{label}.example")
    finally:
        await resolvers.close()
    if believed is None:
        assert answer is None
    else:
        assert answer is not None
        assert ({*map(str, answer.addresses)}, answer.ttl, answer.complete) == (
            {str(ip_address(one)) for one in believed[0]}, *believed[1:],
        )  # fmt: skip


async def test_the_routes_of_hostile_names_harm_nobody_and_their_looks_keep_to_the_pace(
    hostile: Hostile, capfd: pytest.CaptureFixture[str]
) -> None:
    loop = asyncio.get_running_loop()
    limits = Limits(per_host=4, hold_down=60.0, slot_seconds=60.0)
    table = RouteTable(limits, [ip_network("11.2.2.0/24")])
    table.listed(TRICKS.keys() - {"popular"}, 0.0)
    resolvers = Resolvers([hostile.address], seconds=0.5, tries=2, fresh_seconds=1.0)
    looks: dict[str, list[tuple[float, float]]] = {label: [] for label in TRICKS}

    def heard(label: str, answer: Answer | None) -> None:
        looks[label].append((loop.time(), spent.seconds))
        if answer is None:
            return
        take = table.popular_answered if label == "popular" else table.answered
        take(label, answer.addresses, loop.time(), complete=answer.complete)
        table.popular_known |= label == "popular"
        table.step(loop.time())
        announced = {str(address) for address in table.announced}
        # Whatever they say and whenever: nothing of a third party, nothing that answers do not lead to.
        assert not announced & {POPULAR, OWN, "11.0.0.66", "11.0.0.67"}
        assert not any(":" in address for address in announced)
        for name, seen in table.names.items():
            assert sum(name in table.claimed_by(address) for address in seen.at) <= limits.per_host

    lookups: Lookups[str] = Lookups(resolvers, Pace(least=1.0, most=2.0), heard)
    with structlog.testing.capture_logs() as logs:
        lookups.want({label: f"{label}.example" for label in TRICKS})
        running = asyncio.create_task(lookups.run())
        try:
            async with asyncio.timeout(120), loop_time() as spent:
                while (
                    min(len(times) for times in looks.values()) < 3 or len(looks["flux"]) < 6
                    or len(table.names["flux"].at) <= limits.per_host
                ):  # fmt: skip
                    await asyncio.sleep(0.01)
                    assert not running.done()
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            await resolvers.close()
    assert logs == []
    assert capfd.readouterr() == ("", "")
    announced = {str(address) for address in table.announced}
    assert {HONEST, *(f"11.0.0.{at}" for at in range(2, 17))} - {"11.0.0.66"} <= announced
    assert len(announced & set(CROWD)) == 4
    assert table.reason(ip_address(POPULAR), "thief") is Reason.POPULAR
    assert table.reason(ip_address(OWN), "thief") is Reason.OWN
    assert table.refused[Reason.SPECIAL] == len(EMBEDDED) + 5
    assert Reason.HOST_LIMIT in {table.reason(address, "flux") for address in table.names["flux"].at}
    for label in TRICKS:
        moments, turns = zip(*looks[label], strict=True)
        assert min(later - earlier for earlier, later in itertools.pairwise(moments)) >= 1.0, label
        # Most, its tenth, the time for an answer, and patience with a busy machine.
        assert max(later - earlier for earlier, later in itertools.pairwise(turns)) <= 2.2 + 0.5 + 1.2, label
        assert len(hostile.asked[label]) >= len(looks[label]), "what c-ares keeps is no look"
