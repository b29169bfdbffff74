"""Connections to Redis: from a URL to a client, and from redis-py's exceptions to ours.

A command on a pooled connection is never cancelled: a reply that nobody read would be taken for the next command's
(CVE-2023-28859). `Session` runs each as a task of its own, so that cancelling the waiter leaves the command to end by
itself, within its timeout. Repeating a command must therefore be harmless, and every command of the store is.

Needs redis-py 8 or later: before, a Cluster client that had lost all of its nodes for a moment never found them again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis-py's own name
    NoScriptError,
    ReadOnlyError,
    ResponseError,
)

from blocker.errors import StoreUnavailable
from blocker.store.faults import REDIS_FAULTS, translated
from blocker.store.url import bad_url, parse_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from blocker.store.url import RedisTarget

# Seconds. Redis answers in well under a millisecond, so these only decide how soon a dead one is called dead.
CONNECT_SECONDS = 1.0
COMMAND_SECONDS = 5.0
# A command is tried again when its connection broke (an idle one that the server closed, a restart), not when it timed
# out: that has taken long enough. Two repeats after 50 and 100 ms bridge a restart and keep an answer under a second.
RETRIES = 2
BACKOFF_SECONDS = 0.025  # doubled before the first repeat
# Between two attempts to cancel a command; one attempt is nearly always enough, and takes no time.
ABORT_SECONDS = 0.05
# An idle connection is asked for a sign of life before its next use after this many seconds.
HEALTH_CHECK_SECONDS = 30

Client = Redis | RedisCluster
_T = TypeVar("_T")


def connect(url: str) -> Client:
    """A client for a URL. Nothing is sent before its first command; close it with `aclose()`.

    Answers are bytes. Timeouts and repeats are those of this module. A Sentinel client asks its sentinels again
    whenever it has to reconnect, so that it follows a failover by itself.

    Raises:
        SettingsError: The URL is malformed, or its TLS files cannot be read; repeats no part of it.
    """
    target = parse_url(url)
    retry = Retry(ExponentialBackoff(cap=1.0, base=BACKOFF_SECONDS), RETRIES, supported_errors=(ConnectionError,))
    common: dict[str, Any] = {
        "username": target.username,
        "password": target.password,
        "client_name": "blocker",
        "decode_responses": False,
        "health_check_interval": HEALTH_CHECK_SECONDS,
        # RESP3 would have redis-py ask for maintenance notices on each connection and accept pushes between replies.
        "protocol": 2,
        "retry": retry,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": COMMAND_SECONDS,
    }
    tls = {"ssl": True, **target.tls_options} if target.tls else {}
    try:
        match target.topology:
            case "unix":
                return Redis(unix_socket_path=target.path, db=target.db, **common)
            case "single":
                host, port = target.hosts[0]
                return Redis(host=host, port=port, db=target.db, **common, **tls)
            case "cluster":
                nodes = [ClusterNode(host, port) for host, port in target.hosts]
                return RedisCluster(startup_nodes=nodes, **common, **tls)
            case "sentinel":
                return _sentinel_client(target, {**common, "db": target.db}, tls)
    except (*REDIS_FAULTS, ValueError):
        raise bad_url("cannot be used as it is; check the hosts and the ssl_ options") from None


class _SentinelRedis(Redis):
    """A client that owns the sentinels it asks."""

    sentinels: tuple[Redis, ...] = ()

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close the connections to Redis and to the sentinels."""
        await super().aclose(close_connection_pool)
        for sentinel in self.sentinels:
            await sentinel.aclose()


def _sentinel_client(target: RedisTarget, common: dict[str, Any], tls: dict[str, Any]) -> Client:
    sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis-py left its constructor untyped
        target.hosts,
        sentinel_kwargs={
            "username": target.sentinel_username,
            "password": target.sentinel_password,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),  # the next sentinel is asked instead
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_timeout": CONNECT_SECONDS,
            **tls,
        },
        **common,
        **tls,
    )
    # Once: each call makes a pool of its own.
    client: _SentinelRedis = sentinel.master_for(target.service, redis_class=_SentinelRedis)
    client.sentinels = tuple(sentinel.sentinels)
    return client


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, sent by its SHA-1 and in full only where the server does not know it (after a restart, say)."""

    text: str

    @property
    def sha1(self) -> str:
        """The name EVALSHA knows it by."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class Session:
    """A client whose commands end by themselves when their waiter is cancelled, and whose errors are ours."""

    def __init__(self, url: str) -> None:
        self.client = connect(url)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def command(self, what: str, *words: str | bytes | float) -> Any:  # noqa: ANN401 - Redis' own types
        """Send one command. `what` names the operation in errors."""
        return await self._finish(what, lambda: self.client.execute_command(*words))

    async def script(self, what: str, script: Script, keys: Sequence[str], *arguments: str | bytes | int) -> Any:  # noqa: ANN401
        """Run a script. All of its keys are named, as Cluster needs."""
        return await self._finish(what, lambda: self._evaluate(script, keys, arguments))

    async def transaction(self, what: str, commands: Sequence[tuple[str | bytes | float, ...]]) -> None:
        """Run commands in one MULTI/EXEC: all of them or none, nothing in between."""
        await self._finish(what, lambda: self._transact(commands))

    async def info(self, what: str, key: str) -> dict[str, Any]:
        """INFO of the server that holds a key."""
        return await self._finish(what, lambda: self._info(key))

    async def abort(self) -> None:
        """Cancel the commands under way and close the connections: safe, since none of them is used again."""
        self._closed = True
        while self._tasks:
            # More than once: what is cancelled while redis-py opens a connection may go on as if it were not.
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=ABORT_SECONDS)
        await self.aclose()

    async def aclose(self) -> None:
        """Let the commands under way end, take no new ones, and close the connections."""
        self._closed = True
        while self._tasks:
            await asyncio.wait(self._tasks)
        with contextlib.suppress(*REDIS_FAULTS):
            await self.client.aclose()

    async def _finish(self, what: str, command: Callable[[], Awaitable[_T]]) -> _T:
        with translated(what):
            if self._closed:
                raise StoreUnavailable(f"{what}: the store was closed")
            task = asyncio.create_task(self._careful(command))
            self._tasks.add(task)
            task.add_done_callback(self._forget)
            await asyncio.wait((task,))
            if task.cancelled():
                raise StoreUnavailable(f"{what}: the store was closed")
            return task.result()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen, in case nobody waits any more

    async def _careful(self, command: Callable[[], Awaitable[_T]]) -> _T:
        try:
            return await command()
        except ResponseError as error:
            demoted = isinstance(error, ReadOnlyError) or "READONLY" in str(error)
            if demoted and isinstance(self.client, Redis):
                # Behind an address or a sentinel there may be a new master by now: connect anew.
                await self.client.connection_pool.disconnect(inuse_connections=False)
            raise

    async def _evaluate(self, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Any:  # noqa: ANN401
        try:
            return await self.client.execute_command("EVALSHA", script.sha1, len(keys), *keys, *arguments)
        except NoScriptError:
            return await self.client.execute_command("EVAL", script.text, len(keys), *keys, *arguments)

    async def _info(self, key: str) -> dict[str, Any]:
        node: dict[str, Any] = {}
        if isinstance(self.client, RedisCluster):
            await self.client.initialize()
            node = {"target_nodes": self.client.get_node_from_key(key)}
        fields: dict[str, Any] = await self.client.execute_command("INFO", **node)
        return fields

    async def _transact(self, commands: Sequence[tuple[str | bytes | float, ...]]) -> None:
        async with self.client.pipeline(transaction=True) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            await pipeline.execute()
