"""Threads of a node that stand behind its event loop: they merge tables and write files while it decides."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

#: What a thread steps back behind the event loop, where both want the same core: to about a tenth of it (nice(2)).
THREAD_NICENESS = 10


# How long a thread may go on with Python while the event loop wants to, in seconds; Python's own 5 ms are a gap.
_SWITCH_SECONDS = 0.0005


def favour_the_loop() -> None:
    """Call it once the process has all that it keeps: nothing but the loop's own work holds it up from now on.

    What exists now is never searched for garbage again: it is most of what there is, and the search stops everything.
    """
    gc.freeze()
    sys.setswitchinterval(_SWITCH_SECONDS)


def background_threads() -> ThreadPoolExecutor:
    """An executor for `asyncio.to_thread`, whose threads step back."""
    return ThreadPoolExecutor(initializer=_step_back)


def _step_back() -> None:
    """Linux keeps the niceness by thread."""
    with contextlib.suppress(OSError):
        own = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, own, min(19, os.getpriority(os.PRIO_PROCESS, own) + THREAD_NICENESS))
