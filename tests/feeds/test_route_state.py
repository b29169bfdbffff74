"""What a feed keeps on disk: it comes back as it was, shows nothing to a thief, and what is not it is refused."""

from __future__ import annotations

import secrets
import stat
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from blocker.errors import FormatError, KeyMaterialError
from blocker.feeds import route_state
from blocker.feeds.route_hosts import name_id
from blocker.feeds.routes import Limits, RouteTable
from blocker.feeds.sightings import FAMILIES
from blocker.store.sealing import Sealer

if TYPE_CHECKING:
    from pathlib import Path

SEALER = Sealer(bytes(32))
ADDRESSES = [ip_address(text) for text in ("11.0.0.1", "11.0.0.2", "2a00::7")]


def filled() -> RouteTable:
    table = RouteTable(Limits())
    table.popular_known = True
    table.listed(["a", "b"], 1.0)
    table.answered("a", ADDRESSES, 1.0, complete=FAMILIES)
    table.answered("b", [], 2.0, complete=FAMILIES)
    table.popular_answered("p", [ip_address("11.9.9.9")], 1.5, complete=FAMILIES)
    table.step(3.0)
    table.answered("a", ADDRESSES[:1], 4.0, complete=FAMILIES)
    table.step(4.0)
    return table


def files(directory: Path) -> list[Path]:
    return [*directory.iterdir()]


async def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    path, table = tmp_path / "routes.state", filled()
    assert route_state.load(path, SEALER) is None
    await route_state.save(path, SEALER, table)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert files(tmp_path) == [path], "nothing half written is left"
    again = RouteTable(Limits())
    state = route_state.load(path, SEALER)
    assert state is not None
    again.restore(*state)
    assert (again.names, again.popular, again.announced) == (table.names, table.popular, table.announced)


async def test_a_stolen_state_shows_neither_addresses_nor_names(tmp_path: Path) -> None:
    path = tmp_path / "routes.state"
    await route_state.save(path, SEALER, filled())
    data = path.read_bytes()
    assert b"11.0.0" not in data
    assert b"2a00" not in data
    key = secrets.token_bytes(16)
    assert name_id(key, "pages.example") == name_id(key, "pages.example") != name_id(bytes(16), "pages.example")


async def test_a_damaged_or_foreign_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "routes.state"
    await route_state.save(path, SEALER, filled())
    data = path.read_bytes()
    for damaged in (data[:-1], data[:60], b"", b"x" * 100, data[:70] + bytes([data[70] ^ 1]) + data[71:]):
        path.write_bytes(damaged)
        with pytest.raises(FormatError):
            route_state.load(path, SEALER)
    path.write_bytes(data)
    with pytest.raises(KeyMaterialError):
        route_state.load(path, Sealer(bytes(31) + b"x"))
    for text in (
        b'["blocker-routes",2]\n["end",1]', b'["blocker-routes",1]\n["end",5]',
        b'["blocker-routes",1]\n["x",1]\n["end",2]',
        b'["blocker-routes",1]\n["name","a",null,1,[["no address",1,null]]]\n["end",2]', b"{}", b"[]\n[]", b"\xff",
        b'["blocker-routes",1]\n["route","11.0.0.1"]\n["end",2]', b'["blocker-routes",1]\n7\n["end",2]',
    ):  # fmt: skip
        path.write_bytes(SEALER.seal(text, context=b"blocker route state"))
        with pytest.raises(FormatError):
            route_state.load(path, SEALER)
