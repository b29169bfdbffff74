"""The bpjm format: what records become, and that a damaged or cut file gives nothing at all."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocker.ingest.formats.bpjm import is_hashed
from tests.bpjm_file import SAMPLE, SAMPLE_ENTRIES, bpjm_file, digest
from tests.ingest.format_reading import read

FILE = bpjm_file(SAMPLE_ENTRIES)
HASHED = f"{digest('hashed.example')}.bpjm-md5.invalid"
PAGES = f"{digest('pages.example')}.bpjm-md5.invalid"


def test_the_sample_is_what_its_generator_makes() -> None:
    assert SAMPLE.read_bytes() == FILE
    assert len(FILE) == 64 + 4 * 33


@pytest.mark.parametrize(
    ("text", "expected"),
    [  # Path digests of the module's own test entries, and RFC 1321, appendix A.5.
        ("bpjm/Service/", "7ff7b496dacd5b5a012246388dc13f83"),
        ("", "d41d8cd98f00b204e9800998ecf8427e"),
        ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
    ],
)
def test_digests_agree_with_published_ones(text: str, expected: str) -> None:
    assert digest(text) == expected


def test_records_become_rules_of_hosts_that_cannot_exist() -> None:
    outcome = read("bpjm", FILE)
    pages = [f"exact {PAGES}/{digest(path)}" for host, path in SAMPLE_ENTRIES if host == "pages.example"]
    assert sorted(outcome.rules) == sorted([f"host {HASHED}", *pages])
    assert (outcome.lines, outcome.found, outcome.bad, outcome.errors) == (4, 4, 0, ())


def test_either_spelling_of_the_root_is_the_whole_host() -> None:
    assert read("bpjm", bpjm_file([("hashed.example", "/")])).rules == (f"host {HASHED}",)


def test_a_file_without_records_is_an_empty_list() -> None:
    assert read("bpjm", bpjm_file([]))[:4] == ((), 0, 0, 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "file has 0 bytes, expected at least 64 of header"),
        (FILE[:63], "file has 63 bytes"),
        (FILE[:-1], "32 bytes are left over after record 3, expected records of 33"),
        (FILE + b"\n", "1 bytes are left over after record 4"),
        (FILE[:-33], "the file is damaged"),
        (FILE + FILE[-33:], "the file is damaged"),
        (b"\0" + FILE[1:], "CRC-32 is "),
        (b"<!DOCTYPE html>" + b" " * 200, "bytes are left over"),
    ],
)
def test_what_is_cut_or_damaged_is_refused(data: bytes, reason: str) -> None:
    outcome = read("bpjm", data)
    assert reason in outcome.refused
    assert outcome.rules == ()


def test_every_changed_byte_is_noticed() -> None:
    for at in range(len(FILE)):
        changed = FILE[:at] + bytes([FILE[at] ^ 0x10]) + FILE[at + 1 :]
        assert "the file is damaged" in read("bpjm", changed).refused, at


def test_whole_equals_byte_by_byte_and_every_cut() -> None:
    whole = read("bpjm", FILE)
    assert whole.rules
    assert read("bpjm", (FILE[at : at + 1] for at in range(len(FILE)))) == whole
    for cut in range(len(FILE)):
        assert read("bpjm", [FILE[:cut], b"", FILE[cut:]]) == whole


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_any_split_of_anything_reads_the_same(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert read("bpjm", [data[start:end] for start, end in pairwise(edges)]) == read("bpjm", data)


def test_is_hashed() -> None:
    assert is_hashed(HASHED)
    assert not is_hashed("bpjm-md5.invalid.example")
