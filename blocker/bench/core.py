"""Figures of the matcher alone: time of a decision, memory of a rule, time from disk to the first answer."""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from blocker import _native, canonicalize
from blocker.bench.workload import plain_walk
from blocker.matcher import Matcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blocker.bench.workload import Workload

#: Calls timed together: long against the clock's own cost, short against a scheduler's time slice.
CHUNK = 500
ROUNDS = 5
KEY = bytes(16)  # of no deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreFigures:
    """Figures of one list size.

    Attributes:
        rules: Rules in the list.
        nodes: Nodes of the trie.
        parse_seconds: Text to rules.
        build_seconds: Rules to an enforceable matcher.
        bytes_per_rule: Size of the table, over its rules.
        resident_per_rule: Growth of the process's resident memory by making the table, over its rules.
        swap_peak: Peak resident memory over the steady one while a second table is made, in table sizes.
        load_ms: Snapshot on disk to the first decision, median.
        unlisted_ns: `decide` of an URL that is not listed, median.
        listed_ns: `decide` of an URL that is, median.
        many_unlisted_ns: `decide_many`, per URL.
        many_listed_ns: The same for listed ones.
        dict_unlisted_ns: A plain dict asked for text that is canonical already; it knows whole texts only.
        dict_listed_ns: The same for texts that are in it.
        walk_unlisted_ns: Plain sets, `urlsplit`, and a walk over host suffixes and path prefixes.
        walk_listed_ns: The same for listed ones.
    """

    rules: int
    nodes: int
    parse_seconds: float
    build_seconds: float
    bytes_per_rule: float
    resident_per_rule: float
    swap_peak: float
    load_ms: float
    unlisted_ns: float
    listed_ns: float
    many_unlisted_ns: float
    many_listed_ns: float
    dict_unlisted_ns: float
    dict_listed_ns: float
    walk_unlisted_ns: float
    walk_listed_ns: float


def measure(work: Workload) -> CoreFigures:
    """Build a matcher from a workload and time it beside a dict and a walk over sets, turn by turn."""
    started = time.perf_counter()
    parser = _native.LineParser("url", bare="host")
    parser.feed("\n".join(work.lines).encode("utf-8", "surrogateescape"))
    rules = parser.finish()
    parsed = time.perf_counter()
    run = rules.nodes(KEY)
    with tempfile.TemporaryDirectory(prefix="blocker-bench-") as directory:
        segments = run.segments()
        paths = [Path(directory) / f"segment-{number}" for number in range(len(segments))]
        for path, segment in zip(paths, segments, strict=True):
            path.write_bytes(segment)
        nodes, count = len(run), len(rules)
        del run, rules, segments, segment, parser
        gc.collect()
        before = _status_bytes("VmRSS")
        built = _native.Table.merge([("bench", 1, False, "", [paths])], KEY)
        enforced = time.perf_counter()
        size = built.bytes
        resident = _status_bytes("VmRSS") - before
        swap_peak = _swap_peak(paths) / size
        file = Path(directory) / "table"
        built.save(file)
        load_ms = statistics.median(_load_ms(file, work.unlisted[0]) for _ in range(ROUNDS))
    times = _timed(Matcher.of(built), work)
    return CoreFigures(
        rules=count,
        nodes=nodes,
        parse_seconds=parsed - started,
        build_seconds=enforced - parsed,
        bytes_per_rule=size / count,
        resident_per_rule=resident / count,
        swap_peak=swap_peak,
        load_ms=load_ms,
        **times,
    )


def _load_ms(file: Path, url: str) -> float:
    started = time.perf_counter()
    Matcher.of(_native.Table.open(file, KEY)).decide(url)
    return (time.perf_counter() - started) * 1000


def _timed(matcher: Matcher, work: Workload) -> dict[str, float]:
    texts = {canonicalize(url): None for url in work.listed}
    hosts, pages = plain_walk(work.lines)

    def walk(url: str) -> bool:
        parts = urlsplit(url)
        host, path = parts.hostname or "", parts.path
        labels = host.split(".")
        if any(".".join(labels[start:]) in hosts for start in range(len(labels))):
            return True
        steps = path.split("/")
        return any(f"{host}{'/'.join(steps[:end])}" in pages for end in range(2, len(steps) + 1))

    samples: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for side, urls in (("unlisted", work.unlisted), ("listed", work.listed)):
            canonical = [canonicalize(url) for url in urls[: CHUNK * 40]]
            for name, call, asked in (
                ("", matcher.decide, urls),
                ("dict_", texts.__contains__, canonical),
                ("walk_", walk, urls[: CHUNK * 40]),
            ):
                samples.setdefault(f"{name}{side}_ns", []).extend(_chunks(call, asked))
            samples.setdefault(f"many_{side}_ns", []).extend(_many(matcher, urls))
    return {name: statistics.median(values) for name, values in samples.items()}


def _chunks(call: Callable[[str], Any], urls: Sequence[str]) -> list[float]:
    """Nanoseconds a call, for each chunk of calls."""
    found = []
    for start in range(0, len(urls) - CHUNK + 1, CHUNK):
        chunk = urls[start : start + CHUNK]
        started = time.perf_counter_ns()
        for url in chunk:
            call(url)
        found.append((time.perf_counter_ns() - started) / CHUNK)
    return found


def _many(matcher: Matcher, urls: Sequence[str]) -> list[float]:
    found = []
    for start in range(0, len(urls) - CHUNK + 1, CHUNK):
        chunk = urls[start : start + CHUNK]
        started = time.perf_counter_ns()
        matcher.decide_many(chunk)
        found.append((time.perf_counter_ns() - started) / CHUNK)
    return found


def _swap_peak(paths: Sequence[Path]) -> int:
    """Bytes by which the peak exceeds the steady state while a table is made beside the present one."""
    # Written to, the kernel counts peak memory anew (Linux, proc(5)).
    Path("/proc/self/clear_refs").write_text("5", "ascii")
    steady = _status_bytes("VmRSS")
    _native.Table.merge([("bench", 2, False, "", [paths])], KEY)
    return max(0, _status_bytes("VmHWM") - steady)


def _status_bytes(field: str) -> int:
    """A memory field of this process, in bytes (Linux, proc(5))."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0
