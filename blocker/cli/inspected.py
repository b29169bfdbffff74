"""`blocker lists inspected`: the popular domains whose traffic the lists send through the URL filter."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from blocker.cli.context import Json, of
from blocker.errors import SettingsError
from blocker.ingest.inspected import inspected
from blocker.ingest.never_block import ranked_popular

if TYPE_CHECKING:
    from blocker.ingest.inspected import Inspected


def show_inspected(
    context: typer.Context,
    hosts: Annotated[bool, typer.Option("--hosts", help="Show the domains, and the hosts with listed pages.")] = False,
    json: Json = False,
) -> None:
    """Popular domains with listed pages: their traffic goes through the URL filter. Needs the seal key.

    Names are shown only when asked for.
    """
    run = of(context)
    guards = run.settings.guards
    if guards.popular_domains is None:
        raise SettingsError(
            "guards.popular_domains is not set: name a file of popular domains, a name a line or rank,name"
        )
    popular = ranked_popular(guards.popular_domains, guards.popular_top)

    async def read() -> list[Inspected]:
        async with await run.open_store() as store:
            return await inspected(store, run.keyring, popular)

    found = run.run(read())
    by_list = Counter(name for one in found for name in one.lists)
    if json:
        named = {"domains": [asdict(one) for one in found]} if hosts else {}
        pages = sum(one.pages for one in found)
        run.echo_json({"popular": len(popular), "inspected": len(found), "pages": pages, "lists": by_list, **named})
        return
    told = ", ".join(f"{name} {count:,}" for name, count in sorted(by_list.items()))
    typer.echo(f"{len(found):,} of {len(popular):,} popular domains have listed pages{f': {told}' if told else ''}")
    if hosts and found:
        table = Table("rank", "domain", "pages", "lists", "hosts", box=None, pad_edge=False)
        for one in found:
            table.add_row(f"{one.rank:,}", one.domain, f"{one.pages:,}", " ".join(one.lists), " ".join(one.hosts))
        run.console.print(table)
