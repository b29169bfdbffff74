"""The `blocker` command: global options, the commands, and errors as exit codes."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from blocker import log, settings
from blocker.cli import bench, bgp_feed, decide, doctor, export, lists, report, serve, squid_helper, tokens
from blocker.cli.context import Context
from blocker.errors import BlockerError

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(
    name="blocker",
    help="URL-blocklist resolver: answers block, inspect or allow, and never knows who asked.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve")(serve.serve)
app.command("check")(decide.check)
app.command("explain")(decide.explain)
app.add_typer(lists.app, name="lists")
app.add_typer(export.app, name="export")
app.add_typer(tokens.app, name="tokens")
app.command("report")(report.report)
app.command("squid-helper")(squid_helper.squid_helper)
app.command("bgp-feed")(bgp_feed.bgp_feed)
app.command("routes")(bgp_feed.routes)
app.command("doctor")(doctor.doctor)
app.command("bench")(bench.bench)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"blocker {version('blocker')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Configuration file. Default: blocker.toml if it is there.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Directory of keys, snapshot and embedded Redis.")
    ] = None,
    lists_dir: Annotated[Path | None, typer.Option("--lists-dir", help="Directory of the list sources.")] = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Read the configuration before any command runs."""

    def load() -> settings.Settings:
        return settings.load(config, data_dir=data_dir, lists_dir=lists_dir)

    context.obj = Context(load(), load)


# Called instead of `app`, which would put an exception hook of its own in place, one that prints messages and source.
command = typer.main.get_command(app)


def main() -> None:
    """Run the command; the program's entry point."""
    # Until a command says otherwise only what needs somebody is shown, and never a value of an exception.
    log.configure("warning")
    log.catch_uncaught()
    try:
        command()
    except BlockerError as error:
        _refuse(str(error))
    except ExceptionGroup as group:  # from the tasks of a node
        own, others = group.split(BlockerError)
        if own is None or others is not None:
            raise
        _refuse("; ".join(map(str, _leaves(own))))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def _refuse(reason: str) -> NoReturn:
    typer.secho(f"blocker: {reason}", err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
    sys.exit(1)


def _leaves(group: ExceptionGroup[BlockerError]) -> Iterator[BlockerError]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
