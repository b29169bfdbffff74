"""A stranger's file of each format: as many rules as another program counts, and out and in again to the same trie.

The other program is the slow oracle, written from the rules of matching alone, over a plain reading of each format that
shares no code with the project. Everything goes the way a maintainer's file goes: a source is pulled into a real store,
exported, and what was exported is pulled as another list.
"""

from __future__ import annotations

import csv
import io
import json
import re
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import pytest

from blocker.ingest.cleartext import load_rules
from blocker.ingest.export import Export, Reading
from blocker.ingest.formats import FORMATS
from blocker.ingest.source import Source
from blocker.ingest.update import pull
from blocker.ingest.writers import head
from tests.data_dir import needs_shared_data, shared_lines, shared_path
from tests.ingest.checks import LATER, assert_whole
from tests.oracle import rules as oracle
from tests.oracle.rules import DOMAIN, EXACT, PREFIX, OracleRule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from blocker._native import RuleSet
    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring

pytestmark = needs_shared_data

URLHAUS = "lists/urlhaus-filter/urlhaus-filter"
# Enough lines for every oddity of the long files, few enough for the slow oracle.
SOME = 40_000

Counted = tuple[set[OracleRule], int]


def entries(file: str) -> list[str]:
    """Lines of a file of the project's neighbours, comments included."""
    if file.endswith(".zst"):
        return [line.decode() for line in shared_lines(file)]
    return shared_path(file).read_text("utf-8").splitlines()


def tweets() -> Iterator[list[str]]:
    """Rows of a feed of full URLs: first seen, type, value, tags."""
    rows = (line.decode().split("\t") for line in shared_lines("lists/tweetfeed_iocs.tsv.zst"))
    return islice((row for row in rows if row[1] == "url"), SOME)


def as_read(lines: Iterable[str], read: Callable[[str], OracleRule]) -> Counted:
    rules, bad = set(), 0
    for line in lines:
        try:
            rules.add(read(line))
        except oracle.InvalidRule:
            bad += 1
    return rules, bad


def content(lines: Iterable[str], comment: str = "#") -> list[str]:
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith(comment)]


def count_url(text: str) -> Counted:
    return as_read(content(text.split("\n")), oracle.parse)


def count_domain(text: str) -> Counted:
    return as_read(content(text.split("\n")), lambda line: oracle.parse(line, "domain"))


def count_hosts(text: str) -> Counted:
    names = [name for line in content(text.split("\n")) for name in line.split()[1:]]
    return as_read(names, lambda name: oracle.parse(name, "domain", domain_kind="host"))


def count_rpz(text: str) -> Counted:
    """`x CNAME .` is a host, with `*.x CNAME .` a domain."""
    owners = [line.split()[0] for line in content(text.split("\n"), ";") if re.search(r"\sCNAME\s+\.$", line)]
    stars = {owner[2:] for owner in owners if owner.startswith("*.")}
    return as_read(
        [owner for owner in owners if not owner.startswith("*.")],
        lambda owner: oracle.parse(owner, "domain", domain_kind="domain" if owner in stars else "host"),
    )


def count_csv(text: str) -> Counted:
    rows = list(csv.DictReader(line for line in text.split("\n") if line and not line.startswith("#")))
    return as_read(
        (f"http://{row['host']}{row['path'] and '/' + row['path'].lstrip('/')}" for row in rows),
        lambda line: oracle.parse(line, bare="domain"),
    )


def count_jsonl(text: str) -> Counted:
    return as_read((json.loads(line)["url"] for line in content(text.split("\n"))), oracle.parse)


def count_adblock(text: str) -> Counted:
    """Only what the files hold: `||host^` and `||host/path`, options behind a dollar sign."""

    def read(line: str) -> OracleRule:
        body = re.sub(r"\$[a-z,]+$", "", line.removeprefix("||"))
        host, slash, path = body.removesuffix("^").partition("/")
        if re.search(r"[*|^]", body.removesuffix("^")) or ":" in host or "#" in line:
            raise oracle.InvalidRule("not said here")
        if body.endswith("/^"):
            raise oracle.InvalidRule("a separator after a slash is more than the path")
        if not slash:
            return oracle.parse(host, "domain")
        address = re.fullmatch(r"[0-9.]+", host) is not None
        rule = oracle.parse(f"http://{'' if address else '*.'}{host}/{path if '?' in path else path.rstrip('/') + '/'}")
        return rule._replace(kind=EXACT if rule.query is not None else rule.kind)

    return as_read([line for line in content(text.split("\n"), "!") if line.startswith("||")], read)


