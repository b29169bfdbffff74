"""The image and the composition, as far as that can be seen without building: `docker-compose` reads the file and
checks it against its schema; what it mounts, sets and publishes is looked at here; Redis runs with its users."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from blocker import settings
from blocker.store.redis import Store
from blocker.store.sealing import Keyring
from blocker.store.url import parse_url
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[1]
CONTAINER = ROOT / "deploy" / "container"
COMPOSE = CONTAINER / "compose.yaml"


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    """The file as docker-compose understands it, variables and anchors put in."""
    assert shutil.which("docker-compose"), "this test needs docker-compose: run tests/install-packages"
    done = subprocess.run(
        ["docker-compose", "-p", "blocker", "-f", COMPOSE, "config"],
        check=False, capture_output=True, text=True, cwd=CONTAINER,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


def test_no_container_can_more_than_it_must(composed: Mapping[str, Any]) -> None:
    assert set(composed["services"]) == {"redis", "ingest", "node", "proxy", "prometheus", "grafana"}
    for name, one in composed["services"].items():
        assert one["read_only"] is True, name
        assert one["cap_drop"] == ["ALL"], name
        assert "cap_add" not in one, name
        assert "privileged" not in one, name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        assert one["mem_limit"], name
        assert one["pids_limit"], name
        assert one["healthcheck"]["test"], name
        assert one["ulimits"]["core"] == 0, name
        assert one.get("user", "10001:10001").split(":")[0] != "0", name  # the image's own, for Blocker


def test_only_what_must_be_reached_is_published_and_on_loopback(composed: Mapping[str, Any]) -> None:
    ports = {name: one["ports"] for name, one in composed["services"].items() if "ports" in one}
    assert set(ports) == {"node", "proxy", "grafana"}
    for published in ports.values():
        assert all(str(port).startswith("127.0.0.1:") for port in published)
    networks = {name: set(one["networks"]) for name, one in composed["services"].items()}
    assert {name for name, some in networks.items() if "store" in some} == {"redis", "ingest", "node"}
    assert networks["redis"] == {"store"}
    inner = {name for name, one in composed["networks"].items() if one.get("internal")}
    assert inner == {"store", "ask", "watch"}


def test_the_node_cannot_read_the_lists(composed: Mapping[str, Any]) -> None:
    secrets = {name: str(one.get("secrets", "")) for name, one in composed["services"].items()}
    assert {name for name, text in secrets.items() if "seal-key" in text} == {"ingest"}
    assert {name for name, text in secrets.items() if "lookup-key" in text} == {"ingest", "node"}


def test_what_is_mounted_exists(composed: Mapping[str, Any]) -> None:
    seen = 0
    for one in composed["services"].values():
        for volume in one.get("volumes", ()):
            source, _target, *_mode = volume.split(":")
            if source.startswith("/"):
                assert Path(source).exists(), source
                assert _mode == ["ro"], source
                seen += 1
            else:
                assert source in composed["volumes"]
    assert seen >= 8


@pytest.mark.parametrize("name", ["node", "ingest"])
def test_the_settings_are_ones_that_blocker_has(
    name: str, composed: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = dict(re.findall(r"(BLOCKER_\w+)=(\S+)", (CONTAINER / "Containerfile").read_text("utf-8")))
    for variable, value in {**image, **composed["services"][name]["environment"]}.items():
        monkeypatch.setenv(variable, str(value))
    loaded = settings.load()
    mounted = {volume.split(":")[1] for volume in composed["services"][name]["volumes"]}
    assert {str(loaded.data_dir), str(loaded.lists_dir)} == mounted
    assert loaded.redis_url is not None
    assert "?password_file=/run/secrets/redis-password" in loaded.redis_url


def test_what_the_image_is_made_from_is_there_and_nothing_else_gets_in() -> None:
    text = (CONTAINER / "Containerfile").read_text("utf-8").replace("\\\n", " ")
    copied = [word for line in re.findall(r"(?m)^COPY (?!--from)(.*)$", text) for word in shlex.split(line)[:-1]]
    let_in = re.findall(r"(?m)^!(.*)$", (ROOT / ".dockerignore").read_text("utf-8"))
    assert sorted(copied) == sorted(let_in)
    assert all((ROOT / one).exists() for one in copied)
    last = text.rpartition("FROM ")[2]
    assert re.search(r"(?m)^USER 10001:10001$", last)
    assert not re.search(r"(?m)^(ADD|ARG \w*(?:KEY|SECRET|PASSWORD))", text)
    version = re.search(r"(?m)^ARG VERSION=(.*)$", last)
    assert version
    assert f'version = "{version[1]}"' in (ROOT / "pyproject.toml").read_text("utf-8")


def test_the_builder_is_pinned_by_its_hashes() -> None:
    """The Containerfile's own command finds maturin alone of the development tools."""
    command = re.search(r"RUN (sed -n '[^']+' requirements/dev.txt)", (CONTAINER / "Containerfile").read_text("utf-8"))
    assert command
    found = subprocess.run(["sh", "-c", command[1]], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert re.findall(r"(?m)^\w\S*", found) == [found.split()[0]]
    assert found.startswith("maturin==")
    assert "--hash=sha256:" in found


def test_nginx_takes_its_configuration_which_is_that_of_the_gateways_examples(tmp_path: Path) -> None:
    assert shutil.which("nginx"), "this test needs nginx: run tests/install-packages"
    text = (CONTAINER / "nginx.conf").read_text("utf-8")
    shutil.copy(ROOT / "deploy" / "nginx" / "fail-closed.conf", tmp_path / "blocker-undecided.conf")
    own = re.sub(r"server node:", "server 127.0.0.1:", text).replace("/tmp/", f"{tmp_path}/")  # noqa: S108 - the container's
    (tmp_path / "nginx.conf").write_text(own, "utf-8")
    done = subprocess.run(
        ["nginx", "-t", "-e", "stderr", "-c", tmp_path / "nginx.conf"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    example = (ROOT / "deploy" / "nginx" / "blocker.conf").read_text("utf-8")
    locations = [re.sub(r"\s+", " ", part) for part in (example, text)]
    parts = [part[part.index("location / {") : part.index("include blocker-undecided")] for part in locations]
    assert parts[0] == parts[1]


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    made = tmp_path / "secrets"
    done = subprocess.run([CONTAINER / "make-secrets", made], check=False, capture_output=True, text=True)
    if os.geteuid() == 0:
        assert done.returncode == 0, done.stderr
    else:
        assert (done.returncode, "needs root" in done.stderr) == (1, True)
        pytest.xfail("files for other users can be made as root only")
    return made


async def test_redis_lets_blocker_in_to_its_own_keys_and_nobody_else(secrets: Path, tmp_path: Path) -> None:
    keys = {name: (secrets / name).read_bytes() for name in ("lookup.key", "seal.key", "redis-password")}
    configuration = (CONTAINER / "redis.conf").read_text("utf-8")
    assert "aclfile /run/secrets/redis-users" in configuration
    kept = [line for line in configuration.splitlines() if re.match(r"(maxmemory|aof-load)", line)]
    options = [*kept, f'aclfile "{secrets / "redis-users"}"']
    # Started without the fixture's own wait, which asks as nobody.
    server = RedisServer(tmp_path / "redis", tcp=True, aof=True, options=options)
    server._spawn()
    try:
        while not server.command("PING"):
            assert server.running, server.log()
        assert server.command("PING").startswith(b"-NOAUTH")
        password = keys["redis-password"].decode()
        keyring = Keyring(lookup=keys["lookup.key"], seal=keys["seal.key"])
        url = f"redis://blocker@127.0.0.1:{server.port}/0?password_file={secrets / 'redis-password'}"
        assert parse_url(url).password == password
        async with await Store.open(url, "default", keyring=keyring) as store:
            assert await store.epoch()
            assert (await store.info())["maxmemory_policy"] == "noeviction"
            assert (await store.put_blobs("segment", [b"segment"])) != []
            await store.collect_orphans(grace_seconds=0, keep_serials=2)
        async with Redis(port=server.port, username="blocker", password=password) as client:
            for words in (("CONFIG", "GET", "*"), ("KEYS", "*"), ("FLUSHALL",), ("GET", "other")):
                with pytest.raises(NoPermissionError):
                    await client.execute_command(*words)  # type: ignore[no-untyped-call]
    finally:
        server.close()


def test_secrets_that_are_there_stay(secrets: Path) -> None:
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    subprocess.run([CONTAINER / "make-secrets", secrets], check=True, capture_output=True)
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == before
    assert {path.name: path.stat().st_mode & 0o077 for path in secrets.iterdir() if "key" in path.name} == {
        "lookup.key": 0, "seal.key": 0,
    }  # fmt: skip
