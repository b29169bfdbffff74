"""`/` and `/console/…`: the operations console; see `blocker/control/console/`."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response

from blocker.control.console.console import Console
from blocker.control.console.gate import LOGIN, SignedOut
from blocker.control.console.page import redirect
from blocker.control.problems import problem_of
from blocker.errors import BlockerError

Handler = Callable[[Request], Awaitable[Response]]

_SERVER_FAULT = 500


def make_router(console: Console) -> APIRouter:
    """The routes of the console."""
    router = APIRouter()
    proposal = "/console/proposals/{name}"
    handlers: list[tuple[str, str, Handler]] = [
        ("GET", "/", console.overview),
        ("GET", "/console/hits", console.hits),
        ("GET", "/console/changes", console.changes),
        ("GET", "/console/proposals", console.proposals),
        ("POST", f"{proposal}/approve", console.approve),
        ("POST", f"{proposal}/reject", console.reject),
        ("GET", "/console/explain", console.ask),
        ("POST", "/console/explain", console.explain),
        ("GET", LOGIN, _signing_in(console)),
        ("POST", LOGIN, console.gate.sign_in),
        ("POST", "/console/logout", console.gate.sign_out),
    ]
    for method, path, handler in handlers:
        router.add_api_route(
            path, _answering(console, handler), methods=[method], include_in_schema=False, response_class=Response
        )
    return router


def _signing_in(console: Console) -> Handler:
    async def show(_request: Request) -> Response:
        return console.gate.sign_in_page()

    return show


def _answering(console: Console, handler: Handler) -> Handler:
    """The handler, with pages for what goes wrong; faults of our own are left to the shell, which logs them."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except SignedOut:
            return redirect(LOGIN)
        except BlockerError as error:
            problem = problem_of(error)
            if problem.status == _SERVER_FAULT:
                raise
            document = problem.document()
            return console.pages.page("problem", problem.status, node="", visit=None, notice="", problem=document)

    return answer
