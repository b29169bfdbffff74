"""What ExaBGP is told, through its process API (ExaBGP 4.2): text commands out, one acknowledgement in for each.

Sans-IO: `Speaker` knows what is wanted and what was told, and says which lines to write next. A route is

    announce route 192.0.2.7/32 next-hop self community [65001:451 65535:65281]

with a community of the operator's and NO_EXPORT (RFC 1997), never BLACKHOLE (RFC 7999), which would discard what is to
be looked at; or a flow rule (RFC 8955) that redirects some ports of the address to another VRF.

ExaBGP answers `done` or `error`, in order. At most `WINDOW` commands await theirs, so that neither side's pipe fills.
What ExaBGP refused is tried again with the next full set of routes, and when a session comes up. When ExaBGP started
this process anew it may still have routes from the one before: so it is asked for what it has first, and those with our
communities are taken over, in the form that they have. A process that died while the next hop was changed leaves none
to the old one.

An acknowledgement says nothing of routers. So ExaBGP is also asked, now and then and when a session comes up, what each
neighbor has (`bgp_sessions`): what one lacks is told again, once until something changes, and what none should have is
withdrawn.
"""

from __future__ import annotations

import ipaddress
import re
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from blocker.feeds.bgp_sessions import INVENTORY, NEIGHBORS, Sessions
from blocker.route_section import NO_EXPORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blocker.feeds.addresses import Address
    from blocker.route_section import RouteSettings

