"""Listed hosts that nothing leads to the URL filter: a resolver that rewrites them, and the alert that tells of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import until
from tests.feeds.knot import Knot
from tests.feeds.network import DEPLOY, RouteNode
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILTER = "192.0.2.80"
PAGES = ("http://pages.example/listed/", "http://more.example/x")
TEST = """
rule_files: [blocker.rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
{series}
    promql_expr_test:
      - expr: ALERTS{{alertname="BlockerRoutesUncovered", alertstate="firing"}}
        eval_time: 40m
        exp_samples: [{expected}]
"""
FIRING = """{labels: 'ALERTS{alertname="BlockerRoutesUncovered", alertstate="firing", severity="page"}', value: 1}"""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), aof=True) as running:
        yield running


def alerts(directory: Path, metrics: str, *, expected: str) -> None:
    """Ask the real promtool whether the alert fires if these metrics stay as they are."""
    shutil.copy(DEPLOY / "prometheus" / "blocker.rules.yml", directory)
    found = re.findall(r"(?m)^(blocker_route_hosts(?:_uncovered\S+)?) (\S+)$", metrics)
    series = "\n".join(f"      - {{series: '{name}', values: '{float(value):.0f}x50'}}" for name, value in found)
    (directory / "test.yml").write_text(TEST.format(series=series, expected=expected), "utf-8")
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yml"], cwd=directory, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_resolver_that_answers_with_the_filter_for_listed_hosts_raises_the_alert(
    tmp_path: Path, redis: RedisServer
) -> None:
    """The node's own dns gateway, which sends customers to the filter, as the resolver of its routes."""
    with Knot(tmp_path) as knot:
        knot.serve(popular="198.51.100.1", www__popular="popular", pages="198.18.0.7", more="198.18.0.9")
        port = free_port()
        own = f"127.0.0.1:{port}"
        node = RouteNode(tmp_path, redis, [own], own=["192.0.2.0/24"])
        with node.process:
            node.process.stop()
            node.process.environment |= {
                "BLOCKER_GATEWAYS__DNS__PORT": str(port),
                "BLOCKER_GATEWAYS__DNS__HOST": "127.0.0.1",
                "BLOCKER_GATEWAYS__DNS__UPSTREAMS": json.dumps([knot.address]),
                "BLOCKER_GATEWAYS__DNS__INSPECT_ADDRESSES": json.dumps([FILTER]),
            }
            node.process.start(ready=False)
            node.push(*PAGES)
            until(lambda: node.report()["settled"])
            until(lambda: node.metric("blocker_route_hosts_uncovered", reason="own") == 2)
            assert node.metric("blocker_routes", family="ipv4") == 0
            assert node.report()["uncovered"] == {"own": 2}
            found = node.doctor()
            ((state, said),) = found["resolver"]
            assert (state, own in said, "rewrites" in said) == ("fail", True, True)
            ((state, said),) = found["listed hosts"]
            assert (state, said.startswith("2 of 2 without any route: 2 own")) == ("fail", True)
            alerts(tmp_path, node.process.get("/metrics")[1].decode(), expected=FIRING)

            node.process.stop()
            node.rewrite("resolvers", [knot.address])
            node.process.start()
            until(lambda: node.metric("blocker_routes", family="ipv4") == 2)
            until(lambda: node.metric("blocker_route_hosts_uncovered", reason="own") == 0)
            found = node.doctor()
            assert "resolver" not in found
            assert [state for state, _ in found["listed hosts"]] == ["ok"]
            alerts(tmp_path, node.process.get("/metrics")[1].decode(), expected="")
