"""`blocker lists push`, `draft`, `publish`, `proposals`, `approve` and `reject`: from a file to a list, by people."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

import typer

from blocker._native import RuleSet
from blocker.cli import history
from blocker.cli.context import Context, Json, of, usable_sources
from blocker.errors import UpdateRefused
from blocker.ingest.drafts import discard_draft, patch_draft, put_draft
from blocker.ingest.formats import FormatOptions
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import head_manifest
from blocker.ingest.reading import HowToRead, ListReader, ReadList
from blocker.ingest.submit import Desk, Outcome
from blocker.store.audit import Actor

if TYPE_CHECKING:
    from blocker.store.draft import Draft
    from blocker.store.redis import Store

NameArgument = history.NameArgument
CHUNK_BYTES = 2**18
SHOWN_LINES = 10
ReasonOption = Annotated[str, typer.Option(help="Why, for the list's log. No address and no host name.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("push")(push)
    app.command("draft")(show_draft)
    app.command("publish")(publish_draft)
    app.command("proposals")(proposals)
    app.command("approve")(approve)
    app.command("reject")(reject)


def this_person() -> Actor:
    """Who runs the command: the user who logged in, also behind sudo."""
    try:
        person = os.environ.get("SUDO_USER") or getpass.getuser()
    except (OSError, KeyError):
        person = f"uid {os.getuid()}"
    return Actor("cli", person)


def push(
    context: typer.Context,
    name: NameArgument,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="The whole list; - is standard input."),
    ] = None,
    add: Annotated[Path | None, typer.Option(help="File of entries to add to the list as it is.")] = None,
    remove: Annotated[Path | None, typer.Option(help="File of entries to take out of it.")] = None,
    format: Annotated[str, typer.Option(help="How the files are written; see the sources.")] = "url",  # noqa: A002
    action: Annotated[Literal["block", "allow"] | None, typer.Option(help="Default: as it is, else block.")] = None,
    mode: Annotated[Literal["enforce", "shadow"] | None, typer.Option(help="Default: as it is, else enforce.")] = None,
    path_case: Annotated[
        Literal["sensitive", "insensitive"] | None, typer.Option(help="Default: as it is, else sensitive.")
    ] = None,
    www_alias: Annotated[
        bool | None, typer.Option("--www-alias/--no-www-alias", help="Default: as it is, else no.")
    ] = None,
    bare: Annotated[Literal["host", "domain"] | None, typer.Option(help="As in a source.")] = None,
    trailing_slash: Annotated[Literal["prefix", "exact"] | None, typer.Option(help="As in a source.")] = None,
    domain_kind: Annotated[Literal["domain", "host"] | None, typer.Option(help="As in a source.")] = None,
    max_bad_share: Annotated[float, typer.Option(min=0, max=1, help="Share of bad entries that is accepted.")] = 0.01,
    reason: ReasonOption = "",
    publish: Annotated[bool, typer.Option("--publish", help="Publish it at once.")] = False,
    json: Json = False,
) -> None:
    """Prepare the next version of a list. Nobody sees it before `blocker lists publish`."""
    if (file is None) == (add is None and remove is None):
        raise typer.BadParameter("give FILE for a whole list, or --add or --remove for a change")
    run = of(context)
    how = HowToRead(
        format=format,
        options=FormatOptions(bare=bare, trailing_slash=trailing_slash, domain_kind=domain_kind),
        max_bad_share=max_bad_share,
    )
    given = {"action": action, "mode": mode, "path_case": path_case, "www_alias": www_alias}

    async def work() -> tuple[Draft, list[ReadList], Outcome]:
        actor, now = this_person(), time.time()
        # Outside the store: a file that cannot be read needs none.
        read = [await asyncio.to_thread(_read, path, how) for path in (file, add, remove) if path is not None]
        async with await run.open_store() as store:
            head = await head_manifest(store, name)
            base = 0 if head is None else head.serial
            if file is not None:
                options = await _options(run, store, name, given)
                draft = await put_draft(
                    store, run.keyring, name, options, read[0].rules, base=base, actor=actor, reason=reason, now=now
                )
            else:
                sides = dict(zip([side for side in (add, remove) if side is not None], read, strict=True))
                nothing = RuleSet()
                draft = await patch_draft(
                    store, run.keyring, name, sides[add].rules if add else nothing,
                    sides[remove].rules if remove else nothing, base=base, actor=actor, reason=reason, now=now,
                )  # fmt: skip
            outcome = await _desk(run, store).publish_draft(
                name, expected=base, actor=actor, dry_run=not publish, now=now
            )
        return draft, read, outcome

    draft, read, outcome = run.run(work())
    if json:
        lines = [{"lines": one.lines, "bad": one.bad, "errors": one.errors} for one in read]
        run.echo_json({"draft": draft.id, "base": draft.base, "read": lines, **described(outcome)})
    else:
        for one in read:
            for number, why in one.errors[:SHOWN_LINES]:
                run.tell(f"{name}: line {number}: {why}")
            if one.bad > SHOWN_LINES:
                run.tell(f"{name}: {one.bad - SHOWN_LINES:,} more bad lines")
        typer.echo(
            f"{name}: draft of {draft.entries:,} rules upon serial {draft.base}: +{draft.added:,} -{draft.removed:,}"
        )
        _report(run, outcome)
    if publish and outcome.status == "refused":
        raise typer.Exit(1)


def show_draft(
    context: typer.Context,
    name: NameArgument,
    discard: Annotated[bool, typer.Option("--discard", help="Take it away.")] = False,
    json: Json = False,
) -> None:
    """The draft of a list, and what the guards say of it."""
    run = of(context)

    async def work() -> tuple[Draft, Outcome | None]:
        async with await run.open_store() as store:
            if discard:
                return await discard_draft(store, name, actor=this_person(), now=time.time()), None
            head = await head_manifest(store, name)
            outcome = await _desk(run, store).publish_draft(
                name, expected=0 if head is None else head.serial, actor=this_person(), dry_run=True, now=time.time()
            )
            draft = await store.draft("drafts", name)
            if draft is None:
                raise UpdateRefused(f"list {name}: its draft was taken away meanwhile")
            return draft, outcome

    draft, outcome = run.run(work())
    if json:
        run.echo_json({"discarded": discard, **draft_fields(draft), **(described(outcome) if outcome else {})})
        return
    typer.echo(
        f"{name}: {'discarded: ' if discard else ''}draft {draft.id} of {draft.entries:,} rules upon serial "
        f"{draft.base}: +{draft.added:,} -{draft.removed:,}, by {draft.person or draft.author}"
    )
    if outcome is not None:
        _report(run, outcome)


def publish_draft(
    context: typer.Context,
    name: NameArgument,
    reason: ReasonOption = "",
    mode: Annotated[
        Literal["enforce", "shadow"] | None, typer.Option(help="For this serial; default the draft's.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    json: Json = False,
) -> None:
    """Publish the draft of a list.

    Where a guard asks for it, another person must approve it first. Exit code 1 if a guard refuses it.
    """
    run = of(context)

    async def work() -> Outcome:
        async with await run.open_store() as store:
            head = await head_manifest(store, name)
            return await _desk(run, store).publish_draft(
                name, expected=0 if head is None else head.serial, actor=this_person(), reason=reason, mode=mode,
                dry_run=dry_run, now=time.time(),
            )  # fmt: skip

    _end(run, run.run(work()), json=json)


def proposals(context: typer.Context, json: Json = False) -> None:
    """Versions that wait for a second person, or were rejected, and why."""
    run = of(context)

    async def work() -> dict[str, Draft]:
        async with await run.open_store() as store:
            return await store.drafts("proposals")

    found = run.run(work())
    if json:
        run.echo_json([draft_fields(draft) for draft in found.values()])
        return
    if not found:
        typer.echo("nothing waits")
    for draft in found.values():
        typer.echo(
            f"{draft.list}: {draft.state}: {draft.id}, {draft.entries:,} rules upon serial {draft.base}, proposed by "
            f"{draft.person or draft.author}"
        )
        for finding in draft.findings:
            typer.echo(f"  {finding.severity}: {finding.message}")


def approve(
    context: typer.Context,
    name: NameArgument,
    proposal: Annotated[str, typer.Argument(metavar="ID", help="Of the proposal; see `lists proposals`.")],
    json: Json = False,
) -> None:
    """Publish what somebody else proposed, or a source brought."""
    run = of(context)

    async def work() -> Outcome:
        async with await run.open_store() as store:
            head = await head_manifest(store, name)
            return await _desk(run, store).approve(
                name, proposal, expected=0 if head is None else head.serial, actor=this_person(), now=time.time()
            )

    _end(run, run.run(work()), json=json)


def reject(
    context: typer.Context,
    name: NameArgument,
    proposal: Annotated[str, typer.Argument(metavar="ID", help="Of the proposal; see `lists proposals`.")],
    reason: Annotated[str, typer.Option(help="Why, for the audit chain. No address and no host name.")],
    json: Json = False,
) -> None:
    """Refuse what was proposed; its source does not propose the same again."""
    run = of(context)

    async def work() -> Draft:
        async with await run.open_store() as store:
            return await _desk(run, store).reject(name, proposal, actor=this_person(), reason=reason, now=time.time())

    draft = run.run(work())
    if json:
        run.echo_json(draft_fields(draft))
    else:
        typer.echo(f"{name}: rejected {draft.id}")


def described(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON."""
    fields = {field: getattr(outcome, field) for field in outcome.__slots__}
    return {**fields, "findings": [finding_fields(finding) for finding in outcome.findings]}


