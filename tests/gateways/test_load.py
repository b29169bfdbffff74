"""How busy a process is: connections by gateway, late event loops, processor time and memory, coarsely."""

from __future__ import annotations

import asyncio
import os
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from blocker.gateways import load, load_metrics
from blocker.gateways.load import Connections, Load
from blocker.gateways.load_metrics import LoadFamilies

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocker.gateways.listener import Listener

STREAMS = {"check", "icap", "spoe", "dns"}
PROCESSES = {"node", "worker-0", "worker-1"}
# Metric → kind, labels and their values.
CONTRACT: Mapping[str, tuple[str, Mapping[str, set[str]]]] = {
    "blocker_connections": ("gauge", {"gateway": STREAMS}),
    "blocker_connections_limit": ("gauge", {"gateway": STREAMS}),
    "blocker_connections_refused": ("counter", {"gateway": STREAMS}),
    "blocker_connections_cut": ("counter", {"gateway": STREAMS}),
    "blocker_loop_lag_seconds": ("gauge", {"process": PROCESSES}),
    "blocker_cpu_seconds": ("counter", {"process": PROCESSES}),
    "blocker_memory_bytes": ("gauge", {"process": PROCESSES}),
    "blocker_companions": ("gauge", {"kind": {"worker", "squid-helper"}}),
    "blocker_workers_configured": ("gauge", {}),
}


class Host:
    """Companions that a test makes up."""

    def __init__(self) -> None:
        self.told: list[tuple[int, float, dict[str, Connections]]] = []
        self.ended: dict[str, Connections] = {}

    def count(self, gateway: str) -> int:
        return len(self.told) if gateway == "worker" else 0

    def loads(self) -> list[tuple[int, float, dict[str, Connections]]]:
        return self.told

    def take_ended(self) -> dict[str, Connections]:
        ended, self.ended = self.ended, {}
        return ended


def listener(name: str) -> Listener:
    limits = SimpleNamespace(max_connections=10)
    return cast("Listener", SimpleNamespace(name=name, connections=set(), limits=limits, refused=0, cut=0))


def values(families: LoadFamilies) -> dict[tuple[str, ...], float]:
    return {row: value for family in families.families() for row, value in family.rows}


def test_names_kinds_and_labels_are_the_documented_ones() -> None:
    host = Host()
    host.told = [(os.getpid(), 0.0, {})]
    made = LoadFamilies(Load([listener(name) for name in STREAMS]), host, lambda: {0: os.getpid(), 1: os.getpid()}, 2)
    families = {family.name: family for family in made.families()}
    assert {name: family.kind for name, family in families.items()} == {n: kind for n, (kind, _) in CONTRACT.items()}
    for name, family in families.items():
        assert dict(zip(family.labels, CONTRACT[name][1], strict=True)) == {one: one for one in CONTRACT[name][1]}
        for (_, *labels), _value in family.rows:
            assert all(one in allowed for one, allowed in zip(labels, CONTRACT[name][1].values(), strict=True))
        assert f"`{name}{'_total' if family.kind == 'counter' else ''}`" in (load_metrics.__doc__ or "")


def test_a_node_alone_tells_of_its_own_connections() -> None:
    check = listener("check")
    made = LoadFamilies(Load([check]), Host(), dict, 0)
    check.connections.update(cast("set[object]", {1, 2, 3}))  # type: ignore[arg-type]
    check.refused, check.cut = 2, 1
    found = values(made)
    assert found["blocker_connections", "check"] == 3
    assert found["blocker_connections_limit", "check"] == 10
    check.refused = 5
    found = values(made)
    assert found["blocker_connections_refused_total", "check"] == 5
    assert found["blocker_connections_cut_total", "check"] == 1


def test_workers_are_added_up_and_what_one_counted_outlives_it() -> None:
    host = Host()
    made = LoadFamilies(Load([listener("check")]), host, dict, 2)
    told = {"check": Connections(4, 10, 1, 0)}
    host.told, host.ended = [(11, 0.01, told), (12, 0.0, told)], {"check": Connections(0, 0, 2, 0)}
    found = values(made)
    assert found["blocker_connections", "check"] == 8
    assert found["blocker_connections_limit", "check"] == 20
    assert found["blocker_connections_refused_total", "check"] == 2
    host.told = []
    found = values(made)
    assert found["blocker_connections", "check"] == 0
    assert found["blocker_connections_refused_total", "check"] == 2
    assert found[("blocker_companions", "worker")] == 0
    assert found[("blocker_workers_configured",)] == 2


def test_figures_that_requests_could_move_are_coarse() -> None:
    found = values(LoadFamilies(Load([]), Host(), dict, 0))
    assert found["blocker_cpu_seconds_total", "node"] % 1 == 0
    assert found["blocker_memory_bytes", "node"] % load_metrics.MEMORY_STEP_BYTES == 0
    assert found["blocker_memory_bytes", "node"] > 0


def test_a_process_that_has_just_ended_is_left_out() -> None:
    found = values(LoadFamilies(Load([]), Host(), lambda: {0: 2**22 + 1}, 1))
    assert ("blocker_cpu_seconds_total", "worker-0") not in found


async def test_a_late_event_loop_is_seen_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_TICK_SECONDS", 0.001)
    one = Load([])
    watching = asyncio.create_task(one.watch())
    await asyncio.sleep(0.01)
    time.sleep(0.25)  # noqa: ASYNC251 - what is to be seen
    await asyncio.sleep(0.01)
    watching.cancel()
    assert one.lag_seconds >= 0.2
    assert one.lag_seconds / load.LAG_STEP_SECONDS == pytest.approx(round(one.lag_seconds / load.LAG_STEP_SECONDS))


async def test_a_delay_is_forgotten_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_TICK_SECONDS", 0.001)
    monkeypatch.setattr(load, "_PIECE_SECONDS", 0.002)
    one = Load([])
    one._worst.append(9.0)
    watching = asyncio.create_task(one.watch())
    async with asyncio.timeout(30):
        while one.lag_seconds >= 9:  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0.001)
    watching.cancel()
