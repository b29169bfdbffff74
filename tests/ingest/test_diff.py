"""Differences of two serials: the rules themselves, in either direction, and nothing without the seal key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from blocker.errors import KeyMaterialError, StoreError
from blocker.ingest.diff import diff
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import publish
from blocker.store.sealing import Keyring
from tests.ingest.checks import pages

if TYPE_CHECKING:
    from blocker.store.redis import Store


@pytest.fixture
async def published(store: Store, keyring: Keyring) -> Store:
    """Pages 0 to 99, then 10 to 104, then 0 to 4."""
    for numbers in (range(100), range(10, 105), range(5)):
        await publish(store, keyring, "pages", PublishOptions(), pages(numbers), reason="test", now=1.0)
    return store


@pytest.mark.parametrize(
    ("older", "newer", "added", "removed"),
    [
        (1, 2, range(100, 105), range(10)),
        (2, 1, range(10), range(100, 105)),
        (1, None, range(0), range(5, 100)),
        (2, 3, range(5), range(10, 105)),
        (2, 2, range(0), range(0)),
    ],
)
async def test_rules_that_came_and_went(
    published: Store, keyring: Keyring, older: int, newer: int | None, added: range, removed: range
) -> None:
    found = await diff(published, keyring, "pages", older, newer)
    assert (found.older.serial, found.newer.serial) == (older, newer or 3)
    assert (found.added.dump(), found.removed.dump()) == (pages(added).dump(), pages(removed).dump())


async def test_it_tells_no_rule_by_itself(published: Store, keyring: Keyring) -> None:
    assert "site" not in repr(await diff(published, keyring, "pages", 1))


async def test_refusals(published: Store, keyring: Keyring) -> None:
    for older, newer in ((9, None), (1, 9)):
        with pytest.raises(StoreError, match="no serial 9"):
            await diff(published, keyring, "pages", older, newer)
    with pytest.raises(StoreError, match="no serial 1"):
        await diff(published, keyring, "other", 1)
    with pytest.raises(KeyMaterialError, match="no seal key"):
        await diff(published, Keyring(lookup=keyring.lookup), "pages", 1)
