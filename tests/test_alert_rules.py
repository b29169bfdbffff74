"""The alert rules, read and run by the real promtool (Debian's package prometheus)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from blocker.cli.app import app
from blocker.settings import Settings

PROMETHEUS = Path(__file__).parents[1] / "deploy" / "prometheus"
RULES = PROMETHEUS / "blocker.rules.yml"
RUNBOOK = PROMETHEUS.parents[1] / "docs" / "runbook.md"


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


def failures(directory: Path, expression: str) -> list[tuple[str, str, str]]:
    """What promtool's tests find wrong if every alert has this expression: what was asked, expected and got."""
    shutil.copytree(PROMETHEUS, directory, dirs_exist_ok=True)
    changed = []
    for alert in re.split(r"(?m)^(?= +- (?:alert|record): )", RULES.read_text("utf-8")):
        if alert.lstrip().startswith("- alert:"):
            alert = re.sub(r"(?ms)^ +expr: .*?(?=^ +(?:#.*\n +)?for: )", f"        expr: {expression}\n", alert)
            alert = re.sub(r"(?m)^ +for: .*$", "        for: 0s", alert)
        changed.append(alert)
    (directory / RULES.name).write_text("".join(changed), "utf-8")
    paths = sorted((directory / "tests").glob("*.yml"))
    with ThreadPoolExecutor(os.cpu_count()) as at_once:
        told = list(at_once.map(lambda path: promtool("test", "rules", path), paths))
    assert [done.returncode for done in told] == [1] * len(paths), "every alert is another, and no test notices it"
    said = "".join(done.stderr + done.stdout for done in told)
    return re.findall(r'expr: "(.*)", time: .*,\n +exp: (.*)\n +got: (.*)', said)


def test_every_alert_is_seen_to_fire(tmp_path: Path) -> None:
    noticed = "".join(expected for _asked, expected, _got in failures(tmp_path, "vector(1) > 2"))
    assert [name for name in alerts() if f'alertname="{name}"' not in noticed] == []


def test_every_alert_is_seen_not_to_fire(tmp_path: Path) -> None:
    """Beside the one test in which nothing at all is wrong."""
    noticed = "".join(
        asked.replace("\\", "") if "alertname=" in asked.replace("alertname!=", "") else got
        for asked, expected, got in failures(tmp_path, "vector(1)")
        if expected == "nil" and "alertname" in asked
    )
    assert [name for name in alerts() if f'alertname="{name}"' not in noticed] == []


def alerts() -> dict[str, str]:
    """Each alert's text by its name."""
    parts = re.split(r"^ +- alert: ", RULES.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0]: part for part in parts}


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_how_bad_it_is_what_it_means_and_what_to_do(name: str) -> None:
    text = alerts()[name]
    assert name.startswith("Blocker")
    assert re.search(r"^ +severity: (page|ticket)$", text, re.MULTILINE)
    assert re.search(r"^ +summary: .*\{\{|summary: \"Prometheus knows no node", text, re.MULTILINE), "it says where"
    assert re.search(r"^ +description: >-\n +\S", text, re.MULTILINE)
    assert f"runbook_url: docs/runbook.md#{name.lower()}\n" in text


def sections() -> dict[str, str]:
    """The runbook's sections by their alerts."""
    parts = re.split(r"^### ", RUNBOOK.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0]: part for part in parts}


def test_every_alert_has_its_part_of_the_runbook_and_no_part_is_left_over() -> None:
    assert sorted(sections()) == sorted(alerts())


@pytest.mark.parametrize("name", sections())
def test_a_part_of_the_runbook_says_what_to_look_at_what_to_do_and_whom_to_wake(name: str) -> None:
    text = sections()[name]
    assert text.index("**Look first**") < text.index("**Do.**") < text.index("**Wake**")
    waking = text.partition("**Wake**")[2]
    assert ("severity: ticket" in alerts()[name]) == ("nobody" in waking), "a page wakes somebody, a ticket nobody"
    assert re.search(r"```sh\n\S", text)


def test_the_runbook_s_commands_exist() -> None:
    text = RUNBOOK.read_text("utf-8")
    found = set(re.findall(r"blocker (lists [a-z]+|[a-z]+(?:-[a-z]+)?)(?=[` ]|$)", text, re.MULTILINE))
    named = {words for words in found if not words.startswith("blocker")}
    assert len(named) > 12
    for words in sorted(named):
        done = CliRunner().invoke(app, [*words.split(), "--help"])
        assert done.exit_code == 0, words


def test_the_runbook_s_services_are_those_of_the_units() -> None:
    text = RUNBOOK.read_text("utf-8")
    named = set(re.findall(r"(?:systemctl [a-z]+(?: -P MainPID)?|journalctl -u) ([\w@.-]+)", text))
    units = {path.stem for path in (PROMETHEUS.parent / "systemd").glob("*.service")}
    assert named - {"redis-server"} == units, "Redis is the operator's own"
    assert not re.search(r"(?<![\w-])exabgp\b(?!\.api)", text), "its own unit is in conflict with Blocker's"


def test_the_runbook_s_metrics_exist() -> None:
    """Patterns for grep, read as grep reads them, each of which finds something that a rule or the README names."""
    text = RUNBOOK.read_text("utf-8")
    patterns = set(re.findall(r"grep (?:-E '([^']+)'|(blocker_\w+))", text))
    known = "\n".join(
        sorted(metrics_of(RULES.read_text("utf-8")) | {"blocker_cpu_seconds_total", "blocker_memory_bytes"})
    )
    assert len(patterns) > 8
    for first, second in patterns:
        pattern = first or second
        if pattern.startswith("blocker"):
            assert re.search(pattern, known), pattern


def metrics_of(text: str) -> set[str]:
    """What expressions name, without the recorded shares."""
    return set(re.findall(r"(?<![\w:])blocker_[a-z_]+", text))


def test_the_rules_expect_the_default_interval() -> None:
    text = RULES.read_text("utf-8")
    assert Settings().canary_seconds == 60
    assert "expr: blocker_canary_ok == 0\n" in text
    assert "for: 2m\n" in text


def test_prometheus_takes_the_configuration() -> None:
    done = promtool("check", "config", "--lint=all", "--lint-fatal", PROMETHEUS / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
