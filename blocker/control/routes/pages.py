"""`/`, `/docs` and `/blocked`: the pages for people."""

from collections.abc import Callable

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from blocker.control.reply import Reply
from blocker.control.stop_page import StopPage
from blocker.sections import NAME_PATTERN

_LIST_PARAMETER = {
    "name": "list",
    "in": "query",
    "required": False,
    "description": "Name of the list that blocks. The general page is for all that have no page of their own.",
    "schema": {"type": "string", "pattern": NAME_PATTERN},
    "example": "police",
}


def make_router(stop_page: StopPage, docs: Callable[[], Reply], *, root: bool = True) -> APIRouter:
    """The routes of the pages.

    Args:
        stop_page: What `/blocked` shows.
        docs: The documentation page.
        root: Whether `/` leads to it, where there is no console.
    """
    router = APIRouter(tags=["pages"])

    if root:

        @router.get("/", include_in_schema=False)
        async def to_docs() -> Response:
            return RedirectResponse("/docs", status_code=307)

    @router.get("/docs", include_in_schema=False)
    async def documentation() -> Response:
        return _response(docs())

    @router.get(
        "/blocked",
        summary="The stop page",
        response_class=Response,
        status_code=451,
        responses={451: {"description": "Unavailable For Legal Reasons", "content": {"text/html": {}}}},
        openapi_extra={"parameters": [_LIST_PARAMETER]},
    )
    async def blocked(request: Request) -> Response:
        """For a proxy to show in place of a blocked page; answers any method and tells nothing of the request."""
        return _response(stop_page.direct(request.scope))

    return router


def _response(reply: Reply) -> Response:
    response = Response(reply.body, reply.status)
    response.raw_headers = list(reply.headers)
    return response
