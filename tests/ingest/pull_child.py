"""A process that pulls one source each time it is told to, in a child of its own that a test may kill.

    python -m tests.ingest.pull_child REDIS_URL SOURCE_FILE

The line `start` on standard input forks a child and writes its process id; `end` waits for it and writes its status.
Until then a dead child keeps its id. Everything is imported before the forks, so that a child is at work within
milliseconds and kills meet the pull and not its imports.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import NoReturn

from blocker.ingest.source import load_source
from blocker.ingest.update import pull
from blocker.store.redis import Store
from blocker.store.sealing import Keyring

KEYRING = Keyring(lookup=b"0123456789abcdef", seal=bytes(range(32)))


async def pull_once(url: str, file: Path) -> None:
    """One pull, as `blocker lists pull` does it."""
    async with await Store.open(url, "test", keyring=KEYRING) as store:
        result = await pull(load_source(file), store, KEYRING)
        assert result.good, result


def main() -> None:
    """See the module."""
    url, file = sys.argv[1], Path(sys.argv[2])
    child = 0
    for line in sys.stdin:
        if line == "start\n":
            child = os.fork()
            if not child:
                _child(url, file)
            answer = child
        else:
            answer = os.waitpid(child, 0)[1]
        print(answer, flush=True)  # noqa: T201 - this is how it answers


def _child(url: str, file: Path) -> NoReturn:
    status = 1
    try:
        asyncio.run(pull_once(url, file))
        status = 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
