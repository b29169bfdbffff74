"""The committed dashboards: what the program makes, sound as Grafana's schema and layout, and about real metrics."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from blocker.cli.doctor_certificates import SOON_SECONDS
from deploy.grafana import thresholds
from deploy.grafana.board import as_json
from deploy.grafana.panels import DATASOURCE_UID
from deploy.grafana.write import DASHBOARDS, DIRECTORY
from tests.control.test_list_watch import CONTRACT as LISTS
from tests.dashboards.boards import GRAFANA, NAMES, all_panels, load, panels
from tests.feeds.test_route_metrics import CONTRACT as ROUTES
from tests.feeds.test_zone_metrics import CONTRACT as ZONES
from tests.gateways.test_dns_metrics import CONTRACT as FORWARDING
from tests.gateways.test_load import CONTRACT as LOAD
from tests.hits.test_exporter import CONTRACT as NODE

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
METRICS = {
    *(name + suffix for name, (kind, _) in {**NODE, **LISTS, **LOAD, **FORWARDING}.items()
      for suffix in SUFFIXES[kind]),
    *ROUTES, *ZONES, "blocker_zone_serial", "blocker_zone_names", "blocker_zone_ok",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_text_is_what_the_program_makes(name: str) -> None:
    committed = (DIRECTORY / f"{name}.json").read_text("utf-8")
    assert committed == as_json(DASHBOARDS[name]()), "run make dashboards"
    assert {path.stem for path in DIRECTORY.iterdir()} == set(DASHBOARDS)


@pytest.mark.parametrize("name", NAMES)
def test_grafanas_own_types_read_it_and_write_it_again(name: str) -> None:
    again = json.loads(json.dumps(Dashboard.from_json(load(name)), cls=JSONEncoder))
    assert _without_empty(again) == _without_empty(load(name))


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_unique_and_nothing_overlaps(name: str) -> None:
    found = list(all_panels(load(name)))
    numbers = [panel["id"] for panel in found]
    assert len(set(numbers)) == len(numbers)
    taken: dict[tuple[int, int], int] = {}
    for panel in found:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["id"]) == panel["id"], panel["title"]
    assert {load(other)["uid"] for other in NAMES} == {"blocker-hits", "blocker-lists", "blocker-operations"}


@pytest.mark.parametrize("name", NAMES)
def test_every_source_is_the_provisioned_one(name: str) -> None:
    provisioned = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "blocker.yaml").read_text("utf-8"))
    [source] = provisioned["datasources"]
    assert (source["uid"], source["type"], source["access"]) == (DATASOURCE_UID, "prometheus", "proxy")
    board = load(name)
    [chosen] = [one for one in board["templating"]["list"] if one["type"] == "datasource"]
    assert (chosen["name"], chosen["current"]["value"], chosen["query"]) == ("datasource", DATASOURCE_UID, "prometheus")
    named = [found["datasource"] for found in _objects(board) if isinstance(found.get("datasource"), dict)]
    assert len(named) > 2 * len(panels(board))
    assert all(one == {"type": "prometheus", "uid": "${datasource}"} for one in named)


def test_the_provider_reads_the_directory_where_grafana_has_it() -> None:
    provider = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "blocker.yaml").read_text("utf-8"))
    [one] = provider["providers"]
    assert one["type"] == "file"
    inside = DIRECTORY.relative_to(GRAFANA / "provisioning")
    assert one["options"]["path"] == f"/etc/grafana/provisioning/{inside}"


@pytest.mark.parametrize("name", NAMES)
def test_queries_name_metrics_and_variables_that_are_there(name: str) -> None:
    board = load(name)
    variables = {one["name"] for one in board["templating"]["list"]}
    for panel in panels(board):
        letters = [query["refId"] for query in panel["targets"]]
        assert len(set(letters)) == len(letters)
        for query in panel["targets"]:
            text = query["expr"]
            assert set(re.findall(r"\bblocker_\w+", text)) <= METRICS, panel["title"]
            used = set(re.findall(r"\$(\w+)", text)) - {"__range", "__rate_interval"}
            assert "node" in used or panel["title"] == "", panel["title"]
            assert used <= variables
            assert not re.search(r'=\s*"\$', text), "several values are a regular expression"
    asked = {one["query"]["query"] for one in board["templating"]["list"] if one["type"] == "query"}
    assert all(set(re.findall(r"blocker_\w+", text)) <= METRICS for text in asked)


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_says_what_it_means(name: str) -> None:
    titles = [panel["title"] for panel in panels(load(name))]
    for panel in panels(load(name)):
        assert len(panel["title"]) > 3
        assert titles.count(panel["title"]) == 1
        assert panel["description"].endswith((".", "?")), panel["title"]


def test_every_panel_of_hits_says_that_they_are_requests_and_not_people() -> None:
    board = load("hits")
    first = board["panels"][0]
    assert first["type"] == "text"
    assert "**Hits are requests, not people.**" in first["options"]["content"]
    for panel in panels(board):
        assert "not people" in panel["description"], panel["title"]
    used = {name for panel in panels(board) for query in panel["targets"]
            for name in re.findall(r"\bblocker_\w+", query["expr"])}  # fmt: skip
    assert used == {"blocker_hits_total", "blocker_shadow_hits_total"}, "nothing finer than whole hours"


def test_drawn_thresholds_are_those_of_the_alerts() -> None:
    rules = (GRAFANA.parent / "prometheus" / "blocker.rules.yml").read_text("utf-8")
    assert f"blocker_canary_age_seconds > {thresholds.CANARY_AGE_SECONDS}\n" in rules
    for metric, value in (
        ("follower_lag_seconds", thresholds.FOLLOWER_LAG_SECONDS),
        ("loop_lag_seconds", thresholds.LOOP_LAG_SECONDS),
        ("connections", thresholds.CONNECTIONS_SHARE),
    ):
        limits = re.findall(rf"\bblocker_{metric} > ([0-9.]+)", rules)
        assert {float(limit) for limit in limits} <= {value}, metric
    assert f"blocker_zone_check_age_seconds > {thresholds.ZONE_CHECK_AGE_SECONDS} " in rules
    assert f"blocker_zone_certificate_expiry_seconds < {thresholds.ZONE_CERTIFICATE_SECONDS}\n" in rules
    assert thresholds.ZONE_CERTIFICATE_SECONDS == SOON_SECONDS, "doctor says it when the alert does"
    assert f"blocker_dns_waiting > {thresholds.WAITING_SHARE} * " in rules
    assert f'(blocker_dns_questions_share{{answer=~"none|failed"}}) > {thresholds.UNANSWERED_SHARE}\n' in rules
    drawn = {
        panel["title"]: panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1]["value"]
        for panel in panels(load("operations"))
        if "thresholdsStyle" in panel["fieldConfig"]["defaults"].get("custom", {})
    }
    assert drawn["Since canaries were looked at"] == thresholds.CANARY_AGE_SECONDS
    assert drawn["Follower lag"] == thresholds.FOLLOWER_LAG_SECONDS
    for panel in (panel for name in NAMES for panel in panels(load(name))):
        steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", ())
        assert all(before["value"] is None or before["value"] < after["value"] for before, after in pairwise(steps))


def _objects(value: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        yield value
        for one in value.values():
            yield from _objects(one)
    elif isinstance(value, list):
        for one in value:
            yield from _objects(one)


def _without_empty(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Without what the types write or leave out at will."""
    if isinstance(value, dict):
        kept = {name: _without_empty(one) for name, one in value.items()}
        return {name: one for name, one in kept.items() if one not in (None, {}, [])}
    return [_without_empty(one) for one in value] if isinstance(value, list) else value
