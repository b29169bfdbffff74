"""Tests of the store: real Redis servers throughout."""
