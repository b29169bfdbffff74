"""What a list is at one serial: the manifest, its layers, and the head that names the newest one.

A manifest is JSON in Redis and is never changed once written. Only its commit makes it visible, so whoever can read a
manifest can read every blob it names, until orphan collection drops it with its blobs (see redis.py).
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from blocker.errors import FormatError, StoreError
from blocker.store.keys import checked_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Action = Literal["block", "allow"]
ListMode = Literal["enforce", "shadow"]
PathCase = Literal["sensitive", "insensitive"]

# Lua in Redis compares serials as doubles, which are exact up to here; so do JSON readers in other languages.
MAX_SERIAL = 2**53 - 1

_SHA256 = re.compile(r"[0-9a-f]{64}")
_EPOCH = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One stratum of a list's trie: the base, or the changes that one publish brought.

    Attributes:
        segments: SHA-256 names of the segments, in key order.
        sealed: SHA-256 names of the sealed clear text of the same rules, in order.
        nodes: Trie nodes in it, tombstones included.
        added: Rules it adds.
        removed: Rules it removes.
    """

    segments: tuple[str, ...]
    sealed: tuple[str, ...]
    nodes: int
    added: int
    removed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A list at one serial.

    Attributes:
        list: The list's name.
        serial: 1 for the first publish, then one more each time.
        epoch: The store's life it belongs to: 32 hex digits. A list that restarts in a new store has another one.
        action: What a matching rule does.
        mode: Whether the list is enforced or only counted, where a policy does not say.
        path_case: Whether paths match with or without case.
        www_alias: Whether a rule of a host also holds on `www.` of it.
        entries: Rules in the list at this serial.
        digest: SHA-256 in hex of the whole trie, whatever layers it is made of.
        rules_digest: SHA-256 in hex of the rules in clear, so that an unchanged list is seen without opening it.
        layers: Oldest first; the first is the base. Empty for a list without rules.
        created: Unix time in seconds, UTC, by the publisher's clock.
        reason: Why, in words; shown in the log of the list. Never a rule's text.
        added: Rules that this serial brought, compared to the one before; a layer's own count is of the layer.
        removed: Rules that it took away.
        retired: The list was withdrawn: it matches nothing and leaves the followers.
    """

    list: str
    serial: int
    epoch: str
    action: Action
    mode: ListMode
    path_case: PathCase
    www_alias: bool
    entries: int
    digest: str
    rules_digest: str
    layers: tuple[Layer, ...]
    created: float
    reason: str
    added: int = 0
    removed: int = 0
    retired: bool = False

    @property
    def segments(self) -> tuple[str, ...]:
        """Every segment of every layer, oldest layer first."""
        return tuple(name for layer in self.layers for name in layer.segments)

    @property
    def sealed(self) -> tuple[str, ...]:
        """Every sealed text of every layer, oldest layer first."""
        return tuple(name for layer in self.layers for name in layer.sealed)

    @property
    def head(self) -> Head:
        """The head once this manifest is committed."""
        return Head(list=self.list, serial=self.serial, digest=self.digest)

    def to_json(self) -> str:
        """The stored form. Equal manifests give equal text, which is how a repeated commit is recognised."""
        fields: dict[str, object] = {name: getattr(self, name) for name in self.__slots__}
        fields["layers"] = [{name: getattr(layer, name) for name in layer.__slots__} for layer in self.layers]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read the stored form back.

        Raises:
            FormatError: It is no manifest; names the field, what was expected and what was found (by type or number).
        """
        part = "manifest"
        fields = _object(part, text)
        _exactly(part, fields, cls.__slots__)
        layers = _checked(part, fields, "layers", "a list", lambda value: isinstance(value, list))
        return cls(
            list=_checked(part, fields, "list", "a list name", _is_name),
            serial=_count(part, fields, "serial", least=1),
            epoch=_checked(part, fields, "epoch", "32 hex digits", _matches(_EPOCH)),
            action=_checked(part, fields, "action", "block or allow", ("block", "allow").__contains__),
            mode=_checked(part, fields, "mode", "enforce or shadow", ("enforce", "shadow").__contains__),
            path_case=_checked(
                part, fields, "path_case", "sensitive or insensitive", ("sensitive", "insensitive").__contains__
            ),
            www_alias=_flag(part, fields, "www_alias"),
            entries=_count(part, fields, "entries"),
            digest=_checked(part, fields, "digest", "64 hex digits", _matches(_SHA256)),
            rules_digest=_checked(part, fields, "rules_digest", "64 hex digits", _matches(_SHA256)),
            layers=tuple(layer_of(f"{part}.layers[{index}]", layer) for index, layer in enumerate(layers)),
            created=float(_checked(part, fields, "created", "a time in unix seconds", _is_time)),
            reason=_checked(part, fields, "reason", "a text", lambda value: isinstance(value, str)),
            added=_count(part, fields, "added"),
            removed=_count(part, fields, "removed"),
            retired=_flag(part, fields, "retired"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The newest committed serial of a list and its trie digest."""

    list: str
    serial: int
    digest: str

    def to_json(self) -> str:
        """The stored form; the list's name is the hash field beside it."""
        return json.dumps({"serial": self.serial, "digest": self.digest}, separators=(",", ":"))

    @classmethod
    def from_json(cls, list: str, text: str | bytes) -> Head:  # noqa: A002 - the project's word
        """Read the stored form back.

        Raises:
            FormatError: It is no head; names the field.
        """
        part = "head"
        fields = _object(part, text)
        return cls(
            list=_checked(part, {"list": list}, "list", "a list name", _is_name),
            serial=_count(part, fields, "serial", least=1),
            digest=_checked(part, fields, "digest", "64 hex digits", _matches(_SHA256)),
        )


def layer_of(part: str, value: object) -> Layer:
    """One layer of the stored form; `part` is what an error calls it."""
    if not isinstance(value, dict):
        raise _wrong(part, "an object", value)
    _exactly(part, value, Layer.__slots__)
    return Layer(
        segments=_names(part, value, "segments"),
        sealed=_names(part, value, "sealed"),
        nodes=_count(part, value, "nodes"),
        added=_count(part, value, "added"),
        removed=_count(part, value, "removed"),
    )


def _object(part: str, text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise FormatError(f"{part}: expected JSON, got something else; publish the list again") from None
    if not isinstance(value, dict):
        raise _wrong(part, "an object", value)
    return value


def _exactly(part: str, fields: Mapping[str, object], expected: tuple[str, ...]) -> None:
    for name in expected:
        if name not in fields:
            raise FormatError(f"{part}.{name}: missing; publish the list again")
    if len(fields) > len(expected):
        # An unknown field could change what the rest means, so an older node must not guess.
        raise FormatError(f"{part}: unknown fields; written by a newer Blocker, upgrade this node")


def _checked(part: str, fields: Mapping[str, Any], name: str, expected: str, holds: Callable[[Any], bool]) -> Any:  # noqa: ANN401 - the type follows from `holds`
    value = fields.get(name)
    if not holds(value):
        raise _wrong(f"{part}.{name}", expected, value)
    return value


def _count(part: str, fields: Mapping[str, Any], name: str, least: int = 0) -> int:
    def holds(value: object) -> bool:
        return type(value) is int and least <= value <= MAX_SERIAL

    value: int = _checked(part, fields, name, f"a whole number from {least}", holds)
    return value


def _flag(part: str, fields: Mapping[str, Any], name: str) -> bool:
    value: bool = _checked(part, fields, name, "true or false", lambda value: isinstance(value, bool))
    return value


def _names(part: str, fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    is_sha256 = _matches(_SHA256)

    def holds(value: object) -> bool:
        return isinstance(value, list) and all(map(is_sha256, value))

    return tuple(_checked(part, fields, name, "a list of SHA-256 names", holds))


def _matches(pattern: re.Pattern[str]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_name(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(checked_name("list", value))
    except StoreError:
        return False


def _is_time(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0  # type: ignore[arg-type,operator]


def _wrong(part: str, expected: str, value: object) -> FormatError:
    found = str(value) if type(value) in (int, float, bool) else type(value).__name__
    return FormatError(f"{part}: expected {expected}, got {found}; publish the list again")
