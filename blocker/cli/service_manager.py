"""Tells systemd how the node is: ready, reading its configuration anew, ending, and that its event loop still turns.

The protocol of sd_notify(3): datagrams of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names. Without that
variable all of it does nothing. What is said and when:

- `READY=1` when the node decides, with its lists in `STATUS=`. Until then `EXTEND_TIMEOUT_USEC=`, again and again: a
  new deployment waits for its first list for as long as that takes, while a loop that hangs at the start is found out.
- `RELOADING=1` at SIGHUP, and `READY=1` when that is done.
- `STOPPING=1` at the stop.
- `WATCHDOG=1` from the event loop, three times in each `WATCHDOG_USEC`: a loop that hangs answers nobody, and only a
  restart helps it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

import structlog

from blocker.log import describe

if TYPE_CHECKING:
    from collections.abc import MutableMapping

log = structlog.get_logger(__name__)

#: Signs of life in each period of the watchdog: two may be late.
SIGNS_A_PERIOD = 3
#: Seconds between two signs of life where no watchdog watches; and by how much each of them extends the start.
START_SIGN_SECONDS = 10.0
START_EXTENSION_SECONDS = 60.0


class ServiceManager:
    """The manager that started this process, if one did.

    Args:
        environment: Where it said how to reach it. The variables are taken out, so that no child speaks in our name.
        pid: This process; a watchdog of another one is none of ours.
    """

    def __init__(self, environment: MutableMapping[str, str] | None = None, pid: int | None = None) -> None:
        environment = os.environ if environment is None else environment
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        watched = environment.pop("WATCHDOG_PID", "")
        ours = watched in ("", str(os.getpid() if pid is None else pid))
        self.watchdog_seconds = int(microseconds) / 1e6 if ours and microseconds.isdecimal() else 0.0
        self._ready = False
        self._failed = False
        self._socket: socket.socket | None = None
        if address[:1] in ("/", "@"):
            with contextlib.suppress(OSError):
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)
        # Linux' abstract names begin with a zero byte.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @property
    def there(self) -> bool:
        """Whether somebody listens."""
        return self._socket is not None

    def ready(self, status: str) -> None:
        """Say that the node decides, and with what; also once it has read its configuration anew."""
        self._ready = True
        self._say("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that the configuration is being read anew."""
        if self._ready:
            self._say("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def reloaded(self) -> None:
        """Say that the configuration was read; a fault in it is told in the log."""
        if self._ready:
            self._say("READY=1")

    def stopping(self) -> None:
        """Say that the node ends."""
        self._say("STOPPING=1", "STATUS=answers what is under way")

    def sign_of_life(self) -> None:
        """Say that the event loop turns."""
        if self._ready:
            self._say("WATCHDOG=1")
        else:
            self._say(
                "WATCHDOG=1", f"EXTEND_TIMEOUT_USEC={int(START_EXTENSION_SECONDS * 1e6)}", "STATUS=waits for its lists"
            )

    async def keep_telling(self) -> None:
        """Give signs of life until cancelled."""
        if self._socket is None:
            return
        seconds = self.watchdog_seconds / SIGNS_A_PERIOD or START_SIGN_SECONDS
        while True:
            self.sign_of_life()
            await asyncio.sleep(min(seconds, START_SIGN_SECONDS))

    def close(self) -> None:
        """Let the socket go; may be called twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _say(self, *lines: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            if not self._failed:  # a manager that is gone would be told of again and again
                log.warning("the service manager cannot be told", **describe(error))
            self._failed = True
