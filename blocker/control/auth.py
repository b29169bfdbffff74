"""Who may do what: bearer tokens (RFC 6750), checked without telling anything about them.

An unknown token, a wrong secret, an expired and a revoked one take the same way through the same commands, are compared
in constant time, and get the same answer. Refusals are limited in number, of whoever they are, since no address is
kept: a right token passes all the same.
"""

from __future__ import annotations

import hmac
import re
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from blocker.control.problems import Problem
from blocker.errors import StoreUnavailable
from blocker.store.audit import Actor
from blocker.store.token import Role, Token, digest_of
from blocker.store.tokens import ALL_LISTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blocker.store.redis import Store

# Refused tokens that are answered at once, and how many a second after that. A mistyped token in a script costs nobody
# else anything; guessing 256 bits at one a second is no matter.
FAILURES_BURST = 10
FAILURES_A_SECOND = 1.0
# Uses are noted to the hour: enough to find tokens that nobody needs, and no diary of anybody.
USE_SECONDS = 3600

_TOKEN = re.compile(r"blk_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
# What an unknown token is compared with, so that it costs the same.
_NOBODY = ("0" * 8, "0" * 43)
_BEARER = HTTPBearer(auto_error=False, description="A token made by `blocker tokens create`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks.

    Attributes:
        name: The token's name.
        person: Whose it is.
        roles: What it may do.
        lists: The lists it may maintain.
    """

    name: str
    person: str
    roles: frozenset[Role]
    lists: frozenset[str]

    def may(self, role: Role, list: str | None = None) -> bool:  # noqa: A002 - the project's word
        """Whether a role is theirs, for a list where one is named. An operator has all roles, on all lists."""
        if Role.OPERATOR in self.roles:
            return True
        if role is Role.VIEWER:
            return bool(self.roles)
        if role not in self.roles:
            return False
        return role is not Role.MAINTAINER or list is None or bool({list, ALL_LISTS} & self.lists)

    @property
    def actor(self) -> Actor:
        """As the audit chain names them."""
        return Actor(f"token:{self.name}", self.person)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What is kept of a token that was shown, to look again whether it is good. Its secret is not in it.

    Attributes:
        id: The token's id.
        digest: Of its secret.
        until: When it ends by itself, unix seconds.
    """

    id: str
    digest: str = field(repr=False)
    until: float


class Authenticator:
    """Finds out who asks.

    Args:
        store: Opens the store, or raises StoreUnavailable.
        clock: Unix seconds now.
    """

    def __init__(self, store: Callable[[], Awaitable[Store]], clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._failures = 0.0
        self._failed_at = 0.0

    async def authenticate(self, authorization: str | None) -> Principal:
        """The owner of a token.

        Args:
            authorization: The request's `Authorization` field.

        Raises:
            Problem: 401 without a valid token; 429 after too many of those; 503 while the store is away.
        """
        scheme, _, text = (authorization or "").partition(" ")
        principal, _ = await self.admit(text if scheme.lower() == "bearer" else "")
        return principal

    async def admit(self, text: str) -> tuple[Principal, Credential]:
        """The owner of a token, and what is needed to look again later.

        Args:
            text: The token, whatever somebody typed.

        Raises:
            Problem: As `authenticate`.
        """
        found = _TOKEN.fullmatch(text.strip())
        name, secret = found.groups() if found else _NOBODY
        token = await self._token(name, digest := digest_of(secret))
        if token is None:
            raise self._refusal(self._clock())
        return _principal(token), Credential(id=name, digest=digest, until=_end(token, digest))

    async def again(self, credential: Credential) -> tuple[Principal, Credential] | None:
        """The same later on; None if the token is good no more: nobody guesses here, so it counts as no failure.

        Raises:
            Problem: 503 while the store is away.
        """
        token = await self._token(credential.id, credential.digest)
        return None if token is None else (_principal(token), replace(credential, until=_end(token, credential.digest)))

    async def _token(self, name: str, digest: str) -> Token | None:
        """The token of an id if it is good, whose use is noted."""
        now = self._clock()
        try:
            store = await self._store()
            token, used = await store.token(name)
            if not _good(token, digest, now) or token is None:
                return None
            hour = now - now % USE_SECONDS
            if used < hour:
                await store.token_was_used(name, hour)
        except StoreUnavailable:
            raise Problem(
                503, "Tokens cannot be checked while the store is away.", headers={"retry-after": "5"}
            ) from None
        return token

    def _refusal(self, now: float) -> Problem:
        self._failures = max(0.0, self._failures - (now - self._failed_at) * FAILURES_A_SECOND)
        self._failed_at = now
        if self._failures >= FAILURES_BURST:
            return Problem(429, "Too many requests without a valid token; wait.", headers={"retry-after": "1"})
        self._failures += 1
        return Problem(
            401,
            "A valid token is needed: Authorization: Bearer blk_…",
            headers={"www-authenticate": 'Bearer realm="blocker"'},
        )


def _principal(token: Token) -> Principal:
    known = {role.value for role in Role}
    return Principal(
        name=token.name, person=token.person, roles=frozenset(Role(role) for role in token.roles if role in known),
        lists=frozenset(token.lists),
    )  # fmt: skip


def _end(token: Token, digest: str) -> float:
    """When the token ends with this secret, which may be one that is being replaced."""
    until = dict(token.digests).get(digest, 0.0)
    return min(token.expires, until) if until else token.expires


def _good(token: Token | None, digest: str, now: float) -> bool:
    """Compares whatever there is, all of it, before it says anything."""
    stored = (token.digests if token else ()) or (("0" * 64, 0.0),)
    same = [hmac.compare_digest(digest, known) and (not until or now < until) for known, until in stored]
    return any(same) and token is not None and token.valid(now)


async def principal_of(request: Request, _shown: Annotated[object, Security(_BEARER)]) -> Principal:
    """FastAPI's way to who asks; the scheme is there for the OpenAPI document."""
    authenticator: Authenticator | None = request.app.state.authenticator
    if authenticator is None:
        raise Problem(503, "This node has no store, and so knows no tokens.")
    return await authenticator.authenticate(request.headers.get("authorization"))


class Need:
    """A dependency: whoever asks must have a role, on the list that the path names where it names one.

    Attributes:
        role: The role.
    """

    def __init__(self, role: Role) -> None:
        self.role = role

    async def __call__(self, request: Request, principal: Annotated[Principal, Depends(principal_of)]) -> Principal:
        """Who asks.

        Raises:
            Problem: 403 if they may not.
        """
        if not principal.may(self.role, request.path_params.get("name")):
            raise Problem(403, f"This needs the role {self.role.value}, for this list where it is about one.")
        return principal


VIEWER = Depends(Need(Role.VIEWER))
MAINTAINER = Depends(Need(Role.MAINTAINER))
APPROVER = Depends(Need(Role.APPROVER))
OPERATOR = Depends(Need(Role.OPERATOR))
