"""What is wrong is told in one line with its remedy, and takes nothing away: the old list stays enforced."""

from __future__ import annotations

import gzip
import json
import os
import resource
import secrets
import subprocess
from typing import TYPE_CHECKING

import pytest

from blocker.cli.context import Context
from blocker.settings import Settings
from tests.e2e.processes import program

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine

OLD = "http://old.example/page"
SOURCE = 'format = "url"\npath = "mine.txt"\n'
PASSWORD = "zxqpassword"  # noqa: S105 - a mark
# Nobody listens there (RFC 6335: assigned, and long unused).
NOBODY = f"redis://zxquser:{PASSWORD}@127.0.0.1:1/0"


@pytest.fixture
def mine(empty: CommandLine) -> CommandLine:
    """One list of one page, enforced."""
    empty.source("mine", SOURCE, f"{OLD}\n")
    assert empty("lists", "pull").code == 0
    return empty


def is_kept(blocker: CommandLine) -> bool:
    (row,) = blocker("check", OLD, "--json").json_lines
    return (row["verdict"], row["serial"]) == ("block", 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('format = "url', "no TOML: Unterminated string"),
        ("= 1\n", "no TOML: "),
        (SOURCE + "nonsense = 1\n", "nonsense: unknown field; allowed: name, title"),
        (SOURCE + "max_bytes = 'big'\n", "max_bytes: "),
        (SOURCE + "interval_seconds = 0\n", "interval_seconds: "),
        ('format = "url"\npath = 3\n', "path: "),
        ('format = "pdf"\npath = "mine.txt"\n', "format: format 'pdf' is unknown; known: "),
        ('path = "mine.txt"\n', "format: "),
        ('format = "url"\n', "exactly one of path and url must be given"),
        ('format = "url"\nurl = "http://user:zxqpassword@h.example/?t=zxqpassword"\n', "must begin with https"),
        (SOURCE + 'name = "No Name"\n', "name: "),
        (SOURCE + 'domain_kind = "host"\n', "domain_kind: not an option of format url"),
        ("\xff", "not UTF-8"),
        ("[" * 5000, "no TOML"),
    ],
)
def test_a_broken_source(mine: CommandLine, text: str, told: str) -> None:
    (mine.lists_dir / "mine.toml").write_bytes(text.encode("latin-1"))
    line = mine.refused("lists", "pull")
    assert line.startswith("mine.toml: ")
    assert told in line
    assert PASSWORD not in line
    assert is_kept(mine)


def test_a_broken_source_keeps_no_other_from_being_pulled(mine: CommandLine) -> None:
    mine.source("other", 'format = "url"\npath = "other.txt"\n', "http://other.example/\n")
    (mine.lists_dir / "mine.toml").write_text("= 1")
    ran = mine("lists", "pull", "--json")
    assert ran.code == 1
    assert [(row["list"], row["status"]) for row in ran.json_lines] == [("other", "published")]
    assert ran.told.startswith("mine.toml: no TOML")
    assert is_kept(mine)
    assert mine("lists", "pull", "other").code == 0  # what was not asked for is no failure


def lines(count: int, *more: str) -> str:
    return "".join(f"{line}\n" for line in [*(f"http://new{number}.example/" for number in range(count)), *more])


@pytest.mark.parametrize(
    ("entries", "status", "told"),
    [
        (bytes(range(256)) * 4, "refused", "input is binary, not text: NUL byte in line"),
        (gzip.compress(lines(100).encode())[:-9], "refused", "mine: "),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "refused", "input is binary"),
        (lines(98, "http://[/", "not an entry").encode(), "refused", "2 of 100 entries are bad (2.00%), max_bad_share"),
        (b"<html><body>Sorry, we are down</body></html>\n", "refused", "entries are bad"),
        (b"", "failed", "empty; a list without entries holds a comment"),
        (b"# nothing any more\n", "refused", "the update has no entries, the list has 1"),
    ],
)
def test_a_list_that_is_none(mine: CommandLine, entries: bytes, status: str, told: str) -> None:
    mine.source("mine", SOURCE, entries)
    ran = mine("lists", "pull")
    assert ran.code == 1
    assert told in ran.err.splitlines()[-1]
    assert ran.err.splitlines()[-1].startswith("mine: ")
    (row,) = mine("lists", "pull", "--json").json_lines
    assert (row["status"], row["serial"]) == (status, 1)
    assert told in row["detail"]
    assert is_kept(mine)


def test_a_bad_line_among_many_is_told_by_its_number(mine: CommandLine) -> None:
    mine.source("mine", SOURCE, lines(200, "http://[zxqmark", *(f"http://more{at}.example/" for at in range(100)), OLD))
    ran = mine("lists", "pull")
    assert ran.code == 0
    assert ran.told.startswith("mine: line 201: ")
    assert "zxqmark" not in ran.err + ran.out


