"""Who wins, decided by looking at every rule of every list.

Contract: `BruteForce` is the reading of the written rules; `Indexed` gives the same answers fast enough for a million
rules, by handing the same functions only those rules that share a host suffix and a path with the request.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tests.oracle import canonical
from tests.oracle.canonical import Canonical, InvalidURL
from tests.oracle.rules import DOMAIN, EXACT, HOST, PREFIX, OracleRule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ALLOW, INSPECT, BLOCK = "allow", "inspect", "block"
ENFORCE, SHADOW = "enforce", "shadow"

_WHOLE_HOST = (DOMAIN, HOST)
# Rank of the exact host, above every wildcard base: no host has as many labels.
_EXACT_HOST = 1 << 20


@dataclass(frozen=True)
class OracleList:
    """One list and its options."""

    name: str
    rules: Sequence[OracleRule]
    allow: bool = False
    www_alias: bool = False
    fold_case: bool = False


class OraclePolicy(NamedTuple):
    """What each list does, in the order that names a list among equals."""

    modes: Mapping[str, str]
    on_invalid: str = ALLOW


class OracleDecision(NamedTuple):
    """The part of a decision that matching decides."""

    verdict: str
    list: str | None = None
    kind: str | None = None
    shadow: tuple[str, ...] = ()
    invalid: bool = False


class Rank(NamedTuple):
    """How specific a rule is; compares as written: kind, then path, then host."""

    kind: int
    path: int
    host: int


class Found(NamedTuple):
    """The most specific matching rule of one list."""

    rank: Rank
    kind: str
    owner: OracleList


def rule_matches(rule: OracleRule, owner: OracleList, request: Canonical) -> bool:
    """Whether a rule covers a request, with the options of its list."""
    return host_matches(rule, owner, request.host) and target_matches(rule, owner, request)


def host_matches(rule: OracleRule, owner: OracleList, host: str) -> bool:
    """The host part of the rule."""
    same = without_www(rule.host, owner) == without_www(host, owner)
    return same or ((rule.kind == DOMAIN or rule.subdomains) and same_or_below(host, rule.host))


def same_or_below(host: str, base: str) -> bool:
    """Whether a host is a domain or one of its subdomains; an IP address has none."""
    return host == base or (host.endswith("." + base) and not canonical.is_ip(base) and not canonical.is_ip(host))


def without_www(host: str, owner: OracleList) -> str:
    """The host that `www.` is an alias of, where the list says so; an address is nobody's alias."""
    rest = host.removeprefix("www.")
    return rest if owner.www_alias and "." in rest and not canonical.is_ip(rest) else host


def as_matched(rule: OracleRule, host: str) -> OracleRule:
    """A rule as it counts for a host: one of `www.h` and its subdomains reaches `h` as a rule of that host alone."""
    if (rule.kind == DOMAIN or rule.subdomains) and not same_or_below(host, rule.host):
        return rule._replace(kind=HOST if rule.kind == DOMAIN else rule.kind, subdomains=False)
    return rule


def target_matches(rule: OracleRule, owner: OracleList, request: Canonical) -> bool:
    """The path and query part of the rule."""
    if rule.kind in _WHOLE_HOST or rule.path is None:
        return True
    path, rule_path = fold(request.path, owner), fold(rule.path, owner)
    if rule.kind == PREFIX:
        return path.startswith(rule_path) or path == rule_path.removesuffix("/")
    if path != rule_path:
        return False
    return rule.query is None or (request.query is not None and fold(request.query, owner) == fold(rule.query, owner))


def fold(text: str, owner: OracleList) -> str:
    """ASCII case, for a list that ignores it; canonical text is ASCII."""
    return text.lower() if owner.fold_case else text


def rank(rule: OracleRule) -> Rank:
    """Exact with query, exact, longer prefix, shorter prefix, host, longer domain, shorter domain."""
    labels = rule.host.count(".") + 1
    host = labels if rule.kind == DOMAIN or rule.subdomains else _EXACT_HOST
    if rule.kind == EXACT:
        return Rank(5 if rule.query is not None else 4, 0, host)
    if rule.kind == PREFIX:
        return Rank(3, len(rule.path or ""), host)
    return Rank(2 if rule.kind == HOST else 1, 0, host)


