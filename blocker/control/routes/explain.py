"""`/v1/explain`: why an address is decided as it is, for operators. It shows listed rules, so it needs a token."""

from typing import Annotated

from fastapi import APIRouter, Request, Response

from blocker.control.auth import OPERATOR, Principal
from blocker.control.explaining import Explainer
from blocker.control.office import answered
from blocker.control.parameters import parameters, policy_of
from blocker.control.problems import invalid_request
from blocker.control.routes.check import POLICY_PARAMETER, URL_PARAMETER
from blocker.control.schema import ExplainAnswer, ExplainRequest


def make_router(explainer: Explainer) -> APIRouter:
    """The route of explanations."""
    router = APIRouter(tags=["check"])

    async def explained(url: str | bytes, policy: str) -> Response:
        found = await explainer.explain(url, policy)
        return answered(200, found.to_dict(), **{"cache-control": "no-store"})

    @router.get(
        "/v1/explain",
        summary="Explain one URL",
        response_model=ExplainAnswer,
        openapi_extra={"parameters": [URL_PARAMETER, POLICY_PARAMETER]},
    )
    async def explain_one(request: Request, _principal: Annotated[Principal, OPERATOR]) -> Response:
        """Every step, every rule that matches, and what a draft would change. `POST` keeps the address out of logs."""
        found = parameters(request.scope["query_string"], (b"url", b"policy"))
        if (url := found.get(b"url")) is None:
            raise invalid_request(("url", "is required"))
        return await explained(url, policy_of(found))

    @router.post("/v1/explain", summary="Explain one URL", response_model=ExplainAnswer)
    async def explain_posted(wish: ExplainRequest, _principal: Annotated[Principal, OPERATOR]) -> Response:
        """As `GET`, with the address in the body."""
        return await explained(wish.url, wish.policy)

    return router
