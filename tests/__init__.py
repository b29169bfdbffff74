"""Tests of Blocker."""
