"""`blocker export rpz`: the zone that resolvers would have by transfer, as a file."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import dns.rdatatype
import dns.zone

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import CommandLine

ZONES = '{"police": {"origin": "police.rpz.example", "keys": []}}'


def test_a_zone_is_written_as_a_file_that_others_read(empty: CommandLine, tmp_path: Path) -> None:
    empty.settings["feeds__rpz__zones"] = ZONES
    (tmp_path / "list.txt").write_text(
        "http://*.listed.example\nhttp://page.example/a/\nhttp://192.0.2.1/\nhttp://one.example/\n"
    )
    assert empty("lists", "push", "police", "list.txt", "--publish").code == 0
    file = tmp_path / "zone"
    ran = empty("export", "rpz", "police", "--output", str(file), "--json")
    told = ran.json
    assert (told["block"], told["pass"], told["left_out"]) == (3, 0, {"addresses": 1, "digests": 0, "names": 0})
    assert ran.told.endswith("rules on 1 addresses")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    zone = dns.zone.from_file(str(file))
    assert {str(name) for name, _, _ in zone.iterate_rdatas(dns.rdatatype.CNAME)} == {
        "listed.example", "*.listed.example", "one.example",
    }  # fmt: skip
    assert zone.get_soa().serial == told["serial"]
    printed = empty("export", "rpz", "police")
    assert printed.out == file.read_text("utf-8"), "the same zone has the same serial"


def test_a_file_keeps_its_mode_and_group_at_each_update(empty: CommandLine, tmp_path: Path) -> None:
    empty.settings["feeds__rpz__zones"] = ZONES
    (tmp_path / "list.txt").write_text("http://*.listed.example\n")
    assert empty("lists", "push", "police", "list.txt", "--publish").code == 0
    file = tmp_path / "zone"
    its = str(file.parent.stat().st_gid)
    export = ("export", "rpz", "police", "--output", str(file))
    for _ in range(2):  # the second one replaces a file
        assert empty(*export, "--mode", "0640", "--group", its).code == 0
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
        assert str(file.stat().st_gid) == its
    before = file.stat()
    assert "no group 'nobody-is-in-it'" in empty.refused(*export, "--group", "nobody-is-in-it")
    assert empty(*export, "--mode", "0644").code == 2, "a list is nothing for others"
    assert file.stat() == before
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []
    assert empty(*export).code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_is_not_there_is_named(empty: CommandLine) -> None:
    assert "[feeds.rpz.zones.police]" in empty.refused("export", "rpz", "police")
    empty.settings["feeds__rpz__zones"] = ZONES
    assert "none of its policy's lists" in empty.refused("export", "rpz", "police")
    assert "--output" in empty("export", "rpz", "police", "--json").err


def test_a_node_without_the_seal_key_says_so(blocker: CommandLine) -> None:
    blocker.settings["feeds__rpz__zones"] = ZONES
    (blocker.data_dir / "keys" / "seal.key").unlink()
    assert "copy seal.key to it" in blocker.refused("export", "rpz", "police")
    assert "copy seal.key to it" in blocker.refused("serve", "--role", "control", feeds__rpz__enabled="true")
