"""What a route feed knew, on disk, so that a restart neither withdraws a route nor shortens a hold-down.

The file is one sealed text (see `blocker.store.sealing`): names are keyed digests in it, and addresses and times are
sealed with the deployment's seal key, so that a stolen copy shows neither a list nor where its pages are. The text is
one JSON value a line:

1. `["blocker-routes", 3, saved]`: what it is, its version, and when it was written; version 2 did not say when, and
   version 1 had no `failing`
2. `["name", id, absent, most, [[address, first, gone], …]]` for each listed name; times in Unix seconds or null
3. `["popular", …]`, the same for each popular name
4. `["route", address, since]` for each route
5. `["failing", id, [[resolver, family, seconds], …]]` for each listed name that fails: for how long, see `resolve`
6. `["end", lines]`: how many lines came before
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import time
from typing import TYPE_CHECKING

from blocker.errors import FormatError
from blocker.feeds.disk import write_whole
from blocker.feeds.sightings import Seen, Sighting
from blocker.feeds.steady import moved
from blocker.feeds.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from blocker.feeds.addresses import Address
    from blocker.feeds.resolve import Failing
    from blocker.feeds.routes import NameId, RouteTable
    from blocker.store.sealing import Sealer

    State = tuple[dict[NameId, Seen], dict[NameId, Seen], dict[Address, float]]
    Failed = Iterable[tuple[NameId, Iterable[tuple[str, int, float]]]]

#: Its name in the data directory.
STATE_FILE = "routes.state"
_KIND, _VERSION = "blocker-routes", 3
_UNDATED = ([_KIND, 1], [_KIND, 2])
_CONTEXT = b"blocker route state"
# Addresses written between two turns of the event loop: half a millisecond.
_SLICE = 256
# Seconds after which the file is written though nothing has changed: time goes by in it, see `steady.moved`.
_LEAST_SECONDS = 600.0


class StateFile:
    """The file of one table, whose lines are kept, so that only what has changed is written anew.

    Args:
        path: The file.
        sealer: Seals it.
        table: All that it knows. Nobody else takes what is `unsaved` in it.
    """

    def __init__(self, path: Path, sealer: Sealer, table: RouteTable) -> None:
        self._path, self._sealer, self._table = path, sealer, table
        self._lines: dict[tuple[str, NameId], str] = {}
        self._written: tuple[int, float] | None = None  # the table's moves, and when
        self.size = 0  # of the file
        table.unsaved.update(("name", name) for name in table.ids)
        table.unsaved.update(("popular", name) for name in table.popular)

    async def save(self, failed: Failed, now: float) -> bool:
        """Write the file if anything has changed; it is there whole or as it was before.

        Args:
            failed: By name, for how long a resolver has failed for a family of it: `Resolvers.failed_for`.
            now: By the clock of the table's times.

        Returns:
            Whether it was written.

        Raises:
            OSError: It cannot be written.

        Cost: 3 µs for each address of a name that has changed, in the event loop, in turns; the rest in a thread.
        """
        table, turns = self._table, Turns(_SLICE)
        same = self._written is not None and not table.unsaved and self._written[0] == table.moves
        if same and self._written is not None and now - self._written[1] < _LEAST_SECONDS:
            return False
        moves, self._written = table.moves, None
        while table.unsaved:
            kind, key = table.unsaved.pop()
            seen = table.popular.get(key) if kind == "popular" else table.seen(key)
            self._lines.pop((kind, key), None)
            if seen is not None:
                self._lines[kind, key] = _line(kind, key, seen)
                await turns.spend(1 + len(seen.at))
        more = []
        for address, since in tuple(table.announced.items()):
            more.append(_json(["route", str(address), since]))
            await turns.spend()
        for key, pairs in failed:
            more.append(_json(["failing", key, list(pairs)]))
            await turns.spend()
        lines = [_json([_KIND, _VERSION, now]), *self._lines.values(), *more]
        self.size = await asyncio.to_thread(self._write, lines)
        self._written = moves, now
        return True

    def _write(self, lines: list[str]) -> int:
        text = "\n".join((*lines, _json(["end", len(lines)]))).encode()
        data = self._sealer.seal(text, context=_CONTEXT)
        write_whole(self._path, data)
        return len(data)


def load(path: Path, sealer: Sealer, now: float) -> tuple[State, dict[NameId, Failing]] | None:
    """What the file says, for `RouteTable.restore` and `Lookups`; None if there is none. For a thread: 50 µs a name.

    Its times are moved so that hold-downs go on, however wrong the clock was or is: see `steady.moved`.

    Raises:
        FormatError: It is damaged or of another version.
        KeyMaterialError: It was sealed under another key.
        OSError: It cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    names: dict[NameId, Seen] = {}
    popular: dict[NameId, Seen] = {}
    announced: dict[Address, float] = {}
    failing: dict[NameId, Failing] = {}
    try:
        first, *rest, last = map(json.loads, sealer.open(data, context=_CONTEXT).splitlines())
        dated = first[:2] == [_KIND, _VERSION] and len(first) == 3
        if not (dated or first in _UNDATED) or last != ["end", len(rest) + 1]:
            raise FormatError(
                f"{path.name}: expected version {_VERSION} and its end; remove it, or use the program that wrote it"
            )
        saved = float(first[2]) if dated else now
        for at, (kind, key, *more) in enumerate(rest):
            if at % _SLICE == 0:
                time.sleep(0)  # others get their turn
            if kind == "route":
                announced[ipaddress.ip_address(key)] = float(more[0])
            elif kind == "failing":
                failing[key] = {(server, family): -float(seconds) for server, family, seconds in more[0]}
            else:
                {"name": names, "popular": popular}[kind][key] = _seen(*more)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path.name}: is no state of routes; remove the file") from None
    by = moved(saved, now)
    for seen in (*names.values(), *popular.values()):
        seen.move(by)
    return (names, popular, {address: since + by for address, since in announced.items()}), failing


def _line(kind: str, key: NameId, seen: Seen) -> str:
    at = [[str(address), sighting.first, sighting.gone] for address, sighting in seen.at.items()]
    return _json([kind, key, seen.absent, seen.most, at])


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _seen(absent: float | None, most: int, at: Iterable[tuple[str, float, float | None]]) -> Seen:
    return Seen({ipaddress.ip_address(text): Sighting(first, gone) for text, first, gone in at}, absent, most)
