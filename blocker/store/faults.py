"""From redis-py's exceptions to ours: what may pass by itself and what will not."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004 - redis-py's own name
)

from blocker.errors import StoreError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

# All that a client may raise; redis-py's cluster has a root of its own.
REDIS_FAULTS = (RedisError, RedisClusterException, OSError)


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn what redis-py raises into a StoreError that names the operation and shows no value and no address.

    Raises:
        StoreUnavailable: Redis cannot be reached or used now: connection, timeout, loading, read-only, out of memory,
            credentials, a cluster without the slot.
        StoreError: Redis refused the operation for another reason.
    """
    try:
        yield
    except REDIS_FAULTS as error:
        raise _translation(what, error) from None


# Code words of Redis' own error texts that mean "not now"; a script's error holds them in the middle (Redis 6.2).
_NOT_NOW = {
    "LOADING": "it is still loading its data",
    "READONLY": "it is a replica; a failover is under way, or redis_url names the wrong server",
    "MASTERDOWN": "its master is away",
    "MISCONF": "it cannot write to its disk",
    "NOREPLICAS": "it has too few replicas to accept writes",
    "OOM": "it is out of memory; raise its maxmemory",
    "CLUSTERDOWN": "the cluster is down",
    "TRYAGAIN": "the cluster is moving the slot",
    "BUSY": "a script blocks it",
    "NOAUTH": "it asks for a password; set it in redis_url",
    "WRONGPASS": "it refuses the user or password; check redis_url",
}
_CODE = re.compile(rf"\b({'|'.join(_NOT_NOW)})\b")
# redis-py strips the code word and puts it into the type instead.
_TYPE_CODE = {
    "BusyLoadingError": "LOADING",
    "ReadOnlyError": "READONLY",
    "MasterDownError": "MASTERDOWN",
    "OutOfMemoryError": "OOM",
    "ClusterDownError": "CLUSTERDOWN",
    "TryAgainError": "TRYAGAIN",
}


def _translation(what: str, error: Exception) -> StoreError:
    name = type(error).__name__
    # In a transaction redis-py puts the command before the error's own text, and a command may hold any bytes.
    text = str(error).rpartition("caused error: ")[2]
    code = _TYPE_CODE.get(name) or (found[1] if (found := _CODE.search(text)) else None)
    if isinstance(error, AuthenticationError | AuthorizationError):
        return StoreUnavailable(f"{what}: Redis cannot be used: it refuses the user or password; check redis_url")
    if code is not None:
        return StoreUnavailable(f"{what}: Redis cannot be used now: {_NOT_NOW[code]}")
    if isinstance(error, TimeoutError):
        return StoreUnavailable(f"{what}: Redis did not answer in time")
    if isinstance(error, ResponseError):
        permission = name == "NoPermissionError"
        return StoreError(
            f"{what}: Redis refused it: "
            + ("its ACL does not let this user; see the store's keys and commands" if permission else name)
        )
    # What is left is a connection, a sentinel or a cluster that could not be had.
    return StoreUnavailable(f"{what}: Redis cannot be reached ({name})")
