"""Export: what is written reads back to the same trie, and what cannot be written is counted."""

from __future__ import annotations

import io
import stat
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocker._native import LineParser, RuleSet
from blocker.errors import BlockerError
from blocker.ingest.export import BATCH, Export, Reading, write, write_file
from blocker.ingest.plan import PublishOptions
from blocker.rules import default_domain_kind
from tests.ingest.checks import pages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = b"0123456789abcdef"
HOSTS = ["a.example", "b.a.example", "www.example", "192.0.2.1", "[2001:db8::1]", "xn--bcher-kva.example", "example"]
PATHS = ["/", "/x", "/x/", "/x/y.html", "/X/%20/", "/a;b=c", "/http://b.example/", "/%23/", "//", "/*"]
QUERIES = [None, "", "q=1", "q=%20a#", "?", "a&b"]

fields = st.one_of(
    st.tuples(st.sampled_from(["domain", "host"]), st.sampled_from(HOSTS), st.none(), st.none(), st.just(value=False)),
    st.tuples(
        st.sampled_from(["prefix", "exact"]), st.sampled_from(HOSTS), st.sampled_from(PATHS), st.sampled_from(QUERIES),
        st.booleans(),
    ),
)  # fmt: skip
readings = st.builds(
    Reading,
    format=st.sampled_from(["url", "domain", "hosts"]),
    bare=st.sampled_from([None, "host", "domain"]),
    trailing_slash=st.sampled_from([None, "prefix", "exact"]),
    domain_kind=st.sampled_from([None, "domain", "host"]),
)
publishing = st.builds(PublishOptions, path_case=st.sampled_from(["sensitive", "insensitive"]), www_alias=st.booleans())


def made(entries: list[tuple[str, str, str | None, str | None, bool]]) -> RuleSet:
    rules = RuleSet()
    for kind, host, path, query, subdomains in entries:
        try:
            rules.add(kind, host, path, query if kind == "exact" else None, subdomains)
        except BlockerError:  # an address has no subdomains, for one
            continue
    return rules


def read(text: str, reading: Reading) -> RuleSet:
    """As a source with these options reads it."""
    parser = LineParser(
        reading.format, bare=reading.bare or "host", trailing_slash=reading.trailing_slash or "prefix",
        domain_kind=reading.domain_kind or default_domain_kind(reading.format),
    )  # fmt: skip
    parser.feed(text.encode())
    found = parser.finish()
    assert parser.bad == 0
    return found


def written(export: Export) -> str:
    target = io.StringIO()
    write(export.lines(), target)
    return target.getvalue()


@given(entries=st.lists(fields, max_size=12), reading=readings, options=publishing)
def test_what_is_written_reads_back_to_the_same_trie(
    entries: list[Any], reading: Reading, options: PublishOptions
) -> None:
    """Exactly the rules that are not counted as left out come back, and with none left out the trie is the same."""
    rules = made(entries)
    export = Export(rules, reading)
    back = read(written(export), reading)
    gone, lost = back.diff(rules)[1], back.diff(rules)[0]
    assert len(gone) == 0
    assert (len(lost), len(back)) == (export.left_out, export.written)
    assert export.written + export.left_out == len(rules)
    if not export.left_out:
        assert options.nodes(back, KEY).digest() == options.nodes(rules, KEY).digest()


@pytest.mark.parametrize(
    ("reading", "carried"),
    [
        (Reading(), {"domain", "host", "prefix", "exact"}),
        (Reading(format="domain"), {"domain"}),
        (Reading(format="hosts"), {"host"}),
        (Reading(format="domain", domain_kind="host"), {"host"}),
    ],
)
def test_what_each_format_carries(reading: Reading, carried: set[str]) -> None:
    """Against a reader or writer that just leaves everything out."""
    rules = made(
        [
            ("domain", "a.example", None, None, False),
            ("host", "b.example", None, None, False),
            ("prefix", "c.example", "/x/", None, False),
            ("exact", "d.example", "/x", "q", True),
        ]
    )
    export = Export(rules, reading)
    assert {rule[0] for rule in read(written(export), reading)} == carried
    assert export.left_out == 4 - len(carried)


@pytest.mark.parametrize(("slash", "carried"), [("prefix", "prefix"), ("exact", "exact")])
def test_a_trailing_slash_is_one_or_the_other(slash: Literal["prefix", "exact"], carried: str) -> None:
    rules = made([("prefix", "c.example", "/x/", None, False), ("exact", "c.example", "/x/", None, False)])
    export = Export(rules, Reading(trailing_slash=slash))
    assert [rule[0] for rule in read(written(export), export.reading)] == [carried]
    assert export.left_out == 1


def test_references_and_metadata_are_counted() -> None:
    rules = pages(range(2))
    rules.add("host", "a.example", None, None, False, "R-1", '{"category":"x"}')
    rules.add("host", "b.example", None, None, False, "R-2", "")
    rules.add("exact", "b.example", "/x/", None, False, "R-3", "")
    export = Export(rules, Reading())
    written(export)
    assert (export.written, export.left_out, export.references, export.metadata) == (4, 1, 2, 1)


def test_a_line_that_no_source_reads_is_left_out() -> None:
    longest = "/" + "x" * 65_519  # an URL of 65 536 bytes; on every subdomain its line is two bytes longer
    rules = made([("exact", "a.example", longest, None, subdomains) for subdomains in (False, True)])
    export = Export(rules, Reading())
    (rule,) = read(written(export), export.reading)
    assert (rule[4], export.left_out) == (False, 1)


def test_it_streams() -> None:
    calls: list[int] = []

    class Target(io.StringIO):
        def write(self, text: str) -> int:
            calls.append(text.count("\n"))
            return super().write(text)

    write(Export(pages(range(3 * BATCH)), Reading()).lines(), Target())
    assert calls == [BATCH, BATCH, BATCH, 0]


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_file_is_private_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("older")
    path.chmod(0o644)
    write_file(["a", "b"], path)
    assert path.read_text() == "a\nb\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [*tmp_path.iterdir()] == [path]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    def breaking() -> Iterator[str]:
        yield "a"
        raise BlockerError("broken")

    path = tmp_path / "out.txt"
    path.write_text("older")
    with pytest.raises(BlockerError, match="broken"):
        write_file(breaking(), path)
    assert path.read_text() == "older"
    assert [*tmp_path.iterdir()] == [path]
    with pytest.raises(BlockerError, match="cannot be written: No such file"):
        write_file(["a"], tmp_path / "nowhere" / "out.txt")
    (tmp_path / "directory").mkdir()
    with pytest.raises(BlockerError, match="cannot be written: Is a directory"):
        write_file(["a"], tmp_path / "directory")
    assert len([*tmp_path.iterdir()]) == 2
