"""One real list in several formats: what they all say is the same, and as much as a plain count finds."""

from __future__ import annotations

import re

import pytest

from blocker.ingest.formats import FormatOptions
from tests.data_dir import needs_shared_data, shared_lines, shared_path
from tests.ingest.format_reading import Outcome, read

pytestmark = needs_shared_data

DIRECTORY = "lists/urlhaus-filter/urlhaus-filter"


def data_of(suffix: str) -> bytes:
    name = f"{DIRECTORY}{suffix}"
    return b"\n".join(shared_lines(name)) + b"\n" if name.endswith(".zst") else shared_path(name).read_bytes()


def load(name: str, suffix: str, options: FormatOptions | None = None) -> Outcome:
    data = data_of(suffix)
    outcome = read(name, data, options)
    assert outcome.refused == ""
    assert outcome.lines == data.count(b"\n")
    return outcome


def hosts_of(outcome: Outcome) -> set[str]:
    return {rule.split()[1] for rule in outcome.rules if rule.startswith(("host ", "domain "))}


def paths_of(outcome: Outcome) -> set[str]:
    """Addresses with a path, without what tells a page from all that is under it."""
    addresses = (rule.split()[1] for rule in outcome.rules if rule.startswith(("exact ", "prefix ")))
    return {address.removeprefix("*.").rstrip("/") for address in addresses}


def test_names_agree_between_a_zone_a_hosts_file_and_a_count() -> None:
    zone, hosts = load("rpz", "-rpz.conf"), load("hosts", "-hosts.txt")
    expected = {line.split()[0].decode() for line in data_of("-rpz.conf").splitlines() if b" CNAME ." in line}
    assert len(expected) > 2_600
    assert hosts_of(zone) == hosts_of(hosts) == expected
    assert (zone.bad, hosts.bad) == (0, 0)
    assert set(zone.rules) == set(hosts.rules)


def test_a_large_zone_is_read_to_its_end() -> None:
    zone = load("rpz", "-rpz.largest-historic.conf.zst")
    expected = sum(b" CNAME ." in line for line in data_of("-rpz.largest-historic.conf.zst").splitlines())
    assert expected > 112_000
    assert zone.found + zone.bad == expected
    assert zone.bad < expected / 1000


@pytest.mark.parametrize("suffix", ["-ag.txt.zst", "-vivaldi.txt.zst"])
def test_filters_agree_with_the_plain_list_and_a_count(suffix: str) -> None:
    filters = load("adblock", suffix)
    written = [line for line in data_of(suffix).decode().splitlines() if line.startswith("||")]
    assert len(written) > 31_000
    assert filters.found + filters.bad == len(written)
    assert filters.bad < len(written) / 100
    whole = {match[1] for line in written if (match := re.fullmatch(r"\|\|([^/:^]+)\^(\$.*)?", line))}
    assert hosts_of(filters) == whole
    # The list itself has three names here that it has not there.
    plain = hosts_of(load("domain", "-domains.txt.zst"))
    assert plain < whole
    assert len(whole - plain) == 3


def test_filters_of_names_are_the_list_of_names() -> None:
    assert set(load("adblock", "-agh.txt.zst").rules) == set(load("domain", "-domains.txt.zst").rules)
    assert set(load("squidguard-domains", "-domains.txt.zst").rules) == set(load("domain", "-domains.txt.zst").rules)


def test_a_table_agrees_with_the_filters_of_the_same_list() -> None:
    table = load("csv", "-splunk-online.csv.zst", FormatOptions(bare="domain"))
    lines = [line for line in data_of("-splunk-online.csv.zst").splitlines() if line and not line.startswith(b"#")]
    assert table.found + table.bad == len(lines) - 1 > 6_000
    assert table.bad == 0
    mixed = data_of("-online.txt.zst").splitlines()
    names = read("domain", b"\n".join(line for line in mixed if line[:1] not in b"|!"))
    filters = read("adblock", b"\n".join(line for line in mixed if line[:1] == b"|"))
    assert hosts_of(table) == hosts_of(names) | hosts_of(filters)
    assert paths_of(filters) <= paths_of(table)
    assert len(paths_of(table) - paths_of(filters)) <= filters.bad
    assert filters.bad < filters.found / 50
