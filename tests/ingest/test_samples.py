"""The sample lists and what their README says of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blocker._native import Table
from blocker.ingest.source import Source, load_sources
from blocker.matcher import ListMetadata, Matcher
from tests.ingest.checks import assert_whole, folded, look

if TYPE_CHECKING:
    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring

LISTS = Path(__file__).parents[2] / "lists"


async def test_the_sample_lists_pull_without_a_bad_line(store: Store, keyring: Keyring) -> None:
    loaded = load_sources(LISTS)
    assert loaded.errors == ()
    assert [source.name for source in loaded.sources] == [
        "exceptions", "sample-domains", "sample-hosts", "sample-shadow", "sample-urls",
    ]  # fmt: skip
    for source in loaded.sources:
        result = await look(source, store, keyring)
        assert (result.status, result.bad) == ("published", 0)
        kinds = {rule[0] for rule in await assert_whole(store, keyring, source.name)}
        if source.name == "sample-urls":
            assert kinds == {"host", "prefix", "exact"}
    assert (await store.manifest("exceptions")).action == "allow"
    assert (await store.manifest("sample-shadow")).mode == "shadow"


def test_the_readme_of_the_samples_names_every_field() -> None:
    text = (LISTS / "README.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    named = {word for row in rows for word in row.split("|")[1].replace("`", "").replace(",", " ").split()}
    assert set(Source.model_fields) <= named


async def test_the_samples_decide_as_their_comments_say(store: Store, keyring: Keyring) -> None:
    lists = []
    for source in load_sources(LISTS).sources:
        await look(source, store, keyring)
        manifest = await store.manifest(source.name)
        metadata = ListMetadata(entries=manifest.entries, mode=manifest.mode, digest=manifest.digest)
        run = await folded(store, keyring, manifest)
        lists.append((source.name, 1, manifest.action == "allow", metadata.dump(), run))
    matcher = Matcher.of(Table.build(lists, keyring.lookup))
    expected = {
        "http://blocked.example/any/page": "sample-urls",
        "http://www.blocked.example/": None,
        "http://gallery.example/": None,
        "http://gallery.example/listed/page.html?any=1": "sample-urls",
        "https://gallery.example/secret": "sample-urls",
        "http://gallery.example/secret/x": "sample-urls",
        "http://gallery.example/secrets": None,
        "http://gallery.example/view?id=7": "sample-urls",
        "http://gallery.example/view?id=8": None,
        "http://gallery.example/b\u00e4rgen/bild 1.jpg": "sample-urls",
        "http://cdn.mirror.example/copies/1": "sample-urls",
        "http://[2001:db8::7]/x": "sample-urls",
        "http://203.0.113.9/": "sample-domains",
        "http://www.bad-domain.example/": "sample-domains",
        "http://bad-domain.example/appeals": "sample-domains",
        "http://beacon.tracker.example/x": "sample-hosts",
        "http://tracker.example/": None,
    }
    for url, name in expected.items():
        decision = matcher.decide(url)
        assert (decision.verdict, decision.list) == ("block" if name else "allow", name), url
    excepted = matcher.decide("http://bad-domain.example/appeal")
    assert (excepted.verdict, excepted.list) == ("allow", "exceptions")
    for url in ("http://sub.on-trial.example/", "http://www.gallery.test/Photos/1"):
        trial = matcher.decide(url)
        assert (trial.verdict, trial.shadow) == ("allow", ("sample-shadow",))
