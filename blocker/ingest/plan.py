"""What a publish would write, worked out before anything is written: pure, CPU-bound, for a thread.

A small change becomes one more layer over the head's: changed nodes, tombstones, and the rules that came and went. With
one layer too many the newest ones become one; a large change makes a new base. In every case the layers are folded
again before they leave here, and a plan whose fold is not the trie of the new rules is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from blocker._native import NodeRun, RuleSet
from blocker.errors import FormatError, UpdateRefused
from blocker.ingest.cleartext import seal_layer
from blocker.store.layers import kept_layers
from blocker.store.manifest import Layer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocker.store.manifest import Action, ListMode, Manifest, PathCase
    from blocker.store.sealing import Sealer


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishOptions:
    """How a list acts and matches, beside its rules.

    Attributes:
        action: block, or allow: its rules are exceptions.
        mode: enforce, or shadow: decided and counted, never blocks.
        path_case: insensitive folds the ASCII case of path and query.
        www_alias: `www.h` and `h` are one host for this list.
    """

    action: Action = "block"
    mode: ListMode = "enforce"
    path_case: PathCase = "sensitive"
    www_alias: bool = False

    @classmethod
    def of(cls, manifest: Manifest) -> PublishOptions:
        """The options that a list has now: for a publish that changes only its rules."""
        return cls(**{name: getattr(manifest, name) for name in cls.__slots__})

    def nodes(self, rules: RuleSet, lookup_key: bytes) -> NodeRun:
        """The trie of rules under these options."""
        fold_case = self.path_case == "insensitive"
        return rules.nodes(lookup_key, www_alias=self.www_alias, fold_case=fold_case)


@dataclass(frozen=True, slots=True)
class Existing:
    """The head of a list, read whole.

    Attributes:
        manifest: What it is made of.
        layers: The bytes of its segments, oldest layer first.
        rules: Its rules in clear text.
        changes: The rules that each layer after the base added and removed.
    """

    manifest: Manifest
    layers: Sequence[Sequence[bytes]]
    rules: RuleSet
    changes: Sequence[tuple[RuleSet, RuleSet]]

    def rules_of(self, layers: int) -> RuleSet:
        """The rules as the first so many layers make them, at least one."""
        rules = self.rules
        for added, removed in reversed(self.changes[layers - 1 :]):
            rules = rules.patched(removed, added)
        return rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to upload and what the manifest will say.

    Attributes:
        kept: The head's layers that stay.
        fresh: The layer to add, its blobs not yet named; None if the trie and the rules stay as they are.
        segments: The blobs of `fresh`.
        sealed: The blobs of its clear text.
        entries: Rules in the list.
        added: Rules that the list gains.
        removed: Rules that it loses.
        digest: Of the whole trie.
        rules_digest: Of the rules in clear.
    """

    kept: tuple[Layer, ...]
    fresh: Layer | None
    segments: Sequence[bytes]
    sealed: Sequence[bytes]
    entries: int
    added: int
    removed: int
    digest: str
    rules_digest: str

    def layers(self, segments: Sequence[str], sealed: Sequence[str]) -> tuple[Layer, ...]:
        """The layers of the new manifest, once the blobs have their names."""
        if self.fresh is None:
            return self.kept
        return (*self.kept, replace(self.fresh, segments=tuple(segments), sealed=tuple(sealed)))


def make_plan(
    name: str, options: PublishOptions, rules: RuleSet, existing: Existing | None, *, lookup_key: bytes, sealer: Sealer
) -> Plan:
    """Plan to make `rules` the contents of list `name`.

    Args:
        name: The list.
        options: How it will act and match.
        rules: All its rules.
        existing: Its head, or None where there is none or it cannot be read: then a base is planned.
        lookup_key: What node ids are made with.
        sealer: What the clear text is sealed with.

    Raises:
        UpdateRefused: The planned layers do not fold to the trie of the rules.
    """
    run = options.nodes(rules, lookup_key)
    added, removed = (existing.rules if existing else RuleSet()).diff(rules)
    layered = None
    if existing is not None and _same_ids(options, existing.manifest):
        layered = _add_layer(name, existing, run, rules, (added, removed), lookup_key, sealer)
    if existing is None or layered is None:
        kept: tuple[Layer, ...] = ()
        fresh = Layer(segments=(), sealed=(), nodes=len(run), added=len(rules), removed=0) if len(rules) else None
        segments = run.segments() if fresh else []
        sealed = seal_layer(sealer, name, rules, RuleSet()) if fresh else []
        layers: list[Sequence[bytes]] = [segments]
    else:
        kept, fresh, segments, sealed = layered
        layers = [*existing.layers[: len(kept)], segments]
    digest = run.digest()
    if NodeRun.from_segments(layers, lookup_key).digest() != digest:
        raise UpdateRefused(f"list {name}: the new layers do not fold to the trie of the rules; nothing was written")
    return Plan(
        kept=kept, fresh=fresh, segments=segments, sealed=sealed, entries=len(rules),
        added=len(added), removed=len(removed), digest=digest, rules_digest=rules.digest(),
    )  # fmt: skip


def _add_layer(
    name: str, existing: Existing, run: NodeRun, rules: RuleSet, change: tuple[RuleSet, RuleSet], lookup_key: bytes,
    sealer: Sealer,
) -> tuple[tuple[Layer, ...], Layer | None, list[bytes], list[bytes]] | None:  # fmt: skip
    """The layers of the head that stay, one more, its segments and its sealed text; None where a new base is due."""
    manifest = existing.manifest
    try:
        old = NodeRun.from_segments(existing.layers, lookup_key)
    except FormatError:  # damaged, or made under another key
        return None
    if old.digest() != manifest.digest:
        return None
    added, removed = change
    if not (len(added) or len(removed)):
        return manifest.layers, None, [], []
    if not manifest.layers or not len(run):
        return None
    delta = old.diff(run)
    kept = kept_layers(manifest.layers, _layer(delta, added, removed))
    if not kept:
        return None
    if kept < len(manifest.layers):
        delta = NodeRun.from_segments(existing.layers[:kept], lookup_key).diff(run)
        added, removed = existing.rules_of(kept).diff(rules)
        if not (len(added) or len(removed)):  # what came has gone again
            return manifest.layers[:kept], None, [], []
    # Rules may come and go without moving a node: then the layer is text alone.
    segments = delta.segments() if len(delta) else []
    return manifest.layers[:kept], _layer(delta, added, removed), segments, seal_layer(sealer, name, added, removed)


def _layer(delta: NodeRun, added: RuleSet, removed: RuleSet) -> Layer:
    """A layer whose blobs have no names yet."""
    return Layer(segments=(), sealed=(), nodes=len(delta), added=len(added), removed=len(removed))


def _same_ids(options: PublishOptions, manifest: Manifest) -> bool:
    return (options.path_case, options.www_alias) == (manifest.path_case, manifest.www_alias)
