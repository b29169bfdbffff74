"""`/v1/lists`: the lists that this node enforces, and how old they are."""

from collections.abc import Callable, Mapping

from fastapi import APIRouter

from blocker.control.schema import ListsAnswer, ListState, example
from blocker.gateways.engine import Follower, VerdictEngine
from blocker.hits.exporter import age_seconds
from blocker.matcher import table_lists
from blocker.sections import Mode

_EXAMPLE = {
    "name": "example-list",
    "action": "block",
    "mode": "enforce",
    "serial": 7,
    "entries": 6012,
    "age_seconds": 1800.0,
    "stale": False,
}


def make_router(
    engine: VerdictEngine,
    follower: Follower,
    stale_after: Callable[[], Mapping[str, float]],
    clock: Callable[[], float],
) -> APIRouter:
    """The route of the lists.

    Args:
        engine: Whose matcher holds the lists.
        follower: Knows when each source was last found good.
        stale_after: List → the age in seconds from which on it is stale: twice its source's interval and jitter.
        clock: Unix seconds now.
    """
    router = APIRouter(tags=["lists"])

    @router.get("/v1/lists", summary="Lists of this node", responses={200: example(ListsAnswer, {"lists": [_EXAMPLE]})})
    async def lists() -> ListsAnswer:
        """In the order of the matcher's table; no entry of a list is ever told."""
        checked, limits, now = follower.status.checked, stale_after(), clock()
        states = []
        for entry in table_lists(engine.matcher().table):
            age = age_seconds(entry, checked, now)
            limit = limits.get(entry.name)
            states.append(
                ListState(
                    name=entry.name,
                    action="allow" if entry.allow else "block",
                    mode=Mode(entry.metadata.mode),
                    serial=entry.serial,
                    entries=entry.metadata.entries,
                    age_seconds=age,
                    stale=None if age is None or limit is None else age > limit,
                )
            )
        return ListsAnswer(lists=states)

    return router
