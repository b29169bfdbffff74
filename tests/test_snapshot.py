"""A node's copy on disk: whole or refused by name, never half, and open to nobody else."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING

import pytest

import blocker
from blocker.errors import FormatError
from blocker.matcher import Matcher
from blocker.snapshot import Snapshot

if TYPE_CHECKING:
    from pathlib import Path

KEY = b"0123456789abcdef"
LISTED, UNLISTED = "http://listed.example/page", "http://other.example/page"


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    return Snapshot(tmp_path / "data" / "snapshot", KEY)


def matcher(*rules: str) -> Matcher:
    return Matcher.build({"first": [*rules, LISTED]}, lookup_key=KEY)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def segment_name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_there_is_nothing_at_first(snapshot: Snapshot) -> None:
    assert snapshot.load() is None
    snapshot.keep_segments(())


def test_a_saved_table_decides_as_before(snapshot: Snapshot) -> None:
    snapshot.save(matcher().table)
    table = snapshot.load()
    assert table is not None
    loaded = Matcher.of(table)
    assert [loaded.decide(url).verdict for url in (LISTED, UNLISTED)] == ["block", "allow"]


def test_directories_are_open_to_nobody_else(snapshot: Snapshot) -> None:
    snapshot.save(matcher().table)
    directory = snapshot.table_path.parent
    assert [mode_of(path) for path in (directory.parent, directory, directory / "segments")] == [0o700] * 3


def test_a_table_in_use_is_replaced_and_not_changed(snapshot: Snapshot) -> None:
    snapshot.save(matcher().table)
    table = snapshot.load()
    assert table is not None
    loaded = Matcher.of(table)
    snapshot.save(matcher(*(f"http://more{number}.example/" for number in range(1000))).table)
    assert loaded.decide(LISTED).verdict == "block"
    assert loaded.decide("http://more7.example/").verdict == "allow"


def test_every_flipped_bit_is_found(snapshot: Snapshot) -> None:
    snapshot.save(matcher(*(f"http://more{number}.example/" for number in range(40))).table)
    good = snapshot.table_path.read_bytes()
    for offset in [*range(96), *range(96, len(good), 37), len(good) - 1]:
        bad = bytearray(good)
        bad[offset] ^= 1 << offset % 8
        replace(snapshot, bytes(bad))
        with pytest.raises(FormatError, match=r"^snapshot: .*(delete the snapshot|lookup\.key)"):
            snapshot.load()


@pytest.mark.parametrize("left", [0, 1, 31, 32, 95, 96, 200, -8, -1])
def test_a_cut_table_is_refused(snapshot: Snapshot, left: int) -> None:
    snapshot.save(matcher().table)
    replace(snapshot, snapshot.table_path.read_bytes()[:left])
    with pytest.raises(FormatError, match="delete the snapshot"):
        snapshot.load()


def test_trailing_bytes_are_refused(snapshot: Snapshot) -> None:
    snapshot.save(matcher().table)
    replace(snapshot, snapshot.table_path.read_bytes() + bytes(8))
    with pytest.raises(FormatError, match="bytes, expected"):
        snapshot.load()


@pytest.mark.parametrize(
    ("offset", "text", "told"),
    [(0, b"BLKTABLF", "wrong magic, expected BLKTABLE"), (8, b"\x07", "version 7, expected 1")],
)
def test_another_kind_of_file_fails_by_name(snapshot: Snapshot, offset: int, text: bytes, told: str) -> None:
    snapshot.save(matcher().table)
    bad = bytearray(snapshot.table_path.read_bytes())
    bad[offset : offset + len(text)] = text
    replace(snapshot, bytes(bad))
    with pytest.raises(FormatError, match=told):
        snapshot.load()


def test_another_lookup_key_is_told_with_its_remedy(snapshot: Snapshot) -> None:
    snapshot.save(matcher().table)
    other = Snapshot(snapshot.table_path.parent, b"another key 4567")
    with pytest.raises(FormatError, match=r"another lookup key; use the deployment's lookup\.key"):
        other.load()


def test_a_directory_in_the_tables_place_is_an_os_error(snapshot: Snapshot) -> None:
    snapshot.table_path.mkdir(parents=True)
    with pytest.raises(OSError):  # noqa: PT011 - which one differs between systems
        snapshot.load()


def test_a_failed_save_leaves_the_old_table(snapshot: Snapshot) -> None:
    snapshot.save(matcher().table)
    good = snapshot.table_path.read_bytes()
    beside = snapshot.table_path.with_name(f"table.{os.getpid()}.tmp")
    beside.mkdir()  # where the new one would be written
    with pytest.raises(OSError):  # noqa: PT011 - as above
        snapshot.save(matcher("http://new.example/").table)
    assert snapshot.table_path.read_bytes() == good


def test_segments_are_kept_by_name(snapshot: Snapshot) -> None:
    name = segment_name(b"data")
    assert snapshot.segment(name) is None
    path = snapshot.add_segment(name, b"data")
    assert snapshot.segment(name) == path
    assert path.read_bytes() == b"data"


@pytest.mark.parametrize("name", ["", "..", "../table", "a" * 63, "A" * 64, "g" * 64, "a" * 64 + "\n"])
def test_what_is_no_digest_names_no_file(snapshot: Snapshot, name: str) -> None:
    snapshot.save(matcher().table)
    assert snapshot.segment(name) is None


def test_what_a_crash_left_is_cleared_away(snapshot: Snapshot) -> None:
    kept, dropped = (segment_name(data) for data in (b"kept", b"dropped"))
    snapshot.add_segment(kept, b"kept")
    half = snapshot.add_segment(dropped, b"dropped").with_name(f"{dropped}.77.tmp")
    half.write_bytes(b"dro")
    half_table = snapshot.table_path.with_name("table.77.tmp")
    half_table.write_bytes(b"BLK")
    snapshot.keep_segments([kept])
    assert [path.name for path in half.parent.iterdir()] == [kept]
    assert not half_table.exists()


def test_a_segment_left_half_written_under_this_process_id_is_written_anew(snapshot: Snapshot) -> None:
    name = segment_name(b"data")
    half = snapshot.add_segment(segment_name(b"other"), b"other").with_name(f"{name}.{os.getpid()}.tmp")
    half.write_bytes(b"da")
    assert snapshot.add_segment(name, b"data").read_bytes() == b"data"
    assert not half.exists()


def test_a_disk_that_is_a_file_is_an_os_error_and_nothing_more(tmp_path: Path) -> None:
    (tmp_path / "snapshot").write_bytes(b"")
    broken = Snapshot(tmp_path / "snapshot", KEY)
    with pytest.raises(OSError):  # noqa: PT011 - as above
        broken.save(matcher().table)
    with pytest.raises(OSError):  # noqa: PT011 - as above
        broken.add_segment(segment_name(b"data"), b"data")
    assert broken.segment(segment_name(b"data")) is None


def test_files_hold_no_name_of_the_list(snapshot: Snapshot) -> None:
    snapshot.save(blocker.Matcher.build({"first": ["http://zxqmark.example/zxqmark"]}, lookup_key=KEY).table)
    assert b"zxqmark" not in snapshot.table_path.read_bytes()


def replace(snapshot: Snapshot, data: bytes) -> None:
    """Put other bytes in the table's place, as a damaged disk would, without touching a mapped file."""
    beside = snapshot.table_path.with_name("beside")
    beside.write_bytes(data)
    beside.replace(snapshot.table_path)
