"""A version of a list that is not published: a draft, which people prepare, or a proposal, which waits for approval.

Neither is seen by a follower. Its rules are sealed text in the store, as a manifest's are; there are no segments, since
those are made from the rules when it is published. What names blobs here is spared by orphan collection.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from blocker.errors import FormatError
from blocker.store.manifest import Layer, layer_of

if TYPE_CHECKING:
    from blocker.store.manifest import Action, ListMode, PathCase

DraftState = Literal["open", "waiting", "rejected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFinding:
    """What a guard said when the version was examined, without the rules it concerns."""

    guard: str
    severity: str
    message: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One version that is not published.

    Attributes:
        id: Random hex; another one after each change, so that nobody approves what they have not seen.
        list: The list's name.
        epoch: The store's life it was made in.
        base: The list's serial it was made from; 0 for a new list.
        action: As in a manifest; so are mode, path_case, www_alias, entries and rules_digest.
        mode: See action.
        path_case: See action.
        www_alias: See action.
        entries: See action.
        added: Rules that it has and `base` has not.
        removed: Rules that `base` has and it has not.
        rules_digest: See action.
        layers: Where its rules are, oldest first; layers of the base may be among them. No segments.
        created: Unix time in seconds of its last change.
        author: Name of the actor of its last change.
        person: Who that is; somebody else must approve it.
        reason: Why, in words.
        state: open, waiting for approval, or rejected.
        findings: What the guards said, for one that is not open.
    """

    id: str
    list: str
    epoch: str
    base: int
    action: Action
    mode: ListMode
    path_case: PathCase
    www_alias: bool
    entries: int
    added: int
    removed: int
    rules_digest: str
    layers: tuple[Layer, ...]
    created: float
    author: str
    person: str
    reason: str = ""
    state: DraftState = "open"
    findings: tuple[StoredFinding, ...] = ()

    @property
    def serial(self) -> int:
        """The serial it will have if nothing else is published before."""
        return self.base + 1

    @property
    def segments(self) -> tuple[str, ...]:
        """None; as in a manifest."""
        return ()

    @property
    def sealed(self) -> tuple[str, ...]:
        """Every sealed text, once."""
        return tuple(dict.fromkeys(name for layer in self.layers for name in layer.sealed))

    def to_json(self) -> str:
        """The stored form."""
        fields: dict[str, object] = {name: getattr(self, name) for name in self.__slots__}
        fields["layers"] = [{name: getattr(layer, name) for name in layer.__slots__} for layer in self.layers]
        fields["findings"] = [{name: getattr(finding, name) for name in finding.__slots__} for finding in self.findings]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Draft:
        """Read the stored form back.

        Raises:
            FormatError: It is no draft.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            layers = tuple(
                layer_of(f"draft.layers[{index}]", layer) for index, layer in enumerate(fields.pop("layers"))
            )
            findings = tuple(StoredFinding(**finding) for finding in fields.pop("findings"))
            return cls(layers=layers, findings=findings, **fields)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise FormatError("draft: cannot be read; discard it and push again") from None
