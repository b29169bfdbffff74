"""The command line: wiring only. Exit code 0: done; 1: refused or failed; 2: wrong usage."""

from blocker.cli.app import main

__all__ = ["main"]
