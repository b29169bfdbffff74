"""The command line: wiring only. Exit code 0: done; 1: refused or failed; 2: wrong usage."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; the program's entry point."""
    # Squid starts its helper many times over, so that one loads what it needs and nothing of the other commands.
    if sys.argv[1:2] == ["squid-helper"]:
        from blocker.cli.squid_helper import main as helper

        del sys.argv[1]
        helper()
        return
    from blocker.cli.app import main as program

    program()


__all__ = ["main"]
