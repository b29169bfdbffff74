"""Which listed names get no route because of what they are called, wherever they are. Pure; names are canonical.

A popular name is not only one that is in the file of popular domains: a page of `upload.popular.example` may be at
addresses that neither `popular.example` nor `www.popular.example` has, and all that the popular site sends from there
would be taken along. So every name under a popular one counts as popular, and its addresses are spared for all other
names too, as the popular ones' are.

**Whose word that is.** Under some popular domains anybody may have a name and say where it is: a page hoster's, a
cloud's, a dynamic DNS service's (the private part of the Public Suffix List). A customer's name gets no route either,
since he is mostly where the popular site is. But his addresses are not spared for others: whoever has a listed site
could let his second one, under a popular dynamic DNS service, point at the first, and have that go free.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blocker.feeds.routes import Reason
from blocker.ingest.never_block import is_public_suffix, parents

if TYPE_CHECKING:
    from collections.abc import Collection

    from blocker.feeds.routes import NameId


@dataclass(frozen=True, slots=True, kw_only=True)
class Spared:
    """The names that are spared, and all under them.

    Attributes:
        popular: Popular domains.
        never: Names that the operator wants spared, whatever else is said of them.
        exempt: Names, and all under them, that are routed nonetheless; the nearest above a name counts.
    """

    popular: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()
    exempt: frozenset[str] = frozenset()

    def reason(self, name: str) -> Reason | None:
        """Why a name gets no route; None if it may. Cost: 2 µs."""
        for one in (name, *parents(name)):
            if one in self.never:
                return Reason.NEVER
            if one in self.exempt:
                return None
            if one in self.popular:
                return Reason.POPULAR
        return None

    def speaks_for_itself(self, name: str) -> bool:
        """Whether who runs the spared domain says where a spared name is, and no customer does. Cost: 10 µs."""
        for one in (name, *parents(name)):
            if one != name and is_public_suffix(one, only_icann=False):
                return False
            if one in self.popular or one in self.never:
                return True
        return False


#: Share of the popular names whose addresses must be known before anything new is announced: some are always broken.
POPULAR_SHARE = 0.9


@dataclass(slots=True)
class Gate:
    """Whether it is known where no route may go, so that new ones may be announced. Cost: none, in a look at it.

    Of popular names it is known of a share that suffices; all other names that are spared must have been tried once,
    be it in vain. Whatever comes to be spared later closes it again until then.
    """

    _popular: int = 0
    _unknown: set[NameId] = field(default_factory=set)
    _untried: set[NameId] = field(default_factory=set)
    _told: bool = False

    def want(self, popular: Collection[NameId], others: Collection[NameId], known: Collection[NameId]) -> None:
        """The names that are spared from now on, and those of all whose addresses are known."""
        self._told = True
        self._popular = len(popular)
        self._unknown = {name for name in popular if name not in known}
        self._untried = {name for name in others if name not in known and name not in popular}

    def heard(self, name: NameId, *, answered: bool) -> None:
        """A name was looked up."""
        self._untried.discard(name)
        if answered:
            self._unknown.discard(name)

    @property
    def open(self) -> bool:
        """Whether new routes may be announced."""
        known = self._popular - len(self._unknown)
        return self._told and not self._untried and known >= POPULAR_SHARE * self._popular
