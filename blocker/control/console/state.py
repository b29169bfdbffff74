"""What the console shows of lists and nodes: what this node knows by itself, and what the store adds while it is up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from blocker.control.console.page import duration, number
from blocker.control.heartbeat import SILENT_SECONDS
from blocker.errors import BlockerError
from blocker.hits.exporter import age_seconds
from blocker.matcher import table_lists

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blocker.gateways.canaries import CanaryState
    from blocker.gateways.engine import Follower
    from blocker.matcher import TableList
    from blocker.store.beat import Beat
    from blocker.store.draft import Draft
    from blocker.store.manifest import Head
    from blocker.store.redis import Store

Level = Literal["good", "note", "warn", "bad"]

CANARY_FAILED = "canary failed"
WAITING = "waiting for approval"


class Mark(NamedTuple):
    """A state in a word or two, how grave it is, and why.

    Attributes:
        level: How grave.
        word: The state.
        reason: More, in words; empty if the word says all.
    """

    level: Level
    word: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the store says; empty while it is away.

    Attributes:
        up: Whether it answered.
        heads: The newest serials of lists that are not retired.
        proposals: What waits or was rejected.
        sources: List → what is known of the last look at its source.
        beats: The nodes, and for how many seconds each has been silent.
    """

    up: bool = False
    heads: Mapping[str, Head] = field(default_factory=dict)
    proposals: Mapping[str, Draft] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    beats: Iterable[tuple[Beat, float]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRow:
    """One list.

    Attributes:
        name: Its name.
        action: block or allow.
        mode: Its own mode.
        serial: What this node enforces; 0 for a list that it does not enforce.
        entries: Rules in that.
        age: Seconds since its source was last good, or since it was published; None if unknown.
        marks: What there is to say, the gravest first; never empty.
        canaries: Each gateway's last look, by its name.
    """

    name: str
    action: str
    mode: str
    serial: int
    entries: int
    age: float | None
    marks: tuple[Mark, ...]
    canaries: tuple[tuple[str, Mark], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """One node.

    Attributes:
        beat: What it said of itself.
        silent: For how many seconds it has been silent.
        mark: Whether it lives and is in step.
    """

    beat: Beat
    silent: float
    mark: Mark


async def known_of(store: Store | None, names: Iterable[str]) -> Known:
    """Ask the store. Cost: a few small reads, and one for each list.

    Args:
        store: The store; None if it cannot be opened.
        names: Lists that this node enforces or looks at.
    """
    if store is None:
        return Known()
    names = set(names)
    try:
        heads = await store.heads()
        for name in heads.keys() - names:
            if (await store.manifest(name, heads[name].serial)).retired:
                del heads[name]
        proposals = await store.drafts("proposals")
        sources = {name: await store.source_state(name) for name in sorted({*heads, *proposals, *names})}
        return Known(up=True, heads=heads, proposals=proposals, sources=sources, beats=await store.beats())
    except BlockerError:
        return Known()


def list_rows(
    follower: Follower,
    limits: Mapping[str, float],
    canaries: Iterable[CanaryState],
    known: Known,
    now: float,
) -> list[ListRow]:
    """Every list of this node and of the store, the ones with something wrong first, then by name."""
    enforced = {entry.name: entry for entry in (table_lists(follower.matcher.table) if follower.matcher else ())}
    looks = sorted(canaries, key=lambda look: (look.list, look.gateway))
    rows = []
    for name in sorted({*enforced, *limits, *known.sources}):
        entry = enforced.get(name)
        age = None if entry is None else age_seconds(entry, follower.status.checked, now)
        seen = tuple((look.gateway, _canary_mark(look)) for look in looks if look.list == name)
        rows.append(
            ListRow(
                name=name,
                action="allow" if entry and entry.allow else "block",
                mode=entry.metadata.mode if entry else "",
                serial=entry.serial if entry else 0,
                entries=entry.metadata.entries if entry else 0,
                age=age,
                marks=_marks(name, entry, age, limits.get(name), known, seen),
                canaries=seen,
            )
        )
    return sorted(rows, key=lambda row: _gravity(row.marks[0]))


def node_rows(known: Known) -> list[NodeRow]:
    """Every node that lived within the last hour, by name."""
    rows = []
    for beat, silent in known.beats:
        behind = [
            f"{name} {beat.serials[name]} of {head.serial}" if name in beat.serials else f"{name} missing"
            for name, head in sorted(known.heads.items())
            if beat.serials.get(name) != head.serial
        ]
        rows.append(NodeRow(beat=beat, silent=silent, mark=_node_mark(beat, silent, ", ".join(behind))))
    return rows


def refusals(known: Known) -> list[tuple[str, float, str]]:
    """Lists whose source's last version was refused: name, when, why."""
    return [
        (name, float(state.get("last_at", 0)), state.get("last_detail", ""))
        for name, state in known.sources.items()
        if state.get("last_status") == "refused"
    ]


def _marks(
    name: str,
    entry: TableList | None,
    age: float | None,
    limit: float | None,
    known: Known,
    canaries: Iterable[tuple[str, Mark]],
) -> tuple[Mark, ...]:
    found = []
    status, detail = (known.sources.get(name, {}).get(field, "") for field in ("last_status", "last_detail"))
    if any(mark.level == "bad" for _, mark in canaries):
        found.append(Mark("bad", CANARY_FAILED))
    if status == "failed":
        found.append(Mark("bad", "failing", detail))
    if status == "refused":
        found.append(Mark("bad", "refused", detail))
    if age is not None and limit is not None and age > limit:
        found.append(Mark("bad", "stale"))
    head, proposal = known.heads.get(name), known.proposals.get(name)
    if entry is None and head is None:
        found.append(Mark("warn", "not published yet"))
    elif entry is None:
        found.append(Mark("warn", "not enforced here"))
    elif head is not None and head.serial != entry.serial:
        found.append(Mark("warn", "behind", f"the store has serial {head.serial}"))
    if proposal is not None and proposal.state == "waiting":
        found.append(Mark("warn", WAITING, f"{number(proposal.added)} added, {number(proposal.removed)} removed"))
    if not found:
        # Without a source nobody promised to look again: its age says when it was pushed.
        found.append(Mark("good", "fresh") if limit is not None else Mark("good", "pushed"))
    return tuple(sorted(found, key=_gravity))


def _canary_mark(look: CanaryState) -> Mark:
    return Mark("good", "ok") if look.reason is None else Mark("bad", look.reason.value.replace("-", " "))


def _node_mark(beat: Beat, silent: float, behind: str) -> Mark:
    if silent > SILENT_SECONDS:
        return Mark("bad", "silent", f"for {duration(silent)}")
    if beat.canaries_failed:
        return Mark("bad", CANARY_FAILED, f"{beat.canaries_failed} of its looks")
    if not beat.serials:
        return Mark("bad", "decides nothing yet")
    return Mark("warn", "behind", behind) if behind or beat.lag_seconds else Mark("good", "in step")


def _gravity(mark: Mark) -> int:
    return ("bad", "warn", "note", "good").index(mark.level)
