"""Puts the control plane together: routes in FastAPI, errors as problem documents, the shell around it all."""

from __future__ import annotations

import time
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from blocker.control import examples
from blocker.control.auth import Authenticator
from blocker.control.console.console import Console
from blocker.control.console.gate import Gate
from blocker.control.console.page import Pages
from blocker.control.console.sessions import Sessions
from blocker.control.docs import docs_page
from blocker.control.explaining import Explainer
from blocker.control.problems import MEDIA_TYPE, Problem, invalid_request, problem_of
from blocker.control.routes import console, drafting, explain, health, hosts, lists, pages, publishing
from blocker.control.routes.check import Check
from blocker.control.schema import EXAMPLES, ProblemDocument, example
from blocker.control.shell import Shell
from blocker.control.stop_page import StopPage
from blocker.errors import BlockerError
from blocker.hits.fleet import Fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from blocker.control.office import Office
    from blocker.control.reply import Reply
    from blocker.gateways.canaries import CanaryState
    from blocker.gateways.engine import Follower, VerdictEngine
    from blocker.hits.exporter import Exporter
    from blocker.settings import Settings

_DESCRIPTION = (
    "Decides whether an address is on a blocklist, and says how fresh its lists are. It keeps nothing of a request."
)
_PROBLEM_EXAMPLE = {
    "type": "/docs#invalid-request",
    "title": "Unprocessable Content",
    "status": 422,
    "detail": "url: is required",
    "errors": [{"field": "url", "rule": "is required"}],
}
# FastAPI's own telemetry writes addresses, queries and exception texts wherever an environment variable points to.
_NO_TELEMETRY: dict[str, Any] = {
    "telemetry": {"tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False}
}


def no_limits() -> Mapping[str, float]:
    """No list is known to become stale."""
    return {}


def create_app(
    engine: VerdictEngine,
    follower: Follower,
    settings: Settings,
    exporter: Exporter,
    *,
    stop_page: StopPage | None = None,
    stale_after: Callable[[], Mapping[str, float]] = no_limits,
    clock: Callable[[], float] = time.time,
    office: Office | None = None,
    canaries: Callable[[], Iterable[CanaryState]] = tuple,
) -> Shell:
    """The ASGI application of the control plane.

    Args:
        engine: Decides.
        follower: Says which lists are enforced and how fresh they are.
        settings: `http` and `stop_page` are used, and by the console `node`, `timezone` and `hits`.
        exporter: Renders `/metrics`.
        stop_page: The page, if somebody else shows it too; None: made from the settings.
        stale_after: List → the age in seconds from which on it is stale, as its source says; empty by default.
        clock: Unix seconds now.
        office: Deals with what people do to lists; None on a node that has no store of its own, and no console.
        canaries: The last looks at canaries, for the console.
    """
    check = Check(engine, settings.http.max_batch)
    stop_page = stop_page or StopPage(settings.stop_page)
    explainer = Explainer(engine, office)
    api = _framework()

    @cache
    def docs() -> Reply:
        return docs_page(api.openapi())

    api.include_router(check.router)
    api.include_router(hosts.make_router(engine))
    api.include_router(lists.make_router(engine, follower, stale_after, clock))
    api.state.authenticator = None if office is None else Authenticator(office.open_store, clock)
    api.include_router(drafting.make_router(office, settings.http.max_push_bytes))
    api.include_router(publishing.make_router(office))
    api.include_router(explain.make_router(explainer))
    api.include_router(health.make_router(follower, exporter))
    api.include_router(pages.make_router(stop_page, docs, root=office is None))
    if office is not None:
        page = Pages(settings.zone, clock)
        sessions = Sessions(settings.http.session_seconds, clock)
        desk = Console(
            gate=Gate(api.state.authenticator, sessions, page, https_only=settings.http.https_only),
            pages=page, office=office, follower=follower, exporter=exporter, explainer=explainer, settings=settings,
            fleet=Fleet(node=settings.node, zone=settings.zone, bin=settings.hits.bin, clock=clock),
            stale_after=stale_after, canaries=canaries, clock=clock,
        )  # fmt: skip
        api.include_router(console.make_router(desk))
    return Shell(
        api,
        direct={"/v1/check": check.direct, "/blocked": stop_page.direct},
        posted={"/v1/check": check.posted},
        max_body_bytes=settings.http.max_body_bytes,
        max_push_bytes=settings.http.max_push_bytes,
    )


def _framework() -> FastAPI:
    """FastAPI without its pages, redirects and telemetry, and with problem documents for every error."""
    api = FastAPI(
        title="Blocker",
        version=version("blocker"),
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={
            "default": {"description": "Any error", **example(ProblemDocument, _PROBLEM_EXAMPLE)},
        },
        **_NO_TELEMETRY,
    )
    examples.register()
    describe_api = api.openapi
    api.openapi = lambda: _completed(describe_api())  # type: ignore[method-assign] # FastAPI's documented way
    api.add_exception_handler(HTTPException, _on_http_error)
    api.add_exception_handler(RequestValidationError, _on_invalid)
    api.add_exception_handler(BlockerError, _on_error)
    api.add_exception_handler(Exception, _on_error)
    return api


def _completed(api: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with what FastAPI cannot declare beside a model: problems' media type, and examples."""
    operations = [operation for methods in api["paths"].values() for operation in methods.values()]
    for operation in operations:
        operation["responses"].pop("422", None)  # the framework's own form of errors; ours is the default's
    messages = [
        (status, response.get("content", {}))
        for operation in operations
        for status, response in operation["responses"].items()
    ]
    messages += [("", operation["requestBody"]["content"]) for operation in operations if "requestBody" in operation]
    for status, content in messages:
        described = content.get("application/json", {})
        name = described.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if name in EXAMPLES:
            described["example"] = EXAMPLES[name]
        if status == "default" and described:
            content[MEDIA_TYPE] = content.pop("application/json")
    return api


async def _on_http_error(_request: Request, error: Exception) -> Response:
    """The framework's own refusals: no such route, no such method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    methods = {method.strip() for method in headers.pop("Allow", headers.pop("allow", "")).split(",") if method.strip()}
    if methods:
        headers["allow"] = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
    details = {404: "There is nothing here; see /docs.", 405: "This route has other methods; see Allow."}
    detail = details.get(status, HTTPStatus(status).description or "Refused.")
    return _response(Problem(status, detail, headers=headers))


async def _on_invalid(_request: Request, error: Exception) -> Response:
    """What a route declares and the request breaks; told without what was sent."""
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    # A field that is not known has a name of the client's choosing.
    fields = [fault["loc"][: 1 if fault["type"] == "extra_forbidden" else 2] for fault in faults]
    return _response(invalid_request(*((".".join(map(str, field)), "is malformed") for field in fields)))


async def _on_error(_request: Request, error: Exception) -> Response:
    """Our own errors, and every other; the framework raises the latter once more, and the shell logs them."""
    return _response(problem_of(error))


def _response(problem: Problem) -> Response:
    reply = problem.reply()
    response = Response(reply.body, reply.status)
    response.raw_headers = list(reply.headers)
    return response
