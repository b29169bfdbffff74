"""Popular domains of which lists name single pages: all of such a domain's traffic goes through the URL filter.

In December 2008 one listed page of Wikipedia led all of Britain's traffic to it through a few proxies: it became slow,
and its readers could no longer be told apart. Who runs a filter wants to know beforehand to which hosts it can happen.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blocker.ingest.cleartext import read_rules, sealer
from blocker.ingest.guard import HASHED
from blocker.ingest.never_block import parents

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring


@dataclass(frozen=True, slots=True)
class Inspected:
    """A popular domain with listed pages.

    Attributes:
        domain: The domain, as it is among the popular ones.
        rank: Its place among them, from 1.
        pages: Listed pages there and below, of all lists together.
        hosts: The hosts that they are on.
        lists: The lists that name them.
    """

    domain: str
    rank: int
    pages: int
    hosts: tuple[str, ...]
    lists: tuple[str, ...]


async def inspected(store: Store, keyring: Keyring, popular: Mapping[str, int]) -> list[Inspected]:
    """The popular domains with pages on lists that block and are enforced, the most popular first.

    Args:
        store: Where the lists are.
        keyring: With the seal key.
        popular: Name → rank. A host is of the nearest name above it.

    Raises:
        KeyMaterialError: This process holds no seal key, or another one.
        StoreError: A list's texts are gone.
        FormatError: They are damaged.

    Cost: that of reading every list, 3 s for a million rules.
    """
    opener = sealer(keyring)
    pages: defaultdict[str, int] = defaultdict(int)
    hosts: defaultdict[str, set[str]] = defaultdict(set)
    lists: defaultdict[str, set[str]] = defaultdict(set)
    for name, head in (await store.heads()).items():
        manifest = await store.manifest(name, head.serial)
        if manifest.retired or manifest.action != "block" or manifest.mode != "enforce":
            continue
        rules = await read_rules(store, opener, manifest)
        for host, count in await asyncio.to_thread(rules.path_hosts):
            if (domain := _nearest(host, popular)) is not None:
                pages[domain] += count
                hosts[domain].add(host)
                lists[domain].add(name)
    found = (
        Inspected(domain, popular[domain], count, tuple(sorted(hosts[domain])), tuple(sorted(lists[domain])))
        for domain, count in pages.items()
    )
    return sorted(found, key=lambda one: one.rank)


def _nearest(host: str, popular: Mapping[str, int]) -> str | None:
    names: Iterable[str] = () if host.endswith(HASHED) else (host, *parents(host))
    return next((name for name in names if name in popular), None)
