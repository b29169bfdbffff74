"""The adblock and squidGuard formats: what each line means, and what none may be taken to mean."""

from __future__ import annotations

import pytest

from tests.ingest.format_reading import MARK, read

ADBLOCK = {
    "||a.example^": "domain a.example",
    "||A.Example": "domain a.example",
    "||a.example/": "domain a.example",
    "||a.example^*": "domain a.example",
    "||a.example^$all": "domain a.example",
    "||a.example^$document,important": "domain a.example",
    "||b\u00fccher.example^": "domain xn--bcher-kva.example",
    "||192.0.2.7^": "domain 192.0.2.7",
    "||[2001:db8::7]^": "domain [2001:db8::7]",
    "||a.example/x": "prefix *.a.example/x/",
    "||a.example/x/": "prefix *.a.example/x/",
    "||a.example/x.js^$all": "prefix *.a.example/x.js/",
    "||a.example/x*": "prefix *.a.example/x/",
    "||192.0.2.7/x^": "prefix 192.0.2.7/x/",
    "||a.example/?u=1^": "exact *.a.example/?u=1",
    "||a.example/x?id=7": "exact *.a.example/x?id=7",
    "|http://a.example/x?id=7|": "exact a.example/x?id=7",
    "|https://a.example/x": "prefix a.example/x/",
    "|https://a.example^": "host a.example",
    "|https://a.example/": "host a.example",
}
NO_RULE = ["", "  ", "! comment", "!", "[Adblock Plus 2.0]", "# comment", "#"]
NOT_TAKEN = [
    "@@||a.example^", "a.example##.ad", "a.example#@#.ad", "##.ad", "/ads[0-9]/", "a.example", "a.example/x", "-ad-",
    "||a.example^$third-party", "||a.example^$script", "||a.example^$document,domain=b.example", "||a.example^$",
    "||a.example:8080^", "||user@a.example^", "||*.a.example^", "||a.*^", "||a.example/*/x", "||a.example/x^y",
    "||a.example.", "||.a.example^", "||example^", "||a.example^|", "||a.example/x|", "||a.example/x^|",
    "|http://a.example/x|", "|http://a.example/|", "|a.example", "||a.example/x/^", "||192.0.2^", "||1.2.3.4.5^",
    "||0x7f.1^", "||a.example/x#y", "||", "||^", "||/x", "|http://", "||a.example/ x", "||a.example\\x", "*", "|", "^",
    "0.0.0.0 a.example", "||a.example^$removeparam", "||%61.example^",
]  # fmt: skip
SQUIDGUARD = {
    "a.example/x": "prefix a.example/x/",
    "a.example/x/": "prefix a.example/x/",
    "a.example/x.html": "prefix a.example/x.html/",
    "a.example/x?id=7": "exact a.example/x?id=7",
    "a.example": "host a.example",
    "192.0.2.7/~user": "prefix 192.0.2.7/~user/",
}


@pytest.mark.parametrize(("line", "rule"), ADBLOCK.items())
def test_a_filter_that_a_rule_can_say(line: str, rule: str) -> None:
    outcome = read("adblock", line)
    assert (outcome.rules, outcome.errors) == ((rule,), ())


@pytest.mark.parametrize("line", NO_RULE)
def test_a_line_that_is_no_filter(line: str) -> None:
    assert (read("adblock", line).found, read("adblock", line).bad) == (0, 0)


@pytest.mark.parametrize("line", NOT_TAKEN)
def test_a_filter_that_no_rule_can_say_is_reported_and_never_widened(line: str) -> None:
    outcome = read("adblock", f"! head\n{line}\n||good.example^\n")
    assert outcome.rules == ("domain good.example",)
    assert [number for number, _reason in outcome.errors] == [2]


@pytest.mark.parametrize(("line", "rule"), SQUIDGUARD.items())
def test_an_entry_of_an_urls_file(line: str, rule: str) -> None:
    outcome = read("squidguard-urls", f"# head\n\n{line}\r\n")
    assert (outcome.rules, outcome.errors, outcome.lines) == ((rule,), (), 3)


@pytest.mark.parametrize("line", ["*.a.example/x", "a.example/x#y", "/x", "com", "a b.example/x", "a\t.example"])
def test_what_an_urls_file_cannot_say_is_reported(line: str) -> None:
    outcome = read("squidguard-urls", line)
    assert (outcome.rules, outcome.bad, outcome.errors[0][0]) == ((), 1, 1)


def test_a_domains_file() -> None:
    outcome = read("squidguard-domains", "# head\na.example\n.b.example\n192.0.2.7\ncom\na.example/x\n")
    assert set(outcome.rules) == {"domain a.example", "domain b.example", "domain 192.0.2.7"}
    assert [number for number, _reason in outcome.errors] == [5, 6]


@pytest.mark.parametrize("name", ["adblock", "squidguard-urls", "squidguard-domains"])
def test_no_error_repeats_an_entry(name: str) -> None:
    lines = [f"{start}{MARK}{end}" for start in ("@@", "||", "|", "*.", "") for end in ("", ":1/", "^$x", "#y", "\xa0")]
    outcome = read(name, "\n".join(lines))
    assert outcome.bad
    assert MARK not in str(outcome.errors)
