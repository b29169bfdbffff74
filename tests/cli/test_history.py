"""The commands that compare serials of a list and take a list back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine

DIFF_FIELDS = {"list", "from", "to", "added", "removed", "entries_from", "entries_to"}
ROLLBACK_FIELDS = {"list", "serial", "added", "removed", "entries", "unchanged", "digest"}


@pytest.fixture
def mine(empty: CommandLine) -> CommandLine:
    """A list `mine` at serial 3: one and two; then two, three and four; then three alone."""
    for entries in ("one.example\ntwo.example\n", "two.example\nthree.example\nfour.example\n", "three.example\n"):
        empty.source("mine", 'format = "domain"\npath = "mine.txt"\n', entries)
        assert empty("lists", "pull").code == 0
    return empty


class TestDiff:
    def test_counts(self, mine: CommandLine) -> None:
        told = mine("lists", "diff", "mine", "1", "2", "--json").json
        assert told.keys() == DIFF_FIELDS
        assert [told[name] for name in ("from", "to", "added", "removed")] == [1, 2, 2, 1]
        told = mine("lists", "diff", "mine", "1", "--json").json
        assert [told[name] for name in ("to", "added", "removed", "entries_from", "entries_to")] == [3, 1, 2, 2, 1]
        ran = mine("lists", "diff", "mine", "1", "2")
        assert (ran.out, ran.err) == ("mine: serial 1 to 2: +2 -1 rules (2 to 3)\n", "")

    def test_rules_are_printed_when_asked_for(self, mine: CommandLine) -> None:
        ran = mine("lists", "diff", "mine", "1", "2", "--rules")
        assert ran.out.splitlines()[1:] == [
            "+\tdomain\thttp://*.four.example",
            "+\tdomain\thttp://*.three.example",
            "-\tdomain\thttp://*.one.example",
        ]
        assert ran.err == ""
        told = mine("lists", "diff", "mine", "1", "2", "--rules", "--json").json
        assert told.keys() == DIFF_FIELDS | {"added_rules", "removed_rules"}
        assert told["removed_rules"] == ["domain\thttp://*.one.example"]

    def test_what_the_limit_leaves_out_is_said(self, mine: CommandLine) -> None:
        ran = mine("lists", "diff", "mine", "1", "2", "--rules", "--limit", "1")
        assert len(ran.out.splitlines()) == 3
        assert ran.err == "1 more added; see them with --limit 0\n"
        assert len(mine("lists", "diff", "mine", "1", "2", "--rules", "--limit", "0").out.splitlines()) == 4

    def test_refusals(self, mine: CommandLine) -> None:
        assert "has no serial 7" in mine.refused("lists", "diff", "mine", "7")
        assert "other" in mine.refused("lists", "diff", "other", "1")
        assert mine("lists", "diff", "mine", "0").code == 2


class TestRollback:
    def test_the_old_list_decides_again_and_a_pull_leaves_it(self, mine: CommandLine) -> None:
        told = mine("lists", "rollback", "mine", "1", "--reason", "a bad update", "--json").json
        assert told.keys() == ROLLBACK_FIELDS
        assert [told[name] for name in ("serial", "added", "removed", "entries")] == [4, 2, 1, 2]
        assert mine("lists", "pull").code == 0
        rows = mine("check", "one.example", "three.example", "--json").json_lines
        assert [(row["verdict"], row["serial"]) for row in rows] == [("block", 4), ("allow", None)]
        log = mine("lists", "log", "mine", "--json").json
        assert [row["reason"] for row in log] == ["rollback to 1: a bad update", "pull", "pull", "pull"]
        assert log[0]["digest"] == log[3]["digest"] == told["digest"]

    def test_for_people(self, mine: CommandLine) -> None:
        ran = mine("lists", "rollback", "mine", "2")
        assert (ran.out, ran.err) == ("mine: serial 4 is serial 2 again: +2 -0 rules, 3 now\n", "")
        ran = mine("lists", "rollback", "mine", "2")
        assert (ran.code, ran.out) == (0, "mine: serial 4 is that already; nothing was written\n")

    def test_refusals(self, mine: CommandLine) -> None:
        assert "has no serial 9" in mine.refused("lists", "rollback", "mine", "9")
        assert mine.refused("lists", "rollback", "other", "1") == "blocker: list other is not in the store"
        told = mine.refused("lists", "rollback", "mine", "1", "--reason", "one.example is no such page")
        assert "without an address" in told
        assert "one.example" not in told
        assert mine("lists", "rollback", "mine").code == 2
        assert len(mine("lists", "log", "mine", "--json").json) == 3
