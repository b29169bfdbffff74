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
from typing import TYPE_CHECKING, Any

from blocker.errors import FormatError
from blocker.feeds.disk import write_whole
from blocker.feeds.sightings import Seen, Sighting
from blocker.feeds.steady import moved

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from blocker.feeds.addresses import Address
    from blocker.feeds.resolve import Failing
    from blocker.feeds.routes import NameId, RouteTable
    from blocker.store.sealing import Sealer

    State = tuple[dict[NameId, Seen], dict[NameId, Seen], dict[Address, float]]
    Failed = Mapping[NameId, Iterable[tuple[str, int, float]]]

_KIND, _VERSION = "blocker-routes", 3
_UNDATED = ([_KIND, 1], [_KIND, 2])
_CONTEXT = b"blocker route state"
# Names written between two turns of the event loop: a fraction of a millisecond.
_SLICE = 64


async def save(path: Path, sealer: Sealer, table: RouteTable, failed: Failed, now: float) -> None:
    """Write the file; it is there whole or as it was before.

    Args:
        path: The file.
        sealer: Seals it.
        table: All that it knows.
        failed: By name, for how long a resolver has failed for a family of it: `Resolvers.failed_for`.
        now: By the clock of the table's times.

    Raises:
        OSError: It cannot be written.

    Cost: 5 µs an address in the event loop, in slices; sealing and the disk in a thread.
    """
    lines: list[str] = []
    for count, line in enumerate(_lines(table, failed, now)):
        lines.append(json.dumps(line, separators=(",", ":")))
        if count % _SLICE == 0:
            await asyncio.sleep(0)
    lines.append(json.dumps(["end", len(lines)]))
    text = "\n".join(lines).encode()
    await asyncio.to_thread(lambda: write_whole(path, sealer.seal(text, context=_CONTEXT)))


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
                f"{path.name}: expected version {_VERSION} and its end; remove the file, or use the version that wrote it"
            )
        saved = float(first[2]) if dated else now
        for kind, key, *more in rest:
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


def _lines(table: RouteTable, failed: Failed, now: float) -> Iterator[list[Any]]:
    yield [_KIND, _VERSION, now]
    for kind, seen in (("name", table.names), ("popular", dict(table.popular))):
        for key, one in seen.items():
            at = [[str(address), sighting.first, sighting.gone] for address, sighting in one.at.items()]
            yield [kind, key, one.absent, one.most, at]
    for address, since in tuple(table.announced.items()):
        yield ["route", str(address), since]
    for key, pairs in failed.items():
        yield ["failing", key, list(pairs)]


def _seen(absent: float | None, most: int, at: Iterable[tuple[str, float, float | None]]) -> Seen:
    return Seen({ipaddress.ip_address(text): Sighting(first, gone) for text, first, gone in at}, absent, most)
