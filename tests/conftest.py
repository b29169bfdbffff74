"""What every module of tests must leave behind: nothing that runs.

A thread that spins where its peer has gone, or a server nobody stops, slows down and spoils every test after it, and
the one that fails is never the one at fault. So each module answers for its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.redis_server import LASTING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Time has its own tests; a busy machine must not fail the others.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

# What was told to end may take its time on a busy machine; nothing waits this long where all has ended.
ENDING_SECONDS = 20
# Threads that a library starts once for the process and keeps, by a part of their names.
LIBRARY_THREADS = (
    "_run_safe_shutdown_loop",  # pycares: closes channels of resolvers that nobody holds any more
    "_poll_wrapper",  # grpc.aio: waits for what happens, for all its event loops
)
# And a process, by a part of its command: it removes what others of the pool's would leave in memory.
LIBRARY_PROCESS = b"multiprocessing.resource_tracker"


def threads() -> set[threading.Thread]:
    """All that run but those of libraries."""
    return {thread for thread in threading.enumerate() if not any(name in thread.name for name in LIBRARY_THREADS)}


def children() -> dict[int, str]:
    """The child processes, also those that ended and nobody waited for, with their names; none that is to stay."""
    lasting = {server.process.pid for server in LASTING if server.process is not None}
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # a process that ended meanwhile
            number, _, rest = stat.read_text("utf-8", "replace").partition(" (")
            name, _, fields = rest.rpartition(") ")  # a name may hold anything
            known = int(number) in lasting or LIBRARY_PROCESS in stat.with_name("cmdline").read_bytes()
            if int(fields.split()[1]) == os.getpid() and not known:
                found[int(number)] = name
    return found


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    """Fails a module that leaves threads or child processes; the first fixture to begin looks when all others ended."""
    threads_before, children_before = threads(), children()
    yield
    deadline = time.monotonic() + ENDING_SECONDS
    while True:
        left = [
            *(f"thread {thread.name}" for thread in threads() - threads_before),
            *(f"process {name} ({number})" for number, name in children().items() if number not in children_before),
        ]
        if not left:
            return
        assert time.monotonic() < deadline, f"left running: {', '.join(left)}"
        time.sleep(0.02)