def count_squidguard_urls(text: str) -> Counted:
    def read(line: str) -> OracleRule:
        if "#" in line or line.startswith("*."):
            raise oracle.InvalidRule("not said here")
        return oracle.parse(line if "?" in line else f"{line.rstrip('/')}/*")

    return as_read(content(text.split("\n")), read)


class File(NamedTuple):
    """One stranger's file: its text, who counts it, how a source describes it, and how many rules it has at least."""

    text: Callable[[], Iterable[str]]
    counted: Callable[[str], Counted]
    least: int
    source: dict[str, object]


def maltrail_urls() -> list[str]:
    return [line.split("\t")[0] for line in islice(entries("lists/maltrail/maltrail_urls.tsv.zst"), SOME)]


def tweets_as_json() -> Iterator[str]:
    return (json.dumps({"url": row[2], "category": row[3], "added": row[0][:10]}) for row in tweets())


FILES = {
    "url": File(lambda: (row[2] for row in tweets()), count_url, 30_000, {}),
    "domain": File(lambda: entries(f"{URLHAUS}-domains.txt.zst"), count_domain, 20_000, {}),
    "hosts": File(lambda: entries(f"{URLHAUS}-hosts.txt"), count_hosts, 2_600, {}),
    "rpz": File(lambda: entries(f"{URLHAUS}-rpz.largest-historic.conf.zst"), count_rpz, 112_000, {}),
    "csv": File(lambda: entries(f"{URLHAUS}-splunk-online.csv.zst"), count_csv, 6_000, {"bare": "domain"}),
    "jsonl": File(tweets_as_json, count_jsonl, 30_000, {}),
    "adblock": File(lambda: entries(f"{URLHAUS}-ag.txt.zst"), count_adblock, 31_000, {}),
    "squidguard-domains": File(lambda: entries(f"{URLHAUS}-domains.txt.zst"), count_domain, 20_000, {}),
    "squidguard-urls": File(maltrail_urls, count_squidguard_urls, 30_000, {}),
}


def identities(rules: RuleSet) -> set[OracleRule]:
    return {OracleRule(kind, host, path, query, wide) for kind, host, path, query, wide, _, _ in rules}


async def pulled(
    store: Store, keyring: Keyring, name: str, path: Path,
    format: str,  # noqa: A002 - the project's word
    **fields: object,
) -> tuple[RuleSet, int]:  # fmt: skip
    source = Source.model_validate({"name": name, "format": format, "path": path, "max_bad_share": 0.2, **fields})
    result = await pull(source, store, keyring, clock=lambda: LATER)
    assert result.status == "published", result
    return await load_rules(store, keyring, name), result.bad


@pytest.mark.parametrize("format", sorted(FILES))
async def test_in_as_counted_and_out_and_in_again(
    format: str,  # noqa: A002 - the project's word
    store: Store, keyring: Keyring, tmp_path: Path,
) -> None:  # fmt: skip
    file = FILES[format]
    text = "".join(f"{line}\n" for line in file.text())
    path = tmp_path / "stranger"
    path.write_text(text, encoding="utf-8")
    expected, bad = file.counted(text)
    assert len(expected) >= file.least

    rules, found_bad = await pulled(store, keyring, "first", path, format, **file.source)
    assert found_bad == bad
    got = identities(rules)
    assert (len(got - expected), len(expected - got)) == (0, 0), (
        sorted(got - expected)[:3], sorted(expected - got)[:3],
    )  # fmt: skip

    reading = Reading(format=format, **file.source)  # type: ignore[arg-type]
    export = Export(rules, reading)
    out = io.StringIO()
    out.writelines(f"{line}\n" for line in [*head(format, "first", 1), *export.lines()])
    assert (export.left_out, export.written) == (0, len(rules))
    path.write_text(out.getvalue(), encoding="utf-8")
    again, _ = await pulled(store, keyring, "second", path, format, **file.source)
    assert len(again) == len(rules)
    assert (await store.manifest("second")).digest == (await store.manifest("first")).digest
    await assert_whole(store, keyring, "second")


def test_every_format_has_its_stranger() -> None:
    assert FILES.keys() == FORMATS.keys() - {"bpjm"}, "digests have no public list; tests/bpjm_file.py writes one"
    assert {DOMAIN, PREFIX} <= {rule.kind for rule in count_adblock("||a.example^\n||a.example/b/\n")[0]}
