"""Names at the limit of what DNS carries: every owner fits, and no exception is lost."""

from __future__ import annotations

import dns.name
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocker.matcher import Matcher
from blocker.rules import Kind, Rule, Verdict
from tests.feeds.support import ORIGIN, plan, version
from tests.feeds.test_zone import as_dns, as_longest, transferred

# Bytes that are left for a name, its first length counted.
ROOM = 255 - len(dns.name.from_text(ORIGIN).to_wire() or b"")
INSPECTING = {"carries": "inspect", "addresses": ["192.0.2.80"]}
TOPS = ["x.test", "a.x.test", f"{'m' * 60}.x.test", f"{'m' * 60}.{'n' * 60}.x.test"]


def long_host(length: int, top: str = "x.test", letter: str = "a") -> str:
    """A name of so many bytes."""
    rest = length - len(top) - 1
    labels = []
    while rest > 63:
        labels.append(letter * 50)
        rest -= 51
    return ".".join([letter * rest, *labels, top])


@pytest.mark.parametrize("length", range(ROOM - 4, ROOM))
async def test_a_host_below_a_wildcard(length: int) -> None:
    host = long_host(length)
    assert len(host) == length
    domain, page = Rule(kind=Kind.DOMAIN, host="x.test"), Rule.parse("http://*.x.test/p/")
    excepted = await transferred(version(plan(), 7, [domain], [Rule(kind=Kind.HOST, host=host)]))
    assert excepted[host] == "rpz-passthru."
    blocked = await transferred(version(plan(**INSPECTING), 7, [page, Rule(kind=Kind.HOST, host=host)]))
    assert blocked[host] == "."
    for zone in (excepted, blocked):
        assert (f"*.{host}" in zone) == (length + 1 + 2 <= ROOM)


async def test_a_host_that_is_too_long_is_counted() -> None:
    its = version(
        plan(), 7, [Rule(kind=Kind.HOST, host=long_host(ROOM)), Rule(kind=Kind.DOMAIN, host=long_host(ROOM - 2))]
    )
    assert its.zone.left_out == (0, 0, 2)
    assert not await transferred(its)


HOSTS = st.builds(long_host, st.integers(ROOM - 6, ROOM - 1), st.sampled_from(TOPS), st.sampled_from("ab"))
WIDE = st.sampled_from(TOPS).flatmap(
    lambda top: st.sampled_from([Rule(kind=Kind.DOMAIN, host=top), Rule.parse(f"http://*.{top}/p/")])
)
NARROW = HOSTS.flatmap(
    lambda host: st.sampled_from(
        [Rule(kind=Kind.HOST, host=host), Rule.parse(f"http://{host}/p"), Rule.parse(f"http://{host}/q/")]
    )
)
LISTS = st.lists(st.one_of(WIDE, NARROW), max_size=6)


@given(LISTS, LISTS)
@settings(max_examples=200, deadline=None)
async def test_long_names_are_said_as_the_matcher_does(block: list[Rule], allow: list[Rule]) -> None:
    matcher = Matcher.build({"block": block, "allow": allow}, allow=["allow"])
    blocking = await transferred(version(plan(), 1, block, allow))
    inspected = await transferred(version(plan(**INSPECTING), 1, block, allow))
    owners = {*blocking, *inspected}
    for owner in owners:
        assert len(dns.name.from_text(f"{owner}.{ORIGIN}").to_wire() or b"") <= 255
    asked = {rule.host for rule in (*block, *allow)} | {owner for owner in owners if "*" not in owner}
    for name in asked | {f"z.{name}" for name in asked if len(name) + 3 <= ROOM}:
        verdict = matcher.decide_host(name).verdict
        for read in (as_dns, as_longest):
            assert (read(blocking, name) == ".") == (verdict is Verdict.BLOCK), (name, read)
            assert (read(inspected, name) == "192.0.2.80") == (verdict is Verdict.INSPECT), (name, read)
