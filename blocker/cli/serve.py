"""`blocker serve`: run a node."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blocker import log
from blocker.cli.context import Context, of
from blocker.cli.node import Node
from blocker.cli.service_manager import ServiceManager
from blocker.sections import Role

if TYPE_CHECKING:
    from collections.abc import Sequence

RoleOption = Annotated[
    list[Role] | None, typer.Option("--role", help="Part to run; may be repeated. Default: as configured.")
]


def serve(
    context: typer.Context,
    role: RoleOption = None,
    json: Annotated[bool, typer.Option("--json", help="Log one JSON object a line.")] = False,
    hints: Annotated[bool, typer.Option("--hints", help="Say what to try with the sample lists, once ready.")] = False,
) -> None:
    """Run a node: follower, HTTP control plane and ingest worker, until SIGINT or SIGTERM."""
    run = of(context)
    if role:
        chosen, load = {"roles": tuple(role)}, run.load
        run = Context(run.settings.model_copy(update=chosen), lambda: load().model_copy(update=chosen))
    log.configure(run.settings.log_level, "json" if json else run.settings.log_format)

    async def whole() -> None:
        await Node(run, ServiceManager()).run(
            lambda addresses: _say(hints_for(addresses, _program(context))) if hints else None
        )

    run.run(whole())


def hints_for(addresses: Sequence[str], blocker: str) -> str:
    """Commands for the sample lists and the console, and what each answers.

    Args:
        addresses: Where the node listens.
        blocker: How a shell calls this program so that it finds this node.
    """
    address = addresses[0]
    return f"""
Blocker is running. In another terminal, try:

  curl 'http://{address}/v1/check?url=http://gallery.example/secret/a.jpg'
      → "verdict":"block": the page is under a listed prefix

  {blocker} check http://blocked.example/ http://bad-domain.example/appeal http://harmless.example/
      → block, allow (an exception inside a blocked domain), allow

  {blocker} explain http://www.bad-domain.example/any/page
      → each step of the decision, and the rule that wins

  {blocker} tokens create me --person Me --role operator
      → a token, to sign in with at the console: http://{address}/

Documentation of the HTTP interface: http://{address}/docs    Stop page: http://{address}/blocked
Stop with Ctrl-C.
"""


def _program(context: typer.Context) -> str:
    """This program as it was called, with the options that stood before the command."""
    own = Path(sys.argv[0])
    words = [sys.executable, "-m", "blocker"] if own.name == "__main__.py" else [str(own)]
    given = context.parent.params if context.parent else {}
    for name, option in (("config", "--config"), ("data_dir", "--data-dir"), ("lists_dir", "--lists-dir")):
        if given.get(name) is not None:
            words += [option, str(given[name])]
    return shlex.join(words)


def _say(text: str) -> None:
    typer.echo(text)
