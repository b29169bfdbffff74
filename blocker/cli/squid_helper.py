"""`blocker squid-helper`: answers Squid on standard input and output; `blocker/native/src/wire/squid.rs` is the
protocol.

A companion of the node on the same machine: it maps the node's table, follows its lists without restart, and counts
into its hits. Started by Squid many times over, so it loads little.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import uvloop

from blocker import log
from blocker._native import Gate, SquidSession
from blocker.errors import BlockerError
from blocker.gateways.companion import Companion, Verdicts
from blocker.hits.meters import BOUNDS_NS

if TYPE_CHECKING:
    from collections.abc import Callable

GATEWAY = "squid-helper"
INSPECTING = "squid-helper-inspect"  # to the node alone, which counts both as one
DEFAULT_SOCKET = Path("var/node.sock")
# What is read at once: more than Squid ever has in flight to one helper.
_READ_BYTES = 256 * 1024
# How long the first questions wait for the node to be met, in seconds, before they are answered BH.
_FIRST_SECONDS = 2.0

# What an ACL matches, the address to redirect to, the one to fetch instead, whether what is undecided passes.
Style = tuple[str, str | None, str | None, bool]


class Undecided(StrEnum):
    """What becomes of requests while there are no lists yet."""

    BLOCK = "block"
    ALLOW = "allow"


def squid_helper(
    socket: Annotated[
        Path, typer.Option("--socket", help="The node's socket: companions.unix of its configuration.")
    ] = (DEFAULT_SOCKET),
    policy: Annotated[str, typer.Option("--policy", help="Policy to decide by.")] = "default",
    matches: Annotated[
        str, typer.Option("--matches", help="What the ACL matches: block, or inspect (hosts to look into).")
    ] = "block",
    redirect: Annotated[
        str | None, typer.Option("--redirect", help="Be a url_rewrite program that sends clients to this address.")
    ] = None,
    rewrite: Annotated[
        str | None,
        typer.Option("--rewrite", help="Be a url_rewrite program that has Squid fetch this address."),
    ] = None,
    undecided: Annotated[
        Undecided, typer.Option("--undecided", help="What becomes of requests while there are no lists yet.")
    ] = Undecided.BLOCK,
) -> None:
    """Answer Squid's external_acl or url_rewrite questions on standard input and output."""
    log.configure("warning")
    try:
        helper = Helper(socket, policy, (matches, redirect, rewrite, undecided is Undecided.ALLOW))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(helper.run())


class Helper:
    """One helper.

    Args:
        path: The node's socket.
        policy: The policy to decide by.
        style: What it answers; see `SquidSession`.

    Raises:
        ValueError: See `SquidSession`.
    """

    def __init__(self, path: Path, policy: str, style: Style) -> None:
        self._policy = policy
        self._style = style
        self._feed = SquidSession(Gate(policy, BOUNDS_NS, []), *style).feed  # nothing to decide with: BH
        self._gate: Gate | None = None
        self._tick: Callable[[], object] = int
        # Only one that tells apart what is blocked can be asked about canaries.
        self._companion = Companion(path, GATEWAY if style[0] == "block" else INSPECTING, policy, self._decide)
        self._ended = asyncio.Event()
        self._fault: BlockerError | None = None

    async def run(self) -> None:
        """Answer until Squid closes the input.

        Raises:
            UnknownPolicy: The node has no such policy.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._ended.set)
        running = asyncio.create_task(self._companion.run())
        meeting = asyncio.create_task(self._meet())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_SECONDS):
                await asyncio.shield(meeting)
        await self._answer(loop)
        meeting.cancel()
        self._companion.stop()
        await running
        if self._fault is not None:
            raise self._fault

    async def _meet(self) -> None:
        await self._companion.met.wait()
        engine = self._companion.engine
        await self._companion.supplied()
        try:
            self._gate = engine.gate(GATEWAY, self._policy)
        except BlockerError as error:
            self._fault = error
            self._ended.set()
            return
        self._tick = engine.tick
        self._feed = SquidSession(self._gate, *self._style).feed

    async def _answer(self, loop: asyncio.AbstractEventLoop) -> None:
        if stat.S_ISREG(os.fstat(0).st_mode):  # somebody tries it out with a file
            while self._turn():
                pass
            return
        loop.add_reader(0, self._readable)
        await self._ended.wait()
        loop.remove_reader(0)

    def _readable(self) -> None:
        if not self._turn():
            self._ended.set()

    def _turn(self) -> bool:
        """Answer what there is; whether the input goes on."""
        data = os.read(0, _READ_BYTES)
        self._tick()
        answer = self._feed(data)
        try:
            written = os.write(1, answer) if answer else 0
            while written < len(answer):
                written += os.write(1, answer[written:])
        except BrokenPipeError:
            return False
        return bool(data)

    def _decide(self, url: str) -> Verdicts:
        if self._gate is None:
            return None, None
        answer = SquidSession(self._gate, *self._style).feed(f"{url}\n".encode()).decode()
        word, *pairs = answer.split()
        found = dict(pair.partition("=")[::2] for pair in pairs)
        verdict = found.get("blocker_verdict_", "block" if word == "OK" else "allow" if word == "ERR" else None)
        return verdict, found.get("blocker_list_")


def main() -> None:
    """Run without what the other commands load."""
    log.configure("warning")
    log.catch_uncaught()
    alone = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    alone.command()(squid_helper)
    try:
        typer.main.get_command(alone)(prog_name="blocker squid-helper")
    except BlockerError as error:
        typer.echo(f"blocker: {error}", err=True)
        sys.exit(1)
