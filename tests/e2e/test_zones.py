"""A real node's zone as dig and kdig see it: transfers, wrong keys, a configuration read anew, nothing kept."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.e2e.processes import program, until
from tests.e2e.resolvers import BLOCKED, SECRET, ZONE, Feeding
from tests.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# An address of this machine that nothing else uses: whoever asks from it leaves it nowhere.
CLIENT = "127.83.91.7"
OTHER = "bm90IHRoZSBzZWNyZXQgb2YgYW55Ym9keQ=="


@pytest.fixture
def node(tmp_path: Path, redis: RedisServer) -> Iterator[Feeding]:
    running = Feeding(tmp_path, redis, free_port())
    running.names("http://first.example/")
    until(lambda: serial(running) != "")
    yield running
    running.process.__exit__(None, None, None)


def dig(node: Feeding, *words: str, key: str = f"hmac-sha256:resolver:{SECRET}", zone: str = ZONE) -> str:
    """What dig says."""
    signed = ["-y", key] if key else []
    command = [
        "dig",
        "@127.0.0.1",
        "-p",
        str(node.zone_port),
        "-b",
        CLIENT,
        "+time=5",
        "+tries=1",
        *signed,
        zone,
        *words,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def data(answer: str) -> list[str]:
    """Where the names of a transfer lead."""
    return [words[4] for words in map(str.split, answer.splitlines()) if words[3:4] == ["CNAME"]]


def serial(node: Feeding) -> str:
    found = dig(node, "SOA", "+short").split()
    return found[2] if len(found) == 7 else ""


def test_two_programs_read_the_same_zone(node: Feeding) -> None:
    told = dig(node, "AXFR", "+onesoa", "+noall", "+answer")
    lines = sorted(line.split(maxsplit=4) for line in told.splitlines() if line and not line.startswith(";"))
    names = {owner.removesuffix(f".{ZONE}.") for owner, _, _, kind, data in lines if (kind, data) == ("CNAME", ".")}
    assert names == {BLOCKED, f"*.{BLOCKED}", "first.example", *(f"filler{at}.example" for at in range(200))}
    command = ["kdig", "@127.0.0.1", "-p", str(node.zone_port), "-y", f"hmac-sha256:resolver:{SECRET}", ZONE, "AXFR"]
    other = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert other.count("\tCNAME\t.") == len(names)
    known = serial(node)
    assert dig(node, f"IXFR={known}", "+noall", "+answer").count("\tSOA\t") == 1
    node.names("http://second.example/")
    until(lambda: serial(node) > known)
    changed = dig(node, f"IXFR={known}", "+noall", "+answer", "+tcp")
    assert changed.count("\tSOA\t") == 4
    assert changed.count("first.example") == changed.count("second.example") == 1


def test_who_may_not_have_it_is_told_so_and_what_they_asked_is_kept_nowhere(node: Feeding) -> None:
    assert "Transfer failed" in dig(node, "AXFR", key="")
    assert "BADSIG" in dig(node, "SOA", key=f"hmac-sha256:resolver:{OTHER}")
    assert "BADKEY" in dig(node, "SOA", key=f"hmac-sha256:stranger:{SECRET}")
    assert "status: REFUSED" in dig(node, "SOA", zone="zq83asked.example")
    assert "status: REFUSED" in dig(node, "A", zone=f"{BLOCKED}.{ZONE}")
    assert "status: NOTIMP" in dig(node, "SOA", "+opcode=notify")
    assert serial(node)
    log = node.process.log()
    for secret in (CLIENT, "zq83asked", "stranger", SECRET, OTHER, BLOCKED, "first.example", "filler7"):
        assert secret not in log


def test_doctor_says_what_keeps_a_zone_from_going_out(node: Feeding) -> None:
    def doctor() -> dict[str, list[tuple[str, str]]]:
        command = [*program(), "doctor", "--json"]
        done = subprocess.run(
            command, env=node.process.environment, cwd=node.directory, capture_output=True, text=True, check=False
        )
        found: dict[str, list[tuple[str, str]]] = {}
        for row in json.loads(done.stdout):
            found.setdefault(row["what"], []).append((row["state"], row["detail"]))
        text = str(found)
        assert not [one for one in (BLOCKED, "first.example", "filler7", SECRET, CLIENT) if one in text]
        return found

    dig(node, "AXFR", key="")
    dig(node, "SOA", key=f"hmac-sha256:resolver:{OTHER}")
    checked = b'blocker_zone_check_age_seconds{zone="police"}'
    until(lambda: checked in node.process.get("/metrics")[1])  # the serial is told of before
    found = doctor()
    states = [state for state, _ in found["zone police"]]
    assert states == ["ok", "warn", "warn"]
    assert "records" in found["zone police"][0][1]
    assert "failed by signature: the same key name" in found["zone police"][1][1]
    assert "failed by access: name the secondary's key" in found["zone police"][2][1]
    (secondary,) = (what for what in found if what.startswith("secondary") and what.endswith("of police"))
    assert found[secondary][0][0] == "warn", "it never came"
    node.process.stop()
    assert "zone police" not in doctor(), "what only a running node knows"
    (said,) = doctor()["zones"]
    assert said[0] == "warn"
    assert said[1].endswith("is free; start it with `blocker serve`")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", node.zone_port))
        taken.listen()
        assert "is in use" in doctor()["zones"][0][1]
    (node.directory / "var" / "keys" / "seal.key").rename(node.directory / "seal.key")
    assert any("seal key" in detail for _, detail in doctor()["zones"])
    (node.directory / "seal.key").rename(node.directory / "var" / "keys" / "seal.key")


def test_keys_and_actions_change_when_the_configuration_is_read_anew(node: Feeding) -> None:
    before = serial(node)
    file = node.directory / "blocker.toml"
    file.write_text(file.read_text("utf-8").replace(SECRET, OTHER).replace(
        f'origin = "{ZONE}"', f'origin = "{ZONE}"\naction = "nodata"'
    ), "utf-8")  # fmt: skip
    node.process.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    new = f"hmac-sha256:resolver:{OTHER}"
    until(lambda: data(dig(node, "AXFR", "+noall", "+answer", key=new)) == ["*."] * 203)
    assert "BADSIG" in dig(node, "SOA")
    assert dig(node, "SOA", "+short", key=new).split()[2] > before
    changed = dig(node, f"IXFR={before}", "+noall", "+answer", "+tcp", key=new)
    assert data(changed) == ["*."] * 203, "whole, since all of it is said otherwise"


def test_a_node_that_was_killed_goes_on_with_the_same_serial(node: Feeding) -> None:
    before = serial(node)
    node.process.kill()
    node.process.start()
    until(lambda: serial(node) == before)
