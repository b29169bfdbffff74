"""Blocker: an open, asynchronous URL-blocklist resolver. These are its public names, nothing else."""

from blocker._native import Decision, canonicalize, surt
from blocker.errors import BlockerError, InvalidRule, InvalidURL
from blocker.matcher import ListOptions, Matcher, Policy
from blocker.rules import Kind, Rule, Verdict

__all__ = [
    "BlockerError",
    "Decision",
    "InvalidRule",
    "InvalidURL",
    "Kind",
    "ListOptions",
    "Matcher",
    "Policy",
    "Rule",
    "Verdict",
    "canonicalize",
    "surt",
]
