"""Each format written and read again: the same trie, or the rule is left out and counted; never another rule."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocker._native import RuleSet
from blocker.ingest.export import Export, Reading
from blocker.ingest.formats import FORMATS, FormatOptions
from blocker.ingest.plan import PublishOptions
from blocker.ingest.writers import WRITERS, head
from tests.ingest.checks import rules_of

KEY = b"0123456789abcdef"
OPTIONS = PublishOptions()


def text_of(rules: RuleSet, format: str) -> tuple[str, Export]:  # noqa: A002 - the project's word
    export = Export(rules, Reading(format=format))
    lines = [*head(format, "list", 7), *export.lines()]
    return "".join(f"{line}\n" for line in lines), export


def read(data: str | bytes, format: str) -> RuleSet:  # noqa: A002 - the project's word
    parser = FORMATS[format].parser(FormatOptions())
    parser.feed(data.encode() if isinstance(data, str) else data)
    rules = parser.finish()
    assert parser.bad == 0
    return rules


def trie(rules: RuleSet) -> str:
    return OPTIONS.nodes(rules, KEY).digest()


ALL_KINDS = rules_of(
    [
        "http://*.domain.example", "http://host.example/", "http://a.example/prefix/", "http://a.example/page.html",
        "http://a.example/page?id=7&x=%20", "http://*.b.example/copies/", "http://*.b.example/one", "http://192.0.2.7/",
        "http://[2001:db8::1]/x", "http://a.example/with,comma;and'quote", "http://a.example/?q", "http://a.example/dir/?q",
    ]
)  # fmt: skip


@pytest.mark.parametrize("format", sorted(WRITERS))
def test_what_is_written_is_read_as_the_same_rules(format: str) -> None:  # noqa: A002 - the project's word
    text, export = text_of(ALL_KINDS, format)
    assert export.written + export.left_out == len(ALL_KINDS)
    assert export.written
    back = read(text, format)
    assert len(back) == export.written
    assert len(ALL_KINDS.common(back)) == export.written
    if format in ("url", "csv", "jsonl"):
        assert (export.left_out, trie(back)) == (0, trie(ALL_KINDS))


def test_every_format_but_that_of_digests_can_be_written() -> None:
    assert WRITERS.keys() == FORMATS.keys() - {"bpjm"}


def test_tables_carry_what_the_authority_says() -> None:
    rules = RuleSet()
    metadata = {"added": "2026-01-02", "category": 'A, "quoted" one', "expires": "2027-01-01"}
    text = json.dumps(metadata, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    rules.add("exact", "a.example", "/x", "q=1", False, "REF-1", text)
    rules.add("domain", "b.example", None, None, False, "REF-2", "")
    for format in ("csv", "jsonl"):  # noqa: A001 - the project's word
        written, export = text_of(rules, format)
        assert (export.references, export.metadata) == (0, 0)
        assert read(written, format).digest() == rules.digest()
    _, export = text_of(rules, "url")
    assert (export.written, export.references, export.metadata) == (2, 2, 1)


def test_digests_go_only_where_they_stay_digests() -> None:
    rules = RuleSet()
    rules.add("host", f"{'0' * 32}.bpjm-md5.invalid")
    for format in WRITERS:  # noqa: A001 - the project's word
        _, export = text_of(rules, format)
        assert export.written == (format in ("url", "csv", "jsonl")), format


hosts = st.sampled_from(["a.example", "*.a.example", "b.test", "*.c.test", "192.0.2.1", "xn--bcher-kva.example"])
paths = st.text("ab/%20.?=&,;|^$*#!\"'é", max_size=8)


@given(entries=st.lists(st.tuples(hosts, paths), max_size=6), format=st.sampled_from(sorted(WRITERS)))
def test_no_rule_becomes_another(entries: list[tuple[str, str]], format: str) -> None:  # noqa: A002 - as above
    lines = [f"http://{host}/{path}".encode() for host, path in entries]
    parser = FORMATS["url"].parser(FormatOptions())
    parser.feed(b"\n".join(lines))
    rules = parser.finish()
    text, export = text_of(rules, format)
    back = read(text, format)
    assert len(back) == export.written
    assert trie(back) == trie(rules.common(back))
    assert len(rules.common(back)) == len(back)


def test_a_table_is_a_table_for_others_too() -> None:
    text, _ = text_of(ALL_KINDS, "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == len(ALL_KINDS)
    assert all(row["url"].startswith("http://") for row in rows)
    text, _ = text_of(ALL_KINDS, "jsonl")
    assert len([json.loads(line) for line in text.splitlines()]) == len(ALL_KINDS)
