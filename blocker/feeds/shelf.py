"""What a node served of its zones, on disk: so that a restart, or a store that is away, costs no secondary a whole
zone.

One file a zone, sealed (see `blocker.store.sealing`), since it has listed names in clear text. Sealing also finds every
change and every cut. The text inside:

1. one line of JSON: `format` (["blocker-zone", 1]); `origin`; `said`, what its records are (see `Plan.said`), `policy`
   and `carries`, from which it follows whether the zone is still the one that is configured; `serial` and `mark` of
   the version; `lists`, the names of those that it was made from; `steps`, for each difference the serial that it
   leads away from, and the bytes of its two parts; `bytes`, those of the zone
2. the zone, then of each difference what it takes away and what it adds, as `Zone.to_bytes` has them

It is written at each version, and is never larger than twice the zone and a little, as the history in memory is. A file
that cannot be used is told of and left behind: secondaries take the zone whole then.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from blocker._native import Zone, ZoneDelta
from blocker.errors import BlockerError, FormatError
from blocker.feeds.disk import write_whole
from blocker.feeds.history import Step
from blocker.feeds.zone import Version
from blocker.log import describe

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from blocker.feeds.zone import Plan
    from blocker.store.sealing import Sealer

log = structlog.get_logger(__name__)

_FORMAT = ["blocker-zone", 1]
_SUFFIX = ".zone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What was on disk.

    Attributes:
        version: The last one that was served.
        steps: What led to it.
        lists: What it was made from.
        current: Whether the zone is still configured as it was, so that the version can be served; otherwise only its
            serial counts.
    """

    version: Version
    steps: Sequence[Step]
    lists: frozenset[str]
    current: bool


class Shelf:
    """The files of a node's zones. Calls block on the disk: use a thread.

    Args:
        directory: Where; made when first needed.
        sealer: Of the deployment.
    """

    def __init__(self, directory: Path, sealer: Sealer) -> None:
        self._directory = directory
        self._sealer = sealer

    def save(self, kept: Kept) -> None:
        """Keep a version and its history. What fails is told, and costs secondaries a whole zone after a restart.

        Cost: about 10 ms for each MiB of names.
        """
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            name = kept.version.plan.name
            sealed = self._sealer.seal(_written(kept), context=_context(name))
            write_whole(self._path(name), sealed)
        except OSError as error:
            log.error("a zone's history was not written", zone=kept.version.plan.name, **describe(error))  # noqa: TRY400 - no values

    def load(self, plan: Plan) -> Kept | None:
        """What is kept of a zone; None if there is nothing that can be used, which is told."""
        try:
            sealed = self._path(plan.name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.error("a zone's history is not used", zone=plan.name, **describe(error))  # noqa: TRY400 - no values
            return None
        try:
            return _read(self._sealer.open(sealed, context=_context(plan.name)), plan)
        except BlockerError as error:
            log.warning("a zone's history is not used; it is sent whole", zone=plan.name, **describe(error))
            return None

    def keep_only(self, names: Collection[str]) -> None:
        """Remove what there is of zones that are configured no more."""
        with contextlib.suppress(OSError):
            for path in self._directory.glob(f"*{_SUFFIX}"):
                if path.stem not in names:
                    path.unlink()

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}{_SUFFIX}"


def _context(name: str) -> bytes:
    return b"blocker zone " + name.encode()


def _written(kept: Kept) -> bytes:
    version = kept.version
    settings = version.plan.settings
    whole = version.zone.to_bytes()
    parts = [(step.delta.removed.to_bytes(), step.delta.added.to_bytes()) for step in kept.steps]
    head = {
        "format": _FORMAT, "origin": settings.origin, "said": version.plan.said, "policy": settings.policy,
        "carries": settings.carries, "serial": version.serial, "mark": version.mark, "lists": sorted(kept.lists),
        "steps": [(step.serial, *map(len, two)) for step, two in zip(kept.steps, parts, strict=True)],
        "bytes": len(whole),
    }  # fmt: skip
    return b"".join((json.dumps(head).encode(), b"\n", whole, *(part for two in parts for part in two)))


def _read(text: bytes, plan: Plan) -> Kept:
    line, _, rest = text.partition(b"\n")
    try:
        head = json.loads(line)
        if head["format"] != _FORMAT:
            raise FormatError(f"zone {plan.name}: expected {_FORMAT}; it was kept by another version of this program")
        pieces = _cut(rest, [head["bytes"], *(size for step in head["steps"] for size in step[1:])])
        whole = Zone.from_bytes(next(pieces))
        steps = []
        for serial, *_ in head["steps"]:
            removed, added = Zone.from_bytes(next(pieces)), Zone.from_bytes(next(pieces))
            steps.append(Step(int(serial), ZoneDelta.of_parts(removed, added)))
        now = (plan.settings.origin, plan.said, plan.settings.policy, plan.settings.carries)
        then = (head["origin"], head["said"], head["policy"], head["carries"])
        version = Version(plan=plan, serial=int(head["serial"]), zone=whole, mark=str(head["mark"]))
        return Kept(version=version, steps=steps, lists=frozenset(head["lists"]), current=now == then)
    except (ValueError, TypeError, KeyError, StopIteration) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"zone {plan.name}: what is kept is no zone") from None


def _cut(text: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    if sum(sizes) != len(text) or min(sizes) < 0:
        raise ValueError("the parts are not the whole")
    at = 0
    for size in sizes:
        yield text[at : at + size]
        at += size
