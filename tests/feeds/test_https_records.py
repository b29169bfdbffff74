"""Where HTTPS records lead, asked for at a server that says whatever a test thinks of, and at a real Knot DNS: what a
browser may follow is followed, what is hostile leads no further than its bounds, and what fails takes nothing away."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import dns.message
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest

from blocker.feeds.resolve import Resolvers
from blocker.feeds.sightings import FAMILIES
from tests.feeds.knot import Knot
from tests.gateways.dns_upstream import reply, upstream
from tests.loop_time import loop_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from blocker.feeds.resolve import Answer
    from tests.gateways.dns_upstream import Upstream

    #: Records as `TTL TYPE DATA`, the data of an HTTPS record as bytes, an RCODE, or silence.
    Says = Sequence[str] | bytes | str | None

HTTPS = dns.rdatatype.HTTPS
A, AAAA = "11.0.0.1", "2a00::1"


def hint(*numbers: int) -> bytes:
    """A parameter: IPv4 hints of these last numbers."""
    return b"\0\4" + (4 * len(numbers)).to_bytes(2, "big") + b"".join(bytes((11, 0, 0, one)) for one in numbers)


class Zone:
    """The server. What it says of a name and type; of those that it knows nothing of, that there is nothing."""

    def __init__(self) -> None:
        self.says: dict[str, Says] = {}
        self.asked: list[str] = []
        self.address = ""
        self._heard: set[tuple[int, str]] = set()

    def behave(self, _upstream: Upstream, asked: dns.message.QueryMessage, stream: bool) -> list[bytes]:
        question = asked.question[0]
        key = f"{question.name.to_text(omit_final_dot=True).lower()} {dns.rdatatype.to_text(question.rdtype)}"
        if not stream and (asked.id, key) not in self._heard:  # else it is sent again, as a busy machine has it
            self._heard.add((asked.id, key))
            self.asked.append(key.replace(".example", ""))
        said = self.says.get(key.replace(".example", ""), ())
        if said is None:
            return []
        if isinstance(said, str):
            return [reply(asked, rcode=said).to_wire()]
        if not isinstance(said, bytes):
            return [reply(asked, *said).to_wire(max_size=65_535)]
        answer = reply(asked)
        raw = dns.rdata.GenericRdata(dns.rdataclass.IN, HTTPS, said)
        answer.answer.append(dns.rrset.from_rdata(question.name, 60, raw))
        return [answer.to_wire()]

    async def look_up(self, resolvers: Resolvers | None = None, name: str = "site.example") -> Answer | None:
        """A look at a name, by resolvers of its own unless there are others."""
        if resolvers is not None:
            return await resolvers.look_up(name)
        async with asking(self) as made:
            return await made.look_up(name)


@contextlib.asynccontextmanager
async def asking(*zones: Zone | Knot, **options: float) -> AsyncIterator[Resolvers]:
    chosen = {"seconds": 15.0, "tries": 6, **options}
    resolvers = Resolvers([zone.address for zone in zones], **chosen)  # type: ignore[arg-type]  # numbers are floats too
    try:
        yield resolvers
    finally:
        await resolvers.close()


@contextlib.asynccontextmanager
async def zones(count: int) -> AsyncIterator[list[Zone]]:
    made = [Zone() for _ in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        for one in made:
            one.says = {"site A": [f"60 A {A}"], "site AAAA": [f"60 AAAA {AAAA}"]}
            one.address = f"127.0.0.1:{(await stack.enter_async_context(upstream(one.behave))).port}"
        yield made


@pytest.fixture
async def zone() -> AsyncIterator[Zone]:
    async with zones(1) as (made,):
        yield made


def told(answer: Answer | None) -> set[str]:
    assert answer is not None
    return {str(address) for address in answer.addresses} - {A, AAAA}


HINTS = "ipv4hint=11.0.0.2,11.0.0.3 ipv6hint=2a00::2"
#: What the server says beside the site's own addresses, and what this adds to them.
LEADS: dict[str, tuple[Mapping[str, Says], set[str]]] = {
    "hints": ({"site HTTPS": [f"60 HTTPS 1 . alpn=h2 {HINTS}"]}, {"11.0.0.2", "11.0.0.3", "2a00::2"}),
    "service": (
        {"site HTTPS": ["60 HTTPS 1 There.example."], "there A": ["60 A 11.0.0.4"], "there AAAA": ["60 AAAA 2a00::4"]},
        {"11.0.0.4", "2a00::4"},
    ),
    "hints and target": (
        {"site HTTPS": [f"60 HTTPS 1 there.example. {HINTS}"], "there A": ["60 A 11.0.0.4"]},
        {"11.0.0.2", "11.0.0.3", "2a00::2", "11.0.0.4"},
    ),
    "alias": (
        {
            "site HTTPS": ["60 HTTPS 0 one.example."], "one A": ["60 A 11.0.0.4"],
            "one HTTPS": ["60 HTTPS 0 two.example."], "two HTTPS": [f"60 HTTPS 1 . {HINTS}"],
        },
        {"11.0.0.4", "11.0.0.2", "11.0.0.3", "2a00::2"},
    ),
    "alias of nothing": ({"site HTTPS": ["60 HTTPS 0 ."]}, set()),
    "beyond a service": (
        {"site HTTPS": ["60 HTTPS 1 there.example."], "there HTTPS": [f"60 HTTPS 1 . {HINTS}"]},
        set(),
    ),
    "service and alias": (
        {
            "site HTTPS": ["60 HTTPS 0 one.example.", "60 HTTPS 1 two.example."],
            "one HTTPS": ["60 HTTPS 0 two.example."], "two HTTPS": [f"60 HTTPS 1 . {HINTS}"],
        },
        {"11.0.0.2", "11.0.0.3", "2a00::2"},
    ),
    "loop": (
        {
            "site HTTPS": ["60 HTTPS 0 one.example."], "one HTTPS": ["60 HTTPS 0 SITE.example."],
            "one A": ["60 A 11.0.0.4"],
        },
        {"11.0.0.4"},
    ),
    "itself": (
        {"site HTTPS": ["60 HTTPS 0 site.example.", "60 HTTPS 1 site.example. ipv4hint=11.0.0.2"]},
        {"11.0.0.2"},
    ),
    "one target fails": (
        {
            "site HTTPS": ["60 HTTPS 1 one.example.", "60 HTTPS 2 two.example."], "one A": "SERVFAIL",
            "one AAAA": "REFUSED", "two A": ["60 A 11.0.0.4"],
        },
        {"11.0.0.4"},
    ),
    "addresses instead": ({"site HTTPS": ["60 A 11.0.0.66"]}, set()),
    "cut hint": ({"site HTTPS": b"\0\1\0" + b"\0\4\0\6\x0b\0\0\5\x0b\0"}, {"11.0.0.5"}),
    "empty hint": ({"site HTTPS": b"\0\1\0" + b"\0\4\0\0" + b"\0\6\0\3abc"}, set()),
    "unordered": ({"site HTTPS": b"\0\1\0" + b"\xff\xff\0\1x" + hint(6) + b"\0\0\0\1\0"}, {"11.0.0.6"}),
    "too long": ({"site HTTPS": b"\0\1\0" + b"\0\4\xff\xff\x0b\0\0\x42"}, set()),
    "strange target": ({"site HTTPS": b"\0\1" + b"\3\xff.\0\7example\0" + hint(7)}, {"11.0.0.7"}),
    "no target": ({"site HTTPS": b"\0\1"}, set()),
    "nothing": ({"site HTTPS": b""}, set()),
    **{code: ({"site HTTPS": code}, set()) for code in ("SERVFAIL", "NOTIMP", "FORMERR", "REFUSED", "NXDOMAIN")},
    "silence": ({"site HTTPS": None}, set()),
}  # fmt: skip


@pytest.mark.parametrize("case", LEADS)
async def test_what_browsers_may_follow_is_followed_and_what_fails_takes_nothing_away(zone: Zone, case: str) -> None:
    more, expected = LEADS[case]
    zone.says |= more
    async with asking(zone, **({"seconds": 3.0, "tries": 2} if case == "silence" else {})) as resolvers:
        answer = await zone.look_up(resolvers)
    assert told(answer) == expected
    assert answer is not None
    assert {A, AAAA} <= {str(one) for one in answer.addresses}
    assert (answer.complete, answer.ttl, answer.ports) == (FAMILIES, 60, frozenset())


async def test_the_shortest_time_holds(zone: Zone) -> None:
    zone.says["site HTTPS"] = ["40 HTTPS 1 there.example."]
    zone.says["there A"] = ["20 A 11.0.0.4"]
    answer = await zone.look_up()
    assert answer is not None
    assert answer.ttl == 20
    zone.says["there A"] = ["50 A 11.0.0.4"]
    answer = await zone.look_up()
    assert answer is not None
    assert answer.ttl == 40


async def test_ports_are_told(zone: Zone) -> None:
    zone.says["site HTTPS"] = ["60 HTTPS 1 . port=8443", "60 HTTPS 2 . port=443", "60 HTTPS 3 ."]
    answer = await zone.look_up()
    assert answer is not None
    assert answer.ports == {8443, 443}


async def test_a_name_that_fails_is_where_its_records_lead_and_its_resolver_is_not_heard(zone: Zone) -> None:
    zone.says |= {"site A": "SERVFAIL", "site AAAA": "SERVFAIL", "site HTTPS": [f"60 HTTPS 1 . {HINTS}"]}
    now = 0.0
    async with asking(zone, clock=lambda: now) as resolvers:  # type: ignore[arg-type]
        now = 100.0
        answer = await zone.look_up(resolvers)
        assert told(answer) == {"11.0.0.2", "11.0.0.3", "2a00::2"}
        assert answer is not None
        assert (answer.complete, answer.ttl) == (frozenset(), 0)
        assert resolvers.silence == 100
        zone.says["site HTTPS"] = ()
        now += 1.0  # so that nothing of it is kept
        assert await zone.look_up(resolvers) is None


async def test_a_quorum_is_needed_here_too() -> None:
    async with zones(2) as (first, second), asking(first, second, quorum=2) as resolvers:
        first.says["site HTTPS"] = ["60 HTTPS 1 . ipv4hint=11.0.0.2,11.0.0.3"]
        # The other says one of them in another way.
        second.says["site HTTPS"] = ["60 HTTPS 1 there.example."]
        second.says["there A"] = ["60 A 11.0.0.3"]
        assert told(await resolvers.look_up("site.example", {})) == {"11.0.0.3"}


async def test_a_hostile_answer_leads_no_further_than_its_bounds(zone: Zone) -> None:
    zone.says["site HTTPS"] = [f"60 HTTPS {100 - at} t{at}.example. ipv4hint=11.1.0.{at}" for at in range(100)]
    zone.says |= {f"t{at} A": [f"60 A 11.2.0.{at}"] for at in range(100)}
    found = told(await zone.look_up())
    assert len(zone.asked) == len(set(zone.asked)) == 24
    first = {f"11.1.0.{at}" for at in range(84, 100)}
    assert found & {f"11.1.0.{at}" for at in range(100)} == first, "those that browsers try first"
    assert found - first == {f"11.2.0.{at}" for at in range(89, 100)}

    zone.asked.clear()
    zone.says = {f"a{at} HTTPS": [f"60 HTTPS 0 a{at + 1}.example."] for at in range(100)}
    zone.says |= {f"a{at} A": [f"60 A 11.3.0.{at}"] for at in range(100)}
    found = told(await zone.look_up(name="a0.example"))
    assert found == {f"11.3.0.{at}" for at in range(8)}
    assert len(zone.asked) == 24

    crowd = ",".join(f"11.4.{at // 250}.{at % 250}" for at in range(1000))
    zone.says = {"site A": [f"60 A {A}"], "site HTTPS": [f"60 HTTPS 1 . ipv4hint={crowd}"]}
    assert told(await zone.look_up()) == {f"11.4.0.{at}" for at in range(32)}


async def test_targets_that_never_answer_end_in_time(zone: Zone) -> None:
    """An alias of an alias of an alias, each of which answers for its HTTPS records alone."""
    zone.says |= {f"a{at} HTTPS": [f"60 HTTPS 0 a{at + 1}.example."] for at in range(10)}
    zone.says |= {f"a{at} {kind}": None for at in range(11) for kind in ("A", "AAAA")}
    zone.says["site HTTPS"] = ["60 HTTPS 0 a0.example.", "60 HTTPS 1 . ipv4hint=11.0.0.2"]
    async with asking(zone, seconds=3.0, tries=2) as resolvers, loop_time() as spent:
        answer = await zone.look_up(resolvers)
    assert told(answer) == {"11.0.0.2"}
    assert spent.seconds < 9.0


async def test_what_it_costs_and_that_it_can_be_switched_off(zone: Zone) -> None:
    async with asking(zone, https_records=False) as resolvers:
        await resolvers.look_up("site.example")
        assert sorted(zone.asked) == ["site A", "site AAAA"]
        resolvers.https_records = True
    for data, questions in (
        ((), 3),
        (["60 HTTPS 1 . alpn=h2"], 3),
        (["60 HTTPS 1 x.example."], 5),
        (["60 HTTPS 0 x.example."], 6),
    ):
        zone.asked.clear()
        zone.says["site HTTPS"] = data
        await zone.look_up()
        assert len(zone.asked) == questions


async def test_a_resolver_without_this_type_keeps_nobody_waiting_and_is_heard_when_it_has_it(zone: Zone) -> None:
    """It drops such questions: the first names wait for their time, the others do not."""
    loop = asyncio.get_running_loop()
    names = [f"n{at}" for at in range(64)]
    for name in names:
        zone.says |= {f"{name} A": [f"60 A {A}"], f"{name} HTTPS": None}
    now = 0.0
    async with asking(zone, seconds=4.0, tries=1, clock=lambda: now) as resolvers:  # type: ignore[arg-type]

        async def look(*some: str) -> tuple[float, float]:
            """How long it took, by the clock and by the loop."""
            nonlocal now
            now += 1.0  # c-ares waits less for a server that was quick; a new channel knows of none
            begun = loop.time()
            async with loop_time() as spent:
                answers = await asyncio.gather(*(resolvers.look_up(f"{name}.example") for name in some))
            assert all(answer is not None and answer.complete == FAMILIES for answer in answers)
            return loop.time() - begun, spent.seconds

        assert (await look(*names[:32]))[0] > 3.9
        assert (await look(*names[32:]))[1] < 3.5
        zone.says["n0 HTTPS"] = ["60 HTTPS 1 . ipv4hint=11.0.0.2"]
        assert told(await resolvers.look_up("n0.example")) == {"11.0.0.2"}
        assert (await look("n1"))[0] > 3.9, "it has the type, and is given its time again"


async def test_a_real_server_says_all_of_it(tmp_path: Path) -> None:
    with Knot(tmp_path, ttl=300) as knot:
        knot.serve(
            site=[A, "HTTPS 1 . alpn=h2,h3 port=8443 ipv4hint=192.0.2.7 ipv6hint=2001:db8::7"],
            moved=[A, "HTTPS 0 pool"], pool=["192.0.2.8", "HTTPS 1 deep ipv4hint=192.0.2.9"], deep="2001:db8::8",
            www="site", plain=A,
        )  # fmt: skip
        async with asking(knot) as resolvers:
            for name, expected, ports in (
                ("site", {"192.0.2.7", "2001:db8::7"}, [8443]), ("www", {"192.0.2.7", "2001:db8::7"}, [8443]),
                ("moved", {"192.0.2.8", "192.0.2.9", "2001:db8::8"}, ()), ("plain", set(), ()),
            ):  # fmt: skip
                answer = await resolvers.look_up(f"{name}.example")
                assert told(answer) == expected
                assert answer is not None
                assert (answer.complete, answer.ttl, answer.ports) == (FAMILIES, 300, frozenset(ports))
