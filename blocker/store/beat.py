"""A heartbeat: what a node says of itself to whoever looks after all of them. No address, and nothing of a request."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from blocker.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What a node says of itself.

    Attributes:
        node: Its name.
        version: Of Blocker.
        started: Unix seconds.
        serials: List → the serial that it enforces.
        lag_seconds: How far it is behind the store.
        canaries_failed: How many of its last looks at canaries were not ok.
    """

    node: str
    version: str
    started: float
    serials: Mapping[str, int]
    lag_seconds: float
    canaries_failed: int

    def to_json(self) -> str:
        """The stored form."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Beat:
        """Read the stored form back; fields of a newer Blocker are passed over.

        Raises:
            FormatError: It is none.
        """
        try:
            fields = json.loads(text)
            return cls(
                node=str(fields["node"]),
                version=str(fields["version"]),
                started=float(fields["started"]),
                serials={str(name): int(serial) for name, serial in fields["serials"].items()},
                lag_seconds=float(fields["lag_seconds"]),
                canaries_failed=int(fields["canaries_failed"]),
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise FormatError("heartbeat: cannot be read") from None
