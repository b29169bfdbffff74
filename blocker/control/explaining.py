"""Explains addresses for the API and for the console: one at a time, since each reads whole lists."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from blocker.control.problems import Problem, invalid_request
from blocker.errors import InvalidURL, StoreUnavailable
from blocker.gateways.engine import unknown_policy
from blocker.ingest.explain import Explanation, explain
from blocker.matcher import DEFAULT_POLICY, Policy

if TYPE_CHECKING:
    from blocker.control.office import Office
    from blocker.gateways.engine import VerdictEngine
    from blocker.store.redis import Store


class Explainer:
    """Explains by what this node enforces.

    Args:
        engine: Whose matcher is explained; nothing is counted.
        office: The store and the keys; without them there is only what the matcher knows.
    """

    def __init__(self, engine: VerdictEngine, office: Office | None) -> None:
        self._engine = engine
        self._office = office
        self._one_at_a_time = asyncio.Semaphore(1)

    def policies(self) -> tuple[str, ...]:
        """Names of the policies that can be explained."""
        return (DEFAULT_POLICY, *(policy.name for policy in (self._office.policies if self._office else ())))

    async def explain(self, url: str | bytes, policy: str) -> Explanation:
        """See `blocker.ingest.explain.explain`.

        Raises:
            Problem: 422 for what is no address, 503 on a node without a store.
            UnknownPolicy: There is no such policy.
            NotReady: Nothing can be decided yet.
        """
        if self._office is None:
            raise Problem(503, "This node has no store: ask one that has.")
        matcher = self._engine.matcher()
        policies = {policy.name: policy for policy in (Policy(name=DEFAULT_POLICY), *self._office.policies)}
        if policy not in policies or policy not in matcher.policies:
            raise unknown_policy(matcher)
        try:
            async with self._one_at_a_time:
                store = await _store(self._office)
                return await explain(matcher, url, policies[policy], store, self._office.keyring)
        except InvalidURL as error:
            raise invalid_request(("url", str(error))) from None


async def _store(office: Office) -> Store | None:
    try:
        return await office.open_store()
    except StoreUnavailable:
        return None
