"""What holds of every format: any split reads the same, any bytes are read or refused, bad lines are bounded."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocker.ingest.formats import FORMATS as ALL_FORMATS
from tests.ingest.format_reading import read

SAMPLES = {
    "url": "http://a.example/x\n# c\n\nhhttp://b/\nc.example/x/\r\n",
    "domain": "a.example\n# c\ncom\n*.b.example # c\n",
    "hosts": "0.0.0.0 a.example\n127.0.0.1 localhost\n192.0.2.1 x.example\n",
    "csv": 'more,url,category\r\n# c\r\n"1\n""2,",a.example/x,"b\u00e4d"\r\n'
           'x"y,b.example,\n"x"y,c.example,\n1,d.example,\n',
    "jsonl": '{"url": "a.example/x"}\n# c\n{"url": 7}\n{"url": "b.example", "category": "b\u00e4d"}\n{',
    "rpz": "$TTL 30\n@ IN SOA a. b. (\n1 ; \u00e4\n2 3 4 5 )\n IN NS c.\n$ORIGIN example\na CNAME .\n*.a CNAME .\n"
           "b CNAME rpz-passthru.\n*.c CNAME .\nd IN ( CNAME\n*. )\n",
    "adblock": "! c\n||a.example^\n@@||b.example^\n||c.example/x^$all\n|http://d.example/?q\u00e4|\n##.ad\n",
    "squidguard-domains": "a.example\n# c\n.b.example\ncom\n",
    "squidguard-urls": "a.example/x\n# c\n*.b.example/x\nc.example/x?y\n",
}  # fmt: skip
# Formats of text; what is binary has tests of its own.
FORMATS = ALL_FORMATS.keys() - {"bpjm"}
# What formats are made of, so that random text reaches more than the first refusal.
PARTS = st.sampled_from(
    ["\n", "\n", "\r\n", ",", '"', '""', "url", "a.example", "*.a.example", "/x", "||", "^", "|", "$all", "@@", " ",
     "\t", "CNAME", " CNAME .\n", "(", ")", ";", "$ORIGIN", "@", "{", "}", '{"url": "', '": "', "[", "#", "!", "\ufeff",
     "\u00e4", "http://", "0.0.0.0 ", "?", "\\", "\ud7ff", "%", "com"]
)  # fmt: skip
TEXTS = st.lists(PARTS, max_size=60).map("".join)
ANYTHING = st.binary(max_size=200) | TEXTS.map(str.encode)


def test_every_format_is_tried() -> None:
    assert SAMPLES.keys() == FORMATS


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_whole_equals_byte_by_byte_and_every_cut(name: str) -> None:
    data = b"\xef\xbb\xbf" + SAMPLES[name].encode() + b"\xff\n" + SAMPLES[name].encode()
    whole = read(name, data)
    assert whole.rules
    assert whole.bad >= 2
    assert whole.lines == data.count(b"\n") + (not data.endswith(b"\n"))
    assert read(name, (data[at : at + 1] for at in range(len(data)))) == whole
    for cut in range(len(data)):
        assert read(name, [data[:cut], data[cut:]]) == whole


@pytest.mark.parametrize("name", sorted(FORMATS))
@settings(max_examples=150, deadline=None)
@given(data=ANYTHING, more=ANYTHING, cuts=st.lists(st.integers(0, 800), max_size=5))
def test_any_split_of_anything_reads_the_same(name: str, data: bytes, more: bytes, cuts: list[int]) -> None:
    # A NUL is refused with its chunk and before the lines in front of it; where there is one only that is compared.
    data = data + SAMPLES[name].encode() + more
    edges = [0, *(cut for cut in sorted(cuts) if cut < len(data)), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]
    whole, split = read(name, data), read(name, pieces)
    assert whole == split or (b"\0" in data and whole.refused and split.refused)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_long_line_is_one_bad_line_however_it_comes(name: str) -> None:
    head = b"url,more\n" if name == "csv" else b""
    data = head + b"x" * 200_000 + b"\n" + b"y" * 65_537 + b"\n" + b"\xff\n"
    whole = read(name, data)
    lines = head.count(b"\n")
    assert [number for number, _reason in whole.errors] == [lines + 1, lines + 2, lines + 3]
    assert whole.bad == 3
    assert read(name, [data[at : at + 999] for at in range(0, len(data), 999)]) == whole


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_binary_is_refused_with_its_line(name: str) -> None:
    assert "NUL byte in line 3" in read(name, [b"# c\n#", b" d\n\0"]).refused


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_errors_are_bounded_and_all_counted(name: str) -> None:
    head = "url\n" if name == "csv" else ""
    outcome = read(name, head + "<x>,\n" * 3000)
    assert (outcome.bad, len(outcome.errors)) == (3000, 1000)
