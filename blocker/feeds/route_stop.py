"""An operator's stop of all routes, on disk by itself: it outlasts restarts, and a state of routes that is damaged.

The file is one sealed text (see `blocker.store.sealing`), JSON: `["blocker-routes-stopped", 1, since, reason]`, with
the time in Unix seconds. It is there while the stop lasts and no longer.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from blocker.errors import BlockerError
from blocker.feeds.disk import write_whole
from blocker.log import describe

if TYPE_CHECKING:
    from pathlib import Path

    from blocker.store.sealing import Sealer

log = structlog.get_logger(__name__)

STOP_FILE = "routes.stopped"
MAX_REASON = 200
_HEAD = ["blocker-routes-stopped", 1]
_CONTEXT = b"blocker routes stopped"


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop of all routes.

    Attributes:
        since: Unix seconds.
        reason: Why; empty if nobody said it.
    """

    since: float
    reason: str


class StopFile:
    """Where a stop is kept. Its methods block, and are for a thread.

    Args:
        path: The file.
        sealer: Seals it.
    """

    def __init__(self, path: Path, sealer: Sealer) -> None:
        self._path = path
        self._sealer = sealer

    def load(self) -> Stop | None:
        """The stop under way, if there is one. A file that cannot be read is one too: somebody wanted no routes."""
        try:
            head, version, since, reason = json.loads(self._sealer.open(self._path.read_bytes(), context=_CONTEXT))
            if [head, version] != _HEAD:
                raise ValueError  # noqa: TRY301 - as what else is wrong with it
            return Stop(float(since), str(reason))
        except FileNotFoundError:
            return None
        except (BlockerError, OSError, ValueError, TypeError) as error:
            log.error("the stop of all routes cannot be read, and holds", **describe(error))  # noqa: TRY400 - no values
            return Stop(0.0, f"{self._path.name} cannot be read")

    def save(self, stop: Stop) -> None:
        """Keep a stop.

        Raises:
            OSError: It cannot be written.
        """
        text = json.dumps([*_HEAD, stop.since, stop.reason]).encode()
        write_whole(self._path, self._sealer.seal(text, context=_CONTEXT))

    def remove(self) -> None:
        """There is no stop any more.

        Raises:
            OSError: It cannot be removed.
        """
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
