"""`blocker lists audit`: who changed which list, when and why; and whether the record of it is whole."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from blocker.cli.context import Context, Json, of
from blocker.store.audit import verify

if TYPE_CHECKING:
    from blocker.store.audit import AuditRecord

_ANCHOR = re.compile(r"([1-9][0-9]*):([0-9a-f]{64})")


def audit(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this list's records.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most records to show.")] = 50,
    check: Annotated[bool, typer.Option("--verify", help="Check that nothing was altered, left out or added.")] = False,
    anchor: Annotated[
        list[str] | None, typer.Option(metavar="NUMBER:HASH", help="With --verify: what it printed some time ago.")
    ] = None,
    json: Json = False,
) -> None:
    """Changes of lists, newest first; with --verify, exit code 1 if the chain is broken.

    Note what --verify prints where nobody who can write to Redis can: a chain that was cut off together with all it
    speaks of is found by that alone.
    """
    run = of(context)
    anchors = []
    for text in anchor or ():
        found = _ANCHOR.fullmatch(text)
        if found is None:
            raise typer.BadParameter("an anchor is a number, a colon and 64 hex digits")
        anchors.append((int(found[1]), found[2]))
    if check:
        _verify(run, anchors, json=json)
        return

    async def read() -> list[AuditRecord]:
        async with await run.open_store() as store:
            if name is None:
                return await store.newest_audit_records(limit)
            mine = [record async for record in store.audit_records() if record.fields.get("list") == name]
            return mine[: -limit - 1 : -1]

    records = run.run(read())
    if json:
        run.echo_json([{**record.fields, "hash": record.hash} for record in records])
        return
    table = Table("number", "when", "who", "what", "list", "serial", "change", "reason", box=None, pad_edge=False)
    for record in records:
        fields, facts = record.fields, record.fields.get("facts", {})
        change = f"+{facts['added']:,} -{facts['removed']:,}" if "added" in facts else ""
        when = datetime.fromtimestamp(fields["at"], UTC).isoformat(timespec="seconds")
        who = f"{fields['person']} ({fields['actor']})" if fields["person"] else fields["actor"]
        table.add_row(
            str(record.seq),
            when,
            who,
            fields["action"],
            fields["list"],
            str(fields["serial"]),
            change,
            fields["reason"],
        )
    run.console.print(table if records else "no changes yet")


def _verify(run: Context, anchors: list[tuple[int, str]], *, json: bool) -> None:
    async def work() -> tuple[list[str], tuple[int, str]]:
        async with await run.open_store() as store:
            while True:
                heads, head = await store.heads(), await store.audit_head()
                manifests = [
                    manifest for name, one in heads.items() for manifest in await store.history(name, one.serial)
                ]
                records = [record async for record in store.audit_records()]
                if heads == await store.heads() and head == await store.audit_head():
                    break  # nothing was changed meanwhile, so all of it is of one moment
            problems = [
                *verify(
                    store.audit_chain, records, head, epoch=await store.epoch(), heads=heads, manifests=manifests,
                    anchors=anchors,
                )
            ]  # fmt: skip
        return problems, head

    problems, head = run.run(work())
    if json:
        told: dict[str, Any] = {"whole": not problems, "problems": problems, "records": head[0]}
        run.echo_json({**told, "anchor": f"{head[0]}:{head[1]}" if head[0] else None})
    elif problems:
        for problem in problems:
            run.tell(problem, "red")
    else:
        typer.echo(f"whole: {head[0]:,} records" + (f"; note this: {head[0]}:{head[1]}" if head[0] else ""))
    if problems:
        raise typer.Exit(1)
