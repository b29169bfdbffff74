"""`blocker tokens`: make, show, rotate and revoke the tokens with which people use the control plane.

Only here, and not over HTTP: a stolen token of an operator cannot make itself more of them.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from blocker.cli.context import Context, Json, of
from blocker.cli.publishing import this_person
from blocker.store.token import Role  # noqa: TC001 - typer reads it
from blocker.store.tokens import create_token, revoke_token, rotate_token

if TYPE_CHECKING:
    from blocker.store.token import Token

DAY = 86_400
app = typer.Typer(help="Tokens of the control plane: who may do what.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The token's name.")]
ExpiresOption = Annotated[int, typer.Option("--expires", min=1, max=366, help="Days until it is good no more.")]


@app.command("create")
def create(
    context: typer.Context,
    name: NameArgument,
    role: Annotated[list[Role], typer.Option("--role", help="What it may do; repeat for more.")],
    person: Annotated[str, typer.Option("--person", help="Whose it is; two people are needed for approvals.")],
    lists: Annotated[
        list[str] | None, typer.Option("--list", help="List that a maintainer may publish; repeat, or * for all.")
    ] = None,
    expires: ExpiresOption = 90,
    json: Json = False,
) -> None:
    """Make a token. It is shown now and never again."""
    run = of(context)

    async def work() -> tuple[Token, str]:
        async with await run.open_store() as store:
            return await create_token(
                store, name=name, person=person, roles=tuple(role), lists=tuple(lists or ()), now=time.time(),
                seconds=expires * DAY, actor=this_person(),
            )  # fmt: skip

    _show(run, run.run(work()), json=json)


@app.command("rotate")
def rotate(
    context: typer.Context,
    name: NameArgument,
    grace: Annotated[int, typer.Option(min=0, max=720, help="Hours for which the old one is good still.")] = 24,
    expires: ExpiresOption = 90,
    json: Json = False,
) -> None:
    """Give a token a new secret; the old one is good for a while, so that nothing stops."""
    run = of(context)

    async def work() -> tuple[Token, str]:
        async with await run.open_store() as store:
            return await rotate_token(
                store, name, grace=grace * 3600, now=time.time(), seconds=expires * DAY, actor=this_person()
            )

    _show(run, run.run(work()), json=json)


@app.command("revoke")
def revoke(context: typer.Context, name: NameArgument) -> None:
    """Make a token good for nothing, at once."""
    run = of(context)

    async def work() -> Token:
        async with await run.open_store() as store:
            return await revoke_token(store, name, now=time.time(), actor=this_person())

    typer.echo(f"revoked {run.run(work()).name}")


@app.command("ls")
def ls(context: typer.Context, json: Json = False) -> None:
    """All tokens, without their secrets."""
    run = of(context)

    async def work() -> tuple[dict[str, Token], dict[str, float]]:
        async with await run.open_store() as store:
            return await store.tokens(), await store.tokens_used()

    tokens, used = run.run(work())
    now = time.time()
    rows = [_row(token, used.get(token.id, 0.0), now) for token in tokens.values()]
    if json:
        run.echo_json(rows)
        return
    table = Table(
        "token", "name", "person", "roles", "lists", "expires", "last used", "state", box=None, pad_edge=False
    )
    for row in rows:
        table.add_row(
            f"blk_{row['id']}_…", row["name"], row["person"], ", ".join(row["roles"]), ", ".join(row["lists"]) or "-",
            row["expires"], row["last_used"] or "never", row["state"],
        )  # fmt: skip
    run.console.print(table if rows else "no tokens yet; make one with `blocker tokens create`")


def _show(run: Context, made: tuple[Token, str], *, json: bool) -> None:
    token, text = made
    if json:
        run.echo_json({**_row(token, 0.0, token.created), "token": text})
    else:
        typer.echo(text)
        run.tell(f"{token.name}: {', '.join(token.roles)}, until {_day(token.expires)}. It is not shown again.")


def _row(token: Token, used: float, now: float) -> dict[str, Any]:
    state = "revoked" if token.revoked else "valid" if token.valid(now) else "expired"
    return {
        "id": token.id, "name": token.name, "person": token.person, "roles": token.roles, "lists": token.lists,
        "expires": _day(token.expires), "last_used": _hour(used) if used else None, "state": state,
    }  # fmt: skip


def _day(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).date().isoformat()


def _hour(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="minutes")
