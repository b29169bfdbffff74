"""`blocker export`: what is enforced, written for other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blocker.cli.context import of
from blocker.errors import SettingsError
from blocker.feeds.source import read_version
from blocker.feeds.zone import Plan
from blocker.ingest.export import write, write_file
from blocker.matcher import DEFAULT_POLICY, Policy

if TYPE_CHECKING:
    from blocker.feeds.zone import Version

# Whoever a file of names is for is in its group.
_MODES = ("0600", "0640", "0660")

app = typer.Typer(help="Write what is enforced for other programs. Needs the seal key.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keep `rpz` a command of its own."""


@app.command("rpz")
def rpz(
    context: typer.Context,
    zone: Annotated[str, typer.Argument(metavar="ZONE", help="The zone's name in [feeds.rpz.zones].")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. Default: standard output.")
    ] = None,
    mode: Annotated[
        str, typer.Option("--mode", metavar="OCTAL", help="The file's mode: 0600, 0640 or 0660.", show_default=True)
    ] = "0600",
    group: Annotated[
        str | None, typer.Option("--group", help="Group of the file, which a resolver of another user is in.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable counts; goes with --output.")] = False,
) -> None:
    """Write a zone as a master file, as a secondary would have it by transfer. A file appears whole or not at all."""
    if json and output is None:
        raise typer.BadParameter("--json prints the counts, so the zone needs --output")
    if mode not in _MODES:
        raise typer.BadParameter(f"--mode is one of {', '.join(_MODES)}: a list is nothing for others; see --group")
    run = of(context)
    described = run.settings.feeds.rpz.zones.get(zone)
    if described is None:
        raise SettingsError(f"there is no [feeds.rpz.zones.{zone}] in the configuration; describe the zone there")
    plan = Plan.of(zone, described)
    policies = {DEFAULT_POLICY: Policy(), **{policy.name: policy for policy in run.policies}}

    async def read() -> Version:
        async with await run.open_store() as store:
            return await read_version(store, run.keyring, plan, policies[described.policy])

    found = run.run(read())
    if output is None:
        write(found.lines(), sys.stdout)
    else:
        write_file(found.lines(), output, mode=int(mode, 8), group=group)
    left_out = dict(zip(("addresses", "digests", "names"), found.zone.left_out, strict=True))
    if json:
        counts = dict(zip(("block", "inspect", "pass"), found.zone.counts[1:], strict=True))
        run.echo_json({"zone": zone, "serial": found.serial, **counts, "left_out": left_out})
    for what, count in left_out.items():
        if count:
            run.tell(f"{zone}: left out, since DNS cannot say them: rules on {count:,} {what}", "yellow")
