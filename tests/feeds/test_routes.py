"""The choice of routes, without names or sockets: each reason, hold-down, limits, rates, and what must always hold."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from blocker.feeds.addresses import is_special
from blocker.feeds.routes import Limits, Reason, RouteTable
from blocker.feeds.sightings import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from blocker.feeds.addresses import Address

DAY = 86_400.0
# Addresses outside the special-purpose registries; nothing is ever sent to them.
FREE = [ip_address(f"11.0.{at // 256}.{at % 256}") for at in range(2000)]
OWN = ip_network("11.9.0.0/16")


def table(*names: str, own: bool = True, known: bool = True, **limits: Any) -> RouteTable:  # noqa: ANN401 - each limit's own type
    made = RouteTable(Limits(**limits), [OWN] if own else [])
    made.popular_known = known
    made.listed(names, 0.0)
    return made


def says(made: RouteTable, name: str, addresses: Iterable[Address], now: float) -> None:
    made.answered(name, addresses, now, complete=FAMILIES)


def test_an_address_is_announced_when_it_is_seen_and_stays_for_the_hold_down() -> None:
    made = table("a")
    says(made, "a", FREE[:1], 1.0)
    assert made.step(1.0).announce == (FREE[0],)
    assert not made.step(2.0), "nothing has changed"
    says(made, "a", FREE[1:2], 100.0)
    assert made.step(100.0).announce == (FREE[1],)
    assert not made.step(100.0 + DAY - 1)
    assert made.step(100.0 + DAY).withdraw == (FREE[0],)
    assert set(made.announced) == {FREE[1]}


def test_an_address_that_comes_back_within_the_hold_down_never_leaves() -> None:
    made = table("a")
    for turn in range(100):
        now = turn * DAY / 2
        says(made, "a", [FREE[turn % 2]], now)
        made.step(now)
    assert set(made.announced) == {FREE[0], FREE[1]}
    assert made.announced[FREE[0]] == 0.0, "since the beginning"


def test_a_name_that_left_the_list_leaves_at_once_unless_another_is_there() -> None:
    made = table("a", "b")
    says(made, "a", FREE[:2], 0.0)
    says(made, "b", FREE[1:3], 0.0)
    made.step(0.0)
    made.listed(["b"], 10.0)
    assert made.step(10.0).withdraw == (FREE[0],)
    made.listed([], 11.0)
    assert set(made.step(11.0).withdraw) == {FREE[1], FREE[2]}
    assert made.announced == {}
    assert not made.ids


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1", "10.1.2.3", "100.64.0.1", "169.254.1.1", "192.0.2.1", "198.18.0.1", "192.88.99.1", "224.0.0.1",
     "255.255.255.255", "0.0.0.1", "::1", "::ffff:11.0.0.1", "fe80::1", "fc00::1", "ff02::1", "2001:db8::1", "2002::1",
     "2001::1", "64:ff9b::b00:1", "3fff::1", "5f00::1", "100::1", "fec0::1"],
)  # fmt: skip
def test_special_purpose_addresses_are_refused(text: str) -> None:
    address = ip_address(text)
    assert is_special(address)
    made = table("a")
    says(made, "a", [address, FREE[0]], 0.0)
    assert made.step(0.0).announce == (FREE[0],)
    assert made.reason(address, "a") is Reason.SPECIAL
    assert made.refused[Reason.SPECIAL] == 1


@pytest.mark.parametrize("text", ["11.0.0.1", "93.184.215.14", "223.255.255.255", "2a00::1", "2606:4700::1"])
def test_ordinary_addresses_are_not_special(text: str) -> None:
    assert not is_special(ip_address(text))


def test_networks_for_trials_may_be_routed_where_they_are_named() -> None:
    made = RouteTable(Limits(), (), [ip_network("192.0.2.0/24")])
    made.popular_known = True
    made.listed(["a"], 0.0)
    says(made, "a", [ip_address("192.0.2.1"), ip_address("198.51.100.1")], 0.0)
    assert made.step(0.0).announce == (ip_address("192.0.2.1"),)


def test_a_family_without_a_next_hop_is_not_routed_and_comes_and_goes_with_it() -> None:
    six = ip_address("2a00::1")
    made = table("a", families=frozenset({4}))
    says(made, "a", [six, FREE[0]], 0.0)
    assert made.step(0.0).announce == (FREE[0],)
    assert made.reason(six, "a") is Reason.NO_NEXT_HOP
    assert made.refused[Reason.NO_NEXT_HOP] == 1
    made.configure(Limits(), [], ())
    assert made.step(1.0).announce == (six,)
    made.configure(Limits(families=frozenset({4})), [], ())
    assert made.step(2.0).withdraw == (six,)


def test_own_addresses_are_refused_and_withdrawn_when_they_become_own() -> None:
    made = table("a")
    inside = ip_address("11.9.1.1")
    says(made, "a", [inside, FREE[0]], 0.0)
    assert made.step(0.0).announce == (FREE[0],)
    assert made.reason(inside, "a") is Reason.OWN
    made.configure(Limits(), [ip_network("11.0.0.0/16")], ())
    done = made.step(1.0)
    assert (done.withdraw, done.announce) == ((FREE[0],), (inside,))
    made.configure(Limits(), [], ())
    assert made.step(2.0).announce == (FREE[0],)


def test_what_is_never_to_be_routed_goes_at_once() -> None:
    made = table("a", changes_per_minute=3)
    says(made, "a", FREE[:3], 0.0)
    assert len(made.step(0.0).announce) == 3
    never = (ip_network(f"{FREE[0]}/32"), ip_network("2a00::/16"))
    made.configure(Limits(changes_per_minute=3, never=never), [], ())
    assert made.step(1.0).withdraw == (FREE[0],), "no limit of changes keeps it"
    assert made.reason(FREE[0], "a") is Reason.NEVER
    made.configure(Limits(changes_per_minute=3), [], ())
    assert made.step(62.0).announce == (FREE[0],)


def test_nobody_is_cut_off_from_names() -> None:
    made = table("a")
    says(made, "a", [ip_address("198.41.0.4"), ip_address("2001:7fd::1"), ip_address("8.8.8.8"), FREE[0]], 0.0)
    assert made.step(0.0).announce == (FREE[0],)
    assert made.reason(ip_address("2001:7fd::1"), "a") is Reason.INFRASTRUCTURE
    assert made.refused[Reason.INFRASTRUCTURE] == 3


def test_a_popular_address_is_never_taken_along_and_is_withdrawn_at_once() -> None:
    made = table("a", changes_per_minute=1)
    made.popular_answered("popular", [FREE[0]], 0.0, complete=FAMILIES)
    says(made, "a", FREE[:2], 0.0)
    assert made.step(0.0).announce == (FREE[1],)
    assert made.reason(FREE[0], "a") is Reason.POPULAR
    made.popular_answered("popular", [FREE[1]], 1.0, complete=FAMILIES)
    assert made.step(1.0).withdraw == (FREE[1],), "no limit of changes keeps it"
    # The popular name rotates: where it was a while ago it may be again in a minute.
    assert made.reason(FREE[0], "a") is Reason.POPULAR
    made.popular_answered("popular", [FREE[1]], 1.0 + DAY, complete=FAMILIES)
    assert made.step(1.0 + DAY).announce == (FREE[0],)
    made.popular_names([])
    assert made.step(3.0 + DAY).announce == (), "one change a minute"
    assert made.step(62.0 + DAY).announce == (FREE[1],)


def test_a_name_that_is_spared_has_no_route_wherever_it_is_and_what_it_had_goes_at_once() -> None:
    made = table("a", "b", changes_per_minute=2)
    says(made, "a", FREE[:2], 0.0)
    assert set(made.step(0.0).announce) == set(FREE[:2])
    made.listed(["a", "b"], 1.0, {"a": Reason.POPULAR})
    assert set(made.step(1.0).withdraw) == set(FREE[:2]), "no limit of changes keeps it"
    assert made.reason(FREE[0], "a") is Reason.POPULAR
    assert made.refused[Reason.POPULAR] == 2
    assert made.spared("a") is Reason.POPULAR
    assert made.spared("b") is None
    # Its addresses are others' like any: whether they are spared for these too, who looks them up says.
    says(made, "b", FREE[:1], 61.0)
    assert made.step(61.0).announce == (FREE[0],)
    made.listed(["a", "b"], 62.0)
    assert made.step(130.0).announce == (FREE[1],)


def test_nothing_new_is_announced_before_it_is_known_which_names_are_spared() -> None:
    first = table("a")
    says(first, "a", FREE[:1], 0.0)
    second = RouteTable(Limits())
    second.restore(first.names, {}, {})
    second.popular_known = True
    assert not second.step(1.0)
    second.listed(["a"], 2.0, {"a": Reason.POPULAR})
    assert not second.step(2.0)
    second.listed(["a"], 3.0)
    assert second.step(3.0).announce == (FREE[0],)


def test_nothing_new_is_announced_before_it_is_known_where_popular_names_are() -> None:
    made = table("a", known=False)
    says(made, "a", FREE[:1], 0.0)
    assert not made.step(0.0)
    assert made.reason(FREE[0], "a") is Reason.POPULAR_UNKNOWN
    assert made.waiting()[Reason.POPULAR_UNKNOWN] == 1
    made.popular_known = True
    assert made.step(1.0).announce == (FREE[0],)


def test_a_name_with_hundreds_of_addresses_gets_its_first_ones_and_keeps_them() -> None:
    made = table("a", per_host=4)
    says(made, "a", FREE[10:12], 0.0)
    made.step(0.0)
    says(made, "a", FREE[:500], 60.0)
    made.step(60.0)
    first = set(made.announced)
    assert {FREE[10], FREE[11]} < first
    assert len(first) == 4
    for minute in range(2, 50):
        says(made, "a", FREE[:500], minute * 60.0)
        assert not made.step(minute * 60.0)
    assert made.names["a"].most == 500
    assert len(made.names["a"].at) == 16, "what is remembered is bounded"
    assert made.refused[Reason.HOST_LIMIT] == 12


def test_refused_addresses_take_no_place_from_others() -> None:
    made = table("a", per_host=2)
    says(made, "a", [ip_address(f"10.0.0.{at}") for at in range(4)], 0.0)
    says(made, "a", [*(ip_address(f"10.0.0.{at}") for at in range(4)), *FREE[:2]], 60.0)
    assert set(made.step(60.0).announce) == set(FREE[:2])


def test_a_name_that_changes_with_every_query_is_followed_at_a_bounded_pace() -> None:
    made = table("a", per_host=4, slot_seconds=600.0)
    changes = 0
    for minute in range(600):
        now = minute * 60.0
        says(made, "a", [FREE[minute]], now)
        done = made.step(now)
        changes += len(done.announce) + len(done.withdraw)
        assert len(made.announced) <= 4
    assert FREE[599] in made.names["a"].at
    # 60 times ten minutes, at most four places in each, one change out and one in.
    assert 60 <= changes <= 60 * 4 * 2
    assert any(int(FREE[599]) - int(one) < 10 for one in made.announced), "a recent one is routed"


def test_many_listed_names_at_one_address_are_one_route_that_stays_for_the_last_of_them() -> None:
    names = [f"n{at}" for at in range(500)]
    made = table(*names)
    for name in names:
        says(made, name, FREE[:1], 0.0)
    assert made.step(0.0).announce == (FREE[0],)
    assert len(made.claimed_by(FREE[0])) == 500
    made.listed(names[:1], 1.0)
    assert not made.step(1.0)
    made.listed([], 2.0)
    assert made.step(2.0).withdraw == (FREE[0],)


def test_the_limit_in_all_keeps_what_is_there_and_lets_others_in_when_room_comes() -> None:
    made = table("a", "b", total=2)
    says(made, "a", FREE[:2], 0.0)
    made.step(0.0)
    says(made, "b", FREE[2:4], 1.0)
    assert not made.step(1.0)
    assert made.reason(FREE[2], "b") is Reason.TOTAL_LIMIT
    assert made.waiting()[Reason.TOTAL_LIMIT] == 2
    made.listed(["b"], 2.0)
    done = made.step(2.0)
    assert set(done.withdraw) == set(FREE[:2])
    assert set(done.announce) == set(FREE[2:4])
    made.configure(Limits(total=1), [], ())
    assert len(made.step(3.0).withdraw) == 1
    assert len(made.announced) == 1


def test_each_name_gets_its_first_route_before_any_gets_its_second() -> None:
    made = table("a", "b", "c", changes_per_minute=3)
    for at, name in enumerate("abc"):
        says(made, name, FREE[at * 10 : at * 10 + 5], 0.0)
    assert {FREE[0], FREE[10], FREE[20]} == set(made.step(0.0).announce)
    assert made.reason(FREE[1], "a") is Reason.RATE


def test_a_withdrawn_list_is_gone_within_the_time_for_withdrawals() -> None:
    made = table("a", *(f"n{at}" for at in range(100)), changes_per_minute=1000)
    for at in range(100):
        says(made, f"n{at}", FREE[at * 4 : at * 4 + 4], 0.0)
    made.step(0.0)
    assert len(made.announced) == 400
    made.configure(Limits(changes_per_minute=50), [], ())
    made.listed(["a"], 200.0)
    assert len(made.step(200.0).withdraw) == 50
    assert not made.step(229.0)
    assert len(made.step(230.0).withdraw) == 350
    assert made.announced == {}
    says(made, "a", FREE[:1], 231.0)
    assert not made.step(231.0), "announcements wait until the minute is over"
    assert made.step(290.1).announce == (FREE[0],)


def test_what_one_resolver_does_not_say_while_another_is_silent_stays() -> None:
    made = table("a")
    says(made, "a", FREE[:2], 0.0)
    made.step(0.0)
    for now in (DAY, 2 * DAY, 10 * DAY):
        made.answered("a", FREE[1:2], now, complete=())
        made.answered("a", [], now, complete=())
        assert not made.step(now)
    says(made, "a", FREE[1:2], 11 * DAY)
    assert made.step(12 * DAY).withdraw == (FREE[0],)


def test_a_name_that_is_nowhere_says_since_when() -> None:
    made = table("a")
    says(made, "a", FREE[:1], 0.0)
    made.step(0.0)
    for now in (10.0, 20.0):
        says(made, "a", [], now)
    assert made.names["a"].absent == 10.0
    assert made.step(10.0 + DAY).withdraw == (FREE[0],)
    says(made, "a", FREE[:1], 20.0 + DAY)
    assert made.names["a"].absent is None


def test_everything_is_withdrawn_at_once_and_comes_back() -> None:
    made = table("a")
    says(made, "a", FREE[:3], 0.0)
    made.step(0.0)
    assert set(made.everything_left(1.0).withdraw) == set(FREE[:3])
    assert set(made.step(100.0).announce) == set(FREE[:3])


def test_a_restored_table_goes_on_where_the_other_was() -> None:
    first = table("a", "b")
    says(first, "a", FREE[:1], 0.0)
    says(first, "b", FREE[1:2], 0.0)
    first.popular_answered("popular", [FREE[9]], 0.0, complete=FAMILIES)
    first.step(0.0)
    says(first, "a", FREE[2:3], 100.0)
    first.step(100.0)
    second = RouteTable(Limits(), [OWN])
    second.restore(first.names, first.popular, first.announced)
    assert not second.step(200.0), "a restart changes nothing"
    assert second.announced == first.announced
    second.listed(["a"], 300.0)
    assert second.step(300.0).withdraw == (FREE[1],)
    assert second.step(100.0 + DAY).withdraw == (FREE[0],), "the hold-down went on meanwhile"
    says(second, "a", [FREE[9]], 101.0 + DAY)
    second.step(101.0 + DAY)
    assert second.reason(FREE[9], "a") is Reason.POPULAR


def test_useless_addresses_push_nothing_useful_out_of_the_memory() -> None:
    made = table("a", per_host=2)
    says(made, "a", [*(ip_address(f"10.0.0.{at}") for at in range(100)), FREE[0]], 0.0)
    assert made.step(0.0).announce == (FREE[0],)
    assert len(made.names["a"].at) == 8
