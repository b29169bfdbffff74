"""What is shipped: a wheel that works by itself, and sources that it can be built from."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel and the sdist of this tree, built as pip builds them."""
    directory = tmp_path_factory.mktemp("dist")
    # The compiled dependencies of the working tree serve again; only the crate itself is linked anew.
    environment = {**os.environ, "CARGO_TARGET_DIR": str(ROOT / "blocker" / "native" / "target")}
    program = str(Path(sys.executable).with_name("maturin"))
    for command in (["build", "--release", "--locked", "--compatibility", "linux"], ["sdist"]):
        done = subprocess.run(
            [program, *command, "--out", str(directory)], cwd=ROOT, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    return directory


def only(directory: Path, pattern: str) -> Path:
    (found,) = directory.glob(pattern)
    return found


def test_the_wheel_holds_what_it_needs_and_no_more(dist: Path) -> None:
    with zipfile.ZipFile(only(dist, "*.whl")) as wheel:
        names = wheel.namelist()
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "blocker").rglob("*.py")}
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "blocker").rglob("*.j2")}
    assert pages
    assert (sources | pages | {"blocker/py.typed", "blocker/_native.pyi"}) <= set(names)
    assert sum(name.startswith("blocker/_native.") and name.endswith(".so") for name in names) == 1
    assert not [name for name in names if name.startswith(("blocker/native/", "tests/", "lists/"))]


def test_the_sources_hold_the_crate_and_its_lock(dist: Path) -> None:
    with tarfile.open(only(dist, "*.tar.gz")) as sources:
        names = {name.partition("/")[2] for name in sources.getnames()}
    crate = {str(path.relative_to(ROOT)) for path in (ROOT / "blocker" / "native" / "src").rglob("*.rs")}
    assert crate | {"blocker/native/Cargo.toml", "blocker/native/Cargo.lock", "pyproject.toml", "LICENSE"} <= names


def test_the_installed_wheel_runs_away_from_its_sources(dist: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    with zipfile.ZipFile(only(dist, "*.whl")) as wheel:
        wheel.extractall(target)  # noqa: S202 - our own wheel
    script = (
        "import blocker, sys\n"
        "print(blocker.__file__)\n"
        "from blocker.cli import main\n"
        "sys.argv = ['blocker', '--version']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    where, version = done.stdout.splitlines()
    assert where.startswith(str(target))
    assert version.startswith("blocker ")
