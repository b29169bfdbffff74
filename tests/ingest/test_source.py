"""Sources: what a TOML file may say, and that each wrong one is named without hiding the others."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from blocker.errors import SourceError
from blocker.ingest.formats import FORMATS, find_format
from blocker.ingest.source import MAX_SOURCES, load_source, load_sources

if TYPE_CHECKING:
    from pathlib import Path

GOOD = 'format = "url"\npath = "list.txt"\n'


def write(directory: Path, name: str, text: str) -> Path:
    file = directory / name
    file.write_text(text, encoding="utf-8")
    return file


def test_a_short_file_has_the_documented_defaults(tmp_path: Path) -> None:
    source = load_source(write(tmp_path, "police-urls.toml", GOOD))
    assert source.name == "police-urls"
    assert (source.action, source.mode, source.path_case, source.www_alias) == ("block", "enforce", "sensitive", False)
    assert source.path == tmp_path / "list.txt"
    assert (source.max_bytes, source.max_bad_share, source.host) == (2**30, 0.01, None)
    assert source.stale_after_seconds == 2 * (3600 + 300)


def test_everything_can_be_said(tmp_path: Path) -> None:
    source = load_source(
        write(
            tmp_path,
            "any.toml",
            'name = "exceptions"\ntitle = "t"\nauthority = "a"\ndescription = "d"\naction = "allow"\nmode = "shadow"\n'
            'path_case = "insensitive"\nwww_alias = true\nformat = "domain"\ndomain_kind = "host"\n'
            'url = "https://lists.example/x"\nca_file = "ca.pem"\ninterval_seconds = 60\njitter_seconds = 0\n'
            "timeout_seconds = 5\nmax_bytes = 1000\nmax_bad_share = 0.5\n",
        )
    )
    assert (source.name, source.action, source.mode, source.domain_kind) == ("exceptions", "allow", "shadow", "host")
    assert (source.host, source.ca_file, source.stale_after_seconds) == ("lists.example", tmp_path / "ca.pem", 120)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("format = ", "no TOML"),
        ("a = " + "[" * 20_000, "no TOML"),
        ("# " + "x" * 70_000, "larger than"),
        ('path = "x"\n', "format: Field required"),
        ('format = "pdf"\npath = "x"\n', "format: format 'pdf' is unknown; known: url, domain, hosts"),
        ('format = "url"\n', "exactly one of path and url"),
        (GOOD + 'url = "https://h.example/"\n', "exactly one of path and url"),
        (GOOD + 'acton = "block"\n', "acton: unknown field; allowed: name, title"),
        (GOOD + 'action = "stop"\n', "action: Input should be 'block' or 'allow'"),
        (GOOD + 'mode = "off"\n', "mode: Input should be 'enforce' or 'shadow'"),
        (GOOD + 'name = "Not A Name"\n', "name: String should match pattern"),
        (GOOD + "interval_seconds = 0\n", "interval_seconds: Input should be greater than or equal to 1"),
        (GOOD + "interval_seconds = nan\n", "interval_seconds: Input should be a finite number"),
        (GOOD + "max_bad_share = 1.5\n", "max_bad_share: Input should be less than or equal to 1"),
        (GOOD + 'domain_kind = "host"\n', "domain_kind: not an option of format url; it takes bare, trailing_slash"),
        (GOOD + 'ca_file = "x"\n', "ca_file goes with url only"),
        ('format = "url"\nurl = "http://lists.example/"\n', "url: must begin with https://"),
        ('format = "url"\nurl = "ftp://127.0.0.1/"\n', "url: must begin with https://"),
        ('format = "url"\nurl = "https://"\n', "url: must be an https URL with a host"),
        ('format = "url"\nurl = "https://h.example:port/"\n', "url: is no URL"),
        ('format = "url"\nurl = 7\n', "url: Input should be a valid string"),
    ],
)
def test_a_wrong_file_is_named_with_its_field_and_what_is_allowed(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SourceError) as caught:
        load_source(write(tmp_path, "wrong.toml", text))
    assert str(caught.value).startswith("wrong.toml: ")
    assert said in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost", "[::1]:80", "127.5.0.1"])
def test_plain_http_is_allowed_to_this_machine_only(tmp_path: Path, host: str) -> None:
    assert load_source(write(tmp_path, "x.toml", f'format = "url"\nurl = "http://{host}/list"\n')).url is not None


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b'title = "\xff"')
    with pytest.raises(SourceError, match=r"x\.toml: not UTF-8 text"):
        load_source(tmp_path / "x.toml")


def test_the_address_is_in_no_text(tmp_path: Path) -> None:
    address = "https://user-MARK:pass-MARK@lists.example/path-MARK?token=MARK"
    source = load_source(write(tmp_path, "x.toml", f'format = "url"\nurl = "{address}"\n'))
    for text in (repr(source), str(source), source.model_dump_json(), source.fingerprint()):
        assert "MARK" not in text
    for wrong in ("max_bytes = 0\n", "nothing = 1\n", 'path = "x"\n'):
        with pytest.raises(SourceError) as caught:
            load_source(write(tmp_path, "x.toml", f'format = "url"\nurl = "{address}"\n{wrong}'))
        assert "MARK" not in str(caught.value)
    with pytest.raises(SourceError) as caught:
        load_source(write(tmp_path, "x.toml", f'format = "url"\nurl = "{address.replace("https", "http")}"\n'))
    assert "MARK" not in str(caught.value)


def test_broken_files_do_not_hide_the_others(tmp_path: Path) -> None:
    write(tmp_path, "b.toml", GOOD)
    write(tmp_path, "a.toml", GOOD)
    write(tmp_path, "broken.toml", "[[[")
    write(tmp_path, "notes.txt", "not a source")
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "nowhere.toml").symlink_to(tmp_path / "gone")
    loaded = load_sources(tmp_path)
    assert [source.name for source in loaded.sources] == ["a", "b"]
    assert [str(error).partition(":")[0] for error in loaded.errors] == ["broken.toml", "folder.toml", "nowhere.toml"]


def test_a_name_taken_twice_is_used_by_neither(tmp_path: Path) -> None:
    write(tmp_path, "a.toml", GOOD)
    write(tmp_path, "b.toml", GOOD + 'name = "a"\n')
    write(tmp_path, "c.toml", GOOD)
    loaded = load_sources(tmp_path)
    assert [source.name for source in loaded.sources] == ["c"]
    assert [str(error) for error in loaded.errors] == [
        "a.toml, b.toml: name: a is taken more than once; allowed: one file a list"
    ]


def test_more_lists_than_a_node_has_bits_for_are_named(tmp_path: Path) -> None:
    for number in range(MAX_SOURCES + 2):
        write(tmp_path, f"list-{number:02}.toml", GOOD)
    loaded = load_sources(tmp_path)
    assert [source.name for source in loaded.sources] == [f"list-{number:02}" for number in range(MAX_SOURCES)]
    assert len(loaded.errors) == 1
    assert str(loaded.errors[0]).endswith("66 lists; allowed: 64; left out: list-64, list-65")


def test_a_directory_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        load_sources(tmp_path / "gone")


def test_a_pipe_among_the_sources_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    write(tmp_path, "a.toml", GOOD)
    loaded = load_sources(tmp_path)
    assert [source.name for source in loaded.sources] == ["a"]
    assert [str(error) for error in loaded.errors] == ["pipe.toml: is no regular file"]


def test_only_what_changes_the_list_changes_the_fingerprint(tmp_path: Path) -> None:
    def of(text: str) -> str:
        return load_source(write(tmp_path, "x.toml", text)).fingerprint()

    same = {of(GOOD), of(GOOD + 'title = "t"\n'), of(GOOD + "interval_seconds = 7\n"), of(GOOD + "max_bytes = 7\n")}
    assert len(same) == 1
    others = [
        GOOD + 'bare = "domain"\n', GOOD + 'trailing_slash = "exact"\n', GOOD + 'action = "allow"\n',
        GOOD + 'mode = "shadow"\n', GOOD + "www_alias = true\n", GOOD + 'path_case = "insensitive"\n',
        'format = "url"\npath = "other.txt"\n', 'format = "url"\nurl = "https://h.example/"\n',
        'format = "hosts"\npath = "list.txt"\n', 'format = "domain"\npath = "list.txt"\n',
    ]  # fmt: skip
    assert len(same | {of(text) for text in others}) == 1 + len(others)


# --- formats -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "line", "options", "kind"),
    [
        ("url", "http://a.example/", "", "host"),
        ("url", "http://a.example/", 'bare = "domain"\n', "domain"),
        ("url", "http://a.example/b/", "", "prefix"),
        ("url", "http://a.example/b/", 'trailing_slash = "exact"\n', "exact"),
        ("domain", "a.example", "", "domain"),
        ("domain", "a.example", 'domain_kind = "host"\n', "host"),
        ("hosts", "0.0.0.0 a.example", "", "host"),
        ("hosts", "0.0.0.0 a.example", 'domain_kind = "domain"\n', "domain"),
    ],
)
def test_options_reach_the_parser(tmp_path: Path, format: str, line: str, options: str, kind: str) -> None:  # noqa: A002
    source = load_source(write(tmp_path, "x.toml", f'format = "{format}"\npath = "x"\n{options}'))
    parser = source.list_format.parser(source.format_options)
    parser.feed(line.encode())
    (rule,) = parser.finish()
    assert rule[0] == kind


def test_an_unknown_format_lists_those_that_exist() -> None:
    with pytest.raises(SourceError, match="'pdf' is unknown; known: url, domain, hosts"):
        find_format("pdf")
    assert all(name == entry.name and entry.summary for name, entry in FORMATS.items())
