"""What the store says of lists beyond what this node enforces, looked at now and then, for the metrics.

| metric                          | labels       | is                                                               |
|---------------------------------|--------------|------------------------------------------------------------------|
| `blocker_list_head_serial`      | list         | the newest serial in the store                                   |
| `blocker_list_changed_rules`    | list, change | rules that it added and removed                                  |
| `blocker_list_age_limit_seconds` | list         | from which `blocker_list_age_seconds` on the list is stale       |
| `blocker_list_expiry_seconds`   | list         | until its next rules end (UTC day); nodes that ingest            |
| `blocker_pull_result`           | list, result | 1 for how the last look at its source ended, else 0              |
| `blocker_pull_age_seconds`      | list         | seconds since that                                               |
| `blocker_proposals_waiting`     | list         | 1 if a version waits for a second person, as guards asked        |
| `blocker_proposal_age_seconds`  | list         | seconds since it was proposed; only while it waits               |
| `blocker_source_errors`         |              | files of sources that cannot be used; nodes that ingest          |

A scrape asks nobody: it shows what was found last. While the store is away that stays, and `blocker_store_up` says so.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, get_args

from blocker.control.console.state import Known, known_of
from blocker.errors import BlockerError
from blocker.hits.families import Family
from blocker.ingest.update import Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import date

    from blocker.store.redis import Store

# Seconds between two looks: a few small reads, and one for each list.
LOOK_SECONDS = 15.0
# Lists that are shown, the first by name: a table has 64, and as many may wait for their first publish.
_MOST_LISTS = 128
_RESULTS: tuple[str, ...] = get_args(Status)


class ListWatch:
    """Looks at the lists of a store; see `blocker.hits.families.FamilySource`.

    Args:
        store: Opens the store, or raises StoreUnavailable.
        enforced: Names of the lists that this node enforces.
        limits: List → the age in seconds from which on it is stale.
        expiries: List → the day on which its next rules end; None if this node does not ingest.
        source_errors: What is wrong with files of sources; None if this node does not ingest.
        clock: Unix seconds now.
    """

    def __init__(
        self,
        store: Callable[[], Awaitable[Store]],
        enforced: Callable[[], Iterable[str]],
        limits: Callable[[], Mapping[str, float]],
        expiries: Callable[[], Mapping[str, date] | None],
        source_errors: Callable[[], Sequence[str] | None],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._enforced = enforced
        self._limits = limits
        self._expiries = expiries
        self._source_errors = source_errors
        self._clock = clock
        self._known = Known()
        self._changes: dict[str, tuple[int, int, int]] = {}  # serial, rules added, rules removed

    async def look(self) -> bool:
        """Look once; whether the store answered. Without an answer everything stays as it was."""
        try:
            store = await self._store()
            known = await known_of(store, [*self._enforced(), *self._limits()])
            if not known.up:
                return False
            changes = {}
            for name, head in known.heads.items():
                kept = self._changes.get(name)
                if kept is None or kept[0] != head.serial:
                    manifest = await store.manifest(name, head.serial)
                    kept = (head.serial, manifest.added, manifest.removed)
                changes[name] = kept
        except BlockerError:
            return False
        self._known, self._changes = known, changes
        return True

    def families(self) -> Iterator[Family]:
        """Cost at 64 lists: 0.5 ms."""
        names = sorted({*self._known.heads, *self._known.sources})[:_MOST_LISTS]
        yield from self._versions(names)
        yield from self._looks(names)
        yield from self._proposals(names)
        errors = self._source_errors()
        if errors is not None:
            family = Family("blocker_source_errors", "gauge", "Files of sources that cannot be used.")
            family.add(len(errors))
            yield family

    def _versions(self, names: Iterable[str]) -> Iterator[Family]:
        head = Family("blocker_list_head_serial", "gauge", "Newest serial in the store.", ["list"])
        changed = Family(
            "blocker_list_changed_rules", "gauge", "Rules that the newest serial added and removed.",
            ["list", "change"],
        )  # fmt: skip
        limit = Family("blocker_list_age_limit_seconds", "gauge", "Age from which on the list is stale.", ["list"])
        expiry = Family("blocker_list_expiry_seconds", "gauge", "Until the day on which the next rules end.", ["list"])
        limits, expiries, now = self._limits(), self._expiries() or {}, self._clock()
        for name in names:
            if name in self._known.heads:
                head.add(self._known.heads[name].serial, name)
            if name in self._changes:
                _, added, removed = self._changes[name]
                changed.add(added, name, "added")
                changed.add(removed, name, "removed")
            if name in limits:
                limit.add(limits[name], name)
            if name in expiries:
                ends = datetime.combine(expiries[name], datetime.min.time(), UTC).timestamp()
                expiry.add(max(0.0, ends - now), name)
        yield from (head, changed, limit, expiry)

    def _looks(self, names: Iterable[str]) -> Iterator[Family]:
        result = Family(
            "blocker_pull_result", "gauge", "How the last look at the source ended: 1, else 0.", ["list", "result"]
        )
        age = Family("blocker_pull_age_seconds", "gauge", "Seconds since the last look at the source.", ["list"])
        now = self._clock()
        for name in names:
            state = self._known.sources.get(name, {})
            if state.get("last_status") not in _RESULTS:
                continue  # nobody has looked
            for one in _RESULTS:
                result.add(state["last_status"] == one, name, one)
            age.add(max(0.0, now - float(state.get("last_at", 0))), name)
        yield from (result, age)

    def _proposals(self, names: Iterable[str]) -> Iterator[Family]:
        waiting = Family(
            "blocker_proposals_waiting", "gauge", "Whether a version waits for a second person: 1 or 0.", ["list"]
        )
        age = Family("blocker_proposal_age_seconds", "gauge", "Seconds since that was proposed.", ["list"])
        now = self._clock()
        for name in names:
            proposal = self._known.proposals.get(name)
            waits = proposal is not None and proposal.state == "waiting"
            waiting.add(waits, name)
            if proposal is not None and waits:
                age.add(max(0.0, now - proposal.created), name)
        yield from (waiting, age)
