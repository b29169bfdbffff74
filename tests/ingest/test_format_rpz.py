"""The rpz format: names, wildcards, the zone's own records, and what blocks nothing."""

from __future__ import annotations

import pytest

from tests.ingest.format_reading import MARK, read

HEAD = "$TTL 30\n@ IN SOA localhost. root.localhost. 1 86400 3600 604800 30\n NS localhost.\n"


def zone(text: str) -> tuple[str, ...]:
    outcome = read("rpz", text)
    assert (outcome.errors, outcome.refused, outcome.found) == ((), "", len(outcome.rules))
    return outcome.rules


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("a.example CNAME .", ("host a.example",)),
        ("a.example CNAME *.", ("host a.example",)),
        ("a.example CNAME rpz-drop.", ("host a.example",)),
        ("A.Example 300 in cname . ; why", ("host a.example",)),
        ("a.example IN 1h30m CNAME .", ("host a.example",)),
        ("a.example CNAME .\n*.a.example CNAME .", ("domain a.example",)),
        ("*.a.example CNAME .\nb.example CNAME .\na.example CNAME .", ("domain a.example", "host b.example")),
        ("a.example CNAME .\na.example CNAME .", ("host a.example",)),
        ("a.example ( CNAME ; why\n . )", ("host a.example",)),
        ("a.example (\n\n CNAME\n . ) ; why\nb.example CNAME .", ("host a.example", "host b.example")),
        ("; comment\n\n  ; comment\n\t\n", ()),
        ("@ TXT \"a ; ( b\"\n IN A 192.0.2.1\n", ()),
        ("$ORIGIN example\na CNAME .\n", ("host a.example",)),
    ],
)  # fmt: skip
def test_names(text: str, rules: tuple[str, ...]) -> None:
    assert zone(text) == zone(HEAD + text) == zone("$ORIGIN rpz.test.\n" + HEAD + text) == rules
    assert zone("$ORIGIN test.\n" + HEAD.replace("@ IN SOA", "rpz IN SOA") + "$ORIGIN rpz\n" + text) == rules
    assert zone(HEAD.replace("@ IN SOA", "rpz.test. IN SOA") + text) == rules


def test_origins_and_absolute_names_are_relative_to_the_zone() -> None:
    head = HEAD.replace("@ IN", "rpz.test. IN")
    text = (
        "a.example.rpz.test. CNAME .\n$ORIGIN example.rpz.test.\nb CNAME .\n$ORIGIN sub\nc CNAME .\n@ CNAME .\n"
        "$ORIGIN rpz.test.\nd.example CNAME .\n"
    )
    expected = {"host a.example", "host b.example", "host c.sub.example", "host sub.example", "host d.example"}
    assert set(zone(head + text)) == expected
    multi = "@ IN SOA localhost. root.localhost. (\n  1 ; serial\n 3600 600\n 86400 300 )\n @ NS .\n"
    assert zone("$ORIGIN rpz.test.\n" + multi.replace(" @ NS", "@ NS") + "a.example CNAME .\n") == ("host a.example",)


@pytest.mark.parametrize(
    "line",
    [
        "a.example CNAME rpz-passthru.", "a.example CNAME rpz-tcp-only.", "a.example CNAME garden.test.",
        "a.example A 192.0.2.1", "a.example TXT \"x\"", "*.a.example CNAME .", "* CNAME .", "com CNAME .",
        "32.7.2.0.192.rpz-ip CNAME .", "ns.a.example.rpz-nsdname CNAME .", "32.7.2.0.192.rpz-client-ip CNAME .",
        "32.7.2.0.192.rpz-nsip CNAME .", "$INCLUDE file", "$GENERATE 1-2 a$ CNAME .", "a\\.b.example CNAME .",
        "a.example. CNAME .", "192.0.2.7 CNAME .", "a.example", "a.example CNAME", "a.example CNAME . )",
        "%61.example CNAME .", "a..example CNAME .", "0x7f.1 CNAME .", "$ORIGIN",
        "a.example CNAME . x",
    ],
)  # fmt: skip
def test_what_blocks_nothing_here_is_reported_with_its_line(line: str) -> None:
    outcome = read("rpz", f"{HEAD}good.example CNAME .\n{line}\nlast.example CNAME .\n")
    assert (outcome.rules, outcome.bad) == (("host good.example", "host last.example"), 1)
    assert [number for number, _reason in outcome.errors] == [5]


def test_an_origin_that_may_lie_anywhere_is_not_guessed() -> None:
    outcome = read("rpz", f"{HEAD}$ORIGIN com.\na.b CNAME .\n")
    assert (outcome.rules, outcome.errors[0][0]) == ((), 5)


def test_a_wildcard_alone_is_never_widened_and_its_name_may_be_let_through() -> None:
    outcome = read("rpz", f"{HEAD}a.example CNAME rpz-passthru.\n*.a.example CNAME .\nb.example CNAME .\n")
    assert outcome.rules == ("host b.example",)
    assert [number for number, _reason in outcome.errors] == [4, 5]


def test_a_parenthesis_that_swallows_the_rest_refuses_the_zone() -> None:
    assert "see line 4" in read("rpz", f"{HEAD}a.example ( CNAME .\nb.example CNAME .\n").refused
    assert "see line 4" in read("rpz", HEAD + "a.example ( CNAME .\n" + "b.example CNAME .\n" * 10_000).refused


def test_no_error_repeats_a_name() -> None:
    lines = [f"{MARK}{end}" for end in (" CNAME .", ".example CNAME " + MARK, ".example.", "\\.example CNAME .", "")]
    outcome = read("rpz", HEAD + "\n".join([*lines, f"*.{MARK}.example CNAME .", f"${MARK}", f"a) {MARK}"]))
    assert outcome.bad
    assert MARK not in str(outcome.errors)
