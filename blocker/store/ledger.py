"""The small notes in Redis beside the lists: when sources were looked at, counted hits, and which nodes live."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from blocker.errors import FormatError
from blocker.store import scripts
from blocker.store.beat import Beat
from blocker.store.keys import checked_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from blocker.store.connection import Session
    from blocker.store.keys import Keys

# Boots of one node whose last flush is remembered; a flush can only be late by as many restarts.
BOOTS_KEPT = 16
# How long a node that is silent is still shown: long enough to be missed.
BEAT_KEPT_SECONDS = 3600
# Cells in one answer of a scan, and in one fold: under 1 ms in which Redis serves nobody else.
SCAN_CELLS = 1000
FOLD_CELLS = 128


class Ledger:
    """The notes of one deployment; the part of Store that ingest, metrics and hit counters use."""

    def __init__(self, session: Session, keys: Keys) -> None:
        self._session = session
        self._keys = keys

    async def set_checked(self, list: str, when: float) -> None:  # noqa: A002 - the project's word
        """Note when a list's source was last looked at with success, in unix seconds."""
        field = checked_name("list", list)
        await self._session.command("note a check", "HSET", self._keys.checked, field, float(when))

    async def checked(self) -> dict[str, float]:
        """When each list's source was last looked at with success, in unix seconds."""
        found = await self._session.command("read the checks", "HGETALL", self._keys.checked)
        return {name.decode(): float(when) for name, when in found.items()}

    async def source_state(self, list: str) -> dict[str, str]:  # noqa: A002 - the project's word
        """What ingest remembers of a list's source; empty at first."""
        found = await self._session.command("read a source's state", "HGETALL", self._keys.source(list))
        return {name.decode(): value.decode() for name, value in found.items()}

    async def set_source_state(self, list: str, mapping: Mapping[str, str]) -> None:  # noqa: A002 - the project's word
        """Replace what ingest remembers of a list's source. Must hold no URL and no credential."""
        key = self._keys.source(list)
        fields = [text for item in mapping.items() for text in item]
        commands: Sequence[tuple[str, ...]] = [("DEL", key), ("HSET", key, *fields)]
        await self._session.transaction("note a source's state", commands if fields else commands[:1])

    async def flush_hits(self, node: str, boot: str, sequence: int, cells: Mapping[str, int]) -> None:
        """Add counts to a node's hit cells, once however often this flush is repeated.

        Args:
            node: The node's stable name.
            boot: Names this run of the node's process; unique, of any form, such as random hex.
            sequence: Number of the flush within the boot, from 1, growing. One that is not greater than the last
                counted one does nothing, so a flush of unknown outcome is repeated unchanged before the next one.
            cells: Cell to increment. Nothing is sent when there are none.
        """
        if cells:
            pairs = [part for cell, count in cells.items() for part in (cell, count)]
            keys = [self._keys.hits(node), self._keys.hits_sequence(node), self._keys.nodes]
            await self._session.script("flush hits", scripts.FLUSH, keys, node, boot, sequence, BOOTS_KEPT, *pairs)

    async def load_hits(self, node: str) -> dict[str, int]:
        """A node's hit cells and their counts since ever."""
        found = await self._session.command("read hits", "HGETALL", self._keys.hits(node))
        return {cell.decode(): int(count) for cell, count in found.items()}

    async def fleet_hits(self) -> dict[str, int]:
        """The cells of all nodes, summed; folded ones are not among them. Cost: a `load_hits` for each node."""
        cells: Counter[str] = Counter()
        for node in await self.hit_nodes():
            cells.update(await self.load_hits(node))
        return dict(cells)

    async def folded_hits(self, node: str) -> dict[str, int]:
        """What is left of a node's cells that were too old to be kept."""
        found = await self._session.command("read folded hits", "HGETALL", self._keys.hits_folded(node))
        return {cell.decode(): int(figure) for cell, figure in found.items()}

    async def scan_hits(self, node: str) -> AsyncIterator[dict[str, int]]:
        """A node's cells, some at a time, so that Redis is never held for long; one may come twice (SCAN)."""
        key, cursor = self._keys.hits(node), 0
        while True:
            found = await self._session.command("scan hits", "HSCAN", key, cursor, "COUNT", SCAN_CELLS)
            cursor, cells = int(found[0]), found[1]
            pairs = cells.items() if isinstance(cells, dict) else zip(cells[::2], cells[1::2], strict=True)
            yield {cell.decode(): int(count) for cell, count in pairs}
            if cursor == 0:
                return

    async def fold_hits(self, node: str, cells: Sequence[tuple[str, int, str, int]]) -> int:
        """Replace cells by a figure for all weeks together; each at once or not at all.

        Args:
            node: Whose cells.
            cells: Cell, its count as it was read, the cell without a week, and what is added there.

        Returns:
            How many were folded. One that has changed since it was read is left alone.
        """
        keys = [self._keys.hits(node), self._keys.hits_folded(node)]
        folded = 0
        for start in range(0, len(cells), FOLD_CELLS):
            words = [word for cell in cells[start : start + FOLD_CELLS] for word in cell]
            folded += int(await self._session.script("fold hits", scripts.FOLD, keys, *words))
        return folded

    async def releases(self) -> dict[str, str]:
        """What was published, by its name."""
        found = await self._session.command("read the releases", "HGETALL", self._keys.releases)
        return {name.decode(): text.decode() for name, text in found.items()}

    async def add_release(self, name: str, text: str, seen: int) -> str | None:
        """Write down what is published under a name, unless something is there already.

        Args:
            name: Its name.
            text: What is published.
            seen: How many releases `releases` returned.

        Returns:
            What stands there now, be it this or what was there; None if others came since, with nothing written.
        """
        keys = [self._keys.releases]
        stored: bytes = await self._session.script("note a release", scripts.RELEASE, keys, name, text, seen)
        return stored.decode() or None

    async def hit_nodes(self) -> list[str]:
        """The nodes that ever flushed hits, sorted."""
        found = await self._session.command("read the nodes", "SMEMBERS", self._keys.nodes)
        return sorted(name.decode() for name in found)

    async def beat(self, beat: Beat) -> None:
        """Note that a node lives, and what it says of itself."""
        keys = [self._keys.beats, self._keys.beat(beat.node)]
        await self._session.script("note a heartbeat", scripts.BEAT, keys, beat.node, beat.to_json(), BEAT_KEPT_SECONDS)

    async def beat_ended(self, node: str) -> None:
        """Forget that a node lives, since it ends as it was told to."""
        commands = [("ZREM", self._keys.beats, node), ("DEL", self._keys.beat(node))]
        await self._session.transaction("end a heartbeat", commands)

    async def beats(self) -> list[tuple[Beat, float]]:
        """The nodes that lived within the last hour, by name, and for how many seconds each has been silent.

        What cannot be read, because a newer Blocker wrote it perhaps, is left out.
        """
        now, *found = await self._session.script("read the heartbeats", scripts.BEATS, [self._keys.beats])
        names = [name.decode() for name in found[::2]]
        if not names:
            return []
        texts = await self._session.command("read the heartbeats", "MGET", *map(self._keys.beat, names))
        beats = []
        for at, text in zip(found[1::2], texts, strict=True):
            try:
                beats.append((Beat.from_json(text or b""), max(0.0, float(now) - float(at))))
            except FormatError:
                continue
        return sorted(beats, key=lambda pair: pair[0].node)
