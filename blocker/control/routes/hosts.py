"""`/v1/hosts/{host}`: what is known of a whole host, as a resolver or a proxy that sees only the name must ask."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from blocker._native import canonicalize
from blocker.control.parameters import parameters, policy_of
from blocker.control.schema import HostAnswer, example
from blocker.gateways.engine import VerdictEngine

_EXAMPLE: dict[str, Any] = {
    "verdict": "inspect",
    "list": None,
    "kind": None,
    "serial": None,
    "canonical": "listed.example",
    "reference": None,
    "shadow": [],
    "invalid": False,
}


def make_router(engine: VerdictEngine) -> APIRouter:
    """The route of one host."""
    router = APIRouter(tags=["check"])

    @router.get(
        "/v1/hosts/{host}",
        summary="Decide a host",
        response_class=Response,
        responses={200: example(HostAnswer, _EXAMPLE)},
        openapi_extra={
            "parameters": [
                {
                    "name": "policy",
                    "in": "query",
                    "required": False,
                    "description": "Name of a configured policy.",
                    "schema": {"type": "string", "default": "default"},
                }
            ]
        },
    )
    async def check_host(
        host: Annotated[str, Path(description="A name or an address, without scheme and path.")], request: Request
    ) -> Response:
        """`block`: everything there is listed. `inspect`: some of its pages are, or are excepted. Else `allow`."""
        policy = policy_of(parameters(request.scope["query_string"], (b"policy",)))
        decision = engine.check_host(host, policy, "control")
        canonical = None if decision.invalid else _host_of(canonicalize(host))
        return Response(decision.json(canonical), media_type="application/json")

    return router


def _host_of(canonical: str) -> str:
    """The host of a canonical URL."""
    return canonical.split("/", 3)[2]
