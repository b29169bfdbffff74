"""Decisions as JSON (`schema.CheckAnswer`), written by hand: most of them differ from each other in one field."""

from __future__ import annotations

from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING

from blocker._native import Decision, canonicalize
from blocker.errors import InvalidURL
from blocker.rules import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

_PLAIN_HEAD = '{"verdict":"allow","list":null,"kind":null,"serial":null,"canonical":'
_PLAIN_TAIL = ',"reference":null,"shadow":[],"invalid":false}'


def canonical_or_none(url: str | bytes) -> str | None:
    """The canonical form, or None if the text is no URL."""
    try:
        return canonicalize(url)
    except InvalidURL:
        return None


def written(decision: Decision, canonical: str | None) -> str:
    """One decision. Cost: about 1 µs."""
    name, kind, serial, reference = decision.list, decision.kind, decision.serial, decision.reference
    shadow = ",".join(map(quoted, decision.shadow))
    return (
        f'{{"verdict":"{decision.verdict}",'
        f'"list":{"null" if name is None else quoted(name)},'
        f'"kind":{"null" if kind is None else quoted(kind)},'
        f'"serial":{"null" if serial is None else serial},'
        f'"canonical":{"null" if canonical is None else quoted(canonical)},'
        f'"reference":{"null" if reference is None else quoted(reference)},'
        f'"shadow":[{shadow}],'
        f'"invalid":{"true" if decision.invalid else "false"}}}'
    )


def written_many(decisions: Iterable[Decision], urls: Iterable[str]) -> str:
    """Decisions with commas between them. Cost: under 1 µs for each that no list decided."""
    return ",".join(
        [
            written(decision, canonical_or_none(url))
            if decision.list is not None or decision.shadow or decision.invalid or decision.verdict is not Verdict.ALLOW
            else f"{_PLAIN_HEAD}{quoted(canonicalize(url))}{_PLAIN_TAIL}"
            for decision, url in zip(decisions, urls, strict=True)
        ]
    )
