"""Ingest: sources are fetched, parsed, guarded and published; nothing half-done is ever visible."""
