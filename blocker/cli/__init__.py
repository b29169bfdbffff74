"""The command line: wiring only. Exit code 0: done; 1: refused or failed; 2: wrong usage."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command; the program's entry point."""
    # Squid starts its helper many times over, so that one loads what it needs and nothing of the other commands.
    if sys.argv[1:2] == ["squid-helper"]:
        from blocker.cli.squid_helper import main as helper

        del sys.argv[1]
        helper()
        return
    # What is loaded stays: looking through it again and again for garbage takes a tenth of the start, and looking
    # through all of it once more, later, holds a node up for 50 to 150 ms.
    gc.disable()
    from blocker.cli.app import main as program

    gc.freeze()
    gc.enable()
    program()


__all__ = ["main"]
