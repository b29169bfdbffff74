"""The `blocker` command: global options, the commands, and errors as exit codes."""

from __future__ import annotations

import sys
from collections import UserDict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from blocker import log, settings
from blocker.cli.context import Context
from blocker.errors import BlockerError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Module and object of each command. What is not called is not loaded: a node starts a fifth sooner.
COMMANDS = {
    "serve": ("serve", "serve"),
    "check": ("decide", "check"),
    "explain": ("decide", "explain"),
    "lists": ("lists", "app"),
    "export": ("export", "app"),
    "tokens": ("tokens", "app"),
    "report": ("report", "report"),
    "squid-helper": ("squid_helper", "squid_helper"),
    "bgp-feed": ("bgp_feed", "bgp_feed"),
    "routes": ("bgp_feed", "app"),
    "doctor": ("doctor", "doctor"),
    "bench": ("bench", "bench"),
}


class _Commands(UserDict[str, Any]):
    """The commands by name, each loaded when it is looked at."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(COMMANDS))

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - Typer does not show the type
        if self.data[name] is None:
            module, attribute = COMMANDS[name]
            found = getattr(import_module(f"blocker.cli.{module}"), attribute)
            parent = typer.Typer()
            if isinstance(found, typer.Typer):
                parent.add_typer(found, name=name)
            else:
                parent.command(name)(found)
            self.data[name] = typer.main.get_group(parent).commands[name]
        return self.data[name]


class _Program(TyperGroup):
    """The program with its commands."""

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - as Typer's
        super().__init__(**attributes)
        self.commands = _Commands()


app = typer.Typer(
    name="blocker",
    cls=_Program,
    help="URL-blocklist resolver: answers block, inspect or allow, and never knows who asked.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # slow to load

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
