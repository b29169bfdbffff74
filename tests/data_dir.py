"""Where the shared test data lies, and how to read it.

The data is public but large, so it is no part of the project. Tests that need it are marked with `needs_shared_data`
and are the only ones that may be skipped; `SHARED_TEST_DATA` names the directory when it is not beside the project.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

if TYPE_CHECKING:
    from collections.abc import Iterator

SKIP_REASON = "shared data not present"
VECTORS = Path(__file__).parent / "vectors"

_OVERRIDE = os.environ.get("SHARED_TEST_DATA")
_DATA = Path(_OVERRIDE) if _OVERRIDE else Path(__file__).parents[2] / "shared" / "data"
if _OVERRIDE and not _DATA.is_dir():
    raise RuntimeError("SHARED_TEST_DATA names no directory")

HAS_SHARED_DATA = _DATA.is_dir()
needs_shared_data = pytest.mark.skipif(not HAS_SHARED_DATA, reason=SKIP_REASON)

TRAFFIC = (
    "traffic/adguard_requests.tsv.zst",
    "traffic/brave_matching_requests.txt.zst",
    "traffic/brave_sitelist.txt.zst",
    "traffic/kasztp_urls.txt.zst",
    "traffic/maltrail_reference_urls.txt.zst",
)


def shared_path(name: str) -> Path:
    """Full path of a shared data file."""
    return _DATA / name


def shared_json(name: str) -> Any:  # noqa: ANN401 - JSON
    """A shared JSON file."""
    return json.loads(shared_path(name).read_text(encoding="utf-8"))


def vectors(name: str) -> Any:  # noqa: ANN401 - JSON
    """A vector file of the project."""
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


def shared_lines(name: str) -> Iterator[bytes]:
    """Lines of a zstd file, streamed, without their line ends."""
    with shared_path(name).open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        for line in io.BufferedReader(reader, buffer_size=1 << 20):
            yield line.rstrip(b"\r\n")


def traffic() -> Iterator[bytes]:
    """Every request URL of the traffic files: the first column where there is more than one."""
    for name in TRAFFIC:
        for line in shared_lines(name):
            yield line.partition(b"\t")[0]
