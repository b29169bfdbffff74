"""Which popular domains the lists send through the URL filter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine

ENTRIES = """\
http://encyclopedia.example/wiki/One
http://encyclopedia.example/wiki/Two
http://en.encyclopedia.example/wiki/One
http://*.photos.example/album/
http://whole.example/
http://unheard.test/page
http://notencyclopedia.example/page
"""
POPULAR = "1,photos.example\n2,encyclopedia.example\n3,news.example\n4,whole.example\n"


@pytest.fixture
def listed(empty: CommandLine) -> CommandLine:
    """Two lists that are enforced, one that is only counted, and one of exceptions."""
    for name, more, entries in (
        ("police", "", ENTRIES),
        ("other", "", "http://photos.example/one.jpg\n"),
        ("tried", 'mode = "shadow"\n', "http://news.example/page\n"),
        ("exceptions", 'action = "allow"\n', "http://news.example/appeal\n"),
    ):
        empty.source(name, f'format = "url"\npath = "{name}.txt"\n{more}', entries)
    assert empty("lists", "pull").code == 0
    (empty.directory / "popular.csv").write_text(POPULAR)
    empty.settings["guards__popular_domains"] = str(empty.directory / "popular.csv")
    return empty


def test_domains_with_listed_pages_are_counted_and_named_only_when_asked_for(listed: CommandLine) -> None:
    told = listed("lists", "inspected").out
    assert told == "2 of 4 popular domains have listed pages: other 1, police 2\n"
    assert "domains" not in listed("lists", "inspected", "--json").json
    found = listed("lists", "inspected", "--hosts", "--json").json
    assert (found["popular"], found["inspected"], found["pages"]) == (4, 2, 5)
    assert found["lists"] == {"police": 2, "other": 1}
    assert found["domains"] == [
        {"domain": "photos.example", "rank": 1, "pages": 2, "hosts": ["photos.example"], "lists": ["other", "police"]},
        {
            "domain": "encyclopedia.example", "rank": 2, "pages": 3, "lists": ["police"],
            "hosts": ["en.encyclopedia.example", "encyclopedia.example"],
        },
    ]  # fmt: skip
    shown = listed("lists", "inspected", "--hosts").out.splitlines()
    assert [line.split()[:3] for line in shown[1:]] == [
        ["rank", "domain", "pages"], ["1", "photos.example", "2"], ["2", "encyclopedia.example", "3"],
    ]  # fmt: skip


def test_none_is_said_as_such(listed: CommandLine) -> None:
    (listed.directory / "popular.csv").write_text("quiet.example\n")
    assert listed("lists", "inspected", "--hosts").out == "0 of 1 popular domains have listed pages\n"


def test_what_is_missing_is_named(listed: CommandLine) -> None:
    assert "guards.popular_domains" in listed.refused("lists", "inspected", guards__popular_domains="")
    (listed.data_dir / "keys" / "seal.key").unlink()
    assert "no seal key" in listed.refused("lists", "inspected")