@dataclass
class BruteForce:
    """Every rule is looked at for every request."""

    lists: Mapping[str, OracleList]
    policies: Mapping[str, OraclePolicy] = field(default_factory=dict)

    def candidates(self, owner: OracleList, request: Canonical) -> Iterable[OracleRule]:
        """Rules that might match; here simply all."""
        del request
        return owner.rules

    def policy(self, name: str) -> OraclePolicy:
        """A named policy; by default every list is enforced, in the order they were given."""
        if name in self.policies:
            return self.policies[name]
        return OraclePolicy(dict.fromkeys(self.lists, ENFORCE))

    def find(self, owner: OracleList, request: Canonical) -> Found | None:
        """The most specific rule of one list that matches."""
        matching = [rule for rule in self.candidates(owner, request) if rule_matches(rule, owner, request)]
        return most_specific(owner, [as_matched(rule, request.host) for rule in matching])

    def decide(self, url: str | bytes, policy: str = "default") -> OracleDecision:
        """The verdict for one URL."""
        modes, on_invalid = self.policy(policy)
        try:
            request = canonical.split(url)
        except InvalidURL:
            return OracleDecision(on_invalid, invalid=True)
        return settle({name: self.find(self.lists[name], request) for name in modes}, modes)

    def decide_host(self, host: str, policy: str = "default") -> OracleDecision:
        """The verdict for a whole host, before any path is known."""
        modes, on_invalid = self.policy(policy)
        try:
            request = canonical.split(f"http://{host}/")
        except InvalidURL:
            return OracleDecision(on_invalid, invalid=True)
        whole: dict[str, Found | None] = {}
        path_level: list[OracleList] = []
        for name, mode in modes.items():
            owner = self.lists[name]
            here = [as_matched(rule, request.host) for rule in owner.rules if host_matches(rule, owner, request.host)]
            whole[name] = most_specific(owner, [rule for rule in here if rule.kind in _WHOLE_HOST])
            if mode == ENFORCE:
                path_level += [owner for rule in here if rule.kind not in _WHOLE_HOST]
        decision = settle(whole, modes)
        blocks_all = decision.verdict == BLOCK and not any(owner.allow for owner in path_level)
        if path_level and not blocks_all:
            return OracleDecision(INSPECT, shadow=decision.shadow)
        return decision


def most_specific(owner: OracleList, matching: Sequence[OracleRule]) -> Found | None:
    """The rule of one list that counts."""
    if not matching:
        return None
    best = max(matching, key=rank)
    return Found(rank(best), best.kind, owner)


def settle(found: Mapping[str, Found | None], modes: Mapping[str, str]) -> OracleDecision:
    """Who wins among the best rules of each list, in the policy's order.

    A shadow list of blocks is reported when it would block if it alone were enforced beside the enforced exceptions;
    a shadow list of exceptions does nothing.
    """
    matches = [(name, match) for name, match in found.items() if match is not None]
    enforced = [match for name, match in matches if modes[name] == ENFORCE]
    allowed = max((match.rank for match in enforced if match.owner.allow), default=None)
    shadow = tuple(
        name
        for name, match in matches
        if modes[name] == SHADOW and not match.owner.allow and (allowed is None or match.rank > allowed)
    )
    best: Found | None = None
    for match in enforced:
        if best is None or (match.rank, match.owner.allow) > (best.rank, best.owner.allow):
            best = match
    if best is None:
        return OracleDecision(ALLOW, shadow=shadow)
    return OracleDecision(ALLOW if best.owner.allow else BLOCK, best.owner.name, best.kind, shadow)


class Indexed(BruteForce):
    """The same, but rules wait in a dictionary under their host and path.

    A key is the host that a rule names, and its path. `candidates` builds all keys that a request could be found under;
    each rule found is still asked whether it matches.
    """

    def __init__(self, lists: Mapping[str, OracleList], policies: Mapping[str, OraclePolicy] | None = None) -> None:
        super().__init__(lists, policies or {})
        self._index: dict[str, dict[tuple[str, str], list[OracleRule]]] = {}
        self._hosts: dict[str, set[str]] = {}
        for owner in lists.values():
            index: dict[tuple[str, str], list[OracleRule]] = defaultdict(list)
            for rule in owner.rules:
                index[without_www(rule.host, owner), fold(rule.path or "", owner)].append(rule)
            self._index[owner.name] = dict(index)
            self._hosts[owner.name] = {host for host, _ in index}

    def candidates(self, owner: OracleList, request: Canonical) -> Iterable[OracleRule]:
        """Rules that share a host suffix with the request, and a path or an ancestor of it."""
        known = self._hosts[owner.name]
        labels = request.host.split(".")
        hosts = [".".join(labels[start:]) for start in range(len(labels))]
        if canonical.is_ip(request.host):
            hosts = [request.host]
        hosts = [host for host in dict.fromkeys(without_www(host, owner) for host in hosts) if host in known]
        if not hosts:
            return
        path = fold(request.path, owner)
        ancestors = [path[: end + 1] for end, character in enumerate(path) if character == "/"]
        paths = list(dict.fromkeys(["", path, path + "/", *ancestors]))
        index = self._index[owner.name]
        for host in hosts:
            for at in paths:
                yield from index.get((host, at), ())
