"""The alert rules in a real Prometheus, and a real node that has each metric they name, with the labels they use.

Routes' metrics are those of `tests/feeds/test_route_metrics.py`: they need resolvers.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.certificates import Authority
from tests.e2e.node import Node
from tests.e2e.processes import program, spawn, until
from tests.e2e.zone_client import has_looked
from tests.feeds.test_route_metrics import CONTRACT as ROUTES
from tests.redis_server import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.redis_server import RedisServer

PROMETHEUS = Path(__file__).parents[2] / "deploy" / "prometheus"
CONFIGURATION = """
canary_seconds = 1
[canaries.police]
blocked = ["http://listed.example/gallery/1.jpg"]
[guards]
max_first = 2
[gateways.dns]
upstreams = ["127.0.0.1:{nobody}"]
[feeds.rpz]
enabled = true
port = {zones}
tls_port = 0
tls_certificate = "{shown.certificate}"
tls_key = "{shown.key}"
[feeds.rpz.zones.police]
origin = "police.rpz.example"
networks = ["127.0.0.0/8"]
secondaries = [{{ address = "127.0.0.1", port = {nobody} }}]
"""
SELECTOR = re.compile(r"(?<![\w:])(blocker_[a-z_]+)(?:\{([^}]*)\})?")
# Labels that Prometheus itself gives.
SCRAPED = {"job", "instance"}


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> Iterator[dict[str, list[dict[str, str]]]]:
    """Full metric name → labels of each sample, of a node to which everything that alerts tell of has happened."""
    directory = tmp_path_factory.mktemp("alerts")
    zones = free_port()
    shown = Authority(directory / "authority").sign()
    configuration = CONFIGURATION.format(nobody=free_port(), zones=zones, shown=shown)
    node = Node(directory, redis, configuration, gateways__workers="1", roles=("control", "ingest"))
    try:
        node.push("http://listed.example/gallery/")
        expiring = directory / "expiring.jsonl"
        expiring.write_text(
            '{"kind": "exact", "host": "ends.example", "path": "/", "expires": "2100-01-01"}\n', "utf-8"
        )
        (directory / "lists" / "expiring.toml").write_text(f'format = "jsonl"\npath = "{expiring}"\n', "utf-8")
        held = directory / "held.txt"
        held.write_text("".join(f"http://held-{number}.example/\n" for number in range(9)), "utf-8")
        subprocess.run(
            [*program(), "lists", "push", "held", str(held), "--publish"],
            env=node.process.environment, cwd=directory, check=False, capture_output=True,
        )  # fmt: skip
        until(lambda: has_looked(zones, "police.rpz.example."))
        found: dict[str, list[dict[str, str]]] = {}

        def whole() -> bool:
            found.clear()
            for family in text_string_to_metric_families(node.process.get("/metrics")[1].decode()):
                for sample in family.samples:
                    found.setdefault(sample.name, []).append(sample.labels)
            wanted = {name for name, _ in used()} - ROUTES.keys()
            return wanted <= found.keys()

        try:
            until(whole)
        except AssertionError:
            missing = {name for name, _ in used()} - ROUTES.keys() - found.keys()
            raise AssertionError(f"no node exports {sorted(missing)}") from None
        yield found
    finally:
        node.process.stop()


def expressions() -> Iterator[str]:
    text = (PROMETHEUS / "blocker.rules.yml").read_text("utf-8")
    for block, line in re.findall(r"expr: (?:\|\n((?: {10,}.*\n)+)|(.*)\n)", text):
        yield block or line


def used() -> set[tuple[str, str]]:
    """Each selector of the rules: metric and matchers."""
    return {(name, matchers) for one in expressions() for name, matchers in SELECTOR.findall(one)}


def test_each_selector_of_the_rules_finds_something(scraped: dict[str, list[dict[str, str]]]) -> None:
    for name, matchers in used():
        for label, how, value in re.findall(r'(\w+)(=~?)"([^"]*)"', matchers):
            if name in ROUTES:
                assert any(re.fullmatch(value, one) for one in ROUTES[name][label]), (name, label)
            else:
                seen = {labels[label] for labels in scraped[name]}
                assert any(re.fullmatch(value if how == "=~" else re.escape(value), one) for one in seen), (name, value)


def test_labels_that_are_grouped_by_are_there(scraped: dict[str, list[dict[str, str]]]) -> None:
    for expression in expressions():
        there = set(SCRAPED)
        for name, _ in SELECTOR.findall(expression):
            there |= set(ROUTES[name]) if name in ROUTES else {label for one in scraped[name] for label in one}
        if "job_gateway:" in expression:
            there |= {"gateway"}
        for labels in re.findall(r"(?:by|on|without|ignoring) \(([^)]+)\)", expression):
            assert {label.strip() for label in labels.split(",")} <= there, expression


def test_a_real_prometheus_evaluates_all_of_them(tmp_path: Path) -> None:
    assert shutil.which("prometheus"), "this test needs prometheus: run tests/install-packages"
    shutil.copy(PROMETHEUS / "blocker.rules.yml", tmp_path)
    text = (
        (PROMETHEUS / "prometheus.yml")
        .read_text("utf-8")
        .replace("evaluation_interval: 15s", "evaluation_interval: 1s")
    )
    (tmp_path / "prometheus.yml").write_text(text.replace("node:8080", "127.0.0.1:1"), "utf-8")
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        server = spawn(
            ["prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}",
             f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log,
        )  # fmt: skip

    def rules() -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/rules", timeout=30) as answer:
            groups = json.load(answer)["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def evaluated() -> bool:
        assert server.poll() is None, (tmp_path / "log").read_text("utf-8")
        try:
            return bool(found := rules()) and all(rule["health"] != "unknown" for rule in found)
        except OSError:
            return False

    try:
        until(evaluated)
        assert [(rule["name"], rule.get("lastError")) for rule in rules() if rule["health"] != "ok"] == []
    finally:
        server.terminate()
        assert server.wait(20) == 0
