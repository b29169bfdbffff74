"""`blocker check` and `blocker explain`: what would happen to a URL, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from blocker import InvalidURL, canonicalize
from blocker.cli.context import Json, of, read_lines
from blocker.errors import BlockerError

if TYPE_CHECKING:
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
    table = Table("verdict", "list", "kind", "canonical", box=None, pad_edge=False)
    for url, decision in zip(wanted, matcher.decide_many(wanted, policy), strict=True):
        row: dict[str, Any] = {
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
            colour = COLOURS[decision.verdict.value]
            shown = _plain(row["canonical"] or "(no URL)")
            table.add_row(f"[{colour}]{row['verdict']}[/]", row["list"] or "-", row["kind"] or "-", shown)
    if not json:
        run.console.print(table, soft_wrap=True)


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
    console.print(f"canonical  {_plain(steps['canonical'])}", soft_wrap=True)
    console.print(f"SURT       {_plain(steps['surt'])}", soft_wrap=True)
    table = Table("node", "there", "rules that end here", box=None, pad_edge=False)
    for step in steps["steps"]:
        rules = "\n".join(_rule(found) for found in step["matches"])
        table.add_row(_plain(step["prefix"]), "yes" if step["found"] else "no", rules)
    console.print(table, soft_wrap=True)
    colour, winner = COLOURS[steps["verdict"]], steps["winner"]
    console.print(f"verdict    [{colour}]{steps['verdict']}[/]: {_why(steps)}", soft_wrap=True)
    if winner and winner["reference"]:
        console.print(f"reference  {_plain(winner['reference'])}", soft_wrap=True)


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
    reference = f", reference {found['reference']}" if found["reference"] else ""
    return _plain(
        f"{found['action']} by {found['list']} ({found['kind']}, {found['mode']}, serial {found['serial']}{reference})"
    )


def _plain(text: str) -> str:
    """Text with nothing that rich would take for markup."""
    return text.replace("[", r"\[")
