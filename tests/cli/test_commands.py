"""Every command, for people and for machines: what it prints, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import typer

from blocker.cli.app import app
from blocker.cli.bench import ROWS
from blocker.errors import ServeError, StoreError
from tests.e2e.processes import program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import CommandLine

BLOCKED, EXCEPTED, HARMLESS = "http://blocked.example/x", "http://bad-domain.example/appeal", "http://harmless.example/"
LIST_FIELDS = {
    "list", "serial", "action", "mode", "entries", "added", "removed", "published", "reason", "path_case", "www_alias",
    "layers", "digest",
}  # fmt: skip
PULL_FIELDS = {
    "list", "status", "serial", "lines", "rules", "bad", "errors", "added", "removed", "seconds", "detail",
}  # fmt: skip
CHECK_FIELDS = {"verdict", "list", "kind", "serial", "canonical", "reference", "shadow", "invalid"}
SAMPLES = ["exceptions", "sample-domains", "sample-hosts", "sample-shadow", "sample-urls"]


def commands(
    command: Any,  # noqa: ANN401 - of the library that typer holds within itself
    path: tuple[str, ...] = (),
) -> Iterator[tuple[str, ...]]:
    """Every command there is, by the words that call it."""
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))


@pytest.mark.parametrize("path", list(commands(typer.main.get_command(app))), ids=" ".join)
def test_every_command_explains_itself(empty: CommandLine, path: tuple[str, ...]) -> None:
    for flag in ("--help", "-h"):
        ran = empty(*path, flag)
        assert (ran.code, ran.err) == (0, "")
        assert "Usage: blocker" in " ".join(ran.out.split())
    assert not empty.data_dir.exists()  # asking opens nothing


def test_the_version(empty: CommandLine) -> None:
    ran = empty("--version")
    assert (ran.code, ran.out.split()[0]) == (0, "blocker")


@pytest.mark.parametrize(
    "arguments",
    [
        (), ("nonsense",), ("check",), ("check", "--nonsense", "x"), ("explain",), ("lists",), ("lists", "nonsense"),
        ("lists", "show"), ("lists", "show", "x", "--serial", "one"), ("lists", "log", "x", "--limit", "0"),
        ("serve", "--role", "nonsense"), ("serve", "surplus"), ("bench", "--sizes", "many"), ("bench", "--sizes", "0"),
        ("bench", "--rules", "/nowhere"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_is_exit_code_2(empty: CommandLine, arguments: tuple[str, ...]) -> None:
    ran = empty(*arguments)
    assert ran.code == 2
    assert "Usage: " in ran.out + ran.err


class TestCheck:
    def test_for_people(self, blocker: CommandLine) -> None:
        ran = blocker("check", BLOCKED, EXCEPTED, HARMLESS)
        assert (ran.code, ran.err) == (0, "")
        assert [line.split() for line in ran.out.splitlines()] == [
            ["verdict", "list", "kind", "canonical"],
            ["block", "sample-urls", "host", BLOCKED],
            ["allow", "exceptions", "exact", EXCEPTED],
            ["allow", "-", "-", HARMLESS],
        ]

    def test_for_machines(self, blocker: CommandLine) -> None:
        ran = blocker("check", BLOCKED, "http://on-trial.example/", "", "--json")
        first, second, third = ran.json_lines
        assert ran.code == 0
        assert first.keys() == CHECK_FIELDS
        assert (first["verdict"], first["list"], first["kind"], first["serial"]) == ("block", "sample-urls", "host", 1)
        assert (first["canonical"], first["shadow"], first["invalid"]) == (BLOCKED, [], False)
        assert (second["verdict"], second["shadow"]) == ("allow", ["sample-shadow"])
        assert (third["invalid"], third["canonical"]) == (True, None)

    @pytest.mark.parametrize(
        "url",
        [
            r"http://h.example/?\[red]x[/]", "http://h.example/:smile:[bold]", "http://h.example/?[/nothing]\\",
            f"http://h.example/{'a/' * 2000}",
        ],
    )  # fmt: skip
    def test_a_url_is_shown_whole_and_literally(self, blocker: CommandLine, url: str) -> None:
        assert blocker("check", url).out.splitlines()[1].split()[-1] == url
        assert f"canonical  {url}" in blocker("explain", url).out.splitlines()

    def test_odd_bytes_on_standard_input(self, blocker: CommandLine) -> None:
        urls = [
            b"http://blocked.example/\xff\xfe", b"http://blocked.example/a\x00b", "http://blocked.example/\u2028".encode(),
            b"http://blocked.example/\x0b\x0c\x1c\x85", b"\xef\xbb\xbf", b"http://blocked.example/" + b"a" * 70_000,
            b"http://[", b"http://blocked.example/last",
        ]  # fmt: skip
        ran = blocker("check", "-", "--json", stdin=b"\r\n\n" + b"\r\n".join(urls))
        assert ran.code == 0
        assert [(row["verdict"], row["canonical"]) for row in ran.json_lines] == [
            ("block", "http://blocked.example/%FF%FE"),
            ("block", "http://blocked.example/a%00b"),
            ("block", "http://blocked.example/%E2%80%A8"),
            ("block", "http://blocked.example/%0B%0C%1C%85"),
            ("allow", None),
            ("allow", None),
            ("allow", None),
            ("block", "http://blocked.example/last"),
        ]
        assert blocker("check", "-", stdin=b"\r\n".join(urls)).code == 0

    def test_nothing_on_standard_input(self, blocker: CommandLine) -> None:
        assert blocker("check", "-", "--json").out == ""

    def test_policies(self, blocker: CommandLine) -> None:
        (blocker.directory / "blocker.toml").write_text(
            '[policies.none]\nlists = { exceptions = "enforce" }\non_invalid = "block"\n'
        )
        rows = blocker("check", "--policy", "none", BLOCKED, "http://[", "--json").json_lines
        assert [row["verdict"] for row in rows] == ["allow", "block"]
        assert blocker.refused("check", "--policy", "other", BLOCKED) == (
            "blocker: there is no policy of that name; there are: default, none"
        )

    def test_without_lists_it_says_what_to_do(self, empty: CommandLine) -> None:
        assert empty.refused("check", BLOCKED) == (
            "blocker: there are no lists yet; pull them with `blocker lists pull` or start a node with `blocker serve`"
        )

    def test_a_reader_that_goes_away(self, blocker: CommandLine) -> None:
        """As with `blocker check - | head -1`."""
        process = subprocess.Popen(
            [*program(), "check", "-", "--json"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=blocker.directory,
            env=blocker.environment,
        )  # fmt: skip
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.write(b"http://blocked.example/\n" * 20_000)
        process.stdin.close()
        told = process.stderr.read()
        process.stderr.close()
        assert process.wait() == 1
        assert told == b""


class TestExplain:
    def test_for_people(self, blocker: CommandLine) -> None:
        ran = blocker("explain", "http://www.bad-domain.example/any/page")
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.splitlines()[:2] == [
            "canonical  http://www.bad-domain.example/any/page",
            "SURT       example,bad-domain,www,)/any/page",
        ]
        assert ran.out.splitlines()[-1] == (
            "verdict    block: the domain rule of sample-domains (serial 1) is the only rule that matches"
        )

    def test_says_why_an_exception_wins(self, blocker: CommandLine) -> None:
        *_, first, second, last = blocker("explain", EXCEPTED).out.splitlines()
        assert first.startswith("decides    allow by exceptions (exact, enforce, serial 1, ")
        assert second.startswith("overruled  block by sample-domains (domain, enforce, serial 1, ")
        assert first.endswith(f" UTC)): {EXCEPTED}")
        assert last.startswith("verdict    allow: the exact rule of exceptions (serial 1) is the most specific of 2")

    def test_says_when_only_a_list_on_trial_matches(self, blocker: CommandLine) -> None:
        assert "only shadow lists match" in blocker("explain", "http://on-trial.example/").out
        assert "no rule of any list matches" in blocker("explain", HARMLESS).out

    def test_for_machines(self, blocker: CommandLine) -> None:
        told = blocker("explain", EXCEPTED, "--json").json
        assert (told["verdict"], told["missing"], told["proposed"]) == ("allow", [], [])
        first, second = told["rules"]
        assert (first["list"], first["part"], first["text"]) == ("exceptions", "decides", EXCEPTED)
        assert (second["part"], second["since"]["serial"], second["since"]["exact"]) == ("overruled", 1, True)
        matches = [match for step in told["steps"] for match in step["matches"]]
        assert {match["list"] for match in matches} == {"exceptions", "sample-domains"}
        assert all(match.keys() == {"list", "action", "mode", "kind", "serial", "reference"} for match in matches)

    def test_what_a_draft_would_change(self, blocker: CommandLine) -> None:
        draft = blocker.directory / "draft.txt"
        draft.write_text("http://other.example/\n")
        assert blocker("lists", "push", "mine", str(draft)).code == 0
        ran = blocker("explain", "http://other.example/x")
        assert ran.out.splitlines()[-2] == "verdict    allow: no rule of any list matches"
        told = ran.out.splitlines()[-1]
        assert told.startswith("draft      of mine by cli")
        assert told.endswith(": it would be block by mine, +http://other.example/")
        assert blocker("explain", HARMLESS).out.splitlines()[-1].endswith(": nothing would change here")

    def test_without_the_seal_key(self, blocker: CommandLine) -> None:
        (blocker.data_dir / "keys" / "seal.key").unlink()
        ran = blocker("explain", "http://www.bad-domain.example/any/page")
        assert "decides    block by sample-domains (domain, enforce, serial 1)" in ran.out
        assert "no seal key" in ran.told

    def test_what_is_no_url(self, blocker: CommandLine) -> None:
        told = blocker.refused("explain", "http://[zxqmark")
        assert told.endswith("; the policy answers allow to what is no URL")
        assert "zxqmark" not in told


class TestLists:
    def test_ls(self, blocker: CommandLine) -> None:
        rows = blocker("lists", "ls", "--json").json
        assert [row["list"] for row in rows] == SAMPLES
        assert all(row.keys() == LIST_FIELDS | {"age_seconds", "state"} for row in rows)
        assert {row["state"] for row in rows} == {"ok"}
        shown = blocker("lists", "ls").out.splitlines()
        assert [line.split()[0] for line in shown] == ["list", *SAMPLES]

    def test_ls_needs_no_source_directory(self, blocker: CommandLine) -> None:
        rows = blocker("--lists-dir", str(blocker.directory / "elsewhere"), "lists", "ls", "--json").json
        assert [row["list"] for row in rows] == SAMPLES

    def test_ls_of_nothing(self, empty: CommandLine) -> None:
        assert empty("lists", "ls", "--json").json == []
        assert "no lists yet" in empty("lists", "ls").out

    def test_show(self, blocker: CommandLine) -> None:
        told = blocker("lists", "show", "sample-domains", "--json").json
        assert told.keys() == LIST_FIELDS
        assert "example" not in blocker("lists", "show", "sample-domains").out  # no rule unless asked for
        told = blocker("lists", "show", "sample-hosts", "--rules", "--json").json
        assert told["rules"] == [
            f"host\thttp://{name}.tracker.example/" for name in ("ads", "beacon", "pixel")
        ]  # fmt: skip
        shown = blocker("lists", "show", "sample-hosts", "--rules", "--limit", "1").out.splitlines()
        assert [line for line in shown if "\t" in line] == ["host\thttp://ads.tracker.example/"]

    def test_show_an_older_serial(self, blocker: CommandLine) -> None:
        (blocker.lists_dir / "sample-domains.txt").write_text("other.example\n")
        assert blocker("lists", "pull", "sample-domains").code == 0
        for serial, entries in ((1, 3), (2, 1)):
            told = blocker("lists", "show", "sample-domains", "--serial", str(serial), "--json").json
            assert (told["serial"], told["entries"]) == (serial, entries)
        assert "serial 3" in blocker.refused("lists", "show", "sample-domains", "--serial", "3")

    def test_log(self, blocker: CommandLine) -> None:
        for number in range(3):
            (blocker.lists_dir / "sample-domains.txt").write_text(f"other{number}.example\n")
            assert blocker("lists", "pull", "sample-domains").code == 0
        rows = blocker("lists", "log", "sample-domains", "--json").json
        assert [row["serial"] for row in rows] == [4, 3, 2, 1]
        assert all(row.keys() == LIST_FIELDS for row in rows)
        assert len(blocker("lists", "log", "sample-domains", "--limit", "2").out.splitlines()) == 3

    @pytest.mark.parametrize("command", ["show", "log"])
    def test_a_list_that_is_not_there(self, blocker: CommandLine, command: str) -> None:
        assert blocker.refused("lists", command, "other") == "blocker: list other is not in the store"

    def test_pull(self, empty: CommandLine) -> None:
        empty.source("mine", 'format = "domain"\npath = "mine.txt"\n', "one.example\ntwo.example\n")
        (row,) = empty("lists", "pull", "--json").json_lines
        assert row.keys() == PULL_FIELDS
        assert (row["status"], row["serial"], row["rules"], row["added"]) == ("published", 1, 2, 2)
        (row,) = empty("lists", "pull", "mine", "--json").json_lines
        assert (row["status"], row["serial"]) in (("unchanged", 1), ("not_modified", 1))
        shown = empty("lists", "pull")
        assert (shown.code, shown.err) == (0, "")
        assert shown.out.splitlines()[1].split()[0] == "mine"

    def test_pull_what_has_no_source(self, blocker: CommandLine) -> None:
        assert blocker.refused("lists", "pull", "other", "sample-urls", "more").endswith(" for: more, other")

    def test_pull_without_any_source(self, empty: CommandLine) -> None:
        assert "describe a list in a file NAME.toml there" in empty.refused("lists", "pull")
        empty.lists_dir.rmdir()
        assert "cannot be read: No such file or directory" in empty.refused("lists", "pull")


class TestConfiguration:
    def test_a_file_is_read_and_options_win(self, blocker: CommandLine) -> None:
        assert blocker.refused("--config", "other.toml", "doctor").endswith("does not exist or is no file")
        (blocker.directory / "other.toml").write_text(f'lists_dir = "{blocker.directory / "nowhere"}"\n')
        # The environment wins over a file, and an option over both.
        assert blocker("--config", "other.toml", "lists", "pull").code == 0
        assert "nowhere" in blocker.refused("--lists-dir", str(blocker.directory / "nowhere"), "lists", "pull")

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("a = [", "no TOML"), ("nonsense = 1\n", "nonsense: Extra inputs are not permitted"),
            ("[hits]\nbin = 0\n", "hits.bin: "), ('timezone = "Mars/Olympus"\n', "is no IANA time zone"),
            ("poll_seconds = 'soon'\n", "poll_seconds"),
        ],
    )  # fmt: skip
    def test_faults_are_named(self, blocker: CommandLine, text: str, told: str) -> None:
        (blocker.directory / "bad.toml").write_text(text)
        assert told in blocker.refused("--config", "bad.toml", "check", BLOCKED)

    def test_a_file_that_cannot_be_looked_for(self, blocker: CommandLine) -> None:
        line = blocker.refused("--config", "a" * 300, "lists", "ls")
        assert line.endswith("cannot be looked for: File name too long")

    def test_a_bad_variable_is_named(self, blocker: CommandLine) -> None:
        assert "poll_seconds" in blocker.refused("lists", "ls", poll_seconds="never")


class TestFaults:
    """What ends a command in a way that nobody foresaw is told without any value."""

    def test_of_a_nodes_tasks(self, empty: CommandLine) -> None:
        group = ExceptionGroup("tasks", [ServeError("one"), ExceptionGroup("more", [StoreError("two")])])
        empty.monkeypatch.setattr("blocker.cli.app.command", _raises(group))
        assert empty.refused() == "blocker: one; two"

    def test_that_are_ours(self, empty: CommandLine) -> None:
        code = (
            "import sys, types, blocker.cli.app as app\n"
            "def fault(): raise ValueError('zxqmark')\n"
            "sys.modules['blocker.cli.fault'] = types.SimpleNamespace(fault=fault)\n"
            "app.COMMANDS['fault'] = ('fault', 'fault')\n"
            "app.command = app.typer.main.get_command(app.app)\n"
            "sys.argv = ['blocker', 'fault']\n"
            "app.main()\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=empty.directory,
            env=empty.environment,
        )  # fmt: skip
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "uncaught exception" in line
        assert "ValueError" in line
        assert "zxqmark" not in line


def _raises(error: Exception) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def test_bench(blocker: CommandLine) -> None:
    done = subprocess.run(
        [*program(), "bench", "--sizes", "2000", "--json"],
        check=True, capture_output=True, text=True, cwd=blocker.directory, env=blocker.environment,
    )  # fmt: skip
    (figures,) = json.loads(done.stdout)
    assert figures["rules"] == 2000
    assert all(figures[name] >= 0 for name, _title, _form in ROWS)
    assert done.stderr == ""
