"""`blocker doctor`: what is looked at, in good setups and in bad ones."""

from __future__ import annotations

import shutil
import socket
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from tests.e2e.processes import NodeProcess, until
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import CommandLine

NOBODY = "redis://zxquser:zxqpassword@127.0.0.1:1/"


def findings(blocker: CommandLine, *, code: int, **settings: str) -> dict[str, tuple[str, str]]:
    """What is found, by its name: state and detail."""
    blocker.settings.update(settings)
    ran = blocker("doctor", "--json")
    assert (ran.code, ran.err) == (code, "")
    assert all(row.keys() == {"what", "state", "detail"} for row in ran.json)
    people = blocker("doctor")
    assert people.code == code
    assert len(people.out.splitlines()) == len(ran.json)
    assert {line.split()[0] for line in people.out.splitlines()} == {row["state"] for row in ran.json}
    return {row["what"]: (row["state"], row["detail"]) for row in ran.json}


def test_a_good_setup(blocker: CommandLine) -> None:
    found = findings(blocker, code=0)
    assert found.keys() == {
        "configuration", "keys", "data directory", "list sources", "Redis", "clocks", "lists", "snapshot", "port",
    }  # fmt: skip
    assert {what for what, (state, _detail) in found.items() if state != "ok"} == {"snapshot"}
    assert found["snapshot"] == ("warn", "none yet; a node writes it when it first enforces a list")
    assert "sample-urls 1" in found["lists"][1]
    assert "(external)" in found["Redis"][1]


def test_a_directory_that_is_new(empty: CommandLine) -> None:
    del empty.settings["redis_url"]
    found = findings(empty, code=0)
    assert "(embedded)" in found["Redis"][1]
    assert found["list sources"][0] == found["lists"][0] == "warn"
    assert found["lists"][1] == "none in the store; pull them with `blocker lists pull`"


def test_redis_away(blocker: CommandLine) -> None:
    found = findings(blocker, code=1, redis_url=NOBODY)
    assert found["Redis"][0] == "fail"
    assert "cannot be reached" in found["Redis"][1]
    assert "zxq" not in str(found)
    assert found["list sources"][0] == "ok"  # the rest is looked at all the same


def test_a_malformed_redis_url(blocker: CommandLine) -> None:
    found = findings(blocker, code=1, redis_url="redis://zxquser:zxqpassword@h:port/")
    assert found["Redis"][1].startswith("redis_url: expected host or host:port")
    assert "zxq" not in str(found)


def test_keys_that_others_can_read(blocker: CommandLine) -> None:
    (blocker.data_dir / "keys" / "lookup.key").chmod(0o604)
    found = findings(blocker, code=1)
    assert found["keys"][0] == "fail"
    assert "run chmod 600" in found["keys"][1]


def test_keys_of_another_deployment(blocker: CommandLine) -> None:
    shutil.rmtree(blocker.data_dir)
    found = findings(blocker, code=1)
    assert found["deployment"][0] == "fail"
    assert found["deployment"][1].endswith("copy the deployment's key files to this node")
    assert found["Redis"][0] == "ok"


def test_a_data_directory_that_is_none(blocker: CommandLine) -> None:
    path = blocker.directory / "file"
    path.write_bytes(b"")
    found = findings(blocker, code=1, data_dir=str(path))
    assert found["data directory"] == ("fail", f"{path} is no directory; set data_dir to one")
    assert found["keys"][0] == "fail"


def test_sources_that_are_broken(blocker: CommandLine) -> None:
    (blocker.lists_dir / "sample-urls.toml").write_text("= 1")
    (blocker.lists_dir / "sample-hosts.txt").unlink()
    ran = blocker("doctor", "--json")
    assert ran.code == 1
    told = [row["detail"] for row in ran.json if row["state"] == "fail"]
    assert len(told) == 2
    assert told[0].startswith("sample-urls.toml: no TOML: ")
    assert told[1] == "sample-hosts: its file is not there; correct `path`"


def test_no_source_directory(blocker: CommandLine) -> None:
    shutil.rmtree(blocker.lists_dir)
    found = findings(blocker, code=1)
    assert found["list sources"][0] == "fail"
    assert found["list sources"][1].endswith("make it, or set lists_dir")
    assert found["lists"][0] == "ok"


def test_a_list_that_is_stale_or_was_never_published(blocker: CommandLine) -> None:
    with Redis.from_url(blocker.settings["redis_url"]) as client:
        client.hset(f"{{blocker:{blocker.settings['deployment']}}}:checked", "sample-urls", 1.0)
    blocker.source("fresh", 'format = "url"\npath = "fresh.txt"\n', "http://fresh.example/\n")
    told = [row["detail"] for row in blocker("doctor", "--json").json if row["state"] == "warn"]
    assert "fresh was never published; see `blocker lists pull`" in told
    assert "sample-urls is stale; see `blocker lists pull sample-urls`" in told
    (row,) = [row for row in blocker("lists", "ls", "--json").json if row["list"] == "sample-urls"]
    assert row["state"] == "stale"


def test_a_port_in_use(blocker: CommandLine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = findings(blocker, code=1, http__port=str(taken.getsockname()[1]))
    assert found["port"][0] == "fail"
    assert "is in use" in found["port"][1]


def test_a_gateways_port_in_use(blocker: CommandLine) -> None:
    """A resolver that holds the port for datagrams alone is in the way too."""
    icap, dns = free_port(), free_port()
    blocker.settings |= {
        "gateways__icap__port": str(icap), "gateways__dns__port": str(dns), "gateways__dns__zone": "bl.isp.example",
    }  # fmt: skip
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", dns))
        found = findings(blocker, code=1)
    assert found["gateway icap"] == ("ok", f"127.0.0.1:{icap} is free")
    assert found["gateway dns"][0] == "fail"
    assert f"127.0.0.1:{dns} is in use" in found["gateway dns"][1]
    assert "BLOCKER_GATEWAYS__DNS__PORT" in found["gateway dns"][1]
    found = findings(blocker, code=0, gateways__dns__host="192.0.2.53")
    assert found["gateway dns"][0] == "warn", "not this machine's, or not yet"


def test_a_node_that_runs_is_in_nobodys_way(blocker: CommandLine) -> None:
    blocker.settings |= {
        "gateways__dns__port": str(free_port()), "gateways__dns__zone": "bl.isp.example",
    }  # fmt: skip
    with NodeProcess(blocker.directory, **blocker.settings) as node:
        node.start()
        until((blocker.data_dir / "snapshot" / "table").exists)
        found = findings(blocker, code=0, http__port=str(node.port))
        assert found["port"] == ("ok", f"127.0.0.1:{node.port}: a node runs there")
        assert not [what for what in found if what.startswith("gateway")]
        assert node.stop() == 0


@pytest.fixture
def careless(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that forgets and evicts."""
    with RedisServer(tmp_path / "redis", options=["maxmemory 100mb", "maxmemory-policy allkeys-lru"]) as running:
        yield running


def test_a_redis_that_may_lose_lists(blocker: CommandLine, careless: RedisServer) -> None:
    found = findings(blocker, code=1, redis_url=careless.url)
    assert found["Redis memory"] == ("fail", "it may evict lists when full; set maxmemory-policy noeviction")
    assert found["Redis durability"][0] == "warn"
