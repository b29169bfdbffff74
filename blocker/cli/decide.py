"""`blocker check` and `blocker explain`: what would happen to a URL, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from blocker import InvalidURL, canonicalize
from blocker.cli.context import Context, Json, of, read_lines
from blocker.errors import BlockerError

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    """Show every step of a decision: canonical form, SURT, nodes probed, each matching rule, who wins and why."""
    run = of(context)
    matcher = _known(run.run(run.current_matcher()), policy)
    try:
        steps: dict[str, Any] = dict(matcher.explain(url, policy))
    except InvalidURL as error:
        verdict = matcher.decide(url, policy).verdict.value
        raise InvalidURL(f"{error}; the policy answers {verdict} to what is no URL") from None
    if json:
        run.echo_json(steps)
        return
    console = run.console
    console.print(Text(f"canonical  {steps['canonical']}"))
    console.print(Text(f"SURT       {steps['surt']}"))
    table = Table("node", "there", "rules that end here", box=None, pad_edge=False)
    for step in steps["steps"]:
        rules = "\n".join(_rule(found) for found in step["matches"])
        table.add_row(Text(step["prefix"]), "yes" if step["found"] else "no", Text(rules))
    console.print(table)
    winner = steps["winner"]
    console.print(Text.assemble("verdict    ", _coloured(steps["verdict"]), f": {_why(steps)}"))
    if winner and winner["reference"]:
        console.print(Text(f"reference  {winner['reference']}"))


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


def _why(steps: dict[str, Any]) -> str:
    winner = steps["winner"]
    if winner is None:
        matched = any(step["matches"] for step in steps["steps"])
        return "only shadow lists match, and those never block" if matched else "no rule of any list matches"
    others = sum(len(step["matches"]) for step in steps["steps"]) - 1
    rank = "the only rule that matches" if not others else f"the most specific of {others + 1} that match"
    if winner["action"] == "allow":
        rank += "; at equal specificity an exception wins"
    return f"the {winner['kind']} rule of {winner['list']} (serial {winner['serial']}) is {rank}"


def _rule(found: dict[str, Any]) -> str:
    details = f"{found['kind']}, {found['mode']}, serial {found['serial']}"
    if found["reference"]:
        details += f", reference {found['reference']}"
    if "hashed" in found:
        details += ", by digest"
    return f"{found['action']} by {found['list']} ({details})"


def _coloured(verdict: str) -> Text:
    return Text(verdict, COLOURS[verdict])
