"""`blocker doctor`: what would keep a node from working here, and what to do about it."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING, Literal

import typer
from rich.text import Text

from blocker.cli import doctor_certificates, doctor_feeds, doctor_gateways
from blocker.cli.context import Context, Json, of, usable_sources
from blocker.cli.doctor_feeds import Finding
from blocker.errors import BlockerError, FormatError, SourceError
from blocker.ingest.source import load_sources
from blocker.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocker.store.redis import Store

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
#: Clocks further apart than this put hits of a border into the wrong hour and make ages wrong, in seconds.
MAX_CLOCK_SKEW = 2.0
#: Free space below which a snapshot of a million rules and the embedded Redis' rewrite may not fit, in bytes.
LOW_DISK = 256 * 2**20


def doctor(context: typer.Context, json: Json = False) -> None:
    """Check configuration, keys, lists, Redis, clocks, snapshot, disk, ports, TLS, upstreams, feeds; exit 1 if bad."""
    run = of(context)
    findings = [Finding("configuration", "ok", f"node {run.settings.node}, deployment {run.settings.deployment}")]
    findings += [*_keys(run), *_disk(run), *_sources(run), *run.run(_store(run)), *_snapshot(run)]
    findings += [*doctor_gateways.ports(run), *doctor_gateways.upstreams(run), *doctor_certificates.certificates(run)]
    findings += [*doctor_feeds.zones(run), *doctor_feeds.routes(run)]
    if json:
        run.echo_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            mark = Text(f"{finding.state:4}", COLOURS[finding.state])
            run.console.print(Text.assemble(mark, f" {finding.what}: {finding.detail}"))
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def _keys(run: Context) -> Iterator[Finding]:
    try:
        yield Finding("keys", "ok", str(run.keyring))
    except BlockerError as error:
        yield Finding("keys", "fail", str(error))


def _disk(run: Context) -> Iterator[Finding]:
    directory = run.settings.data_dir
    if directory.exists() and not directory.is_dir():
        yield Finding("data directory", "fail", f"{directory} is no directory; set data_dir to one")
        return
    if not directory.is_dir():
        yield Finding("data directory", "warn", f"{directory} is not there yet; `blocker serve` makes it")
        return
    free = shutil.disk_usage(directory).free
    if not os.access(directory, os.W_OK | os.X_OK):
        yield Finding("data directory", "fail", f"{directory} is not writable for this user; change its owner or mode")
    elif free < LOW_DISK:
        yield Finding("data directory", "warn", f"{free / 2**20:.0f} MiB free in {directory}; snapshots may not fit")
    else:
        yield Finding("data directory", "ok", f"{directory}, {free / 2**30:.1f} GiB free")


def _sources(run: Context) -> Iterator[Finding]:
    try:
        sources, errors = load_sources(run.settings.lists_dir)
    except SourceError as error:
        yield Finding("list sources", "fail", f"{error}; make it, or set lists_dir")
        return
    for fault in errors:
        yield Finding("list source", "fail", str(fault))
    for source in sources:
        if source.path is not None and not source.path.is_file():
            yield Finding("list source", "fail", f"{source.name}: its file is not there; correct `path`")
    if sources:
        yield Finding("list sources", "ok", ", ".join(source.name for source in sources))
    elif not errors:
        yield Finding("list sources", "warn", f"none in {run.settings.lists_dir}; lists can only be pushed")


async def _store(run: Context) -> list[Finding]:
    findings: list[Finding] = []
    try:
        async with await run.open_store() as store:
            findings += await _redis(run, store)
    except BlockerError as error:
        findings.append(Finding("Redis", "fail", str(error)))
    return findings


async def _redis(run: Context, store: Store) -> list[Finding]:
    findings = []
    seconds = await store.ping()
    info = await store.info()
    where = "external" if run.settings.redis_url else "embedded"
    seen = f"{info['server']} {info['version']} ({where}), answers in {seconds * 1000:.1f} ms"
    findings.append(Finding("Redis", "ok", seen))
    if info.get("maxmemory_policy", "noeviction") != "noeviction":
        findings.append(
            Finding("Redis memory", "fail", "it may evict lists when full; set maxmemory-policy noeviction")
        )
    if info.get("aof_enabled") == "0":
        findings.append(Finding("Redis durability", "warn", "no append-only file: a restart may lose the last commits"))
    skew = abs(await store.server_time() - time.time())
    state: Literal["ok", "warn"] = "ok" if skew <= MAX_CLOCK_SKEW else "warn"
    remedy = "" if state == "ok" else "; synchronise both with NTP"
    findings.append(Finding("clocks", state, f"{skew:.2f} s apart from Redis{remedy}"))
    try:
        await store.epoch()
    except BlockerError as error:
        return [*findings, Finding("deployment", "fail", str(error))]
    return [*findings, *await _lists(run, store)]


async def _lists(run: Context, store: Store) -> list[Finding]:
    heads, checked = await store.heads(), await store.checked()
    if not heads:
        return [Finding("lists", "warn", "none in the store; pull them with `blocker lists pull`")]
    findings = []
    for source in usable_sources(run.settings.lists_dir):
        age = time.time() - checked.get(source.name, 0.0)
        if source.name not in heads:
            findings.append(Finding("lists", "warn", f"{source.name} was never published; see `blocker lists pull`"))
        elif age > source.stale_after_seconds:
            findings.append(Finding("lists", "warn", f"{source.name} is stale; see `blocker lists pull {source.name}`"))
    return [
        *findings,
        Finding("lists", "ok", ", ".join(f"{name} {head.serial}" for name, head in sorted(heads.items()))),
    ]


def _snapshot(run: Context) -> Iterator[Finding]:
    try:
        table = Snapshot(run.settings.data_dir / "snapshot", run.keyring.lookup).load()
    except FormatError as error:
        yield Finding("snapshot", "fail", str(error))
    except (BlockerError, OSError) as error:
        yield Finding("snapshot", "fail", f"cannot be read: {type(error).__name__}")
    else:
        if table is None:
            yield Finding("snapshot", "warn", "none yet; a node writes it when it first enforces a list")
        else:
            yield Finding("snapshot", "ok", f"{len(table.lists)} lists, {table.bytes / 2**20:.1f} MiB")
