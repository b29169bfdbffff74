"""What the routes for list maintainers need: the desk with its store, and a memory of changes already answered."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import Response

from blocker.control.problems import Problem, invalid_request
from blocker.errors import KeyMaterialError, StoreUnavailable
from blocker.ingest.submit import Desk
from blocker.store.changes import NOTHING, Along

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from fastapi import Request

    from blocker.control.auth import Principal
    from blocker.matcher import Policy
    from blocker.sections import GuardSettings
    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring

_KEY = re.compile(r"[!-~]{1,200}")
_ETAG = re.compile(r'\s*(?:W/)?"?(\d{1,16})"?\s*')


@dataclass(slots=True)
class Office:
    """Where maintainers' requests are dealt with.

    Attributes:
        open_store: Gives the store, or raises StoreUnavailable.
        keyring: The node's keys.
        guards: Settings of the guards.
        lists_dir: Directory of the sources, for their canaries and limits.
        policies: The configured policies.
    """

    open_store: Callable[[], Awaitable[Store]]
    keyring: Keyring
    guards: GuardSettings
    lists_dir: Path
    policies: tuple[Policy, ...] = ()
    _desk: Desk | None = field(default=None, init=False)

    def configure(self, guards: GuardSettings, policies: tuple[Policy, ...]) -> None:
        """Take over another configuration, from the next request on."""
        self.guards, self.policies, self._desk = guards, policies, None

    async def desk(self) -> Desk:
        """The desk.

        Raises:
            Problem: 503 if the store is away, or this node holds no seal key.
        """
        if self.keyring.seal is None:
            raise Problem(503, "This node holds no seal key: it decides, and cannot change lists.")
        try:
            store = await self.open_store()
        except (StoreUnavailable, KeyMaterialError):
            raise Problem(503, "The store is away.", headers={"retry-after": "5"}) from None
        if self._desk is None or self._desk.store is not store:
            self._desk = Desk.configured(store, self.keyring, self.guards, self.lists_dir)
        return self._desk


def expected_serial(request: Request) -> int:
    """The serial that the client builds upon; 0 for a list that does not exist yet.

    Raises:
        Problem: 428 without a precondition, 422 for one that is none (RFC 9110, section 13; RFC 6585, section 3).
    """
    match, none_match = request.headers.get("if-match"), request.headers.get("if-none-match")
    if match is None and none_match is not None and none_match.strip() == "*":
        return 0
    if match is None:
        raise Problem(
            428,
            'Send If-Match with the serial that you have seen, such as If-Match: "7"; If-None-Match: * for a new list.',
        )
    found = _ETAG.fullmatch(match)
    if found is None:
        raise invalid_request(("if-match", "must be one serial in quotes"))
    return int(found[1])


class Once:
    """A change that is done once, however often it is asked for (Idempotency-Key).

    The answer is written in the same step as the change itself: no crash can come between.
    """

    def __init__(self, store: Store, name: str | None, request: str) -> None:
        self._store = store
        self._name = name
        self._request = request

    @classmethod
    def of(cls, store: Store, request: Request, principal: Principal, body: bytes) -> Once:
        """What the request's key names, of this principal, method and path; `body` tells one request from another.

        Raises:
            Problem: 422 for a malformed key.
        """
        key = request.headers.get("idempotency-key")
        if key is None:
            return cls(store, None, "")
        if not _KEY.fullmatch(key):
            raise invalid_request(("idempotency-key", "must be 1 to 200 visible ASCII characters"))
        named = json.dumps([principal.name, request.method, request.url.path, key])
        asked = hashlib.sha256(request.url.query.encode() + b"\0" + hashlib.sha256(body).digest()).hexdigest()
        return cls(store, hashlib.sha256(named.encode()).hexdigest(), asked)

    async def earlier(self) -> Response | None:
        """The answer, if the change was done already.

        Raises:
            Problem: 422 if the key was used for something else.
        """
        kept = None if self._name is None else await self._store.kept_answer(self._name)
        if kept is None:
            return None
        answer: dict[str, Any] = json.loads(kept)
        if answer["request"] != self._request:
            raise invalid_request(("idempotency-key", "was used for another request"))
        return answered(answer["status"], answer["body"], **answer["headers"], **{"idempotency-replayed": "true"})

    def keep(self, status: int, body: dict[str, Any], **headers: str) -> Along:
        """Keeps an answer in the same step as the change."""
        if self._name is None:
            return NOTHING
        kept = {"request": self._request, "status": status, "body": body, "headers": headers}
        return self._store.answer_kept(self._name, json.dumps(kept))


def answered(status: int, body: dict[str, Any], **headers: str) -> Response:
    """A JSON answer."""
    return Response(json.dumps(body), status, headers=headers, media_type="application/json")
