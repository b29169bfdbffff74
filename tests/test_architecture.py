"""Conventions that are tests: import direction, file sizes, versions that agree, README examples that run."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import blocker

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "blocker"

# What each part may import, beside itself and the parts that those may import.
LAYERS: dict[str, tuple[str, ...]] = {
    "errors": (),
    "_native": (),
    "rules": ("errors", "_native"),
    "matcher": ("rules",),
    "section": (),
    "dns_section": ("section",),
    "feed_section": ("section",),
    "route_section": ("section",),
    "stop_section": ("section",),
    "sections": ("rules", "dns_section"),
    "settings": ("sections", "feed_section", "route_section", "stop_section"),
    "log": ("errors",),
    "sockets": ("errors",),
    "tls_server": ("errors",),
    "store": ("rules",),
    "ingest": ("store", "settings", "matcher", "log"),
    "snapshot": ("matcher",),
    "follower": ("store", "snapshot"),
    "hits": ("store", "matcher", "settings", "log"),
    "gateways": ("hits", "follower", "settings", "sockets", "tls_server"),
    "feeds": ("gateways", "ingest"),
    "control": ("gateways", "ingest"),
    "bench": ("ingest", "follower"),
    "cli": ("control", "bench", "feeds"),
}
# The public names and the entry point stand above all parts; parts take what they need from where it is.
FACADE = ("__init__", "__main__")
MAX_LINES = 400
MAX_TEST_LINES = 400


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def reachable(part: str) -> set[str]:
    found = {part}
    for below in LAYERS[part]:
        found |= reachable(below)
    return found


def imported(path: Path) -> set[str]:
    """Parts that a module imports when it runs or is type-checked."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module] if node.module != "blocker" else [f"blocker.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("blocker.")}
    # `from blocker import canonicalize` and the like: public names of the native core and its errors.
    return found & LAYERS.keys()


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    part = part_of(path)
    if part in FACADE:
        return
    assert part in LAYERS, f"{part} has no place in the order of imports"
    assert imported(path) <= reachable(part)


def test_no_relative_imports_hide_a_direction() -> None:
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path


def test_files_stay_small() -> None:
    sources = [*PACKAGE.rglob("*.py"), *(PACKAGE / "native" / "src").rglob("*.rs"), *(ROOT / "tests").rglob("*.py")]
    long = {}
    for path in sources:
        lines = len(path.read_text("utf-8").splitlines())
        if lines > (MAX_TEST_LINES if "tests" in path.parts else MAX_LINES):
            long[str(path.relative_to(ROOT))] = lines
    assert long == {}


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    crate = tomllib.loads((PACKAGE / "native" / "Cargo.toml").read_text("utf-8"))["package"]["version"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest
    assert project == crate == newest[1]


def test_readme_python_runs() -> None:
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, "README.md", "exec"), {})  # noqa: S102 - our own text


def test_readme_commands_exist() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make (\w+)", readme, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", readme):
        assert (ROOT / picture).is_file(), picture
    for link in re.findall(r"[^!]\[[^]]*\]\(([^):]+)\)", readme):
        assert (ROOT / link).exists(), link


def test_public_names_are_what_the_package_says() -> None:
    for name in blocker.__all__:
        assert getattr(blocker, name).__doc__, name


def test_no_endings_left_open() -> None:
    for path in [*modules(), *(PACKAGE / "native" / "src").rglob("*.rs")]:
        found = re.search(r"\b(TODO|FIXME|XXX|HACK)\b|todo!\(|unimplemented!\(", path.read_text("utf-8"))
        assert found is None, path
