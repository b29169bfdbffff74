"""Threads of a node that stand behind its event loop: they merge tables and write files while it decides."""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

#: What a thread steps back behind the event loop, where both want the same core: to about a tenth of it (nice(2)).
THREAD_NICENESS = 10


def background_threads() -> ThreadPoolExecutor:
    """An executor for `asyncio.to_thread`, whose threads step back."""
    return ThreadPoolExecutor(initializer=_step_back)


def _step_back() -> None:
    """Linux keeps the niceness by thread."""
    with contextlib.suppress(OSError):
        own = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, own, min(19, os.getpriority(os.PRIO_PROCESS, own) + THREAD_NICENESS))
