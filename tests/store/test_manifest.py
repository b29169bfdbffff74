from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocker.errors import FormatError
from blocker.store.manifest import MAX_SERIAL, Head, Layer, Manifest
from tests.store.publishing import make_layer, make_manifest

SHA = st.text("0123456789abcdef", min_size=64, max_size=64)
COUNT = st.integers(0, MAX_SERIAL)
LAYERS = st.builds(
    Layer,
    segments=st.lists(SHA, max_size=3).map(tuple),
    sealed=st.lists(SHA, max_size=3).map(tuple),
    nodes=COUNT,
    added=COUNT,
    removed=COUNT,
)
MANIFESTS = st.builds(
    Manifest,
    list=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True),
    serial=st.integers(1, MAX_SERIAL),
    epoch=st.text("0123456789abcdef", min_size=32, max_size=32),
    action=st.sampled_from(["block", "allow"]),
    mode=st.sampled_from(["enforce", "shadow"]),
    path_case=st.sampled_from(["sensitive", "insensitive"]),
    www_alias=st.booleans(),
    entries=COUNT,
    digest=SHA,
    rules_digest=SHA,
    layers=st.lists(LAYERS, max_size=3).map(tuple),
    created=st.floats(0, 4e9),
    reason=st.text(),
    added=COUNT,
    removed=COUNT,
    retired=st.booleans(),
)


@given(MANIFESTS)
def test_what_is_written_is_read_back(manifest: Manifest) -> None:
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert Manifest.from_json(manifest.to_json().encode()).to_json() == manifest.to_json()


@given(st.binary())
def test_any_bytes_are_a_manifest_or_a_format_error(data: bytes) -> None:
    for read in (Manifest.from_json, lambda text: Head.from_json("l", text)):
        with pytest.raises(FormatError):
            read(data)


WRONG: list[tuple[str, Any]] = [
    ("list", "UPPER"), ("list", 1), ("serial", 0), ("serial", 1.0), ("serial", True), ("serial", "1"),
    ("serial", MAX_SERIAL + 1), ("epoch", "x" * 32), ("epoch", "0" * 31), ("action", "deny"), ("action", []),
    ("mode", None), ("path_case", {}), ("www_alias", 1), ("entries", -1), ("digest", "A" * 64), ("digest", "0" * 63),
    ("rules_digest", None), ("layers", {}), ("layers", None), ("created", "now"), ("created", -1), ("created", True),
    ("reason", 5), ("retired", "no"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_wrong_field_is_named(field: str, value: object) -> None:
    fields = json.loads(make_manifest().to_json())
    with pytest.raises(FormatError, match=rf"manifest\.{field}: expected"):
        Manifest.from_json(json.dumps({**fields, field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [("segments", ["x"]), ("segments", "a" * 64), ("sealed", [1]), ("nodes", -1), ("added", None), ("removed", 1.5)],
)
def test_a_wrong_field_of_a_layer_is_named(field: str, value: object) -> None:
    fields = json.loads(make_manifest(layers=(make_layer(), make_layer())).to_json())
    fields["layers"][1][field] = value
    with pytest.raises(FormatError, match=rf"manifest\.layers\[1\]\.{field}: expected"):
        Manifest.from_json(json.dumps(fields))


@pytest.mark.parametrize("field", Manifest.__slots__)
def test_a_missing_field_is_named(field: str) -> None:
    fields = json.loads(make_manifest().to_json())
    del fields[field]
    with pytest.raises(FormatError, match=rf"manifest\.{field}: missing"):
        Manifest.from_json(json.dumps(fields))


def test_a_field_of_a_newer_version_is_refused() -> None:
    fields = json.loads(make_manifest(layers=(make_layer(),)).to_json())
    with pytest.raises(FormatError, match="newer"):
        Manifest.from_json(json.dumps({**fields, "more": 1}))
    fields["layers"][0]["more"] = 1
    with pytest.raises(FormatError, match="newer"):
        Manifest.from_json(json.dumps(fields))


@pytest.mark.parametrize("text", ["", "[]", "1", "null", "{", "[" * 100_000, '{"created":NaN}'])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="manifest"):
        Manifest.from_json(text)


def test_an_infinite_time_is_refused() -> None:
    text = make_manifest(created=12345.5).to_json().replace("12345.5", "Infinity")
    with pytest.raises(FormatError, match=r"manifest\.created"):
        Manifest.from_json(text)
    with pytest.raises(ValueError, match="JSON"):
        make_manifest(created=float("inf")).to_json()


@pytest.mark.parametrize(
    ("text", "field"),
    [('{"digest":"' + "0" * 64 + '"}', "serial"), ('{"serial":1}', "digest"), ('{"serial":0,"digest":""}', "serial")],
)
def test_a_wrong_head_names_its_field(text: str, field: str) -> None:
    with pytest.raises(FormatError, match=rf"head\.{field}: expected"):
        Head.from_json("l", text)


def test_a_manifest_lists_its_blobs_and_its_head() -> None:
    manifest = make_manifest(layers=(make_layer(["a" * 64], ["b" * 64]), make_layer(["c" * 64, "d" * 64])))
    assert manifest.segments == ("a" * 64, "c" * 64, "d" * 64)
    assert manifest.sealed == ("b" * 64,)
    assert manifest.head == Head(list="test", serial=1, digest=manifest.digest)
    assert Head.from_json("test", manifest.head.to_json()) == manifest.head


def test_a_manifest_cannot_be_changed() -> None:
    manifest = make_manifest()
    with pytest.raises(FrozenInstanceError):
        manifest.serial = 2  # type: ignore[misc]
    assert replace(manifest, serial=2) != manifest
