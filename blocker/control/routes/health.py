"""`/healthz`, `/readyz` and `/metrics`: for whoever restarts, routes to, or watches this node."""

from typing import Any

from fastapi import APIRouter, Response

from blocker.control.problems import NOT_READY, Problem
from blocker.control.schema import Liveness, Readiness, example
from blocker.gateways.engine import Follower
from blocker.hits.exporter import CONTENT_TYPE, Exporter

_READY = {
    "status": "ready",
    "lists": [{"name": "example-list", "serial": 7}],
    "store_up": True,
    "lag_seconds": 0.1,
    "source": "store",
    "epoch": "5f0c",
    "last_sync": 1790000000.0,
    "detail": "",
}


def make_router(follower: Follower, exporter: Exporter) -> APIRouter:
    """The routes of health and metrics."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Is the process alive", responses={200: example(Liveness, {"status": "alive"})})
    async def healthz() -> Liveness:
        """Says nothing about lists or the store: a restart would mend neither."""
        return Liveness(status="alive")

    @router.get("/readyz", summary="Does this node decide", responses={200: example(Readiness, _READY)})
    async def readyz() -> Readiness:
        """200 while a matcher is enforced, also with the store away (`degraded`); 503 before the first one."""
        known = _state(follower)
        if follower.matcher is None:
            detail = known.pop("detail") or "No list is enforced yet."
            raise Problem(503, detail, kind=NOT_READY, headers={"retry-after": "5"}, **known)
        return Readiness(status="ready" if known["store_up"] else "degraded", **known)

    @router.get(
        "/metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"example": "blocker_store_up 1.0\n"}}}},
    )
    async def metrics() -> Response:
        """In the text format 0.0.4. Hits appear when their hour is over, rounded up."""
        return Response(exporter.render(), headers={"content-type": CONTENT_TYPE})

    return router


def _state(follower: Follower) -> dict[str, Any]:
    matcher, status = follower.matcher, follower.status
    lists = matcher.table.lists if matcher else ()
    return {
        "lists": [{"name": name, "serial": serial} for name, serial, _allow, _meta in lists],
        "store_up": status.store_up,
        "lag_seconds": status.lag_seconds,
        "source": status.source,
        "epoch": status.epoch,
        "last_sync": status.last_sync,
        "detail": status.detail,
    }
