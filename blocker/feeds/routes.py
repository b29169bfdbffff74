"""Which addresses are announced, and why the others are not. Pure: no sockets, no names, and the clock is a parameter.

In go the names that are listed (as keyed ids), where they and popular names were seen, and the operator's networks; out
come routes to announce and to withdraw. An address gets a route if a listed name is at it, or was until a hold-down
ago, and no reason speaks against it: `route_terms` has them all.

A name that is itself a popular one, or under one, or is never to be routed (`spared`), has no route at all.

**More addresses than the limit.** Of a name with hundreds of addresses the first that were seen are routed, and stay
so. To route none would let whoever adds addresses switch the filter off; to route all would let him break the feed. An
address that the name has left gives its place to one that it has, but not within `slot_seconds` of going: so a name
that changes with every query moves at most `per_host` routes in that time. Such a name is reported, since routes will
not hold it; names are what stops it.

**Many listed names at one address** speak for the route and not against it: to refuse it would let whoever puts enough
of them there go free. Hosting that harmless sites share shows by its popular ones.

**Hold-down and withdrawal.** What leaves by DNS stays for `hold_down`; what leaves by the list goes at once. The latter
counts in the changes of a minute, but no withdrawal waits longer than `withdraw_seconds`.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from blocker.feeds.addresses import Networks, is_special
from blocker.feeds.infrastructure import is_infrastructure
from blocker.feeds.places import Places
from blocker.feeds.route_choice import choose
from blocker.feeds.route_terms import Changes as Changes
from blocker.feeds.route_terms import Limits as Limits
from blocker.feeds.route_terms import NameId as NameId
from blocker.feeds.route_terms import Reason as Reason
from blocker.feeds.sightings import Seen
from blocker.feeds.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from blocker.feeds.addresses import Address, Network

# Addresses remembered of a name, by the routes that it may have: room for those that wait for a place.
_KEPT = 4
# Addresses remembered of a popular name: content networks answer with some of many, changing all day.
_KEPT_POPULAR = 1024
_MINUTE = 60.0
# Names listed or not between two turns of who shares the thread: a third of a millisecond.
_SLICE = 256
_NONE: Mapping[NameId, Reason] = MappingProxyType({})


@dataclass(slots=True)
class _Name:
    seen: Seen
    spared: Reason | None = None  # why it gets no route, wherever it is
    chosen: dict[Address, int] = field(default_factory=dict)  # place among the name's routes
    refused: dict[Address, Reason] = field(default_factory=dict)
    due: float = math.inf  # when it is looked at again though nothing was heard of it


class RouteTable:
    """The routes of one feed.

    Args:
        limits: What bounds them.
        own: The operator's networks.
        trial: Networks that IANA set apart and that may be routed nonetheless.
    """

    def __init__(self, limits: Limits, own: Iterable[Network] = (), trial: Iterable[Network] = ()) -> None:
        self.popular_known = False  # whether anything new may be announced
        self.halted: Reason | None = None  # why nothing may be announced at all
        self.announced: dict[Address, float] = {}  # address → since when
        self.popular: dict[NameId, Seen] = {}
        self.places = Places()  # where they are
        self.refused: Counter[Reason] = Counter()  # by reason: addresses of names, each name's own
        self.unsaved: set[tuple[Literal["name", "popular"], NameId]] = set()  # changed since somebody emptied it
        self.moves = 0  # changes of routes
        self._limits = limits
        self._own, self._trial, self._never = Networks(own), Networks(trial), Networks(limits.never)
        self._names: dict[NameId, _Name] = {}
        self._sorted = False  # whether it is known which of them are spared
        self._seen_at: dict[Address, set[NameId]] = {}
        self._claims: dict[Address, set[NameId]] = {}
        self._review: set[NameId] = set()
        self._due: list[tuple[float, NameId]] = []  # a heap: when to look at a name again
        self._waiting = Waiting()
        self._leaving: dict[Address, float] = {}
        self._changed: deque[tuple[float, int]] = deque()  # changes of the last minute

    @property
    def names(self) -> Mapping[NameId, Seen]:
        """Where each listed name was seen."""
        return {name: one.seen for name, one in self._names.items()}

    @property
    def ids(self) -> Sequence[NameId]:
        """The listed names. Cost: 10 ns a name."""
        return tuple(self._names)

    def seen(self, name: NameId) -> Seen | None:
        """Where a listed name was seen; None if it is not listed."""
        one = self._names.get(name)
        return None if one is None else one.seen

    def configure(self, limits: Limits, own: Iterable[Network], trial: Iterable[Network]) -> None:
        """Take over other limits and networks."""
        self._limits, self._own, self._trial, self._never = (
            limits,
            Networks(own),
            Networks(trial),
            Networks(limits.never),
        )
        self._review.update(self._names)
        self._trim()

    def restore(
        self, names: Mapping[NameId, Seen], popular: Mapping[NameId, Seen], announced: Mapping[Address, float]
    ) -> None:
        """Start from what an earlier process knew. What it had announced is announced."""
        for name, seen in popular.items():
            self.popular[name] = seen
            self.places.came(seen.at)
        for name, seen in names.items():
            self._names[name] = _Name(seen, chosen={one: 0 for one in seen.at if one in announced})
            for address in seen.at:
                self._seen_at.setdefault(address, set()).add(name)
            for address in self._names[name].chosen:
                self._claims.setdefault(address, set()).add(name)
        self.announced.update(announced)
        self._leaving.update(dict.fromkeys(announced.keys() - self._claims.keys(), 0.0))
        self._review.update(names)
        self.unsaved.update(("name", name) for name in names)
        self.unsaved.update(("popular", name) for name in popular)
        self._trim()

    def listed(self, names: Iterable[NameId], now: float, spared: Mapping[NameId, Reason] = _NONE) -> None:
        """The names that are listed from now on; what only others claimed is withdrawn, without a hold-down.

        `spared` are those that get no route, wherever they are, and why. Cost: 2 µs a name; `listing` can stop.
        """
        for _ in self.listing(frozenset(names), now, spared):
            pass

    def listing(self, names: Collection[NameId], now: float, spared: Mapping[NameId, Reason] = _NONE) -> Iterator[None]:
        """As `listed`, in parts: stops after each. Nothing new is announced until it is through."""
        self._sorted = False
        for at, name in enumerate(tuple(self._names)):
            if name not in names:
                self._replace(name, {}, {}, now)
                self._unsee(name, self._names.pop(name).seen.at)
                self._review.discard(name)
                self.unsaved.add(("name", name))
            if at % _SLICE == 0:
                yield
        for at, name in enumerate(names):
            if (one := self._names.get(name)) is None:
                one = self._names[name] = _Name(Seen())
                self.unsaved.add(("name", name))
            if one.spared is not (reason := spared.get(name)):
                one.spared = reason
                self._review.add(name)
            if at % _SLICE == 0:
                yield
        self._sorted = True

    def answered(self, name: NameId, addresses: Iterable[Address], now: float, *, complete: Collection[int]) -> None:
        """Where a listed name is, as `Seen.answered`; one that is not listed is nobody's business."""
        one = self._names.get(name)
        if one is None:
            return
        before = set(one.seen.at)
        moved = one.seen.answered(
            addresses, now, complete=complete, keep=_KEPT * self._limits.per_host,
            useless=lambda address: self.refusal(address) is not None,
        )  # fmt: skip
        if not moved:
            return
        self.unsaved.add(("name", name))
        self._unsee(name, before - one.seen.at.keys())
        for address in one.seen.at.keys() - before:
            self._seen_at.setdefault(address, set()).add(name)
        self._review.add(name)

    def popular_answered(
        self, name: NameId, addresses: Iterable[Address], now: float, *, complete: Collection[int]
    ) -> None:
        """Where a popular name is."""
        seen = self.popular.setdefault(name, Seen())
        before = set(seen.at)
        moved = seen.answered(addresses, now, complete=complete, keep=_KEPT_POPULAR)
        seen.forget(now, self._limits.hold_down)
        if moved or seen.at.keys() != before:
            self.unsaved.add(("popular", name))
        self._popular_moved(came=seen.at.keys() - before, went=before - seen.at.keys())

    def popular_names(self, names: Iterable[NameId]) -> None:
        """The names that count as popular from now on."""
        for _ in self.popular_naming(frozenset(names)):
            pass

    def popular_naming(self, names: Collection[NameId]) -> Iterator[None]:
        """As `popular_names`, in parts: stops after each, which is one name."""
        for name in self.popular.keys() - names:
            self.unsaved.add(("popular", name))
            self._popular_moved(came=(), went=self.popular.pop(name).at)
            yield

    def refusal(self, address: Address) -> Reason | None:
        """What speaks against an address whoever is at it."""
        if is_special(address) and address not in self._trial:
            return Reason.SPECIAL
        if address in self._own:
            return Reason.OWN
        if is_infrastructure(address):
            return Reason.INFRASTRUCTURE
        if address in self._never:
            return Reason.NEVER
        if address in self.places:
            return Reason.POPULAR
        return None if address.version in self._limits.families else Reason.NO_NEXT_HOP

    def reason(self, address: Address, name: NameId) -> Reason | None:
        """Why an address of a name has no route of its own; None if it has one, or one is being withdrawn."""
        one = self._names[name]
        if address in one.refused:
            return one.refused[address]
        if address in self.announced:
            return None
        if self.halted is not None:
            return self.halted
        if not self.popular_known:
            return Reason.POPULAR_UNKNOWN
        return Reason.TOTAL_LIMIT if len(self.announced) >= self._limits.total else Reason.RATE

    def spared(self, name: NameId) -> Reason | None:
        """Why a name gets no route, wherever it is."""
        return self._names[name].spared

    def waiting(self) -> Counter[Reason]:
        """Addresses that nothing speaks against and that have no route yet, by reason."""
        # A route that nobody claims is leaving.
        unclaimed = sum(address not in self._claims for address in self._leaving)
        count = len(self._claims) - (len(self.announced) - unclaimed)
        room = max(0, self._limits.total - len(self.announced))
        if self.halted is not None:
            return Counter({self.halted: count})
        if not self.popular_known:
            return Counter({Reason.POPULAR_UNKNOWN: count})
        return Counter({Reason.RATE: min(count, room), Reason.TOTAL_LIMIT: max(0, count - room)})

    def review(self, now: float, most: int) -> bool:
        """Look at some of the names that were heard of or whose time has come; whether there are more.

        Cost: some 100 µs a name. For who cannot stop for as long as `step` takes for all of them.
        """
        while self._due and self._due[0][0] <= now:
            when, name = heapq.heappop(self._due)
            if name in self._names and self._names[name].due == when:
                self._names[name].due = math.inf
                self._review.add(name)
        for _ in range(min(most, len(self._review))):
            if (name := self._review.pop()) in self._names:
                self._look(name, now)
        return bool(self._review)

    def step(self, now: float) -> Changes:
        """What to change now; what it returns counts as done.

        Cost: that of `review` for all names, and microseconds for each change.
        """
        while self.review(now, len(self._review) + 1):
            pass
        while self._changed and self._changed[0][0] <= now - _MINUTE:
            self._changed.popleft()
        while self._changed and self._changed[-1][0] > now:  # a clock that was set back ends no minute
            self._changed.pop()
        allowed = self._limits.changes_per_minute - sum(count for _, count in self._changed)
        withdraw = self._withdrawals(now, allowed)
        announce = self._announcements(now, allowed - len(withdraw))
        if withdraw or announce:
            self._changed.append((now, len(withdraw) + len(announce)))
            self.moves += 1
        return Changes(withdraw, announce)

    def everything_left(self, now: float) -> Changes:
        """Withdraw all of it, at once."""
        gone = Changes(withdraw=tuple(self.announced))
        self.moves += 1
        self.announced.clear()
        self._leaving.clear()
        for address in self._claims:
            self._wait(address, 0, now)
        return gone

    def _withdrawals(self, now: float, allowed: int) -> tuple[Address, ...]:
        # In order of their coming, so that the overdue ones are first.
        overdue = now - self._limits.withdraw_seconds
        chosen = [
            address
            for at, (address, since) in enumerate(self._leaving.items())
            if at < allowed or since <= overdue or self.refusal(address) is not None
        ]
        for address in chosen:
            del self._leaving[address], self.announced[address]
            if address in self._claims:  # there are more than there may be; it waits for room
                self._wait(address, self._limits.per_host, now)
        return tuple(chosen)

    def _announcements(self, now: float, allowed: int) -> tuple[Address, ...]:
        chosen: list[Address] = []
        allowed = min(allowed, self._limits.total - len(self.announced))
        if self.halted is not None or not (self.popular_known and self._sorted):
            return ()
        while self._waiting and len(chosen) < allowed:
            address = self._waiting.pop()
            if address in self._claims and address not in self.announced and self.refusal(address) is None:
                self.announced[address] = now
                chosen.append(address)
        return tuple(chosen)

    def _look(self, name: NameId, now: float) -> None:
        """Choose which addresses of a name are to have routes."""
        one, limits = self._names[name], self._limits
        before = set(one.seen.at)
        one.seen.forget(now, limits.hold_down)
        if gone := before - one.seen.at.keys():
            self._unsee(name, gone)
            self.unsaved.add(("name", name))
        reasons = {address: one.spared or self.refusal(address) for address in one.seen.at}
        choice = choose(one.seen, one.chosen, reasons, limits, now)
        self._replace(name, choice.chosen, choice.refused, now if one.spared is None else -math.inf)
        if choice.due < one.due:
            one.due = choice.due
            heapq.heappush(self._due, (one.due, name))

    def _replace(self, name: NameId, chosen: dict[Address, int], refused: dict[Address, Reason], now: float) -> None:
        one = self._names[name]
        for address in one.chosen.keys() - chosen.keys():
            claims = self._claims.get(address, set())
            claims.discard(name)
            if not claims:
                self._claims.pop(address, None)
                if address in self.announced:
                    self._leaving.setdefault(address, now)
        for address in chosen:
            claims = self._claims.setdefault(address, set())
            if not claims:
                self._leaving.pop(address, None)
            if name not in claims:
                claims.add(name)
                self._wait(address, chosen[address], now)
        self.refused.subtract(one.refused.values())
        self.refused.update(refused.values())
        one.chosen, one.refused = chosen, refused

    def _wait(self, address: Address, place: int, now: float) -> None:
        if address not in self.announced:
            self._waiting.tidy(self._claims, len(self._claims))
            self._waiting.add(address, place, now)

    def _trim(self) -> None:
        """Let the newest routes go that are more than there may be."""
        for address in sorted(self.announced, key=self.announced.__getitem__)[self._limits.total :]:
            self._leaving.setdefault(address, 0.0)

    def _unsee(self, name: NameId, addresses: Iterable[Address]) -> None:
        for address in addresses:
            names = self._seen_at.get(address, set())
            names.discard(name)
            if not names:
                self._seen_at.pop(address, None)

    def _popular_moved(self, came: Collection[Address], went: Collection[Address]) -> None:
        self.places.came(came)
        self.places.went(went)
        for address in (*came, *went):
            self._review |= self._seen_at.get(address, set())

    def claimed_by(self, address: Address) -> Sequence[NameId]:
        """The names for whose sake an address has its route."""
        return sorted(self._claims.get(address, ()))
