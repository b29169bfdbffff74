from __future__ import annotations

import itertools
import math
import struct
import zoneinfo
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocker.hits.calendar import HOUR, Cell, Slot, is_over, still_to_come, window_of, windows_from

ZONES = sorted(zoneinfo.available_timezones())
SINCE, UNTIL = 0.0, 4_102_444_800.0  # 1970 to 2100


def shown(moment: float, zone: ZoneInfo) -> Slot:
    """The oracle: what the standard library says the wall clock shows."""
    wall = datetime.fromtimestamp(int(moment), zone)
    return Slot(*wall.isocalendar(), wall.hour)


@cache
def changes(key: str) -> tuple[int, ...]:
    """Moments since 1970 at which the zone's offset changes, from the compiled zone file itself (RFC 8536)."""
    file = next(path for directory in zoneinfo.TZPATH if (path := Path(directory) / key).is_file())
    data = file.read_bytes()
    counts = struct.unpack(">6I", data[20:44])  # isutc, isstd, leap, time, type, char
    second = 44 + counts[3] * 5 + counts[4] * 6 + counts[5] + counts[2] * 8 + counts[1] + counts[0]
    _, _, _, times, types, _ = struct.unpack(">6I", data[second + 20 : second + 44])
    start = second + 44
    moments = struct.unpack(f">{times}q", data[start : start + 8 * times])
    kinds = data[start + 8 * times : start + 9 * times]
    table = data[start + 9 * times : start + 9 * times + 6 * types]
    offsets = [struct.unpack(">i", table[6 * kind : 6 * kind + 4])[0] for kind in range(types)]
    found, previous = [], offsets[0]
    for moment, kind in zip(moments, kinds, strict=True):
        if offsets[kind] != previous and moment >= SINCE:
            found.append(moment)
        previous = offsets[kind]
    return tuple(found)