# Commands on their way: some 10 KiB, where a pipe takes 64 KiB.
WINDOW = 64
_UNICAST = re.compile(r" ipv[46] unicast (\S+)/(?:32|128) next-hop (\S+)")
_FLOW = re.compile(r" ipv[46] flow flow destination-ipv[46] ([^/\s]+)/(?:32|128)(?:/0)? (.*?) community \[")
_COMMUNITIES = re.compile(r" community (?:\[ ([^]]*) \]|(\S+))")
_REDIRECT = re.compile(r" redirect:(\d+:\d+)")
_NAMES = {"no-export": NO_EXPORT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How routes are written; the fields are those of `RouteSettings`."""

    form: str
    communities: tuple[str, ...]
    next_hop: str
    next_hop6: str | None
    flow_redirect: str
    flow_ports: tuple[int, ...]
    flow_protocols: tuple[str, ...]

    @classmethod
    def of(cls, settings: RouteSettings) -> Self:
        """As configured, with NO_EXPORT."""
        fields = {name: getattr(settings, name) for name in cls.__slots__}
        return cls.load({**fields, "communities": (*settings.communities, NO_EXPORT)})

    @classmethod
    def load(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `asdict` wrote and JSON carried."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**values)

    def announce(self, address: Address) -> str:
        """The command that announces an address."""
        communities = f"community [{' '.join(self.communities)}]"
        if self.form == "flow":
            then = f"redirect {self.flow_redirect}; {communities};"
            return f"announce flow route {{ match {{ {self._match(address)} }} then {{ {then} }} }}"
        return f"announce route {self._route(address)} {communities}"

    def withdraw(self, address: Address) -> str:
        """The command that takes it back."""
        if self.form == "flow":
            then = f"redirect {self.flow_redirect};"
            return f"withdraw flow route {{ match {{ {self._match(address)} }} then {{ {then} }} }}"
        return f"withdraw route {self._route(address)}"

    def family(self, address: Address) -> str:
        """The family of an address's route, as ExaBGP calls it."""
        return f"ipv{address.version} {'flow' if self.form == 'flow' else 'unicast'}"

    def carries(self, address: Address) -> bool:
        """Whether there is a way to announce an address."""
        return self.form == "flow" or address.version == 4 or self.next_hop6 is not None

    def same_destination(self, other: Form) -> bool:
        """Whether a route in this form replaces one in the other, so that nothing is to be withdrawn."""
        if self.form == "flow":
            mine, theirs = (self.flow_ports, self.flow_protocols), (other.flow_ports, other.flow_protocols)
            return other.form == "flow" and mine == theirs
        return other.form == self.form

    def adopted(self, line: str) -> Address | None:
        """The address of a line of ExaBGP's inventory, if it is a route of ours."""
        found = self.read(line)
        return None if found is None else found[0]

    def read(self, line: str) -> tuple[Address, Form] | None:
        """As `adopted`, and the form that the route has.

        Ours are those with all of our communities. They may have more, another next hop or another redirection.
        """
        found = (_FLOW if self.form == "flow" else _UNICAST).search(line)
        carried = _COMMUNITIES.search(line)
        if found is None or carried is None:
            return None
        communities = {_NAMES.get(one, one) for one in (carried[1] or carried[2]).split()}
        if not communities.issuperset(self.communities):
            return None
        form = self if communities == set(self.communities) else replace(self, communities=tuple(sorted(communities)))
        try:
            address = ipaddress.ip_address(found[1])
        except ValueError:
            return None
        if self.form == "route":
            v4 = address.version == 4
            return address, replace(form, next_hop=found[2]) if v4 else replace(form, next_hop6=found[2])
        if found[2] != self._rest(address).replace(";", ""):
            return None
        target = _REDIRECT.search(line)
        return address, replace(form, flow_redirect=target[1]) if target else form

    def _route(self, address: Address) -> str:
        hop = self.next_hop if address.version == 4 else self.next_hop6
        return f"{address}/{address.max_prefixlen} next-hop {hop}"

    def _match(self, address: Address) -> str:
        return f"destination {address}/{address.max_prefixlen}; {self._rest(address)};"

    def _rest(self, address: Address) -> str:
        protocol = "protocol" if address.version == 4 else "next-header"
        protocols = _operators(self.flow_protocols)
        return f"{protocol} {protocols}; destination-port {_operators(self.flow_ports)}"


def _operators(values: Iterable[object]) -> str:
    each = [f"={value}" for value in values]
    return f"[ {' '.join(each)} ]" if len(each) > 1 else each[0]


class Speaker:
    """Brings ExaBGP from what it was told to what is wanted.

    Attributes:
        told: What ExaBGP was told and has not refused, and in which form.
        errors: How often it has refused.
        sessions: The neighbors that it has.
    """

    def __init__(self) -> None:
        self.told: dict[Address, Form] = {}
        self.errors = 0
        self.sessions = Sessions()
        self._form: Form | None = None
        self._wanted: set[Address] = set()
        self._refused: set[Address] = set()
        self._again: set[Address] = set()  # told again for a neighbor that lacked it
        self._todo: deque[Address] = deque()
        self._queued: set[Address] = set()
        self._awaited: deque[tuple[Address, bool] | str] = deque()  # a text: a question
        self._said: list[str] = []  # in answer to the question that is first
        self._asked = False
        self._taken_over = False
        self._settled = False
        self._look_due = True
        self._looking: dict[Address, Form] | None = None  # told when the look under way was asked for
        self._mute = False  # ExaBGP acknowledges nothing

    @property
    def idle(self) -> bool:
        """Whether ExaBGP was told and asked everything and has said so."""
        return not self._todo and not self._awaited and (self._mute or not self._look_due)

    def want(self, form: Form, addresses: Iterable[Address], *, settled: bool) -> None:
        """All that is wanted, in which form.

        Args:
            form: How it is written.
            addresses: What is to be announced.
            settled: Whether that is all; if not, nothing is withdrawn that is not in it.
        """
        self._form, self._settled = form, settled
        wanted = set(addresses)
        self._wanted = wanted if settled else wanted | self._wanted | self.told.keys()
        self._try_again()

    def change(self, announce: Iterable[Address], withdraw: Iterable[Address]) -> None:
        """What is wanted from now on, and what no more."""
        gone, new = set(withdraw), set(announce)
        self._wanted = (self._wanted - gone) | new
        self._refused -= gone
        self._check(gone | new)

    def look(self) -> None:
        """Ask what each neighbor has, as soon as may be."""
        self._look_due = True

    def lines(self) -> list[str]:
        """The commands to write now."""
        if self._form is None:
            return []
        if not self._asked:
            self._asked = True
            self._awaited.append(INVENTORY)
            return [INVENTORY]
        if not self._taken_over:
            return []
        found: list[str] = []
        while self._todo and len(self._awaited) < WINDOW:
            address = self._todo.popleft()
            self._queued.discard(address)
            found += self._commands(address, self._form)
        if self._look_due and self._looking is None and not self._todo and not self._mute:
            self._look_due, self._looking = False, dict(self.told)
            questions = (NEIGHBORS, INVENTORY)
            self._awaited += questions
            found += questions
        return found

    def read(self, line: str) -> None:
        """A line that ExaBGP wrote: an acknowledgement, part of an answer, or news of a session."""
        if line not in ("done", "error"):
            came = self.sessions.event(line)
            if came is None and self._awaited and isinstance(self._awaited[0], str):
                self._said.append(line)
            elif came:
                self._look_due = True
                self._try_again()
            return
        self._mute = False
        if not self._awaited:
            return
        command = self._awaited.popleft()
        if isinstance(command, str):
            said, self._said = self._said, []
            self._answered(command, said if line == "done" else None)
        elif line == "error":
            self.errors += 1
            address, announced = command
            self._refused.add(address)
            if announced:
                self.told.pop(address, None)

    def silent(self) -> None:
        """ExaBGP acknowledges nothing, or too late: go on without, as if it had taken everything."""
        if not self._taken_over:
            self._take_over(self._said)
        self._mute, self._said, self._looking = True, [], None
        self._awaited.clear()

    def _answered(self, question: str, lines: list[str] | None) -> None:
        """Take over the answer to a question; None: there is none."""
        if not self._taken_over:
            self._take_over(lines or ())
        elif question == NEIGHBORS:
            if lines is not None:
                self.sessions.neighbors(lines)
        elif (looking := self._looking) is not None:
            self._looking = None
            if lines is not None and self._form is not None:
                self._compare(lines, self._form, looking)

    def _take_over(self, lines: Iterable[str]) -> None:
        self._taken_over = True
        if self._form is not None:
            found = [one for line in lines if (one := self._form.read(line)) is not None]
            # Of several neighbors one may have it in another form: that one counts, so that it is told anew.
            for address, form in sorted(found, key=lambda one: one[1] != self._form):
                self.told[address] = form
            if not self._settled:
                self._wanted |= {address for address, _ in found}
            self._todo.clear()
            self._queued.clear()
            self._check(self._wanted | self.told.keys())

    def _compare(self, lines: Iterable[str], form: Form, looking: Mapping[Address, Form]) -> None:
        """Tell again what a neighbor lacks, and withdraw what none should have."""
        wanted = {address for address, of in looking.items() if of == self.told.get(address) == form}
        lacking, there = self.sessions.routes(lines, form, wanted)
        again = lacking - self._again
        self._again |= again
        for address in again:
            del self.told[address]
        extra = there.keys() - looking.keys() - self.told.keys() if self._settled else set()
        self.told.update({address: there[address] for address in extra})
        self._look_due |= bool(again or extra)
        self._check(again | extra)

    def _try_again(self) -> None:
        """Begin anew with what was refused, or not taken."""
        self._refused.clear()
        self._again.clear()
        self._check(self._wanted | self.told.keys())

    def _check(self, addresses: Iterable[Address]) -> None:
        for address in sorted(addresses, key=lambda one: (self._form_of(one) is not None, one.version, int(one))):
            agrees = self.told.get(address) == self._form_of(address)
            if not agrees and address not in self._queued and address not in self._refused:
                self._todo.append(address)
                self._queued.add(address)

    def _form_of(self, address: Address) -> Form | None:
        """How an address is to be announced; None: not at all."""
        return self._form if address in self._wanted and self._form and self._form.carries(address) else None

    def _commands(self, address: Address, form: Form) -> Iterable[str]:
        before, wanted = self.told.get(address), self._form_of(address) is not None
        if before is not None and (not wanted or not form.same_destination(before)):
            del self.told[address]
            self._awaited.append((address, False))
            yield before.withdraw(address)
        if wanted and before != form:
            self.told[address] = form
            self._awaited.append((address, True))
            yield form.announce(address)
