"""Errors as the client sees them: `application/problem+json` (RFC 9457), for every status from 400 on.

A problem names the field and the rule that it broke, and never repeats what was sent: an answer may end in a log of
whoever asked, or of a proxy between.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from blocker.control.reply import Reply
from blocker.errors import (
    BlockerError,
    ChangeConflict,
    CommitConflict,
    NotThere,
    SourceError,
    StoreUnavailable,
    UpdateRefused,
)
from blocker.gateways.engine import NotReady, UnknownPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

MEDIA_TYPE = "application/problem+json"

# Kinds with a description of their own on the documentation page; everything else is what its status says.
INVALID_REQUEST = "/docs#invalid-request"
NOT_READY = "/docs#not-ready"
NO_MORE_THAN_ITS_STATUS = "about:blank"

# The phrases of RFC 9110; those of `http.HTTPStatus` differ between Python versions.
_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    412: "Precondition Failed",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    428: "Precondition Required",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Problem(BlockerError):  # noqa: N818 - the name that RFC 9457 gives it
    """A request that gets an error as its answer.

    Args:
        status: HTTP status.
        detail: What is wrong and what to do; nothing of the request.
        kind: The problem type, an URI reference.
        headers: More response headers.
        members: Extension members of the document.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str = NO_MORE_THAN_ITS_STATUS,
        headers: Mapping[str, str] | None = None,
        **members: Any,  # noqa: ANN401 - any JSON
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = kind
        self.headers = dict(headers or {})
        self.members = members

    def document(self) -> dict[str, Any]:
        """The JSON object of RFC 9457, section 3."""
        title = _TITLES.get(self.status, "Error")
        return {"type": self.kind, "title": title, "status": self.status, "detail": self.detail, **self.members}

    def reply(self) -> Reply:
        """The answer."""
        return Reply.of(self.status, MEDIA_TYPE, json.dumps(self.document()).encode(), self.headers)


def invalid_request(*faults: tuple[str, str]) -> Problem:
    """422 with a field and the broken rule for each fault."""
    errors = [{"field": field, "rule": rule} for field, rule in faults]
    detail = "; ".join(f"{field}: {rule}" for field, rule in faults)
    return Problem(422, detail, kind=INVALID_REQUEST, errors=errors)


def too_large(limit: int) -> Problem:
    """413; the connection is closed, since its body is not read."""
    return Problem(413, f"The body must not exceed {limit} bytes.", headers={"connection": "close"})


def problem_of(error: Exception) -> Problem:
    """What the client is told of an exception; 500 for all that is no known answer."""
    match error:
        case Problem():
            return error
        case NotReady():
            return Problem(503, str(error), kind=NOT_READY, headers={"retry-after": "5"})
        case UnknownPolicy():
            return invalid_request(("policy", str(error)))
        case CommitConflict():
            return Problem(412, str(error))
        case ChangeConflict() | UpdateRefused():
            return Problem(409, str(error))
        case SourceError():
            return invalid_request(("format", str(error)))
        case NotThere():
            return Problem(404, str(error))
        case StoreUnavailable():
            return Problem(503, "The store is away; the change may or may not be done.", headers={"retry-after": "5"})
        case _:
            return Problem(500, "This is a fault of Blocker. It is logged, without anything of the request.")
