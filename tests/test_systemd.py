"""The systemd units, looked at by systemd's own tools. `tests/cli/test_service_manager.py` has what a node says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from blocker import settings
from blocker.cli.app import app

SYSTEMD = Path(__file__).parents[1] / "deploy" / "systemd"
UNITS = sorted(SYSTEMD.glob("*.service"))
# Of 100, the worst. What is left is the network, which is what these programs are for.
EXPOSURE = 20


def lines(unit: Path, name: str) -> list[str]:
    return re.findall(rf"(?m)^{name}=(.*)$", unit.read_text("utf-8"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_the_unit(unit: Path, tmp_path: Path) -> None:
    assert shutil.which("systemd-analyze"), "this test needs systemd: run tests/install-packages"
    # The programs are where this machine has one.
    text = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", unit.read_text("utf-8"))
    (tmp_path / unit.name).write_text(text, "utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / unit.name], check=False, capture_output=True, text=True
    )
    told = [line for line in (done.stdout + done.stderr).splitlines() if unit.name in line]
    assert (done.returncode, told) == (0, [])


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_little_is_exposed(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE}", unit],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-300:]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_no_core_is_left_and_a_service_that_ends_comes_back(unit: Path) -> None:
    assert lines(unit, "LimitCORE") == ["0"]
    assert lines(unit, "Restart") == ["always"]
    assert lines(unit, "CapabilityBoundingSet") == [""]


@pytest.mark.parametrize("name", ["node", "ingest"])
def test_the_command_and_the_settings_are_ones_that_blocker_has(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = SYSTEMD / f"blocker-{name}.service"
    _program, *words = shlex.split(lines(unit, "ExecStart")[0])
    assert CliRunner().invoke(app, [*words[2:], "--help"]).exit_code == 0, "without the file that --config names"
    for one in shlex.split(" ".join(lines(unit, "Environment"))):
        monkeypatch.setenv(*one.split("=", 1))
    loaded = settings.load()
    assert str(loaded.data_dir) == lines(unit, "WorkingDirectory")[0]
    assert lines(unit, "StateDirectory") == [loaded.data_dir.name]
    assert lines(unit, "Type") == ["notify"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_low_ports_can_be_had_with_the_file_that_is_for_it(unit: Path, tmp_path: Path) -> None:
    """user_namespaces(7): who has a capability only in users of his own has none over what is outside, as ports are."""
    assert lines(unit, "AmbientCapabilities") == []
    extra = SYSTEMD / "low-ports.conf"
    assert lines(extra, "PrivateUsers") == ["no"]
    assert lines(extra, "CapabilityBoundingSet") == lines(extra, "AmbientCapabilities") == ["CAP_NET_BIND_SERVICE"]
    text = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", unit.read_text("utf-8"))
    (tmp_path / unit.name).write_text(text + extra.read_text("utf-8"), "utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / unit.name], check=False, capture_output=True, text=True
    )
    told = [line for line in (done.stdout + done.stderr).splitlines() if unit.name in line]
    assert (done.returncode, told) == (0, [])


def test_users_and_directories_are_made_as_the_units_need_them(tmp_path: Path) -> None:
    users = subprocess.run(
        ["systemd-sysusers", "--dry-run", f"--root={tmp_path}", SYSTEMD / "blocker.sysusers"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert users.returncode == 0, users.stderr
    made = set(re.findall(r"(?m)^u +(\S+)", (SYSTEMD / "blocker.sysusers").read_text("utf-8")))
    assert {lines(unit, "User")[0] for unit in UNITS} == made
    entries = [
        line.split() for line in (SYSTEMD / "blocker.tmpfiles").read_text("utf-8").splitlines() if line[:1] == "d"
    ]
    modes = {path: (mode, user) for _d, path, mode, user, *_ in entries}
    for name, user in (("blocker", "blocker"), ("blocker-ingest", "blocker-ingest")):
        assert modes[f"/var/lib/{name}/keys"] == ("0700", user), "keys are nobody else's"
