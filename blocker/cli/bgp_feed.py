"""`blocker bgp-feed`: run by ExaBGP; `blocker routes`: what is announced, and why, and its end by hand."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from blocker import log
from blocker.cli.context import Json, of
from blocker.feeds.route_report import State, Why  # noqa: TC001 - typer reads them at run time
from blocker.feeds.route_terms import filter_said

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocker.cli.context import Context

Socket = Annotated[
    Path | None, typer.Option("--socket", help="The node's socket. Default: routes.unix, or routes.sock in data_dir.")
]


def _socket(run: Context, given: Path | None) -> Path:
    return given or run.settings.routes.unix or run.settings.data_dir / "routes.sock"


def bgp_feed(context: typer.Context, socket: Socket = None) -> None:
    """Bring the node's routes to the ExaBGP that runs this; see deploy/exabgp."""
    from blocker.feeds.bgp_process import BgpFeed

    run = of(context)
    log.configure(run.settings.log_level, run.settings.log_format)
    path = _socket(run, socket)

    async def whole() -> None:
        await BgpFeed(path).run()

    asyncio.run(whole())


app = typer.Typer(invoke_without_command=True)


@app.callback()
def routes(
    context: typer.Context,
    socket: Socket = None,
    hosts: Annotated[bool, typer.Option("--hosts", help="Show the names of listed hosts too.")] = False,
    state: Annotated[State | None, typer.Option(help="Only addresses in this state.")] = None,
    why: Annotated[Why | None, typer.Option(help="Only hosts to look at for this.")] = None,
    json: Json = False,
) -> None:
    """Each address of the listed hosts, and why it is or is not announced; asks the running node.

    Hosts that a person should look at come last. With --state or --why alone the other table is left out.
    """
    if context.invoked_subcommand is not None:
        return
    from blocker.feeds.route_socket import ask_report

    run = of(context)
    found = dict(run.run(ask_report(_socket(run, socket))))
    found["counts"] = {
        "states": Counter(entry["state"] for entry in found["addresses"]),
        "reasons": Counter(entry["reason"] for entry in found["addresses"] if entry["reason"] is not None),
        "hosts": Counter(entry["why"] for entry in found["hosts"]),
    }
    if state or why:
        found["addresses"] = [entry for entry in found["addresses"] if entry["state"] == state]
        found["hosts"] = [entry for entry in found["hosts"] if entry["why"] == why]
    if not hosts:
        for entry in (*found["addresses"], *found["hosts"]):
            del entry["host"]
    if json:
        run.echo_json(found)
    else:
        _show(run, found)


@app.command()
def withdraw(
    context: typer.Context,
    reason: Annotated[str, typer.Option(help="Why. Sealed with the node's state.")] = "",
    socket: Socket = None,
    json: Json = False,
) -> None:
    """Withdraw all routes of the running node at once, and announce none until `resume`; restarts do not end it."""
    from blocker.feeds.route_socket import give_order
    from blocker.feeds.route_stop import MAX_REASON

    if len(reason) > MAX_REASON or not reason.isprintable():
        raise typer.BadParameter(f"one line of at most {MAX_REASON} characters", param_hint="--reason")
    run = of(context)
    done = run.run(give_order(_socket(run, socket), "withdraw", reason))
    if json:
        run.echo_json(done)
    else:
        typer.echo(f"{done['routes']} routes withdrawn; none is announced until `blocker routes resume`")


@app.command()
def resume(context: typer.Context, socket: Socket = None, json: Json = False) -> None:
    """Announce routes again after `withdraw`, as fast as changes_per_minute lets it."""
    from blocker.feeds.route_socket import give_order

    run = of(context)
    done = run.run(give_order(_socket(run, socket), "resume"))
    if json:
        run.echo_json(done)
    elif done["since"] is None:
        typer.echo("routes were not withdrawn")
    else:
        typer.echo(f"{done['routes']} routes are announced again")


def _show(run: Context, found: Mapping[str, Any]) -> None:
    feeds = ", ".join(f"{feed['told']} told, {feed['errors']} refused" for feed in found["feeds"]) or "none connected"
    state = "settled" if found["settled"] else "not settled yet"
    run.console.print(f"{found['routes']} routes, {state}; feeds: {feeds}")
    for feed in found["feeds"]:
        for neighbor, (up, count) in sorted(feed["neighbors"].items()):
            said = f"{count} of {found['routes']} routes" if up else "no session"
            run.console.print(f"router {neighbor}: {said}")
    if (stopped := found["stopped"]) is not None:
        why = f" ({stopped['reason']})" if stopped["reason"] else ""
        since = _cell("since", stopped["since"])
        run.console.print(f"withdrawn by hand since {since}{why}; `blocker routes resume` ends it")
    if (of_filter := filter_said(**found["filter"])) is not None:
        run.console.print(of_filter)
    if not found["popular_known"]:
        run.console.print("nothing new is announced: the addresses of popular names are not known yet")
    if uncovered := found["uncovered"]:
        said = ", ".join(f"{count} {reason}" for reason, count in sorted(uncovered.items()))
        run.console.print(f"{sum(uncovered.values())} of {found['listed']} hosts without any route: {said}")
    for server, results in found["resolvers"].items():
        counts = ", ".join(f"{count} {result}" for result, count in sorted(results.items()))
        run.console.print(f"resolver {server}: {counts or 'not asked yet'}")
    for what, counted in found["counts"].items():
        said = ", ".join(f"{count} {which}" for which, count in counted.most_common())
        run.console.print(f"{what}: {said or 'none'}")
    for rows, columns in (
        (found["addresses"], ("address", "state", "reason", "since", "until", "listed_hosts", "host")),
        (found["hosts"], ("why", "since", "addresses", "host")),
    ):
        if rows:
            shown = [name for name in columns if name in rows[0]]
            table = Table(*shown, box=None, pad_edge=False)
            for row in rows:
                table.add_row(*(_cell(name, row[name]) for name in shown))
            run.console.print(table)


def _cell(name: str, value: Any) -> str:  # noqa: ANN401 - JSON
    if value is None:
        return ""
    if name in ("since", "until"):
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return str(value)
