"""The spoe gateway beside the check gateway: pipelined decisions a second beside 32 keep-alive connections, in turns.

    python -m loadtests.spoe [rounds]

Needs a C compiler. 1 M rules; one question in a hundred is listed; every answer is checked. The check gateway asked
with as many requests in flight is shown beside them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from blocker.gateways.spoe import hello, notify
from loadtests.measure import Figures, Load, flawless, free_port, gateway, middle, ratio, rounds, server, show
from loadtests.workload import urls, write_questions

# HAProxy keeps some connections to an agent and has many frames in flight on each.
CONNECTIONS, DEPTH = 4, 128


def check_question(url: str) -> bytes:
    """As nginx asks."""
    return f"GET /nginx HTTP/1.1\r\nHost: blocker\r\nX-Original-URL: {url}\r\n\r\n".encode()


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        load = Load(directory)
        spop = write_questions(directory / "spop", ((notify(url.encode()), listed) for url, listed in urls()), hello())
        http = write_questions(directory / "http", ((check_question(url), listed) for url, listed in urls()))
        ports = {"spoe": free_port(), "check": free_port()}
        with (
            server(gateway("spoe", ports["spoe"]), ports["spoe"]) as spoe,
            server(gateway("check", ports["check"]), ports["check"]) as check,
        ):
            found: dict[str, list[Figures]] = {"check": [], "spoe": [], "check, pipelined": []}
            for _ in range(rounds()):
                found["check"].append(load.run("http", http, check, ports["check"], connections=32))
                found["spoe"].append(load.run("spop", spop, spoe, ports["spoe"], connections=CONNECTIONS, depth=DEPTH))
                found["check, pipelined"].append(
                    load.run("http", http, check, ports["check"], connections=CONNECTIONS, depth=DEPTH)
                )
    show("spoe", found)
    ratio(
        "spoe, of the check gateway, rate", middle(found["spoe"], "rate") / middle(found["check"], "rate"), "4 or more"
    )
    ratio(
        "spoe, of the check gateway, by CPU", middle(found["check"], "cpu") / middle(found["spoe"], "cpu"), "4 or more"
    )
    flawless([row for rows in found.values() for row in rows])


if __name__ == "__main__":
    main()
