"""The samples in lists/formats: one for each format that the lists beside it do not show, without a bad line."""

from __future__ import annotations

from pathlib import Path

from blocker.ingest.formats import FORMATS
from blocker.ingest.source import load_sources

SAMPLES = Path(__file__).parents[2] / "lists" / "formats"


def test_every_sample_is_read_without_a_bad_line() -> None:
    loaded = load_sources(SAMPLES)
    assert loaded.errors == ()
    assert {source.format for source in loaded.sources} == FORMATS.keys() - {"url", "domain", "hosts"}
    for source in loaded.sources:
        assert source.path is not None
        parser = source.list_format.parser(source.format_options)
        parser.feed(source.path.read_bytes())
        assert len(parser.finish()) >= 2
        assert parser.errors == []
