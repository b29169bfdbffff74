"""The messages of the envoy gateway: those of Envoy's API on the wire, and generated from what is committed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from envoy.service.auth.v3 import external_auth_pb2 as theirs
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from blocker.gateways._envoy import ext_authz_pb2 as ours
from blocker.gateways.envoy_checks import EnvoyChecks, Malformed
from tests.gateways.test_http_codec import PAGES, Desk

ROOT = Path(__file__).parents[2]
GENERATED = ("blocker/gateways/_envoy/ext_authz_pb2.py", "blocker/gateways/_envoy/ext_authz_pb2.pyi")
# What is alike on the wire: a text is bytes, an enum a number.
ALIKE = {
    FieldDescriptor.TYPE_STRING: FieldDescriptor.TYPE_BYTES,
    FieldDescriptor.TYPE_ENUM: FieldDescriptor.TYPE_INT32,
}


def wire(kind: int) -> int:
    return ALIKE.get(kind, kind)


def compare(mine: Any, other: Any, seen: set[str]) -> None:  # noqa: ANN401 - descriptors of either implementation
    if mine.full_name in seen or mine.full_name == other.full_name:
        return
    seen.add(mine.full_name)
    for field in mine.fields:
        found = other.fields_by_number[field.number]
        assert (found.name, wire(found.type), found.is_repeated) == (field.name, wire(field.type), field.is_repeated)
        if field.message_type is not None:
            compare(field.message_type, found.message_type, seen)


def test_every_field_is_that_of_envoys_api() -> None:
    seen: set[str] = set()
    compare(ours.CheckRequest.DESCRIPTOR, theirs.CheckRequest.DESCRIPTOR, seen)
    compare(ours.CheckResponse.DESCRIPTOR, theirs.CheckResponse.DESCRIPTOR, seen)
    assert seen == {message.full_name for message in ours.DESCRIPTOR.message_types_by_name.values()}


def test_what_is_committed_is_what_the_generator_gives(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}",
         "blocker/gateways/_envoy/ext_authz.proto"],
        cwd=ROOT, check=True,
    )  # fmt: skip
    for name in GENERATED:
        assert (tmp_path / name).read_text("utf-8") == (ROOT / name).read_text("utf-8"), "see `make protocols`"


@given(st.binary(max_size=200))
def test_any_bytes_are_answered_or_malformed(message: bytes) -> None:
    checks = EnvoyChecks(Desk().engine, "default", PAGES)
    try:
        answer = checks.answer(message)
    except Malformed:
        return
    assert theirs.CheckResponse.FromString(answer).status.code in (0, 7)


@pytest.mark.parametrize("method", [b"GET", b"CONNECT"])
@given(st.binary(min_size=1, max_size=60), st.binary(max_size=60))
def test_any_host_and_path_are_answered(method: bytes, host: bytes, path: bytes) -> None:
    http = ours.HttpRequest(method=method, host=host, path=path)
    asked = ours.CheckRequest(attributes=ours.AttributeContext(request=ours.Request(http=http)))
    answer = EnvoyChecks(Desk().engine, "default", PAGES).answer(asked.SerializeToString())
    assert theirs.CheckResponse.FromString(answer).status.code in (0, 7)
