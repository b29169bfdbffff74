"""Guards for tests that are about something else: limits that a few rules do not reach."""

from blocker.ingest.guard import Guards

FEW = Guards()
