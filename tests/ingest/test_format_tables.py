"""The csv and jsonl formats: fields, quoting, dates, and what refuses a record or a file."""

from __future__ import annotations

import json

import pytest

from blocker._native import RuleSet
from blocker.ingest.formats import FormatOptions
from blocker.matcher import add_rule
from blocker.rules import Rule
from tests.ingest.format_reading import MARK, read

HEAD = "url,reference,category,added,expires\n"


def rows(text: str, **options: object) -> tuple[str, ...]:
    outcome = read("csv", text, FormatOptions(**options))  # type: ignore[arg-type]  # chosen by each test
    assert (outcome.bad, outcome.refused) == (0, "")
    return outcome.rules


def test_a_row_is_a_rule_with_its_metadata_as_the_library_writes_it() -> None:
    row = 'http://a.example/x/,A-17,"b\u00e4d ""stuff""",2026-01-31,2026-12-31\n'
    rule = Rule.parse("http://a.example/x/", reference="A-17", category='b\u00e4d "stuff"')
    ours = RuleSet()
    add_rule(ours, rule)
    (expected,) = ours
    assert rows(HEAD + row.replace("2026-01-31,2026-12-31", ",")) == (
        f"prefix a.example/x/ {expected[5]} {expected[6]}",
    )
    assert rows(HEAD + row)[0].endswith(
        '{"added":"2026-01-31","category":"b\u00e4d \\"stuff\\"","expires":"2026-12-31"}'
    )


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("url\na.example/x\n", ("exact a.example/x",)),
        ("\ufeffURL\r\na.example/x\r\n", ("exact a.example/x",)),
        ('# c\n\n"url"\n"a.example/x"', ("exact a.example/x",)),
        ('more,url\n"1,2",a.example\n"3\n4",b.example\n', ("host a.example", "host b.example")),
        ('more,url\n"""",a.example\n"","b.example"\n', ("host a.example", "host b.example")),
        ("host,path\na.example,\nb.example,/x\nc.example,/x?y=1\n",
         ("host a.example", "exact b.example/x", "exact c.example/x?y=1")),
    ],
)  # fmt: skip
def test_quoting_and_columns(text: str, rules: tuple[str, ...]) -> None:
    assert rows(text) == rules


def test_options_name_columns_delimiter_and_kinds() -> None:
    assert rows(
        "URL of page;nr\na.example/x;7\n", columns={"url": "URL of page", "reference": "nr"}, delimiter=";"
    ) == ("exact a.example/x 7",)
    assert rows("name\na.example\n", columns={"host": "name"}, bare="domain") == ("domain a.example",)
    assert rows("url\nhttp://a.example/x/\n", trailing_slash="exact") == ("exact a.example/x/",)
    assert read("jsonl", '{"u": "a.example"}', FormatOptions(columns={"url": "u"})).rules == ("host a.example",)


@pytest.mark.parametrize(
    ("written", "added", "expires"),
    [
        ("2026-01-31", "2026-01-31", "2026-01-31"),
        ("20260131", "2026-01-31", "2026-01-31"),
        ("2026-01-31T00:00:00Z", "2026-01-31", "2026-01-31"),
        ("2026-01-31T12:00:00Z", "2026-01-31", "2026-02-01"),
        ("2026-01-31T23:00:00-02:00", "2026-02-01", "2026-02-02"),
    ],
)
def test_dates_are_days_in_utc_and_no_entry_leaves_early(written: str, added: str, expires: str) -> None:
    (rule,) = rows(f"{HEAD}a.example,,,{written},{written}\n")
    assert json.loads(rule.partition(" {")[2].join(("{", ""))) == {"added": added, "expires": expires}


