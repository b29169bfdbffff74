"""What holds of routes whatever names answer: nothing forbidden is announced, limits hold, hold-downs are kept."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from blocker.feeds.addresses import is_special
from blocker.feeds.routes import Limits, RouteTable
from blocker.feeds.sightings import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocker.feeds.addresses import Address

OWN = ip_network("11.0.0.0/29")
# A few addresses, so that names meet: eight own, private ones, and others that anybody may have.
ADDRESSES: Sequence[Address] = [
    *(IPv4Address(f"11.0.0.{at}") for at in range(18)), *(IPv4Address(f"10.0.0.{at}") for at in range(2)),
    *(IPv6Address(f"2a00::{at}") for at in range(6)), IPv6Address("::ffff:11.0.0.9"),
]  # fmt: skip
FAMILY_SETS = st.sets(st.sampled_from(sorted(FAMILIES)))
NAMES = [f"n{at}" for at in range(6)]
POPULAR = ["p0", "p1"]
HOLD, SLOT, WITHIN = 1000.0, 100.0, 20.0


class Routes(RuleBasedStateMachine):
    """Drives a table and keeps the plain truth beside it: who said what, and when."""

    @initialize(per_host=st.integers(1, 4), total=st.integers(1, 12), rate=st.integers(1, 10))
    def begin(self, per_host: int, total: int, rate: int) -> None:
        self.limits = Limits(
            per_host=per_host, total=total, changes_per_minute=rate, hold_down=HOLD, slot_seconds=SLOT,
            withdraw_seconds=WITHIN,
        )  # fmt: skip
        self.table = RouteTable(self.limits, [OWN])
        self.table.popular_known = True
        self.now = 0.0
        self.listed: set[str] = set()
        self.last: dict[str, set[Address]] = {}
        self.left: dict[tuple[str, Address], float] = {}
        self.popular: dict[tuple[str, Address], float] = {}  # still there: infinite; else when it went
        self.peer: set[Address] = set()  # what a router has
        self.times: list[float] = []  # of announcements

    @rule(names=st.sets(st.sampled_from(NAMES)))
    def list(self, names: set[str]) -> None:
        self.table.listed(names, self.now)
        for gone in self.listed - names:
            self.last.pop(gone, None)
            self.left = {key: when for key, when in self.left.items() if key[0] != gone}
        self.listed = names

    @rule(name=st.sampled_from(NAMES), addresses=st.sets(st.sampled_from(ADDRESSES)), complete=FAMILY_SETS)
    def answer(self, name: str, addresses: set[Address], complete: set[int]) -> None:
        self.table.answered(name, addresses, self.now, complete=complete)
        if name not in self.listed:
            return
        before = self.last.get(name, set())
        for address in addresses:
            self.left.pop((name, address), None)
        gone = {address for address in before - addresses if address.version in complete}
        self.left.update({(name, address): self.now for address in gone})
        self.last[name] = (before | addresses) - gone

    @rule(
        name=st.sampled_from(POPULAR), addresses=st.sets(st.sampled_from(ADDRESSES), max_size=4), complete=FAMILY_SETS
    )
    def popular_answer(self, name: str, addresses: set[Address], complete: set[int]) -> None:
        self.table.popular_answered(name, addresses, self.now, complete=complete)
        for key in [key for key in self.popular if key[0] == name and key[1] not in addresses]:
            if key[1].version in complete:
                self.popular[key] = min(self.popular[key], self.now)
        self.popular.update({(name, address): float("inf") for address in addresses})

    @rule(seconds=st.sampled_from([0.0, 1.0, 10.0, 30.0, 61.0, 150.0, 999.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def restart(self) -> None:
        old, self.table = self.table, RouteTable(self.limits, [OWN])
        self.table.restore(old.names, old.popular, old.announced)
        self.table.popular_known = True
        self.times = []  # a restart forgets the minute

    @invariant()
    @precondition(lambda self: hasattr(self, "table"))
    def step(self) -> None:
        table, limits = self.table, self.limits
        done = table.step(self.now)
        assert set(done.withdraw) <= self.peer
        self.peer -= set(done.withdraw)
        assert not self.peer & set(done.announce), "nothing is announced twice"
        self.peer |= set(done.announce)
        self.times += [self.now] * len(done.announce)
        assert self.peer == set(table.announced)
        assert len(self.peer) <= limits.total
        claimed = [address for address in ADDRESSES if table.claimed_by(address)]
        assert sum(table.waiting().values()) == len(set(claimed) - self.peer)
        assert sum(when > self.now - 60 for when in self.times) <= limits.changes_per_minute
        popular_now = {address for (_, address), until in self.popular.items() if until == float("inf")}
        for address in self.peer:
            assert not is_special(address)
            assert address not in OWN
            assert address not in popular_now
        self.nobody_is_forgotten_and_nothing_kept_for_nobody()

    def nobody_is_forgotten_and_nothing_kept_for_nobody(self) -> None:
        present = {address for addresses in self.last.values() for address in addresses}
        held = {address for (_, address), when in self.left.items() if self.now < when + HOLD}
        leaving = set(self.table._leaving)
        assert self.peer - leaving <= present | held
        assert all(self.now - since < WITHIN for since in self.table._leaving.values()), "a withdrawal waits too long"
        for name in self.listed:
            claimed = [address for address in ADDRESSES if name in self.table.claimed_by(address)]
            assert len(claimed) <= self.limits.per_host
            known = self.table.names[name].at  # bounded: what was of no use may have to be heard of again
            fit = [one for one in self.last.get(name, set()) if one in known and self.table.refusal(one) is None]
            if fit and len(claimed) < self.limits.per_host:
                assert set(fit) <= set(claimed), "there was a place for it"


TestRoutes = Routes.TestCase
TestRoutes.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
