"""The alert rules, read and run by the real promtool (Debian's package prometheus)."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from blocker.settings import Settings
from tests.feeds.test_route_metrics import CONTRACT as ROUTES
from tests.hits.test_exporter import CONTRACT

PROMETHEUS = Path(__file__).parents[1] / "deploy" / "prometheus"
RULES = PROMETHEUS / "blocker.rules.yml"
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count", "")}


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert shutil.which("promtool"), "this test needs promtool: run tests/install-packages"
    return subprocess.run(["promtool", *arguments], check=False, capture_output=True, text=True)


def test_prometheus_accepts_the_rules() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted((PROMETHEUS / "tests").glob("*.yml")), ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(path: Path) -> None:
    done = promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("blocker_canary_ok == 0", "blocker_canary_ok == 2"), ("for: 2m", "for: 0m"), ("< 0.9", "< 0.1"),
        ("> 300", "> 3000"), ("and on (job, instance, list)", "or on (job, instance, list)"),
        ("unless on (job, instance, list) blocker_canary_ok", ""),
    ],
)  # fmt: skip
def test_a_wrong_rule_would_be_noticed(tmp_path: Path, right: str, wrong: str) -> None:
    shutil.copytree(PROMETHEUS, tmp_path, dirs_exist_ok=True)
    text = RULES.read_text("utf-8")
    assert right in text
    (tmp_path / RULES.name).write_text(text.replace(right, wrong), "utf-8")
    assert promtool("test", "rules", tmp_path / "tests" / "canaries.yml").returncode != 0


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    alerts = re.split(r"^ +- alert: ", RULES.read_text("utf-8"), flags=re.MULTILINE)[1:]
    assert len(alerts) >= 4
    for alert in alerts:
        name = alert.partition("\n")[0]
        assert name.startswith("Blocker")
        assert re.search(r"severity: (page|ticket)$", alert, re.MULTILINE), name
        assert "summary: " in alert, name
        assert "runbook: " in alert, name


def test_rules_name_metrics_that_a_node_has() -> None:
    exported = {name + suffix for name, (kind, _labels) in CONTRACT.items() for suffix in SUFFIXES[kind]}
    used = set(re.findall(r"\bblocker_[a-z_]+", RULES.read_text("utf-8")))
    assert used <= exported | ROUTES.keys()


def test_the_rules_expect_the_default_interval() -> None:
    text = RULES.read_text("utf-8")
    assert Settings().canary_seconds == 60
    assert "expr: blocker_canary_ok == 0\n" in text
    assert "for: 2m\n" in text
