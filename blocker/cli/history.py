"""`blocker lists diff`, `rollback` and `export`: what changed between two serials, the way back, and the way out."""

from __future__ import annotations

import sys
import time
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from blocker.cli.context import Json, of
from blocker.ingest.cleartext import load_rules
from blocker.ingest.diff import diff
from blocker.ingest.export import Export, Reading, write, write_file
from blocker.ingest.rollback import rollback
from blocker.ingest.writers import head
from blocker.rules import Kind, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocker._native import RuleSet

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The list's name.")]
WrittenFormat = Literal[
    "url", "domain", "hosts", "csv", "jsonl", "rpz", "adblock", "squidguard-domains", "squidguard-urls"
]
READING = "As the source that will read it says."


def diff_serials(
    context: typer.Context,
    name: NameArgument,
    older: Annotated[int, typer.Argument(metavar="A", min=1, help="Serial to compare.")],
    newer: Annotated[
        int | None, typer.Argument(metavar="[B]", min=1, help="Serial to compare it with. Default: the present one.")
    ] = None,
    rules: Annotated[bool, typer.Option("--rules", help="Print the rules in clear text.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Most rules to print of each side; 0 is all.")] = 100,
    json: Json = False,
) -> None:
    """Rules that came and went between two serials of a list. Needs the seal key; prints rules only when asked to."""
    run = of(context)

    async def read() -> tuple[dict[str, Any], dict[str, list[str]]]:
        async with await run.open_store() as store:
            found = await diff(store, run.keyring, name, older, newer)
        counts = {
            "list": name, "from": found.older.serial, "to": found.newer.serial,
            "added": len(found.added), "removed": len(found.removed),
            "entries_from": found.older.entries, "entries_to": found.newer.entries,
        }  # fmt: skip
        sides = {"+": found.added, "-": found.removed} if rules else {}
        return counts, {sign: [*islice(_written(side), limit or None)] for sign, side in sides.items()}

    counts, shown = run.run(read())
    if json:
        named = {"added_rules": shown["+"], "removed_rules": shown["-"]} if rules else {}
        run.echo_json({**counts, **named})
        return
    typer.echo(
        f"{name}: serial {counts['from']} to {counts['to']}: +{counts['added']:,} -{counts['removed']:,} rules "
        f"({counts['entries_from']:,} to {counts['entries_to']:,})"
    )
    for sign, lines in shown.items():
        for line in lines:
            typer.echo(f"{sign}\t{line}")
        left = counts["added" if sign == "+" else "removed"] - len(lines)
        if left:
            run.tell(f"{left:,} more {'added' if sign == '+' else 'removed'}; see them with --limit 0")


def roll_back(
    context: typer.Context,
    name: NameArgument,
    serial: Annotated[int, typer.Argument(metavar="SERIAL", min=1, help="Serial to go back to; see `lists log`.")],
    reason: Annotated[str, typer.Option(help="Why, for the list's log. No address and no host name.")] = "",
    json: Json = False,
) -> None:
    """Make a list again what it was at an older serial, under a new serial.

    It stays so until its source, or the description of it, changes.
    """
    run = of(context)

    async def write() -> dict[str, Any]:
        async with await run.open_store() as store:
            done = await rollback(store, run.keyring, name, serial, reason=reason, now=time.time())
        return {field: getattr(done, field) for field in done.__slots__}

    done = run.run(write())
    if json:
        run.echo_json(done)
    elif done["unchanged"]:
        typer.echo(f"{name}: serial {done['serial']} is that already; nothing was written")
    else:
        typer.echo(
            f"{name}: serial {done['serial']} is serial {serial} again: +{done['added']:,} -{done['removed']:,} rules, "
            f"{done['entries']:,} now"
        )


def export(
    context: typer.Context,
    name: NameArgument,
    serial: Annotated[int | None, typer.Option(min=1, help="Serial to write. Default: the present one.")] = None,
    format: Annotated[WrittenFormat, typer.Option(help="Format to write.")] = "url",  # noqa: A002 - the option's name
    bare: Annotated[Literal["host", "domain"] | None, typer.Option(help=READING)] = None,
    trailing_slash: Annotated[Literal["prefix", "exact"] | None, typer.Option(help=READING)] = None,
    domain_kind: Annotated[Literal["domain", "host"] | None, typer.Option(help=READING)] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write, mode 0600. Default: standard output.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable counts; goes with --output.")] = False,
) -> None:
    """Write a list in clear text, as a file that a source can read. Needs the seal key.

    What the format cannot carry is left out and counted on standard error.
    """
    if json and output is None:
        raise typer.BadParameter("--json prints the counts, so the list needs --output")
    run = of(context)

    async def read() -> tuple[int, RuleSet]:
        async with await run.open_store() as store:
            present = (await store.manifest(name, serial)).serial
            return present, await load_rules(store, run.keyring, name, present)

    found, rules = run.run(read())
    text = Export(rules, Reading(format=format, bare=bare, trailing_slash=trailing_slash, domain_kind=domain_kind))
    lines = chain(head(format, name, found), text.lines())
    if output is None:
        write(lines, sys.stdout)
    else:
        write_file(lines, output)
    counts = {
        "rules": text.left_out, "references": text.references, "further metadata": text.metadata,
    }  # fmt: skip
    if json:
        lost = {"left_out": text.left_out, "references": text.references, "metadata": text.metadata}
        run.echo_json({"list": name, "serial": found, "format": format, "written": text.written, **lost})
    for what, count in counts.items():
        if count:
            run.tell(
                f"{name}: left out, since format {format} cannot carry them: {what} of {count:,} entries", "yellow"
            )


def _written(rules: RuleSet) -> Iterator[str]:
    for kind, host, path, query, subdomains, *_ in rules:
        rule = Rule(kind=Kind(kind), host=host, path=path, query=query, subdomains=subdomains)
        yield f"{rule.kind.value}\t{rule}"
