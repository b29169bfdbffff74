"""Making, rotating and revoking bearer tokens; each is a change with its record in the audit chain."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from blocker.errors import ChangeConflict, StoreError
from blocker.store.audit import AuditEntry
from blocker.store.changes import Along
from blocker.store.keys import checked_name
from blocker.store.token import Token, digest_of

if TYPE_CHECKING:
    from blocker.store.audit import Actor
    from blocker.store.redis import Store
    from blocker.store.token import Role

PREFIX = "blk_"
ID_BYTES = 4
SECRET_BYTES = 32
# Lists a token may be for, as a mark for all of them.
ALL_LISTS = "*"


async def create_token(
    store: Store, *, name: str, person: str, roles: tuple[Role, ...], lists: tuple[str, ...], now: float,
    seconds: float, actor: Actor,
) -> tuple[Token, str]:  # fmt: skip
    """Make a token; it and its whole text, which is nowhere else.

    Raises:
        StoreError: The name is taken or malformed.
    """
    checked_name("token", name)
    for one in lists:
        if one != ALL_LISTS:
            checked_name("list", one)
    if not roles:
        raise StoreError("a token needs at least one role")
    if not person or not person.isprintable() or len(person) > 100:
        raise StoreError("a token belongs to a person: a name of 1 to 100 printable characters")
    if any(token.name == name and token.valid(now) for token in (await store.tokens()).values()):
        raise StoreError(f"there is a token {name} already; rotate or revoke it, or choose another name")
    secret = secrets.token_urlsafe(SECRET_BYTES)
    token = Token(
        id=secrets.token_hex(ID_BYTES), name=name, person=person, roles=tuple(sorted({role.value for role in roles})),
        lists=tuple(sorted(set(lists))), digests=((digest_of(secret), 0.0),), created=now, expires=now + seconds,
    )  # fmt: skip
    await _put(store, None, token, "token-create", actor, now)
    return token, f"{PREFIX}{token.id}_{secret}"


async def rotate_token(
    store: Store, name: str, *, grace: float, now: float, seconds: float, actor: Actor
) -> tuple[Token, str]:
    """Give a token a new secret; the old one is good for `grace` seconds more.

    Raises:
        StoreError: There is no such token that is valid.
    """
    before = await find_token(store, name, now)
    secret = secrets.token_urlsafe(SECRET_BYTES)
    old = tuple((digest, now + grace) for digest, until in before.digests if not until and grace > 0)
    after = replace(before, digests=((digest_of(secret), 0.0), *old), expires=now + seconds)
    await _put(store, before, after, "token-rotate", actor, now)
    return after, f"{PREFIX}{after.id}_{secret}"


async def revoke_token(store: Store, name: str, *, now: float, actor: Actor) -> Token:
    """Make a token good for nothing, at once.

    Raises:
        StoreError: There is no such token that is valid.
    """
    before = await find_token(store, name, now)
    after = replace(before, revoked=True, digests=())
    await _put(store, before, after, "token-revoke", actor, now)
    return after


async def find_token(store: Store, name: str, now: float) -> Token:
    """The valid token of a name, or of an id.

    Raises:
        StoreError: There is none.
    """
    for token in (await store.tokens()).values():
        if name in (token.name, token.id) and token.valid(now):
            return token
    raise StoreError("there is no valid token of that name; see `blocker tokens ls`")


async def _put(store: Store, before: Token | None, after: Token, action: str, actor: Actor, now: float) -> None:
    entry = AuditEntry(
        action=action, actor=actor, at=now,
        facts={"token": after.name, "token_person": after.person, "roles": ",".join(after.roles),
               "lists": ",".join(after.lists)},
    )  # fmt: skip
    key = store.token_key
    along = Along(
        expected=((key, after.id, None if before is None else before.to_json()),),
        writes=(("HSET", key, after.id, after.to_json()),),
    )
    try:
        await store.record(entry, epoch=await store.epoch(), along=along)
    except ChangeConflict:
        raise StoreError("the token was changed meanwhile; look at it and try again") from None
