"""`/v1/explain`: for operators only, told in full to them, counted nowhere and written nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from blocker.control.schema import ExplainAnswer
from blocker.store.token import Role
from tests.control.support import problem
from tests.control.test_push import Desk, desk
from tests.hits.support import BAD, GOOD, SHADOWED

if TYPE_CHECKING:
    import httpx

__all__ = ["desk"]
MARK = "zxqmark"


async def ask(desk: Desk, who: dict[str, str], method: str, **wish: str) -> httpx.Response:
    if method == "GET":
        return await desk.client.get("/v1/explain", params=wish, headers=who)
    return await desk.client.post("/v1/explain", json=wish, headers=who)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_operator_is_told(desk: Desk, method: str) -> None:
    operator = await desk.token("operator", Role.OPERATOR)
    answer = await ask(desk, operator, method, url=BAD)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    told: dict[str, Any] = answer.json()
    ExplainAnswer.model_validate(told)
    assert (told["canonical"], told["verdict"], told["shadow"]) == (BAD, "block", ["quiet"])
    parts = [(rule["list"], rule["part"]) for rule in told["rules"]]
    assert parts == [("quiet", "shadow"), ("second", "overruled"), ("first", "decides")]
    assert "is not in the store" in told["missing"][0] or "has no serial" in told["missing"][0]
    assert (await ask(desk, operator, method, url=GOOD)).json()["rules"] == []
    assert (await ask(desk, operator, method, url=SHADOWED)).json()["verdict"] == "allow"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_is_wrong_is_said_without_what_was_sent(desk: Desk, method: str) -> None:
    operator = await desk.token("operator", Role.OPERATOR)
    for wish in ({"url": f"http://[{MARK}"}, {"url": BAD, "policy": MARK}, {"url": BAD, MARK: "1"}, {"policy": MARK}):
        answer = await ask(desk, operator, method, **wish)
        problem(answer, 422)
        assert MARK not in answer.text


async def test_others_are_refused(desk: Desk) -> None:
    viewer = await desk.token("viewer", Role.VIEWER)
    problem(await ask(desk, viewer, "POST", url=BAD), 403)
    problem(await ask(desk, {}, "GET", url=BAD), 401)


async def test_it_is_counted_nowhere_and_written_nowhere(desk: Desk) -> None:
    operator = await desk.token("operator", Role.OPERATOR)
    before = (await desk.client.get("/metrics")).text
    url = f"http://bad.example/page?{MARK}"
    for method in ("GET", "POST"):
        assert MARK in (await ask(desk, operator, method, url=url)).text
    after = (await desk.client.get("/metrics")).text
    counted = [
        [line for line in text.splitlines() if line.startswith(("blocker_decisions", "blocker_hits"))]
        for text in (before, after)
    ]
    assert counted[0] == counted[1]
    assert MARK not in after
    assert MARK not in desk.logged.getvalue()
    files = [path.read_bytes() for path in desk.redis.directory.rglob("*") if path.is_file()]
    assert files
    assert not any(MARK.encode() in data for data in files)
