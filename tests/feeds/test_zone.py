"""A zone says of each name what the matcher says of it as a host, however a resolver reads its wildcards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dns.rrset
from hypothesis import given, settings
from hypothesis import strategies as st

from blocker.matcher import ListOptions, Matcher
from blocker.rules import Verdict
from tests.feeds.support import ORIGIN, Primary, plan, query, records, version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocker.feeds.zone import Version

# Few labels, so that rules meet; www since an alias may count it.
LABELS = ("a", "b", "c", "www", "x-y")
NAMES = st.lists(st.sampled_from(LABELS), min_size=0, max_size=4).map(lambda labels: ".".join([*labels, "test"]))
LINES = st.tuples(NAMES.filter(lambda name: "." in name), st.sampled_from(range(6))).map(
    lambda found: (
        f"http://*.{found[0]}", f"http://{found[0]}/", f"http://{found[0]}/p/", f"http://{found[0]}/e",
        f"http://*.{found[0]}/p/", f"http://{found[0]}/e?q",
    )[found[1]]
)  # fmt: skip
LISTS = st.lists(LINES, max_size=8)


def as_dns(zone: Mapping[str, str], name: str) -> str | None:
    """What answers a name by RFC 4592: it, or the wildcard at the closest name above it that exists."""
    if name in zone:
        return zone[name]
    existing = {".".join(owner.split(".")[at:]) for owner in zone for at in range(owner.count(".") + 1)}
    above = name
    while above not in existing:
        if "." not in above:
            return None
        above = above.partition(".")[2]
    # A name that exists without records has none, and hides the wildcards above it.
    return None if above == name else zone.get(f"*.{above}")


def as_longest(zone: Mapping[str, str], name: str) -> str | None:
    """What answers a name where the longest wildcard that fits does."""
    if name in zone:
        return zone[name]
    while "." in name:
        name = name.partition(".")[2]
        if f"*.{name}" in zone:
            return zone[f"*.{name}"]
    return None


async def transferred(its: Version) -> dict[str, str]:
    """The zone as dnspython reads it, names relative to its own."""
    primary = Primary(its.plan)
    primary.publish(its)
    asked = query("AXFR")
    found = records(await primary.ask(asked), asked)
    assert [kind for _, kind, _ in found].count("SOA") == 2
    assert found[0] == found[-1]
    inner = [record for record in found if record[1] not in ("SOA", "NS")]
    assert len(found) == len(inner) + 3
    zone = {owner.removesuffix(f".{ORIGIN}"): data for owner, _, data in inner}
    assert len(zone) == len(inner), "no name twice"
    return zone


@given(LISTS, LISTS, st.lists(NAMES, min_size=20, max_size=40), st.booleans())
@settings(max_examples=300, deadline=None)
async def test_a_zone_is_what_the_matcher_says(
    block: list[str], allow: list[str], names: list[str], www_alias: bool
) -> None:
    options = ListOptions(www_alias=www_alias)
    matcher = Matcher.build(
        {"block": block, "allow": allow}, allow=["allow"], options={"block": options, "allow": options}
    )
    blocking = await transferred(version(plan(), 1, block, allow, www_alias=www_alias))
    inspecting = plan(carries="inspect", addresses=["192.0.2.80"])
    inspected = await transferred(version(inspecting, 1, block, allow, www_alias=www_alias))
    assert {*blocking.values()} <= {".", "rpz-passthru."}
    for name in {*names, *(name for zone in (blocking, inspected) for name in zone if "*" not in name)}:
        verdict = matcher.decide_host(name).verdict
        for read in (as_dns, as_longest):
            blocks, inspects = read(blocking, name), read(inspected, name)
            assert (blocks == ".") == (verdict is Verdict.BLOCK), (name, read)
            assert (inspects == "192.0.2.80") == (verdict is Verdict.INSPECT), (name, read)
            first = inspects or blocks  # as resolvers take them, the inspect zone first
            assert (first == ".") == (verdict is Verdict.BLOCK), (name, read)


@given(st.lists(LISTS, min_size=2, max_size=6), st.data())
@settings(max_examples=100, deadline=None)
async def test_differences_make_the_newer_zone_of_the_older(versions: list[list[str]], data: st.DataObject) -> None:
    its, primary, zones = plan(), Primary(plan()), []
    for serial, block in enumerate(versions, 1):
        made = version(its, serial, block)
        zones.append(await transferred(made))
        primary.publish(made)
    known = data.draw(st.integers(1, len(versions)))
    asked = query("IXFR")
    asked.authority = [_soa(known)]
    asked.use_tsig(asked.keyring)
    found = records(await primary.ask(asked), asked)
    if known == len(versions):
        assert len(found) == 1
        return
    borders = [at for at, record in enumerate(found) if record[1] == "SOA"]
    assert [found[at][2].split()[2] for at in borders] == [
        str(each) for each in (len(versions), known, *[len(versions)] * 2)
    ]
    gone = {(owner.removesuffix(f".{ORIGIN}"), told) for owner, _, told in found[borders[1] + 1 : borders[2]]}
    come = {(owner.removesuffix(f".{ORIGIN}"), told) for owner, _, told in found[borders[2] + 1 : borders[3]]}
    old, new = {*zones[known - 1].items()}, {*zones[-1].items()}
    assert (gone, come) == (old - new, new - old), "condensed: nothing that came and went"


def _soa(serial: int) -> dns.rrset.RRset:
    return dns.rrset.from_text(ORIGIN, 0, "IN", "SOA", f"localhost. hostmaster.localhost. {serial} 1 1 1 1")