def draft_fields(draft: Draft) -> dict[str, Any]:
    """A draft as JSON, without what names blobs."""
    fields = {field: getattr(draft, field) for field in draft.__slots__ if field not in ("layers", "epoch")}
    return {**fields, "findings": [finding_fields(finding) for finding in draft.findings]}


def finding_fields(finding: Any) -> dict[str, Any]:  # noqa: ANN401 - a stored finding
    """A finding as JSON."""
    return {field: getattr(finding, field) for field in finding.__slots__}


def _end(run: Context, outcome: Outcome, *, json: bool) -> None:
    if json:
        run.echo_json(described(outcome))
    else:
        _report(run, outcome)
    if outcome.status == "refused" and not outcome.dry_run:
        raise typer.Exit(1)


def _report(run: Context, outcome: Outcome) -> None:
    name = outcome.list
    for finding in outcome.findings:
        run.tell(f"{name}: {finding.severity}: {finding.message}", "red" if finding.severity == "refuse" else "yellow")
    would = "would be " if outcome.dry_run else ""
    match outcome.status:
        case "published":
            typer.echo(
                f"{name}: {would}published"
                + ("" if outcome.dry_run else f" as serial {outcome.serial}")
                + f": +{outcome.added:,} -{outcome.removed:,} rules, {outcome.entries:,} in all"
            )
        case "unchanged":
            typer.echo(f"{name}: serial {outcome.serial} is that already; nothing was written")
        case "waiting" if outcome.dry_run:
            typer.echo(f"{name}: would wait for approval by a second person")
        case "waiting":
            typer.echo(f"{name}: waits for a second person: blocker lists approve {name} {outcome.proposal}")
        case _:
            run.tell(f"{name}: {would}refused; serial {outcome.serial} stays", "red")


