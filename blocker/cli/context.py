"""What every command needs: settings, keys, the store, a matcher, and one event loop to use them in.

What only some of it needs is loaded where it is: a node's gateways answer before Redis' client is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
import uvloop

from blocker.errors import BlockerError, ServeError, SourceError, StoreError
from blocker.follower import Follower
from blocker.matcher import Matcher, Policy
from blocker.rules import Verdict
from blocker.snapshot import Snapshot
from blocker.store.embedded import EmbeddedRedis
from blocker.store.sealing import Keyring

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    from rich.console import Console

    from blocker.ingest.source import Source
    from blocker.settings import Settings
    from blocker.store.redis import Store

_T = TypeVar("_T")

#: A line is never cut nor wrapped here, since a URL that is not whole is of no use; a terminal wraps by itself.
ANY_WIDTH = 2**20

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


class Context:
    """One run of the program. Opens nothing before it is asked to."""

    def __init__(self, settings: Settings, load: Callable[[], Settings] | None = None) -> None:
        self.settings = settings
        self.load = load or (lambda: settings)  # reads the configuration anew, as it was called
        self.embedded = EmbeddedRedis(settings.data_dir)
        self._keyring: Keyring | None = None

    @cached_property
    def console(self) -> Console:
        """Standard output."""
        from rich.console import Console

        return Console(highlight=False, emoji=False, width=ANY_WIDTH)

    @cached_property
    def errors(self) -> Console:
        """Standard error."""
        from rich.console import Console

        return Console(stderr=True, highlight=False, emoji=False)

    @property
    def keyring(self) -> Keyring:
        """The keys in the data directory, made if there are none.

        Raises:
            KeyMaterialError: They cannot be read, made or trusted.
        """
        if self._keyring is None:
            with contextlib.suppress(OSError):  # the keyring says what is wrong
                # Made here for all its users: `parents=True` below it would leave it open to others.
                self.settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._keyring = Keyring.load_or_create(self.settings.data_dir / "keys", create=True)
        return self._keyring

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The configured policies."""
        return tuple(
            Policy(
                name=name,
                lists={lst: None if mode is None else mode.value for lst, mode in policy.lists.items()} or None,
                on_invalid="block" if policy.on_invalid is Verdict.BLOCK else "allow",
            )
            for name, policy in self.settings.policies.items()
        )

    def policy(self, name: str) -> Policy | None:
        """A configured policy; None where it is the one that always exists and nobody configured it."""
        return next((policy for policy in self.policies if policy.name == name), None)

    async def open_store(self) -> Store:
        """The configured Redis, or the embedded one, started if need be.

        Raises:
            SettingsError: The Redis URL is malformed.
            StoreError: There is no usable Redis server.
            KeyMaterialError: See `keyring`.
        """
        from blocker.store.redis import Store

        keyring = self.keyring
        url = self.settings.redis_url or await self.embedded.ensure()
        return await Store.open(url, self.settings.deployment, keyring=keyring)

    def follower(self, *, persist: bool = True) -> Follower:
        """A follower of the store."""
        lookup_key = self.keyring.lookup
        return Follower(
            self.open_store,
            Snapshot(self.settings.data_dir / "snapshot", lookup_key),
            lookup_key,
            policies=self.policies,
            poll_seconds=self.settings.poll_seconds,
            persist=persist,
        )

    async def current_matcher(self) -> Matcher:
        """The lists as the store has them now, or as this machine's snapshot has them while Redis is away.

        Raises:
            ServeError: There is neither.
        """
        logging.getLogger("blocker.follower").setLevel(logging.ERROR)  # what else it would log is told below
        follower = self.follower(persist=False)
        await follower.load_snapshot()
        damage = "" if follower.matcher else follower.status.detail
        reason = ""
        try:
            async with await self.open_store() as store:
                await follower.sync(store)
                reason = follower.status.detail
        except StoreError as error:
            reason = str(error)
        if follower.matcher is None:
            reasons = "; ".join(filter(None, (reason, damage)))
            raise ServeError(
                f"there are no lists yet{f' ({reasons})' if reasons else ''}; pull them with `blocker lists pull` or "
                "start a node with `blocker serve`"
            )
        if reason:
            self.tell(f"not in step with the store: {reason}", "yellow")
        return follower.matcher

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a command's work in an event loop of its own; stops an embedded Redis that it started."""

        async def whole() -> _T:
            try:
                return await work
            finally:
                await self.embedded.stop()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(whole())

    def tell(self, text: str, style: str = "") -> None:
        """Print a line to standard error, whatever characters are in it."""
        from rich.text import Text

        self.errors.print(Text(text, style), soft_wrap=True)

    def echo_json(self, value: object) -> None:
        """Print one JSON document on a line of its own."""
        typer.echo(json.dumps(value, ensure_ascii=False))


def of(context: typer.Context) -> Context:
    """The run that a command belongs to."""
    if not isinstance(context.obj, Context):
        raise BlockerError("the command was started without its options")
    return context.obj


def usable_sources(directory: Path) -> Sequence[Source]:
    """The sources that can be used, for commands that only show lists; none where there is no directory of them."""
    from blocker.ingest.source import load_sources

    try:
        return load_sources(directory).sources
    except SourceError:
        return ()


def read_lines() -> list[str]:
    """Non-empty lines of standard input; bytes that are no UTF-8 are kept as surrogates (PEP 383).

    Only a line feed ends a line: what else `str.splitlines` takes for an end may stand in a URL.
    """
    lines = (line.removesuffix(b"\r") for line in sys.stdin.buffer.read().split(b"\n"))
    return [line.decode("utf-8", "surrogateescape") for line in lines if line.strip()]
