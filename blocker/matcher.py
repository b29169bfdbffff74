"""The matcher: all lists at their serials as one immutable lookup structure, built from rules or from a table.

`Matcher` needs no Redis and no event loop. It never changes; a new version is a new `Matcher` put in its place.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

from blocker import _native
from blocker.errors import InvalidRule
from blocker.rules import Kind, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ListMode = Literal["enforce", "shadow"]

#: The policy every matcher has: all lists, each in its own mode.
DEFAULT_POLICY = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions:
    """How a list's rules are compared.

    Attributes:
        www_alias: `www.h` and `h` are one host for this list.
        path_case: `insensitive` folds the ASCII case of path and query.
    """

    www_alias: bool = False
    path_case: Literal["sensitive", "insensitive"] = "sensitive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A named choice of lists.

    Attributes:
        name: What callers ask for it by.
        lists: List name to mode, None for the list's own; the order decides which list is named when several block
            equally. None: every list of the table, in its order and own mode. Lists that are not there are left out.
        on_invalid: Verdict for a text that is no URL.
    """

    name: str = DEFAULT_POLICY
    lists: Mapping[str, ListMode | None] | None = None
    on_invalid: Literal["allow", "block"] = "allow"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListMetadata:
    """What a table carries along about a list, beside its name, serial and action.

    Attributes:
        entries: Number of rules.
        mode: The list's own mode.
        digest: SHA-256 of its trie, hex.
        epoch: The store's identity at that serial.
        created: When the serial was published, Unix seconds.
        layers: Names of its segments, layer by layer, oldest first; empty for a table that came from no store.
    """

    entries: int = 0
    mode: ListMode = "enforce"
    digest: str = ""
    epoch: str = ""
    created: float = 0.0
    layers: tuple[tuple[str, ...], ...] = ()

    def dump(self) -> str:
        """As the table keeps it."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__}, separators=(",", ":"))

    @classmethod
    def load(cls, text: str) -> Self:
        """Read what `dump` wrote; unknown fields are left out, missing ones take their default."""
        fields = json.loads(text) if text else {}
        layers = tuple(tuple(layer) for layer in fields.pop("layers", ()))
        return cls(layers=layers, **{name: fields[name] for name in cls.__slots__ if name in fields})


@dataclass(frozen=True, slots=True, kw_only=True)
class TableList:
    """One list of a table.

    Attributes:
        name: Its name.
        serial: Its version.
        allow: Whether its rules are exceptions.
        metadata: The rest.
    """

    name: str
    serial: int
    allow: bool
    metadata: ListMetadata = field(default_factory=ListMetadata)


def table_lists(table: _native.Table) -> tuple[TableList, ...]:
    """The lists of a table, in its order."""
    return tuple(
        TableList(name=name, serial=serial, allow=allow, metadata=ListMetadata.load(metadata))
        for name, serial, allow, metadata in table.lists
    )


class Matcher(_native.Matcher):
    """Decides URLs and hosts; immutable, shared by everything that asks.

    `decide` takes under a microsecond and never waits for anything. `Decision.list` names the list that blocks, or the
    list of exceptions that lets through; `Decision.shadow` the shadow lists that would block.
    """

    @classmethod
    def of(cls, table: _native.Table, policies: Iterable[Policy] = ()) -> Self:
        """A matcher over a table; the `default` policy is added unless it is among those given."""
        own = {entry.name: entry.metadata.mode for entry in table_lists(table)}
        chosen = {policy.name: policy for policy in (Policy(), *policies)}
        native = []
        for policy in chosen.values():
            lists = own if policy.lists is None else policy.lists
            modes = [(name, mode or own[name]) for name, mode in lists.items() if name in own]
            native.append((policy.name, modes, str(policy.on_invalid)))
        return cls(table, native)

    @classmethod
    def build(
        cls,
        lists: Mapping[str, Iterable[Rule | str]],
        *,
        allow: Sequence[str] = (),
        shadow: Sequence[str] = (),
        options: Mapping[str, ListOptions] | None = None,
        policies: Iterable[Policy] = (),
        serials: Mapping[str, int] | None = None,
        lookup_key: bytes | None = None,
    ) -> Self:
        """Build from rules in memory; no store, no files.

        Args:
            lists: Rules by list name; a `str` is read as the `url` format. The order is the default policy's.
            allow: Names of the lists whose rules are exceptions.
            shadow: Names of the lists that are decided and reported but never block.
            options: How a list's rules are compared, by list name.
            policies: Further policies, or another `default`.
            serials: Versions to report, by list name; 1 where left out.
            lookup_key: 16 bytes; random where left out.

        Raises:
            InvalidRule: A text is no rule, or `allow`, `shadow` or `options` names a list that is not there.
            FormatError: More than 64 lists.

        Cost: a few microseconds per rule. Large lists go through `_native.RuleSet` instead.
        """
        options = options or {}
        for name in (*allow, *shadow, *options):
            if name not in lists:
                raise InvalidRule("allow, shadow and options may name only lists that are there")
        key = lookup_key or secrets.token_bytes(16)
        merged = []
        for name, rules in lists.items():
            rule_set = _native.RuleSet()
            for rule in rules:
                add_rule(rule_set, Rule.parse(rule) if isinstance(rule, str) else rule)
            chosen = options.get(name, ListOptions())
            run = rule_set.nodes(key, www_alias=chosen.www_alias, fold_case=chosen.path_case == "insensitive")
            metadata = ListMetadata(
                entries=len(rule_set), mode="shadow" if name in shadow else "enforce", digest=run.digest()
            )
            merged.append((name, (serials or {}).get(name, 1), name in allow, metadata.dump(), run))
        return cls.of(_native.Table.build(merged, key), policies)


def add_rule(rule_set: _native.RuleSet, rule: Rule) -> None:
    """Add a `Rule` with its metadata to a native rule set."""
    metadata = {
        name: str(value) for name in ("category", "added", "expires") if (value := getattr(rule, name)) is not None
    }
    rule_set.add(
        Kind(rule.kind).value,
        rule.host,
        rule.path,
        rule.query,
        rule.subdomains,
        rule.reference or "",
        json.dumps(metadata, ensure_ascii=False, separators=(",", ":"), sort_keys=True) if metadata else "",
    )
