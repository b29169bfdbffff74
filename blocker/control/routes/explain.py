"""`/v1/explain`: why an address is decided as it is, for operators. It shows listed rules, so it needs a token."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request, Response

from blocker.control.auth import OPERATOR, Principal
from blocker.control.office import Office, answered
from blocker.control.parameters import parameters, policy_of
from blocker.control.problems import Problem, invalid_request
from blocker.control.routes.check import POLICY_PARAMETER, URL_PARAMETER
from blocker.control.schema import ExplainAnswer, ExplainRequest
from blocker.errors import InvalidURL, StoreUnavailable
from blocker.gateways.engine import VerdictEngine, unknown_policy
from blocker.ingest.explain import explain
from blocker.matcher import DEFAULT_POLICY, Policy
from blocker.store.redis import Store


def make_router(engine: VerdictEngine, office: Office | None) -> APIRouter:
    """The route of explanations.

    Args:
        engine: Whose matcher is explained; nothing is counted.
        office: The store and the keys; without them there is only what the matcher knows.
    """
    router = APIRouter(tags=["check"])
    # Each reads whole lists.
    one_at_a_time = asyncio.Semaphore(1)

    async def explained(url: str | bytes, name: str) -> Response:
        if office is None:
            raise Problem(503, "This node has no store: ask one that has.")
        matcher = engine.matcher()
        policies = {policy.name: policy for policy in (Policy(name=DEFAULT_POLICY), *office.policies)}
        if name not in policies or name not in matcher.policies:
            raise unknown_policy(matcher)
        try:
            async with one_at_a_time:
                found = await explain(matcher, url, policies[name], await _store(office), office.keyring)
        except InvalidURL as error:
            raise invalid_request(("url", str(error))) from None
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


async def _store(office: Office) -> Store | None:
    try:
        return await office.open_store()
    except StoreUnavailable:
        return None
