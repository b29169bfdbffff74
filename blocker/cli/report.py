"""`blocker report`: the charts of blocked requests, and several of their files merged."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from blocker.cli.context import of
from blocker.errors import FormatError
from blocker.hits import page
from blocker.hits.noise import laplace
from blocker.hits.publication import Request, parse_week, release
from blocker.hits.report import Report, merge

if TYPE_CHECKING:
    from blocker.cli.context import Context
    from blocker.hits.retention import Week

Format = Literal["html", "svg", "png", "csv", "json"]
# No report's file is larger: 200 figures and the names of the lists.
_MOST_BYTES = 4 * 2**20
WEEK = "ISO week, as 2026-W45, or a day in it, as 2026-11-04."


def report(
    context: typer.Context,
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="With --merge: what to merge.")
    ] = None,
    first: Annotated[str | None, typer.Option("--from", metavar="WEEK", help=f"First week: {WEEK}")] = None,
    last: Annotated[
        str | None,
        typer.Option("--to", metavar="WEEK", help="Last week. Default: the last of weeks 1 to 4, 5 to 8, …"),
    ] = None,
    lists: Annotated[
        list[str] | None, typer.Option("--list", help="Whose hits; may be repeated. Default: all.")
    ] = None,
    min_count: Annotated[
        int | None, typer.Option(min=1, max=10**9, help="Leave out figures under this. Default 10.")
    ] = None,
    counts: Annotated[bool, typer.Option("--counts", help="Counts, rounded up to the bin, and not shares.")] = False,
    shadow: Annotated[bool, typer.Option("--shadow", help="What lists in shadow mode would have blocked.")] = False,
    preview: Annotated[bool, typer.Option("--preview", help="For own eyes: do not write down as published.")] = False,
    epsilon: Annotated[
        float | None, typer.Option(min=0.001, max=20, help="Add noise: differential privacy's budget for one request.")
    ] = None,
    merging: Annotated[bool, typer.Option("--merge", help="Merge JSON files of several reports.")] = False,
    format: Annotated[  # noqa: A002 - the option's name
        Format | None, typer.Option(help="Default: by the ending of --output, else html.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File. Default: standard output.")] = None,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Charts of blocked requests by hour and weekday: patterns, not exact findings, and requests, not people.

    What was released for weeks and lists is written down and never changes; another report that overlaps is refused.
    """
    run = of(context)
    kind = _format("json" if json else format, output)
    if merging:
        if not files or first or last or lists or shadow or preview or epsilon:
            raise typer.BadParameter("--merge takes two or more files, --min-count, --counts, --format and --output")
        made = merge([_read(path) for path in files], min_count or 1)
    elif files:
        raise typer.BadParameter("files go with --merge")
    else:
        weeks = _week("--from", first), _week("--to", last)
        noise = None if epsilon is None else laplace(epsilon)
        bin_, named = run.settings.hits.bin, tuple(lists or ())
        asked = Request(*weeks, named, min_count, bin_, shadow, preview, epsilon, noise)
        made = _released(run, asked)
    _write(_rendered(made if counts else made.as_shares(), kind), output, run)


def _released(run: Context, request: Request) -> Report:
    settings = run.settings

    async def make() -> Report:
        async with await run.open_store() as store:
            return await release(
                store,
                request,
                timezone=settings.timezone,
                zone=settings.zone,
                now=time.time(),
                keep_weeks=settings.hits.keep_weeks,
            )

    return run.run(make())


def _week(option: str, text: str | None) -> Week | None:
    try:
        return None if text is None else parse_week(text)
    except ValueError:
        raise typer.BadParameter(f"{option}: expected an {WEEK[:-1]}") from None


def _format(asked: Format | None, output: Path | None) -> Format:
    if asked is not None:
        return asked
    formats: tuple[Format, ...] = ("html", "svg", "png", "csv", "json")
    return next((one for one in formats if output is not None and output.suffix == f".{one}"), "html")


def _read(path: Path) -> Report:
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES)
        return Report.from_json(text.decode("utf-8"))
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None
    except UnicodeDecodeError:
        raise FormatError(f"{path}: no report of `blocker report --format json`") from None
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror}") from None


def _rendered(made: Report, kind: Format) -> bytes:
    match kind:
        case "html":
            return page.html(made).encode()
        case "svg":
            return page.picture(made).encode()
        case "csv":
            return page.table(made).encode()
        case "json":
            return (made.as_json() + "\n").encode()
        case "png":
            from blocker.hits.picture import png  # loads resvg

            return png(page.picture(made, "light"))


def _write(data: bytes, output: Path | None, run: Context) -> None:
    if output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        output.write_bytes(data)
    except OSError as error:
        raise FormatError(f"{output}: {error.strerror}") from None
    run.tell(f"written to {output}")
