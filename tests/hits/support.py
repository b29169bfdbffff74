"""What the tests of hits share: a clock that is set, a matcher with known verdicts, a store that fails when told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import blocker
from blocker.errors import StoreUnavailable
from blocker.matcher import Policy

if TYPE_CHECKING:
    from collections.abc import Mapping

BAD = "http://bad.example/page"
WORSE = "http://worse.example/page"
SHADOWED = "http://shadowed.example/page"
GOOD = "http://good.example/"


def small_matcher() -> blocker.Matcher:
    """Two blocking lists, a shadow list, a list of exceptions, and a policy that blocks what is no URL."""
    return blocker.Matcher.build(
        {"first": [BAD], "second": [BAD, WORSE], "quiet": [SHADOWED, BAD], "pardon": ["http://bad.example/pardoned"]},
        allow=("pardon",),
        shadow=("quiet",),
        serials={"first": 7},
        policies=[Policy(name="strict", on_invalid="block"), Policy(name="hushed", lists={"second": "shadow"})],
    )


class Clock:
    """Unix seconds that a test sets."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Status:
    """A follower's status."""

    store_up: bool = True
    failures: int = 0
    lag_seconds: float = 0.0
    epoch: str | None = "5f0c"
    last_sync: float | None = 1_790_000_000.0
    checked: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    source: Literal["store", "snapshot", "none"] = "store"
    detail: str = ""


@dataclass
class Followed:
    """A follower that follows nothing: a test puts the matcher and the status in."""

    matcher: blocker.Matcher | None = field(default_factory=small_matcher)
    status: Status = field(default_factory=Status)


class MemoryStore:
    """Keeps hits as the store promises to, and fails when told: before it counted, or after, with the answer lost."""

    def __init__(self, stored: Mapping[str, int] | None = None) -> None:
        self.cells: Counter[str] = Counter(stored or {})
        self.fails: Literal["", "before", "after"] = ""
        self.batches: list[tuple[str, int, dict[str, int]]] = []
        self._last: dict[str, int] = {}

    async def flush_hits(self, node: str, boot: str, sequence: int, cells: Mapping[str, int]) -> None:
        """Count once for each (boot, sequence)."""
        assert node == "node"
        self.batches.append((boot, sequence, dict(cells)))
        if self.fails == "before":
            raise StoreUnavailable("away")
        if sequence > self._last.get(boot, 0):
            self._last[boot] = sequence
            self.cells.update(cells)
        if self.fails == "after":
            raise StoreUnavailable("no answer")

    async def load_hits(self, node: str) -> dict[str, int]:
        """All cells."""
        assert node == "node"
        if self.fails:
            raise StoreUnavailable("away")
        return dict(self.cells)

    async def folded_hits(self, node: str) -> dict[str, int]:
        """Nothing is old here."""
        assert node == "node"
        return {}
