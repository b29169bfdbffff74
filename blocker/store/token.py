"""What a bearer token is, as the store keeps it: who may do what, and never the secret.

A token's secret is 256 random bits, so its SHA-256 says nothing about it and needs no slow hash: there is no guessing
what was never chosen by a person. The store holds that digest alone; whoever reads Redis learns who may do what, and
cannot do it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from blocker.errors import FormatError


class Role(StrEnum):
    """What a token may do."""

    VIEWER = "viewer"  # see lists, their log and what waits; no rules
    MAINTAINER = "maintainer"  # prepare and publish named lists
    APPROVER = "approver"  # approve or reject what others proposed
    OPERATOR = "operator"  # everything but to approve what they proposed themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What is known of a token.

    Attributes:
        id: 8 hex digits, which the token shows.
        name: Unique; named in the audit chain.
        person: Whose it is; two tokens of one person are no second person.
        roles: What it may do.
        lists: The lists it may maintain; `*` for all.
        digests: SHA-256 of its secret, hex, and until when that is good (unix seconds; 0: as long as the token). More
            than one while it is being rotated.
        created: Unix seconds.
        expires: Unix seconds.
        revoked: It is good for nothing any more.
    """

    id: str
    name: str
    person: str
    roles: tuple[str, ...]
    lists: tuple[str, ...]
    digests: tuple[tuple[str, float], ...]
    created: float
    expires: float
    revoked: bool = False

    def valid(self, now: float) -> bool:
        """Whether it is good for anything now."""
        return not self.revoked and now < self.expires

    def to_json(self) -> str:
        """The stored form."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Token:
        """Read the stored form back.

        Raises:
            FormatError: It is none.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            digests = tuple((str(digest), float(until)) for digest, until in fields.pop("digests"))
            roles, lists = tuple(fields.pop("roles")), tuple(fields.pop("lists"))
            return cls(digests=digests, roles=roles, lists=lists, **fields)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise FormatError("token: cannot be read; revoke it and make another") from None


def digest_of(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
