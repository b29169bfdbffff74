"""`blocker lists`: what is enforced, how it came to be, and pulling it from its sources."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from blocker.cli import audit, history, holds, inspected, publishing
from blocker.cli.context import Context, Json, of, usable_sources
from blocker.errors import SourceError, StoreError
from blocker.ingest.cleartext import load_rules
from blocker.ingest.source import load_sources
from blocker.ingest.submit import Desk
from blocker.ingest.update import PullResult, pull
from blocker.rules import Kind, Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocker.ingest.source import Source
    from blocker.store.manifest import Manifest
    from blocker.store.redis import Store

app = typer.Typer(help="Show, pull, trace, take back and export lists.", no_args_is_help=True)
app.command("diff")(history.diff_serials)
app.command("rollback")(history.roll_back)
app.command("export")(history.export)
publishing.register(app)
holds.register(app)
app.command("inspected")(inspected.show_inspected)
app.command("audit")(audit.audit)
NameArgument = history.NameArgument


@app.command("ls")
def ls(context: typer.Context, json: Json = False) -> None:
    """Every list in the store: action, mode, serial, entries, age, state."""
    run = of(context)
    rows = run.run(_rows(run))
    if json:
        run.echo_json(rows)
        return
    table = Table("list", "action", "mode", "serial", "entries", "age", "state", box=None, pad_edge=False)
    for row in rows:
        age = "-" if row["age_seconds"] is None else _span(row["age_seconds"])
        table.add_row(
            row["list"], row["action"], row["mode"], str(row["serial"]), f"{row['entries']:,}", age, row["state"]
        )
    run.console.print(table if rows else "no lists yet; pull them with `blocker lists pull`")


@app.command("show")
def show(
    context: typer.Context,
    name: NameArgument,
    serial: Annotated[int | None, typer.Option(help="Serial to show. Default: the present one.")] = None,
    rules: Annotated[bool, typer.Option("--rules", help="Print the rules in clear text. Needs the seal key.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Most rules to print; 0 is all.")] = 0,
    json: Json = False,
) -> None:
    """One list at one serial. Rules are printed only when asked for."""
    run = of(context)

    async def read() -> tuple[dict[str, Any], list[str]]:
        async with await run.open_store() as store:
            manifest = await store.manifest(name, serial)
            shown: list[str] = []
            if rules:
                found = await load_rules(store, run.keyring, name, manifest.serial)
                for kind, host, path, query, subdomains, *_ in found:
                    if limit and len(shown) >= limit:
                        break
                    rule = Rule(kind=Kind(kind), host=host, path=path, query=query, subdomains=subdomains)
                    shown.append(f"{rule.kind.value}\t{rule}")
            return _described(manifest), shown

    described, shown = run.run(read())
    if json:
        run.echo_json({**described, **({"rules": shown} if rules else {})})
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for field, value in described.items():
        table.add_row(field, str(value))
    run.console.print(table)
    for line in shown:
        typer.echo(line)


@app.command("log")
def log(
    context: typer.Context,
    name: NameArgument,
    limit: Annotated[int, typer.Option(min=1, help="Most serials to show.")] = 20,
    json: Json = False,
) -> None:
    """The serials of a list, newest first: when, why, what changed."""
    run = of(context)

    async def read() -> list[Manifest]:
        async with await run.open_store() as store:
            return await store.history(name, limit)

    manifests = run.run(read())
    if not manifests:
        raise StoreError(f"list {name} is not in the store")
    if json:
        run.echo_json([_described(manifest) for manifest in manifests])
        return
    table = Table("serial", "published", "entries", "added", "removed", "reason", "digest", box=None, pad_edge=False)
    for manifest in manifests:
        row = _described(manifest)
        table.add_row(
            str(row["serial"]), row["published"], f"{row['entries']:,}", f"+{row['added']:,}", f"-{row['removed']:,}",
            row["reason"], row["digest"][:12],
        )  # fmt: skip
    run.console.print(table)


@app.command("pull")
def pull_lists(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME…]", help="Lists; default all.")] = None,
    json: Json = False,
) -> None:
    """Fetch the sources now and publish what changed. Exit code 1 if any list could not be brought up to date."""
    run = of(context)
    sources, errors = load_sources(run.settings.lists_dir)
    chosen = [source for source in sources if not names or source.name in names]
    unknown = sorted({*(names or ())} - {source.name for source in sources})
    if unknown:
        raise SourceError(f"no source in {run.settings.lists_dir} for: {', '.join(unknown)}")
    if not sources and not errors:
        raise SourceError(f"{run.settings.lists_dir} holds no source; describe a list in a file NAME.toml there")
    results = run.run(_pull(run, chosen, quiet=json))
    if json:
        for result in results:
            run.echo_json({**_public(result), "errors": list(result.errors)})
    else:
        _report(run, results)
    for error in errors if not names else ():
        run.tell(str(error), "red")
    if not all(result.good for result in results) or (errors and not names):
        raise typer.Exit(1)


async def _pull(run: Context, sources: Sequence[Source], *, quiet: bool) -> list[PullResult]:
    results = []
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=run.errors, transient=True, disable=quiet or not run.errors.is_terminal) as bars:
        async with await run.open_store() as store:
            for source in sources:
                results.append(await _pull_one(run, store, source, bars))  # noqa: PERF401 - one after the other
    return results


async def _pull_one(run: Context, store: Store, source: Source, bars: Progress) -> PullResult:
    task = bars.add_task(source.name, total=None)

    def progress(phase: str, done: int, total: int | None) -> None:
        bars.update(task, description=f"{source.name}: {phase}", completed=done, total=total)

    desk = Desk.configured(store, run.keyring, run.settings.guards, run.settings.lists_dir)
    result = await pull(source, store, run.keyring, progress, desk=desk)
    bars.remove_task(task)
    return result


def _report(run: Context, results: Sequence[PullResult]) -> None:
    table = Table("list", "result", "serial", "rules", "added", "removed", "bad", "seconds", box=None, pad_edge=False)
    for result in results:
        colour = "green" if result.good else "red"
        table.add_row(
            result.list, f"[{colour}]{result.status}[/]", str(result.serial or "-"), f"{result.rules:,}",
            f"+{result.added:,}", f"-{result.removed:,}", f"{result.bad:,}", f"{result.seconds:.2f}",
        )  # fmt: skip
    if results:
        run.console.print(table)
    for result in results:
        for number, reason in result.errors[:10]:
            run.tell(f"{result.list}: line {number}: {reason}")
        if result.bad > len(result.errors[:10]):
            run.tell(f"{result.list}: {result.bad - len(result.errors[:10]):,} more bad lines")
        if result.detail:
            run.tell(result.detail, "red")


async def _rows(run: Context) -> list[dict[str, Any]]:
    stale = {source.name: source.stale_after_seconds for source in usable_sources(run.settings.lists_dir)}
    async with await run.open_store() as store:
        heads = await store.heads()
        checked = await store.checked()
        manifests = await asyncio.gather(*(store.manifest(name, head.serial) for name, head in sorted(heads.items())))
    now = time.time()
    rows = []
    for manifest in manifests:
        since = checked.get(manifest.list, manifest.created)
        age = max(0.0, now - since)
        state = "retired" if manifest.retired else "stale" if age > stale.get(manifest.list, float("inf")) else "ok"
        rows.append({**_described(manifest), "age_seconds": round(age, 1), "state": state})
    return rows


def _described(manifest: Manifest) -> dict[str, Any]:
    return {
        "list": manifest.list,
        "serial": manifest.serial,
        "action": manifest.action,
        "mode": manifest.mode,
        "entries": manifest.entries,
        "added": manifest.added,
        "removed": manifest.removed,
        "published": datetime.fromtimestamp(manifest.created, UTC).isoformat(timespec="seconds"),
        "reason": manifest.reason,
        "path_case": manifest.path_case,
        "www_alias": manifest.www_alias,
        "layers": len(manifest.layers),
        "digest": manifest.digest,
    }


def _public(result: PullResult) -> dict[str, Any]:
    return {name: getattr(result, name) for name in result.__slots__}


def _span(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