def at(key: str, text: str, *, fold: int = 0) -> float:
    """Unix seconds of a wall-clock time."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(key), fold=fold).timestamp()


@given(zone=st.sampled_from(ZONES).map(ZoneInfo), now=st.floats(SINCE, UNTIL))
@settings(max_examples=2_000)
def test_a_window_holds_its_moment_and_shows_one_slot(zone: ZoneInfo, now: float) -> None:
    window = window_of(now, zone)
    assert window.start <= now < window.end
    assert 0 < window.end - window.start <= HOUR
    assert {shown(moment, zone) for moment in (window.start, now, window.end - 1)} == {window.slot}


@given(zone=st.sampled_from(ZONES).map(ZoneInfo), now=st.floats(SINCE, UNTIL), share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=2_000)
def test_windows_partition_time(zone: ZoneInfo, now: float, share: float) -> None:
    window = window_of(now, zone)
    assert window_of(window.end, zone).start == window.end
    assert window_of(window.start - 0.001, zone).end == window.start
    inside = window.start + share * (window.end - window.start)
    assert inside == window.end or window_of(inside, zone) == window


def test_windows_partition_time_around_every_change_of_every_zone() -> None:
    seen: set[tuple[int, ...]] = set()
    for key in ZONES:
        zone = ZoneInfo(key)
        if changes(key) in seen:
            continue
        seen.add(changes(key))
        for change in changes(key):
            windows = windows_from(change - 2 * HOUR, change + 2 * HOUR, zone)
            assert any(window.start == change for window in windows), (key, change)
            for window, following in itertools.pairwise(windows):
                assert window.end == following.start
                assert window.end - window.start <= HOUR
            for window in windows:
                probes = (window.start, (window.start + window.end) // 2, window.end - 1)
                assert {shown(moment, zone) for moment in probes} == {window.slot}, (key, change)


def test_a_slot_is_over_exactly_when_it_is_never_shown_again() -> None:
    keys = ["Europe/Stockholm", "Australia/Lord_Howe", "America/St_Johns", "Antarctica/Troll", "Pacific/Apia",
            "Antarctica/Vostok", "Kwajalein", "Asia/Kathmandu", "Pacific/Chatham", "America/Caracas"]  # fmt: skip
    for key in keys:
        zone = ZoneInfo(key)
        for change in (change for change in changes(key) if change < 1_900_000_000):
            windows = windows_from(change - 5 * HOUR, change + 26 * HOUR, zone)
            for number, window in enumerate(windows[:9]):
                later = {following.slot for following in windows[number:]}
                current, to_come = still_to_come(window.start, zone)
                for earlier in windows[: number + 1]:
                    over = earlier.slot < current and earlier.slot not in to_come
                    assert over == (earlier.slot not in later and earlier.slot < window.slot), (key, change)
                    assert is_over(earlier.slot, window.start, zone) == over


@pytest.mark.parametrize(
    ("key", "hour", "shown_again", "over"),
    [
        # The whole hour from 02:00 comes twice, one run right after the other.
        ("Europe/Stockholm", "2026-10-25T02:30", "2026-10-25T02:30", "2026-10-25T03:00"),
        # Half an hour back, from 02:00 to 01:30: hour 1 goes on for half an hour more.
        ("Australia/Lord_Howe", "2026-04-05T01:45", "2026-04-05T01:45", "2026-04-05T02:00"),
        # One minute after midnight back to 23:01: a minute of the new day, and then the old day's last hour again.
        ("America/St_Johns", "2010-11-06T23:30", "2010-11-06T23:30", "2010-11-07T00:00"),
        # Two hours back, from 03:00 to 01:00: another hour lies between the two runs.
        ("Antarctica/Troll", "2026-10-25T01:30", "2026-10-25T01:30", "2026-10-25T02:00"),
    ],
)
def test_a_repeated_hour_is_one_cell_and_over_after_its_second_run(
    key: str, hour: str, shown_again: str, over: str
) -> None:
    zone = ZoneInfo(key)
    first, second, end = at(key, hour), at(key, shown_again, fold=1), at(key, over, fold=1)
    slot = window_of(first, zone).slot
    assert second > first
    assert window_of(second, zone).slot == slot
    assert window_of(second, zone) != window_of(first, zone)
    for window in windows_from(first, end - 1, zone):
        assert not is_over(slot, window.start, zone)
    assert is_over(slot, end, zone)


def test_a_skipped_hour_has_no_window() -> None:
    zone = ZoneInfo("Europe/Stockholm")
    before = window_of(at("Europe/Stockholm", "2026-03-29T01:30"), zone)
    assert window_of(before.end, zone).hour == 3
    assert is_over(before.slot, before.end, zone)


def test_a_skipped_day_has_no_window() -> None:
    """Samoa went from Thursday 29 to Saturday 31 December 2011."""
    zone = ZoneInfo("Pacific/Apia")
    last = window_of(at("Pacific/Apia", "2011-12-29T23:30"), zone)
    assert (last.weekday, window_of(last.end, zone).weekday) == (4, 6)


@pytest.mark.parametrize(
    ("key", "text", "minute"),
    [("Asia/Kathmandu", "2026-05-05T12:10", 15), ("Pacific/Chatham", "2026-05-05T12:10", 15),
     ("Asia/Kolkata", "2026-05-05T12:10", 30), ("Australia/Eucla", "2026-05-05T12:10", 15)],
)  # fmt: skip
def test_hours_begin_when_the_zones_own_clock_says_so(key: str, text: str, minute: int) -> None:
    window = window_of(at(key, text), ZoneInfo(key))
    assert window.hour == 12
    assert datetime.fromtimestamp(window.start, UTC).minute == minute


@pytest.mark.parametrize(
    ("text", "slot"),
    [
        ("2026-12-31T23:59:59", Slot(2026, 53, 4, 23)),
        ("2027-01-01T00:00:00", Slot(2026, 53, 5, 0)),
        ("2027-01-03T23:00:00", Slot(2026, 53, 7, 23)),
        ("2027-01-04T00:00:00", Slot(2027, 1, 1, 0)),
        ("2024-12-30T00:00:00", Slot(2025, 1, 1, 0)),
    ],
)
def test_weeks_are_those_of_iso_8601(text: str, slot: Slot) -> None:
    assert window_of(at("UTC", text), ZoneInfo("UTC")).slot == slot


def test_a_moment_just_before_a_border_is_not_rounded_over_it() -> None:
    border = 1_800_000_000.0
    assert window_of(math.nextafter(border, 0), ZoneInfo("UTC")).end == border


names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True)


@given(name=names, now=st.floats(SINCE, UNTIL), shadow=st.booleans())
def test_a_cell_reads_back_what_it_wrote(name: str, now: float, shadow: bool) -> None:
    cell = window_of(now, ZoneInfo("UTC")).cell(name, shadow=shadow)
    assert Cell.parse(cell.field) == cell
    assert cell.field.startswith("~") is shadow


def test_a_cell_is_written_as_documented() -> None:
    assert Cell("list", 2026, 48, 7, 23).field == "list|2026-W48|7|23"
    assert Cell("list", 2026, 5, 1, 0, shadow=True).field == "~list|2026-W05|1|0"


@pytest.mark.parametrize(
    "field",
    ["", "list", "list|2026-W48|8|0", "list|2026-W48|1|24", "list|2025-W53|1|0", "list|2026-W00|1|0", "|2026-W48|1|0",
     "list|2026-W48|1|0|", "list|2026-48|1|0", "list|2026-W48|1|0\n"],
)  # fmt: skip
def test_what_is_no_cell_is_refused(field: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its own text or that of date.fromisocalendar
        Cell.parse(field)


def test_slots_sort_as_the_wall_clock_runs() -> None:
    zone = ZoneInfo("UTC")
    start = at("UTC", "2026-12-25T00:00")
    slots = [window_of(start + number * HOUR, zone).slot for number in range(24 * 20)]
    assert slots == sorted(slots)
    assert [slot.place for slot in slots[:2]] == [4 * 24, 4 * 24 + 1]
