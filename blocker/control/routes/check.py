"""`/v1/check`: one URL or a batch, decided.

Both are direct routes of the shell and pass through no framework; the router's functions of the same path answer in the
same way and carry the documentation.
"""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.types import Scope

from blocker._native import Batch
from blocker.control.parameters import parameters, policy_of
from blocker.control.problems import Problem, invalid_request
from blocker.control.reply import SECURITY_HEADERS, Reply
from blocker.control.schema import BatchAnswer, BatchRequest, CheckAnswer, example
from blocker.gateways.engine import VerdictEngine

# URLs decided between two turns of the event loop: about a sixth of a millisecond.
_SLICE = 500
# What a fault in the body is called; pydantic's own texts may hold what was sent.
_RULES = {
    "missing": "is required",
    "extra_forbidden": "only urls and policy are known",
    "json_invalid": "must be JSON in UTF-8",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "list_type": "must be an array of strings",
    "string_type": "must be a string",
    "string_unicode": "must be text without lone surrogates",
}
_FIELDS = ("urls", "policy")
_FAULTS = 10  # told of one request
_DEFAULT_POLICY = "default"

_BLOCKED = {
    "verdict": "block",
    "list": "example-list",
    "kind": "prefix",
    "serial": 7,
    "canonical": "http://listed.example/gallery/",
    "reference": "EX-1",
    "shadow": [],
    "invalid": False,
}
_ALLOWED: dict[str, Any] = {
    "verdict": "allow",
    "list": None,
    "kind": None,
    "serial": None,
    "canonical": "http://other.example/",
    "reference": None,
    "shadow": [],
    "invalid": False,
}
POLICY_PARAMETER = {
    "name": "policy",
    "in": "query",
    "required": False,
    "description": "Name of a configured policy.",
    "schema": {"type": "string", "default": "default"},
}
URL_PARAMETER = {
    "name": "url",
    "in": "query",
    "required": True,
    "description": "What to decide, percent-encoded.",
    "schema": {"type": "string"},
    "example": "http://listed.example/gallery/",
}
_BATCH_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": BatchRequest.model_json_schema(),
            "example": {"urls": ["http://listed.example/gallery/", "other.example"], "policy": "default"},
        }
    },
}


class Check:
    """Decides for `/v1/check`.

    Args:
        engine: Decides and counts.
        max_batch: Most URLs in one batch.
    """

    def __init__(self, engine: VerdictEngine, max_batch: int) -> None:
        self._engine = engine
        self._max_batch = max_batch
        self.router = APIRouter(tags=["check"])
        self._document()

    def direct(self, scope: Scope) -> Reply | None:
        """Answer a GET or HEAD; anything else is left to others."""
        if scope["method"] not in ("GET", "HEAD"):
            return None
        return _json(self._one(scope["query_string"]))

    async def posted(self, scope: Scope, body: bytes) -> Reply:
        """Answer a POST with this body."""
        for name, value in scope["headers"]:
            if name == b"content-type" and value.partition(b";")[0].strip().lower() != b"application/json":
                raise Problem(415, "The body must be application/json.")
        return _json(await self._many(body))

    def _one(self, query: bytes) -> bytes:
        found = parameters(query, (b"url", b"policy"))
        url = found.get(b"url")
        if url is None:
            raise invalid_request(("url", "is required"))
        return self._engine.answer(Batch([url]), policy_of(found))

    async def _many(self, body: bytes) -> bytes:
        batch = self._read(body)
        policy = _DEFAULT_POLICY if batch.policy is None else batch.policy
        matcher = self._engine.matcher()
        pieces = [self._engine.answer(batch, policy, matcher=matcher, stop=_SLICE)]
        for start in range(_SLICE, len(batch), _SLICE):
            await asyncio.sleep(0)
            pieces.append(self._engine.answer(batch, policy, matcher=matcher, start=start, stop=start + _SLICE))
        return b'{"results":[%b]}' % b",".join(pieces)

    def _read(self, body: bytes) -> Batch:
        try:
            batch = Batch.read(body)
        except ValueError:
            raise invalid_request(*_faults(body)) from None
        if len(batch) > self._max_batch:
            raise invalid_request(("urls", f"at most {self._max_batch} in one batch"))
        return batch

    def _document(self) -> None:
        @self.router.get(
            "/v1/check",
            summary="Decide one URL",
            response_class=Response,
            responses={200: example(CheckAnswer, _BLOCKED)},
            openapi_extra={"parameters": [URL_PARAMETER, POLICY_PARAMETER]},
        )
        async def check_one(request: Request) -> Response:
            """An address in a query string may end in a proxy's log; `POST` keeps it out of there."""
            return _response(self._one(request.scope["query_string"]))

        @self.router.post(
            "/v1/check",
            summary="Decide a batch",
            response_class=Response,
            responses={200: example(BatchAnswer, {"results": [_BLOCKED, _ALLOWED]})},
            openapi_extra={"requestBody": _BATCH_BODY},
        )
        async def check_many(request: Request) -> Response:
            """All URLs are decided by the same serials, and answered in their order."""
            return _response((await self.posted(request.scope, await request.body())).body)


def _faults(body: bytes) -> list[tuple[str, str]]:
    """What is wrong with a batch that could not be read: field and rule. Slow: the reader itself gives no reasons."""
    try:
        BatchRequest.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)[:_FAULTS]
        return [(_field(fault["loc"]), _RULES.get(fault["type"], "is malformed")) for fault in faults]
    return [("body", "must name each of its members once")]


def _field(loc: tuple[int | str, ...]) -> str:
    """Where the fault is; a name that the request made up is not repeated."""
    known = [str(part) for part in loc if isinstance(part, int) or part in _FIELDS]
    return ".".join(known) or "body"


def _json(body: bytes) -> Reply:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *SECURITY_HEADERS]
    return Reply(200, headers, body)


def _response(body: bytes) -> Response:
    return Response(body, media_type="application/json")
