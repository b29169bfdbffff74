"""Long work on the event loop, in turns: gateways that answer within a millisecond share it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# Names after whose first look what they left is set aside.
_NAMES = 1000


class Turns:
    """Lets others have the loop after so much work.

    Args:
        most: Pieces of work in one turn.
    """

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    async def spend(self, pieces: int = 1) -> None:
        """So many pieces were done."""
        self._left -= pieces
        if self._left <= 0:
            self._left = self._most
            await asyncio.sleep(0)


@contextlib.contextmanager
def made_to_stay() -> Iterator[None]:
    """While very much is made that stays: to look through it for garbage would hold up everything, half a second."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


class Young:
    """Sets aside what comes to stay while names are looked up for the first time, as `made_to_stay` does.

    Python looks through all that there is whenever it has grown by a quarter, which takes a third of a second with
    30 000 names. It is done for each thousand names and not for ever, since what dies later in a circle is then kept.
    """

    def __init__(self) -> None:
        self._left = 0

    def look(self, untried: int) -> None:
        """So many names were not looked up yet. Cost: 1 ms now and then."""
        if self._left - untried >= _NAMES or untried == 0 < self._left:
            gc.collect(1)  # what is young and dead by now
            gc.freeze()
            self._left = untried
        self._left = max(self._left, untried)


async def in_turns(work: Iterable[object]) -> None:
    """Do work that stops after each part of it, which is then one turn."""
    for _ in work:
        await asyncio.sleep(0)


# Entries of a list written as JSON in one turn: a third of a millisecond.
_ENTRIES = 64


async def encoded(message: Mapping[str, Any]) -> list[bytes]:
    """JSON of a message in pieces, none of them empty; its long lists are written in turns."""
    pieces = []
    for count, (name, value) in enumerate(message.items()):
        pieces.append(f"{',' if count else '{'}{json.dumps(name)}:".encode())
        if isinstance(value, list):
            await _list(value, pieces)
        else:
            pieces.append(_json(value))
    return [*pieces, b"}"] if pieces else [b"{}"]


async def _list(entries: Sequence[Any], pieces: list[bytes]) -> None:
    pieces.append(b"[")
    for at in range(0, len(entries), _ENTRIES):
        # Without its brackets, and with a comma before all but the first.
        pieces.append((b"," if at else b"") + _json(entries[at : at + _ENTRIES])[1:-1])
        await asyncio.sleep(0)
    pieces.append(b"]")


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