@pytest.mark.parametrize(
    "row",
    [
        "a.example", "a.example,,,,,", ",,,,", "a.example,has blank,,,", "a.example," + "x" * 65 + ",,,",
        "a.example,http://a.example/,,,", "a.example,,,31.01.2026,", "a.example,,,,2026-13-01",
        "a.example,,,,9999-12-31T12:00:00", 'a.example,a"b,,,', 'a.example,"a"b,,,', "a.example,,\x01,,",
        'a.example,,"' + "c" * 300 + '",,', '"http://a.example/x\ny",,,,', "no host,,,,", "a.example,,," + "x" * 70_000,
    ],
)  # fmt: skip
def test_a_bad_record_is_reported_with_its_first_line_and_the_rest_goes_on(row: str) -> None:
    outcome = read("csv", f"{HEAD}good.example,,,,\n{row}\nlast.example,,,,\n")
    assert (outcome.rules, outcome.bad) == (("host good.example", "host last.example"), 1)
    assert [number for number, _reason in outcome.errors] == [3]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no header"),
        ("# only a comment\n", "no header"),
        ("name,more\na.example,\n", "names no column for url"),
        ("host\na.example\n", "names no column for url"),
        ("url,URL\na.example,\n", "column for url more than once"),
        ('url\n"a.example\nb.example\n', "not closed"),
        ('url\n"' + "a.example\n" * 10_000, "not closed"),
        ('url\n"' + "a" * 70_000, "not closed"),
        ("url\na.example\0\n", "NUL byte in line 2"),
    ],
)
def test_a_file_that_is_no_table_is_refused(text: str, said: str) -> None:
    assert said in read("csv", text).refused


def test_a_column_that_the_source_names_must_be_there() -> None:
    assert "for reference" in read("csv", "url\na.example\n", FormatOptions(columns={"reference": "nr"})).refused


def test_json_lines() -> None:
    lines = [
        "# comment", "", '{"url": "http://a.example/x/", "reference": 17, "category": "c", "expires": "2026-12-31"}',
        '{"host": "b.example", "path": "/x", "added": null, "other": [1]}\r',
    ]  # fmt: skip
    outcome = read("jsonl", "\n".join(lines))
    assert outcome.errors == ()
    assert outcome.rules == (
        'prefix a.example/x/ 17 {"category":"c","expires":"2026-12-31"}',
        "exact b.example/x",
    )


@pytest.mark.parametrize(
    "line",
    [
        "{", "[]", '"a.example"', "null", "[" * 20_000, '{"url": 7}', '{"url": null, "host": "a.example", "path": ""}',
        '{"host": "a.example"}', '{"url": ""}', '{"url": "a.example", "reference": 1.5}', "{}",
        '{"url": "a.example", "reference": true}', '{"url": "http://a.example/\\ud800"}', '{"url": "a.example\\nb"}',
        '{"url": "a.example", "category": "\\ud800"}', '{"url": "a.example", "reference": "\\ud800"}',
        '{"url": "a.example", "added": "yesterday"}', '{"url": "a.example", "n": ' + "9" * 5000 + "}",
        '{"host": "a.example/x", "path": ""}', '{"host": "a.example", "path": "x"}', '{"url": "' + "x" * 70_000 + '"}',
    ],
)  # fmt: skip
def test_a_bad_object_is_reported_with_its_line(line: str) -> None:
    outcome = read("jsonl", f'{{"url": "good.example"}}\n{line}\n{{"url": "last.example"}}\n')
    assert (outcome.rules, outcome.bad, outcome.lines) == (("host good.example", "host last.example"), 1, 3)
    assert [number for number, _reason in outcome.errors] == [2]


def test_no_error_repeats_an_entry() -> None:
    fields = [MARK, f"http://{MARK}/", f"{MARK}.example/\x01", f"http://{MARK} /", f'"{MARK}"{MARK}', f'{MARK}"']
    table = HEAD + "".join(f"{field},{MARK} {MARK},{MARK},{MARK},{MARK}\n{field},,,,\n" for field in fields)
    outcome = read("csv", table)
    assert outcome.bad
    assert MARK not in str(outcome.errors)
    assert MARK not in read("csv", f"{MARK},{MARK}\n").refused
    objects = "\n".join(json.dumps({"url": field, "added": field}) for field in fields) + f'\n{{"{MARK}\n{MARK}'
    outcome = read("jsonl", objects)
    assert outcome.bad
    assert MARK not in str(outcome.errors)