def _desk(run: Context, store: Store) -> Desk:
    return Desk.configured(store, run.keyring, run.settings.guards, run.settings.lists_dir)


async def _options(run: Context, store: Store, name: str, given: dict[str, Any]) -> PublishOptions:
    """What is given, else what the list has, else what its source says."""
    head = await head_manifest(store, name)
    if head is not None:
        options = PublishOptions.of(head)
    else:
        source = next((one for one in usable_sources(run.settings.lists_dir) if one.name == name), None)
        options = (
            PublishOptions()
            if source is None
            else PublishOptions(
                action=source.action, mode=source.mode.value, path_case=source.path_case, www_alias=source.www_alias
            )
        )
    chosen = {field: getattr(options, field) for field in given}
    return PublishOptions(**{**chosen, **{field: value for field, value in given.items() if value is not None}})


def _read(path: Path, how: HowToRead) -> ReadList:
    reader = ListReader(how)
    try:
        if str(path) == "-":
            _feed(reader, sys.stdin.buffer)
        else:
            with path.open("rb") as file:
                _feed(reader, file)
    except OSError as error:
        raise UpdateRefused(f"{path} cannot be read: {error.strerror}") from None
    return reader.finish()


def _feed(reader: ListReader, file: BinaryIO) -> None:
    while chunk := file.read(CHUNK_BYTES):
        reader.feed(chunk)
