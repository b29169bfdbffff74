"""`blocker serve`: run a node."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from blocker import log
from blocker.cli.context import Context, of
from blocker.cli.node import Node
from blocker.settings import Role

if TYPE_CHECKING:
    from collections.abc import Sequence

RoleOption = Annotated[
    list[Role] | None, typer.Option("--role", help="Part to run; may be repeated. Default: as configured.")
]


def serve(
    context: typer.Context,
    role: RoleOption = None,
    hints: Annotated[bool, typer.Option("--hints", help="Say what to try with the sample lists, once ready.")] = False,
) -> None:
    """Run a node: follower, HTTP control plane and ingest worker, until SIGINT or SIGTERM."""
    run = of(context)
    if role:
        run = Context(run.settings.model_copy(update={"roles": tuple(role)}))
    log.configure(run.settings.log_level, run.settings.log_format)

    async def whole() -> None:
        await Node(run).run(lambda node: _say(hints_for(node.server.addresses)) if hints else None)

    run.run(whole())


def hints_for(addresses: Sequence[str]) -> str:
    """Three commands for the sample lists, and what each answers."""
    blocker = shlex.quote(sys.argv[0])
    address = addresses[0]
    return f"""
Blocker is running. In another terminal, try:

  curl 'http://{address}/v1/check?url=http://gallery.example/secret/a.jpg'
      → "verdict":"block": the page is under a listed prefix

  {blocker} check http://blocked.example/ http://bad-domain.example/appeal http://harmless.example/
      → block, allow (an exception inside a blocked domain), allow

  {blocker} explain http://www.bad-domain.example/any/page
      → each step of the decision, and the rule that wins

Documentation of the HTTP interface: http://{address}/docs    Stop page: http://{address}/blocked
Stop with Ctrl-C.
"""


def _say(text: str) -> None:
    typer.echo(text)