def test_one_line_of_a_hundred_megabytes(mine: CommandLine) -> None:
    with (mine.lists_dir / "mine.txt").open("wb") as file:
        file.write(b"http://a.example/")
        for _ in range(100):
            file.write(b"a" * 2**20)
        file.write(b"\nhttp://b.example/\n")
    limit = 800 * 2**20  # the line itself fits in it, several copies of it do not
    done = subprocess.run(
        [*program(), "lists", "pull"],
        check=False, capture_output=True, text=True, cwd=mine.directory, env=mine.environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 1
    assert "line 1: line is too long" in done.stderr
    assert "Traceback" not in done.stderr
    (mine.lists_dir / "mine.txt").unlink()
    assert is_kept(mine)


@pytest.mark.parametrize("harm", ["gone", "directory", "pipe"])
def test_a_file_that_cannot_be_read(mine: CommandLine, harm: str) -> None:
    path = mine.lists_dir / "mine.txt"
    path.unlink()
    if harm == "directory":
        path.mkdir()
    elif harm == "pipe":
        os.mkfifo(path)
    line = mine.refused("lists", "pull")
    assert line.startswith("mine: ")
    assert ("No such file" if harm == "gone" else "path is no regular file") in line
    assert is_kept(mine)


class TestRedis:
    @pytest.mark.parametrize(
        "url",
        [
            f"http://zxquser:{PASSWORD}@127.0.0.1/", f"zxquser:{PASSWORD}@127.0.0.1", PASSWORD,
            f"redis://zxquser:{PASSWORD}@127.0.0.1:port/", f"redis://zxquser:{PASSWORD}/x@127.0.0.1/",
            f"redis://127.0.0.1:99999/0?password={PASSWORD}", f"redis://127.0.0.1/0?nonsense={PASSWORD}",
            f"redis://127.0.0.1/{PASSWORD}", f"unix://{PASSWORD}/socket", "unix://", "redis://",
            f"redis+sentinel://127.0.0.1?password={PASSWORD}", f"redis+cluster://127.0.0.1/1?password={PASSWORD}",
            f"rediss://zxquser:{PASSWORD}@127.0.0.1/?ssl_ca_certs=/nowhere",
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("command", [("check", OLD), ("lists", "pull"), ("lists", "ls"), ("serve",)], ids=" ".join)
    def test_a_malformed_url(self, mine: CommandLine, url: str, command: tuple[str, ...]) -> None:
        if url.startswith("rediss://") and command == ("serve",):
            url = "redis://"
        line = mine.refused(*command, redis_url=url)
        assert "redis_url: " in line or "cannot be reached" in line
        assert PASSWORD not in line
        assert "zxquser" not in line

    @pytest.mark.parametrize("command", [("lists", "pull"), ("lists", "ls"), ("lists", "show", "mine")], ids=" ".join)
    def test_nobody_there(self, mine: CommandLine, command: tuple[str, ...]) -> None:
        line = mine.refused(*command, redis_url=NOBODY)
        assert "Redis cannot be reached" in line
        assert PASSWORD not in line

    def test_nobody_there_and_no_snapshot(self, mine: CommandLine) -> None:
        line = mine.refused("check", OLD, redis_url=NOBODY)
        assert "there are no lists yet" in line
        assert "Redis cannot be reached" in line
        assert "blocker serve" in line
        assert PASSWORD not in line

    def test_another_deployments_keys(self, mine: CommandLine) -> None:
        line = mine.refused("check", OLD, data_dir=str(mine.directory / "other"))
        assert line.endswith("copy the deployment's key files to this node")


class TestKeys:
    @pytest.mark.parametrize("name", ["lookup.key", "seal.key"])
    @pytest.mark.parametrize(
        ("harm", "told"),
        [
            ("open", "lets others at the key; run chmod 600 "),
            ("short", "hex digits and a newline; restore the file"),
            ("binary", "hex digits and a newline; restore the file"),
            ("directory", "is no regular file; restore it"),
        ],
    )
    def test_a_bad_key_file(self, mine: CommandLine, name: str, harm: str, told: str) -> None:
        path = mine.data_dir / "keys" / name
        good = path.read_bytes()
        match harm:
            case "open":
                path.chmod(0o644)
            case "short":
                path.write_bytes(good[:-2])
            case "binary":
                path.write_bytes(bytes(len(good)))
            case _:
                path.unlink()
                path.mkdir(mode=0o700)
        line = mine.refused("check", OLD)
        assert told in line
        assert str(path) in line
        assert good.decode().strip() not in line
        if path.is_dir():
            path.rmdir()
        path.write_bytes(good)
        path.chmod(0o600)
        assert is_kept(mine)

    def test_a_key_directory_that_others_may_write(self, mine: CommandLine) -> None:
        (mine.data_dir / "keys").chmod(0o777)
        assert "lets others replace keys; run chmod 700" in mine.refused("check", OLD)

    def test_an_unreadable_key(self, mine: CommandLine) -> None:
        path = mine.data_dir / "keys" / "lookup.key"
        path.unlink()
        path.symlink_to(path)  # unreadable for root too
        assert "lookup.key: cannot be read or made (Too many levels" in mine.refused("check", OLD)


class TestDataDirectory:
    @pytest.mark.parametrize("command", [("check", OLD), ("lists", "pull"), ("serve",)], ids=" ".join)
    def test_one_that_is_a_file(self, mine: CommandLine, command: tuple[str, ...]) -> None:
        path = mine.directory / "file"
        path.write_bytes(b"")
        line = mine.refused(*command, data_dir=str(path))
        assert line.startswith(f"blocker: {path}/keys: cannot be read or made (Not a directory); ")
        assert line.endswith("or set data_dir to one it can write")

    @pytest.mark.parametrize("command", [("check", OLD), ("serve",)], ids=" ".join)
    def test_one_that_cannot_be_written(self, mine: CommandLine, command: tuple[str, ...]) -> None:
        line = mine.refused(*command, data_dir="/proc/blocker")  # for root too
        assert line.startswith("blocker: /proc/blocker: cannot be read or made (")

    def test_it_is_open_to_nobody_else(self, mine: CommandLine) -> None:
        assert mine.data_dir.stat().st_mode & 0o777 == 0o700


def run_on_full_disk(blocker: CommandLine, *arguments: str, at_most: int) -> subprocess.CompletedProcess[str]:
    """Run a command whose files cannot grow beyond some bytes, as on a full disk; those of its Redis neither."""
    own = {name: value for name, value in blocker.environment.items() if name != "BLOCKER_REDIS_URL"}
    return subprocess.run(
        [*program(), *arguments],
        check=False, capture_output=True, text=True, cwd=blocker.directory, env=own,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (at_most, at_most)),
    )  # fmt: skip


class TestFullDisk:
    def test_keys_cannot_be_made(self, empty: CommandLine) -> None:
        done = run_on_full_disk(empty, "check", OLD, at_most=0)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "/keys" in line
        assert "cannot be read or made (File too large)" in line

    def test_nothing_is_half_published(self, empty: CommandLine) -> None:
        del empty.settings["redis_url"]
        empty.source("mine", SOURCE, f"{OLD}\n")
        assert empty("lists", "pull").code == 0
        assert empty("check", OLD).code == 0
        many = SOURCE + "[guards]\nfloor = 10000\n"
        empty.source("mine", many, "".join(f"http://new.example/{secrets.token_hex(32)}\n" for _ in range(5000)))
        done = run_on_full_disk(empty, "lists", "pull", at_most=100_000)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "Redis" in done.stderr.splitlines()[-1]
        assert is_kept(empty)
        assert empty("lists", "pull").code == 0


class TestSnapshot:
    @pytest.fixture
    def copied(self, mine: CommandLine) -> CommandLine:
        """A node has left its copy on disk, and Redis is away."""
        settings = Settings(data_dir=mine.data_dir, redis_url=mine.settings["redis_url"])
        run = Context(settings.model_copy(update={"deployment": mine.settings["deployment"]}))

        async def follow() -> None:
            async with await run.open_store() as store:
                await run.follower().sync(store)

        run.run(follow())
        mine.settings["redis_url"] = NOBODY
        return mine

    def test_a_good_one_answers(self, copied: CommandLine) -> None:
        ran = copied("check", OLD, "--json")
        assert ran.json["verdict"] == "block"
        assert ran.told.startswith("not in step with the store: ")
        assert "Redis cannot be reached" in ran.told

    @pytest.mark.parametrize(
        ("harm", "told"),
        [
            ("magic", "wrong magic, expected BLKTABLE; delete the snapshot"),
            ("version", "version 9, expected 1; delete the snapshot"),
            ("cut", "bytes, expected"),
            ("key", "made under another lookup key; use the deployment's lookup.key"),
            *((f"bit {offset}", "delete the snapshot") for offset in (24, 40, 50, 96, 500, -9)),
        ],
    )
    def test_a_damaged_one_is_named(self, copied: CommandLine, harm: str, told: str) -> None:
        path = copied.data_dir / "snapshot" / "table"
        data = bytearray(path.read_bytes())
        match harm.split():
            case ["magic"]:
                data[:8] = b"SOMETHIN"
            case ["version"]:
                data[8] = 9
            case ["cut"]:
                del data[-100:]
            case ["bit", offset]:
                data[int(offset)] ^= 16
            case _:
                (copied.data_dir / "keys" / "lookup.key").write_text(f"{secrets.token_hex(16)}\n")
        path.write_bytes(data)
        line = copied.refused("check", OLD)
        if harm != "bit 40":  # the key's fingerprint is under the checksum
            assert told in line
        assert "snapshot: " in line
        findings = {row["what"]: row for row in copied("doctor", "--json").json}
        assert findings["snapshot"]["state"] == "fail"
        assert "snapshot: " in findings["snapshot"]["detail"]


def test_json_of_a_failure_is_json_still(mine: CommandLine) -> None:
    mine.source("mine", SOURCE, "\n".join(["[" * 5, '"', "\\", "\u2028", OLD]))
    ran = mine("lists", "pull", "--json")
    (row,) = [json.loads(line) for line in ran.out.split("\n") if line]
    assert row["status"] == "refused"
