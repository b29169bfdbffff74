from __future__ import annotations

import pytest
from redis.crc import key_slot

from blocker.errors import StoreError
from blocker.store.keys import Keys

SHA = "a" * 64


def every_key(keys: Keys) -> list[str]:
    return [
        keys.meta, keys.heads, keys.blobs, keys.commits, keys.checked, keys.nodes, keys.manifest("l", 1),
        keys.manifest("l", 2), keys.blob("segment", SHA), keys.blob("sealed", SHA), keys.source("l"), keys.hits("n"),
        keys.hits_sequence("n"), keys.hits_folded("n"), keys.releases,
    ]  # fmt: skip


def test_all_keys_of_a_deployment_lie_in_one_slot_and_differ() -> None:
    names = every_key(Keys("default"))
    assert len({key_slot(name.encode()) for name in names}) == 1
    assert len(set(names)) == len(names)
    assert all(name.startswith("{blocker:default}:") for name in names)


def test_deployments_share_no_key() -> None:
    assert not set(every_key(Keys("one"))) & set(every_key(Keys("two")))


@pytest.mark.parametrize("name", ["", "A", "-a", "a:b", "a}b", "a b", "ä", "a" * 64, "a\n"])
def test_a_malformed_name_is_refused_and_not_repeated(name: str) -> None:
    keys = Keys("default")
    for use in (Keys, keys.source, keys.hits, lambda text: keys.manifest(text, 1)):
        with pytest.raises(StoreError, match="1 to 63 of a-z") as caught:
            use(name)
        assert "a:b" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a" * 63, "A" * 64, "g" * 64, "a" * 65])
def test_a_blob_is_named_by_a_sha256(name: str) -> None:
    with pytest.raises(StoreError, match="SHA-256"):
        Keys.blob_member("segment", name)
