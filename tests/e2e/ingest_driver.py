"""A process that pulls every source of a directory when told, each time in a forked process that can be killed.

Arguments: data directory, list directory, Redis URL. For each line on standard input it forks, writes the child's
process id, and once the child has ended, `done`. The child is reaped only at the next line, so that its process id
names nobody else meanwhile. Forking saves the interpreter's start, so that many kills hit the pull itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from blocker.errors import StoreError
from blocker.ingest.source import load_sources
from blocker.ingest.update import pull
from blocker.store.redis import Store
from blocker.store.sealing import Keyring


async def pull_all(data_dir: Path, lists_dir: Path, url: str) -> int:
    """Look at every source once; 0 if all are up to date."""
    keyring = Keyring.load_or_create(data_dir / "keys", create=True)
    try:
        async with await Store.open(url, "default", keyring=keyring) as store:
            results = [await pull(source, store, keyring) for source in load_sources(lists_dir).sources]
    except StoreError:
        return 1
    return 0 if all(result.good for result in results) else 1


def main() -> None:
    """Serve the lines of standard input."""
    data_dir, lists_dir, url = sys.argv[1:]
    child = 0
    for _line in sys.stdin:
        if child:
            os.waitpid(child, 0)
        child = os.fork()
        if not child:
            os._exit(asyncio.run(pull_all(Path(data_dir), Path(lists_dir), url)))
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        sys.stdout.write(f"done {ended.si_status if ended else 1}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
