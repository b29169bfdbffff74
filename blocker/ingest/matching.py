"""Which rules in clear text match an address, and in which order they count: the trie's decision, said in words.

Whether a rule matches is not worked out here: a table of that one rule decides. Only the order among rules that match
is; the tests hold it against the decision over all of them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from blocker._native import RuleSet, Table, canonicalize
from blocker.ingest.formats.bpjm import is_hashed
from blocker.matcher import ListMetadata, Matcher
from blocker.rules import Kind, Rule, is_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from blocker.ingest.plan import PublishOptions
    from blocker.store.draft import Draft
    from blocker.store.manifest import Manifest

# Under which single rules are looked up; nothing made with it leaves this process.
_KEY = bytes(16)
# More labels than a host has: what holds on one host only ranks above what holds on its subdomains as well.
_ONE_HOST = 1 << 16
_KINDS = (Kind.DOMAIN, Kind.HOST, Kind.PREFIX, Kind.EXACT)


class Rank(NamedTuple):
    """How specific a rule is; greater ones count first.

    Attributes:
        kind: Its kind as it counts here, from domain to exact, exact with a query above all.
        path: For a prefix, its length.
        host: Labels of the host from which down it holds; above all if it holds on one host only.
    """

    kind: int
    path: int
    host: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchingRule:
    """One rule that matches.

    Attributes:
        rule: The rule.
        kind: As it counts here: `www_alias` makes a domain's rule one of a single host, and a digest does not say.
        rank: How specific it is.
        hashed: Whether the list knows it as digests only.
        metadata: Further metadata, as the list has it.
    """

    rule: Rule = field(repr=False)
    kind: Kind
    rank: Rank
    hashed: bool
    metadata: dict[str, Any] = field(repr=False)

    @property
    def identity(self) -> tuple[object, ...]:
        """What makes it this rule, whatever is noted of it."""
        return (self.rule.kind, self.rule.host, self.rule.path, self.rule.query, self.rule.subdomains)


def matching_rules(rules: RuleSet, options: PublishOptions | Manifest | Draft, url: str | bytes) -> list[MatchingRule]:
    """The rules that match an address, the most specific first.

    Args:
        rules: Of one list, all or those near the address.
        options: How the list matches.
        url: The address.

    Raises:
        InvalidURL: It is none.

    Cost: a search for each label of the host; 50 µs for each rule near it.
    """
    request = canonicalize(url)
    found = (_match(row, options, request) for row in rules.near(request))
    return sorted((one for one in found if one is not None), key=lambda one: one.rank, reverse=True)


def table_of(lists: Iterable[tuple[str, Manifest | Draft, RuleSet]]) -> Table:
    """A table of a few rules, as a node would have it: name, version, rules.

    Raises:
        FormatError: More than 64 lists.
    """
    made = []
    for name, version, rules in lists:
        run = rules.nodes(_KEY, www_alias=version.www_alias, fold_case=version.path_case == "insensitive")
        metadata = ListMetadata(entries=len(rules), mode=version.mode)
        made.append((name, version.serial, version.action == "allow", metadata.dump(), run))
    return Table.build(made, _KEY)


def _match(
    row: tuple[str, str, str | None, str | None, bool, str, str],
    options: PublishOptions | Manifest | Draft,
    request: str,
) -> MatchingRule | None:
    alone = RuleSet()
    alone.add(*row)
    run = alone.nodes(_KEY, www_alias=options.www_alias, fold_case=options.path_case == "insensitive")
    table = Table.build([("rule", 1, False, ListMetadata().dump(), run)], _KEY)
    kind = Matcher.of(table).decide(request).kind
    if kind is None:
        return None
    name, host, path, query, subdomains, reference, metadata = row
    rule = Rule(
        kind=Kind(name), host=host, path=path, query=query, subdomains=subdomains, reference=reference or None
    )  # fmt: skip
    rank = _rank(rule, kind, request)
    return MatchingRule(
        rule=rule, kind=kind, rank=rank, hashed=is_hashed(host), metadata=json.loads(metadata) if metadata else {}
    )


def _rank(rule: Rule, kind: Kind, request: str) -> Rank:
    _scheme, _, host, target = request.split("/", 3)
    wide = (rule.kind is Kind.DOMAIN or rule.subdomains) and _at_or_below(host, rule.host)
    labels = rule.host.count(".") + 1 if wide else _ONE_HOST
    if not is_hashed(rule.host):
        path = len(rule.path or "") if kind is Kind.PREFIX else 0
        return Rank(_KINDS.index(kind) + (rule.query is not None), path, labels)
    found = next((end for end, digest in _digests(target) if f"/{digest}" == rule.path), 0) if rule.path else 0
    asked = kind is Kind.EXACT and "?" in target[: found - 1]
    return Rank(_KINDS.index(kind) + asked, found if kind is Kind.PREFIX else 0, labels)


def _digests(target: str) -> Iterator[tuple[int, str]]:
    """Each part of a path that a list of digests may have, with its length (the first slash included)."""
    path = target.partition("?")[0]
    borders = [at + 1 for at, character in enumerate(path) if character == "/"]
    for end in [*borders, len(path), len(target)]:
        for text in (target[:end], f"/{target[:end]}"):
            yield end + 1, hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _at_or_below(host: str, base: str) -> bool:
    return host == base or (host.endswith(f".{base}") and not is_address(host))
