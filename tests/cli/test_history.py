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


class TestExport:
    def test_to_standard_output(self, mine: CommandLine) -> None:
        ran = mine("lists", "export", "mine", "--serial", "1", "--format", "domain")
        assert (ran.code, ran.err) == (0, "")
        assert ran.out == "# list mine, serial 1\none.example\ntwo.example\n"
        assert mine("lists", "export", "mine").out == "# list mine, serial 3\nhttp://*.three.example\n"

    def test_what_is_left_out_is_told(self, mine: CommandLine) -> None:
        ran = mine("lists", "export", "mine", "--format", "hosts")
        assert (ran.code, ran.out) == (0, "# list mine, serial 3\n")
        assert ran.err == "mine: left out, since format hosts cannot carry them: rules of 1 entries\n"
        ran = mine("lists", "export", "mine", "--format", "hosts", "--domain-kind", "domain")
        assert ran.out.splitlines()[1:] == ["0.0.0.0 three.example"]

    @pytest.mark.parametrize("name", ["sample-domains", "sample-hosts", "sample-urls"])
    def test_a_source_reads_it_back_to_the_same_trie(self, blocker: CommandLine, name: str) -> None:
        form = name.removeprefix("sample-").replace("domains", "domain").replace("urls", "url")
        path = blocker.lists_dir / "copy.txt"
        told = blocker("lists", "export", name, "--format", form, "--output", str(path), "--json").json
        before = blocker("lists", "show", name, "--json").json
        assert (told["written"], told["left_out"]) == (before["entries"], 0)
        assert path.stat().st_mode & 0o777 == 0o600
        (blocker.lists_dir / "copy.toml").write_text(f'format = "{form}"\npath = "copy.txt"\n')
        assert blocker("lists", "pull", "copy").code == 0
        if not told["references"]:
            assert blocker("lists", "show", "copy", "--json").json["digest"] == before["digest"]

    def test_refusals(self, mine: CommandLine) -> None:
        assert "other" in mine.refused("lists", "export", "other")
        assert "has no serial 9" in mine.refused("lists", "export", "mine", "--serial", "9")
        told = mine.refused("lists", "export", "mine", "--output", str(mine.directory / "nowhere" / "x"))
        assert told.endswith("cannot be written: No such file or directory")
        assert mine("lists", "export", "mine", "--json").code == 2
        assert mine("lists", "export", "mine", "--format", "nonsense").code == 2
