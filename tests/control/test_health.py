from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from blocker.control.schema import ListsAnswer, Readiness
from tests.control.conftest import START
from tests.control.support import problem
from tests.hits.support import GOOD, Status

if TYPE_CHECKING:
    from tests.control.conftest import ControlNode


async def test_the_process_is_alive_whatever_else(node: ControlNode) -> None:
    node.follower.matcher = None
    node.follower.status = Status(store_up=False)
    answer = await node.client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


async def test_a_node_with_a_matcher_is_ready(node: ControlNode) -> None:
    answer = await node.client.get("/readyz")
    assert answer.status_code == 200
    assert Readiness.model_validate_json(answer.content).status == "ready"
    assert {"name": "first", "serial": 7} in answer.json()["lists"]


async def test_a_node_without_its_store_is_degraded_but_ready(node: ControlNode) -> None:
    node.follower.status = Status(store_up=False, lag_seconds=31.0, source="snapshot", detail="Redis cannot be reached")
    answer = await node.client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "degraded", "store_up": False, "lag_seconds": 31.0, "source": "snapshot", "epoch": "5f0c",
        "last_sync": 1_790_000_000.0, "detail": "Redis cannot be reached", "lists": answer.json()["lists"],
    }  # fmt: skip


async def test_a_node_without_a_matcher_is_not_ready_and_decides_nothing(node: ControlNode) -> None:
    node.follower.matcher = None
    node.follower.status = Status(store_up=False, source="none", epoch=None, last_sync=None, detail="no store")
    answer = await node.client.get("/readyz")
    document = problem(answer, 503)
    assert document["detail"] == "no store"
    assert document["lists"] == []
    assert document["store_up"] is False
    assert answer.headers["retry-after"] == "5"
    for path in (f"/v1/check?url={GOOD}", "/v1/hosts/good.example", "/v1/lists"):
        assert problem(await node.client.get(path), 503)["type"] == "/docs#not-ready"
    problem(await node.client.post("/v1/check", json={"urls": [GOOD]}), 503)


async def test_lists_with_their_ages(node: ControlNode) -> None:
    node.follower.status = Status(checked={"first": START - 61, "second": START - 5})
    answer = await node.client.get("/v1/lists")
    ListsAnswer.model_validate_json(answer.content)
    lists = {state["name"]: state for state in answer.json()["lists"]}
    assert lists["first"] == {
        "name": "first", "action": "block", "mode": "enforce", "serial": 7, "entries": 1, "age_seconds": 61.0,
        "stale": True,
    }  # fmt: skip
    assert (lists["second"]["age_seconds"], lists["second"]["stale"]) == (5.0, None)
    assert (lists["quiet"]["mode"], lists["quiet"]["age_seconds"]) == ("shadow", None)
    assert lists["pardon"]["action"] == "allow"
    node.clock.now = START - 2
    assert (await node.client.get("/v1/lists")).json()["lists"][0]["stale"] is False


async def test_metrics_are_those_of_the_exporter(node: ControlNode) -> None:
    await node.client.get(f"/v1/check?url={GOOD}")
    answer = await node.client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["blocker_decisions_total", "allow", "control"] == 1
    assert answer.content == node.exporter.render()
