"""Whole deployments: real nodes, real ingest, a real Redis, each in a process of its own that can be killed."""
