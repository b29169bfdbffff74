"""`blocker bench`: the figures of the core on this machine."""

from __future__ import annotations

import dataclasses
import json as json_module
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from blocker.bench import core, pipeline, workload
from blocker.cli.context import Json, of
from blocker.errors import BlockerError

SizesOption = Annotated[str, typer.Option("--sizes", help="Numbers of rules, separated by commas.")]

#: Field, what it is, how it is written.
ROWS = (
    ("unlisted_ns", "decide, not listed (median)", "{:,.0f} ns"),
    ("dict_unlisted_ns", "  plain dict of canonical texts", "{:,.0f} ns"),
    ("walk_unlisted_ns", "  plain sets, urlsplit and walk", "{:,.0f} ns"),
    ("listed_ns", "decide, listed (median)", "{:,.0f} ns"),
    ("dict_listed_ns", "  plain dict of canonical texts", "{:,.0f} ns"),
    ("walk_listed_ns", "  plain sets, urlsplit and walk", "{:,.0f} ns"),
    ("many_unlisted_ns", "decide_many, not listed, per URL", "{:,.0f} ns"),
    ("many_listed_ns", "decide_many, listed, per URL", "{:,.0f} ns"),
    ("bytes_per_rule", "matcher, bytes per rule", "{:,.1f} B"),
    ("resident_per_rule", "matcher, resident bytes per rule", "{:,.1f} B"),
    ("load_ms", "snapshot on disk to first decision", "{:,.2f} ms"),
    ("parse_seconds", "text to rules", "{:,.2f} s"),
    ("build_seconds", "rules to matcher", "{:,.2f} s"),
    ("enforced_seconds", "list file to enforced", "{:,.2f} s"),
    ("rules_per_second", "  rules per second", "{:,.0f}"),
    ("delta_median_ms", "1 000 rules changed, to enforced", "{:,.1f} ms"),
    ("delta_worst_ms", "  slowest of ten", "{:,.1f} ms"),
    ("stall_ms", "  longest event-loop stall", "{:,.2f} ms"),
    ("swap_peak", "swap: peak over steady, in tables", "{:,.2f}"),
)


def bench(
    context: typer.Context,
    sizes: SizesOption = "10000,100000,1000000",
    rules: Annotated[
        Path | None, typer.Option("--rules", exists=True, dir_okay=False, help="A list of URLs of your own instead.")
    ] = None,
    urls: Annotated[
        Path | None, typer.Option("--urls", exists=True, dir_okay=False, help="Real requests to ask for, one a line.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure decisions, memory, start and updates, beside plain Python structures in the same run."""
    run = of(context)
    try:
        wanted = [int(size) for size in sizes.split(",")]
    except ValueError:
        raise typer.BadParameter("expected numbers separated by commas", param_hint="--sizes") from None
    if min(wanted) < 1:
        raise typer.BadParameter("a list has at least one rule", param_hint="--sizes")
    if rules is not None or len(wanted) == 1:
        work = workload.made(wanted[0]) if rules is None else workload.read(rules, urls)
        figures: dict[str, Any] = dataclasses.asdict(core.measure(work))
        figures |= dataclasses.asdict(run.run(pipeline.measure(work.lines)))
        columns = [figures]
    else:
        # A process for each size, so that none is measured in memory that another left behind.
        with run.errors.status("measuring") as status:
            columns = []
            for size in wanted:
                status.update(f"measuring {size:,} rules")
                columns.append(_in_process(size))
    if json:
        run.echo_json(columns)
        return
    table = Table("", *(f"{column['rules']:,} rules" for column in columns), box=None, pad_edge=False)
    for field, title, form in ROWS:
        table.add_row(title, *(form.format(column[field]) for column in columns))
    run.console.print(table)


def _in_process(size: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "blocker", "bench", "--sizes", str(size), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - this program itself
    if done.returncode:
        raise BlockerError(f"the measurement of {size} rules failed: {done.stderr.strip()}")
    figures: list[dict[str, Any]] = json_module.loads(done.stdout)
    return figures[0]
