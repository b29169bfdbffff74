"""The commands by which people publish: push, look, publish, have somebody else approve, and see who did it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import CommandLine


@pytest.fixture
def pages(tmp_path: Path) -> str:
    return written(tmp_path, "pages.txt", "http://one.example/a\nhttp://two.example/b/\n")


def written(directory: Path, name: str, text: str) -> str:
    (directory / name).write_text(text)
    return str(directory / name)


def many(count: int) -> str:
    return "".join(f"http://site{number}.example/page\n" for number in range(count))


def test_a_push_is_seen_by_nobody_until_it_is_published(empty: CommandLine, pages: str) -> None:
    ran = empty("lists", "push", "mine", pages)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "mine: draft of 2 rules upon serial 0: +2 -0",
        "mine: would be published: +2 -0 rules, 2 in all",
    ]
    assert "no lists yet" in empty("lists", "ls").out
    shown = empty("lists", "draft", "mine", "--json").json
    assert (shown["entries"], shown["status"], shown["dry_run"]) == (2, "published", True)
    assert "example" not in str(shown)
    assert empty("lists", "publish", "mine", "--dry-run").out == "mine: would be published: +2 -0 rules, 2 in all\n"
    ran = empty("lists", "publish", "mine", "--reason", "first")
    assert ran.out == "mine: published as serial 1: +2 -0 rules, 2 in all\n"
    assert empty("check", "http://one.example/a", "--json").json["verdict"] == "block"
    assert "has no draft" in empty.refused("lists", "publish", "mine")
    assert empty("lists", "log", "mine", "--json").json[0]["reason"] == "first"


def test_a_change_of_a_list(empty: CommandLine, pages: str, tmp_path: Path) -> None:
    assert empty("lists", "push", "mine", pages, "--publish", "--mode", "shadow").code == 0
    add = written(tmp_path, "add.txt", "http://three.example/c\n")
    remove = written(tmp_path, "remove.txt", "http://one.example/a\n")
    told = empty("lists", "push", "mine", "--add", add, "--remove", remove, "--publish", "--json").json
    assert (told["status"], told["serial"], told["added"], told["removed"]) == ("published", 2, 1, 1)
    shown = empty("lists", "show", "mine", "--rules", "--json").json
    assert shown["mode"] == "shadow", "what is not said stays as it is"
    assert shown["rules"] == ["exact\thttp://three.example/c", "prefix\thttp://two.example/b/"]
    assert "1 of 1 rules to remove are not in it" in empty.refused("lists", "push", "mine", "--remove", remove)


def test_every_format_and_packing_can_be_pushed(empty: CommandLine, tmp_path: Path) -> None:
    hosts = written(tmp_path, "hosts", "0.0.0.0 bad.example\n")
    assert empty("lists", "push", "hosts", hosts, "--format", "hosts", "--publish").code == 0
    assert empty("check", "http://bad.example/x", "--json").json["list"] == "hosts"
    told = empty("lists", "push", "piped", "-", stdin=b"http://piped.example/\n")
    assert told.code == 0
    assert "unknown" in empty.refused("lists", "push", "mine", hosts, "--format", "none")
    assert "not an option" in empty.refused("lists", "push", "mine", hosts, "--format", "hosts", "--bare", "host")
    assert "cannot be read" in empty.refused("lists", "push", "mine", str(tmp_path / "absent"))
    assert empty("lists", "push", "mine").code == 2
    assert empty("lists", "push", "mine", hosts, "--add", hosts).code == 2


def test_bad_lines_are_numbered_and_too_many_refuse_it(empty: CommandLine, tmp_path: Path) -> None:
    file = written(tmp_path, "list.txt", many(200) + "http://marked entry/\n")
    ran = empty("lists", "push", "mine", file)
    assert ran.code == 0
    assert "line 201:" in ran.err
    assert "marked" not in ran.err + ran.out
    file = written(tmp_path, "list.txt", "http://a.example/\nnot an entry\n")
    assert "1 of 2 entries are bad" in empty.refused("lists", "push", "mine", file)


def test_a_second_person_approves(empty: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "anna")
    assert empty("lists", "push", "mine", written(tmp_path, "a", many(2000)), "--publish").code == 0
    file = written(tmp_path, "b", many(10))
    ran = empty("lists", "push", "mine", file, "--publish", "--json")
    assert (ran.code, ran.json["status"], ran.json["findings"][0]["guard"]) == (0, "waiting", "shrink")
    proposal = ran.json["proposal"]
    told = empty("lists", "proposals")
    assert "shrink: 2000 rules become 10" in told.out
    assert "a second person must approve it" in empty.refused("lists", "approve", "mine", proposal)
    assert empty("check", "http://site77.example/page", "--json").json["verdict"] == "block"
    monkeypatch.setenv("SUDO_USER", "bert")
    ran = empty("lists", "approve", "mine", proposal)
    assert ran.out == "mine: published as serial 2: +0 -1,990 rules, 10 in all\n"
    assert empty("check", "http://site77.example/page", "--json").json["verdict"] == "allow"
    assert empty("lists", "proposals").out == "nothing waits\n"
    records = empty("lists", "audit", "mine", "--json").json
    assert [(record["action"], record["person"]) for record in records] == [
        ("approve", "bert"), ("propose", "anna"), ("draft", "anna"), ("publish", "anna"), ("draft", "anna"),
    ]  # fmt: skip


def test_a_rejected_proposal_stays_known(empty: CommandLine, tmp_path: Path) -> None:
    empty("lists", "push", "mine", written(tmp_path, "a", many(2)), "--publish")
    told = empty("lists", "push", "mine", written(tmp_path, "b", "# none\n"), "--publish", "--json").json
    assert told["status"] == "waiting"
    assert empty("lists", "reject", "mine", told["proposal"], "--reason", "a mistake").code == 0
    assert empty("lists", "proposals", "--json").json[0]["state"] == "rejected"
    assert empty("lists", "ls", "--json").json[0]["entries"] == 2


def test_what_a_guard_refuses_ends_with_1(empty: CommandLine, tmp_path: Path) -> None:
    file = written(tmp_path, "a", "http://*.co.uk\nhttp://a.example/\n")
    ran = empty("lists", "push", "mine", file, "--publish")
    assert ran.code == 1
    assert "refuse: public-suffix: 1 new rules block all names under a public suffix" in ran.err
    assert "co.uk" not in ran.err + ran.out
    assert empty("lists", "publish", "mine", "--dry-run").code == 0
    assert empty("lists", "publish", "mine").code == 1
    assert empty("lists", "draft", "mine", "--discard").code == 0
    assert "no lists yet" in empty("lists", "ls").out


def test_a_pull_that_waits_says_how_to_go_on(empty: CommandLine) -> None:
    empty.source("mine", 'format = "url"\npath = "mine.txt"\n', many(3000))
    assert empty("lists", "pull").code == 0
    empty.source("mine", 'format = "url"\npath = "mine.txt"\n', many(5))
    ran = empty("lists", "pull")
    assert ran.code == 1
    assert "blocker lists approve mine " in ran.err


def test_the_chain_is_checked_and_an_anchor_holds_it(empty: CommandLine, pages: str, tmp_path: Path) -> None:
    assert empty("lists", "audit", "--verify").out == "whole: 0 records\n"
    empty("lists", "push", "mine", pages, "--publish")
    told = empty("lists", "audit", "--verify", "--json").json
    assert (told["whole"], told["records"]) == (True, 2)
    empty("lists", "push", "mine", written(tmp_path, "b", many(2)), "--publish")
    assert empty("lists", "audit", "--verify", "--anchor", told["anchor"]).code == 0
    other = told["anchor"][:-1] + ("0" if told["anchor"][-1] != "0" else "1")
    ran = empty("lists", "audit", "--verify", "--anchor", other)
    assert (ran.code, ran.err) == (1, "record 2 is not the one that was noted\n")
    assert empty("lists", "audit", "--verify", "--anchor", "9:" + "0" * 64).code == 1
    assert empty("lists", "audit", "--verify", "--anchor", "nine").code == 2
    assert "publish" in empty("lists", "audit").out
