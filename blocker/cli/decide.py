"""`blocker check` and `blocker explain`: what would happen to a URL, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from blocker import InvalidURL, canonicalize
from blocker.cli.context import Context, Json, of, read_lines
from blocker.errors import BlockerError, StoreError
from blocker.ingest.explain import explain as explain_url
from blocker.matcher import Policy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocker.ingest.explain import Effect, ExplainedRule, Explanation
    from blocker.matcher import Matcher

COLOURS = {"block": "red", "inspect": "yellow", "allow": "green"}
PolicyOption = Annotated[str, typer.Option("--policy", help="Name of the policy to decide under.")]


def check(
    context: typer.Context,
    urls: Annotated[list[str], typer.Argument(metavar="URL…", help="URLs; - reads them from standard input.")],
    policy: PolicyOption = "default",
    json: Json = False,
) -> None:
    """Decide URLs: verdict, list, kind and canonical form. Exit code 0 whatever the verdicts are."""
    run = of(context)
    wanted = [line for url in urls for line in (read_lines() if url == "-" else [url])]
    matcher = _known(run.run(run.current_matcher()), policy)
    rows: list[dict[str, Any]] = []
    for url, decision in zip(wanted, matcher.decide_many(wanted, policy), strict=True):
        row = {
            "verdict": decision.verdict.value,
            "list": decision.list,
            "kind": decision.kind and decision.kind.value,
            "serial": decision.serial,
            "canonical": None if decision.invalid else canonicalize(url),
            "reference": decision.reference,
            "shadow": list(decision.shadow),
            "invalid": decision.invalid,
        }
        if json:
            run.echo_json(row)
        else:
            rows.append(row)
    if not json:
        _show(run, rows)


def explain(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="The URL.")],
    policy: PolicyOption = "default",
    json: Json = False,
) -> None:
    """Show every step of a decision: canonical form, SURT, nodes probed, each matching rule, who wins and why.

    With the seal key also the rules themselves, since when they are listed, and what a draft would change.
    """
    run = of(context)
    matcher = _known(run.run(run.current_matcher()), policy)
    policies = {one.name: one for one in (Policy(), *run.policies)}
    try:
        told = run.run(_explained(run, matcher, url, policies[policy]))
    except InvalidURL as error:
        verdict = matcher.decide(url, policy).verdict.value
        raise InvalidURL(f"{error}; the policy answers {verdict} to what is no URL") from None
    if json:
        run.echo_json(told.to_dict())
        return
    console = run.console
    console.print(Text(f"canonical  {told.canonical}"))
    console.print(Text(f"SURT       {told.surt}"))
    table = Table("node", "there", "rules that end here", box=None, pad_edge=False)
    for step in told.steps:
        ended = "\n".join(f"{found['action']} by {found['list']} ({found['kind']})" for found in step["matches"])
        table.add_row(Text(step["prefix"]), "yes" if step["found"] else "no", Text(ended))
    console.print(table)
    for rule in told.rules:
        console.print(_rule(rule))
    console.print(Text.assemble("verdict    ", _coloured(told.verdict), f": {_why(told)}"))
    for effect in told.proposed:
        console.print(_effect(effect))
    for missing in told.missing:
        run.tell(missing, "yellow")


async def _explained(run: Context, matcher: Matcher, url: str, policy: Policy) -> Explanation:
    try:
        store = await run.open_store()
    except StoreError:
        return await explain_url(matcher, url, policy, None, run.keyring)
    async with store:
        return await explain_url(matcher, url, policy, store, run.keyring)


def _show(run: Context, rows: Sequence[dict[str, Any]]) -> None:
    """Columns; the last one is as wide as each URL is, and not as the longest one."""
    width = max([len("list"), *(len(row["list"] or "-") for row in rows)])
    run.console.print(Text(f"verdict  {'list':{width}}  kind    canonical"))
    for row in rows:
        verdict = _coloured(row["verdict"])
        verdict.pad_right(len("verdict") - len(verdict))
        rest = f"  {row['list'] or '-':{width}}  {row['kind'] or '-':6}  {row['canonical'] or '(no URL)'}"
        run.console.print(verdict + Text(rest))


def _known(matcher: Matcher, policy: str) -> Matcher:
    if policy not in matcher.policies:
        raise BlockerError(f"there is no policy of that name; there are: {', '.join(matcher.policies)}")
    return matcher


def _why(told: Explanation) -> str:
    decides = next((rule for rule in told.rules if rule.part == "decides"), None)
    if decides is None:
        return "only shadow lists match, and those never block" if told.rules else "no rule of any list matches"
    rank = (
        "the only rule that matches" if len(told.rules) == 1 else f"the most specific of {len(told.rules)} that match"
    )
    if decides.action == "allow":
        rank += "; at equal specificity an exception wins"
    return f"the {decides.kind} rule of {decides.list} (serial {decides.serial}) is {rank}"


def _rule(rule: ExplainedRule) -> Text:
    """One line: what it does, where it is from, since when."""
    details = [rule.kind, rule.mode, f"serial {rule.serial}"]
    if rule.hashed:
        details.append("by digest")
    if rule.reference:
        details.append(f"reference {rule.reference}")
    details += [f"{name} {value}" for name, value in sorted(rule.metadata.items())]
    if rule.since is not None:
        at = datetime.fromtimestamp(rule.since.at, UTC)
        since = "since" if rule.since.exact else "at least since"
        details.append(f"{since} serial {rule.since.serial} ({at:%Y-%m-%d %H:%M} UTC)")
    text = f"{rule.part:9}  {rule.action} by {rule.list} ({', '.join(details)})"
    return Text(text + (f": {rule.text}" if rule.text else ""))


def _effect(effect: Effect) -> Text:
    by = f" by {effect.by}" if effect.by else ""
    changes = f"it would be {effect.verdict}{by}" if effect.changes else "nothing would change here"
    rules = "".join(f", {sign}{text}" for sign, texts in (("+", effect.added), ("-", effect.removed)) for text in texts)
    return Text(f"{effect.shelf:9}  of {effect.list} by {effect.author}: {changes}{rules}")


def _coloured(verdict: str) -> Text:
    return Text(verdict, COLOURS[verdict])
