"""`blocker lists hold`, `holds` and `unhold`: exceptions with a reason and an end."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from blocker.cli.context import Json, of
from blocker.cli.publishing import this_person
from blocker.ingest.holds import Hold, add_hold, all_holds, end_hold

if TYPE_CHECKING:
    from blocker.ingest.publish import PublishResult


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("hold")(hold)
    app.command("holds")(holds)
    app.command("unhold")(unhold)


def hold(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="What to let through, as a line of the url format.")],
    until: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="First day on which it holds no longer, UTC.")],
    reason: Annotated[str, typer.Option(help="Why. Sealed with the hold.")],
    bare: Annotated[Literal["host", "domain"], typer.Option(help="What an address without a path covers.")] = "host",
    json: Json = False,
) -> None:
    """Let an address through until a day, whatever list blocks it, unless that is more specific."""
    run = of(context)

    async def work() -> Hold:
        async with await run.open_store() as store:
            made, _ = await add_hold(
                store, run.keyring, url, until=until.date(), reason=reason, actor=this_person(), now=time.time(),
                bare=bare,
            )  # fmt: skip
            return made

    made = run.run(work())
    if json:
        run.echo_json({"number": made.number, "kind": made.rule.kind.value, "until": made.until.isoformat()})
    else:
        typer.echo(f"{made.number}: a {made.rule.kind.value} is let through until {made.until}")


def holds(
    context: typer.Context,
    urls: Annotated[bool, typer.Option("--urls", help="Print what they cover.")] = False,
    json: Json = False,
) -> None:
    """The holds there are, those that end first first."""
    run = of(context)

    async def work() -> list[Hold]:
        async with await run.open_store() as store:
            return await all_holds(store, run.keyring)

    found = run.run(work())
    rows = [
        {
            "number": one.number, "kind": one.rule.kind.value, "until": one.until.isoformat(), "by": one.person,
            "reason": one.reason, **({"url": str(one.rule)} if urls else {}),
        }
        for one in found
    ]  # fmt: skip
    if json:
        run.echo_json(rows)
    elif not rows:
        typer.echo("no holds")
    else:
        table = Table(*rows[0], box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row.values())
        run.console.print(table)


def unhold(
    context: typer.Context,
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="Of the hold; see `lists holds`.")],
    json: Json = False,
) -> None:
    """Take a hold back at once."""
    run = of(context)

    async def work() -> PublishResult:
        async with await run.open_store() as store:
            return await end_hold(store, run.keyring, number, actor=this_person(), now=time.time())

    done = run.run(work())
    if json:
        run.echo_json({"number": number, "left": done.entries})
    else:
        typer.echo(f"{number}: ended; {done.entries} holds left")
