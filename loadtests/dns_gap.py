"""Asks a resolver about one name 2000 times a second until SIGTERM: `dns_gap.py PORT NAME`.

Then it tells, as JSON, the longest time that passed from a question until any answer arrived, in seconds, and how many
questions there were. When an answer arrived is what the system says (SO_TIMESTAMPNS), so this process may be late.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import struct
import sys
import time
from bisect import bisect_left

from blocker.gateways.dns_probe import query

SECONDS = 0.0005
# How long the last answers may take once no more questions are asked.
LAST_SECONDS = 2.0
_SO_TIMESTAMPNS = 35  # socket(7); Python has no name for it
_QUEUE_BYTES = 4 * 2**20


def main() -> None:
    """Ask, and tell."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
    message = query(sys.argv[2], 1)
    asked, answered = [], []
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE_BYTES)
        one.connect(("127.0.0.1", int(sys.argv[1])))
        one.setblocking(False)

        def receive() -> None:
            while True:
                try:
                    _, ancillary, _, _ = one.recvmsg(4096, 256)
                except OSError:
                    return
                seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
                answered.append(seconds + nanoseconds / 1e9)

        due = time.time()
        while not stopped:
            now = time.time()
            if now >= due:
                asked.append(now)
                with contextlib.suppress(OSError):  # its queue is full: it does not answer
                    one.send(message)
                due = now + SECONDS
            receive()
            time.sleep(max(0.0, min(SECONDS, due - time.time())))
        end = time.time() + LAST_SECONDS
        while time.time() < end:
            receive()
            if answered and answered[-1] >= asked[-1]:
                break
            time.sleep(SECONDS)
    answered.sort()
    longest = max(answered[at] - when for when in asked if (at := bisect_left(answered, when)) < len(answered))
    json.dump({"gap": longest, "asked": len(asked), "answered": len(answered)}, sys.stdout)


if __name__ == "__main__":
    main()
