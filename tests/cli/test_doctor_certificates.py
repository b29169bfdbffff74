"""What `doctor` says of certificates, and of zones that cross a network without one."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.certificates import Authority, Pair
from tests.redis_server import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import CommandLine

ZONES, GATEWAY = "zones' certificate", "dns gateway's certificate"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def said(blocker: CommandLine, shown: Pair, **rpz: str) -> dict[str, list[tuple[str, str]]]:
    """What is found of both, by its name."""
    blocker.settings |= {
        "feeds__rpz__enabled": "true", "feeds__rpz__port": "0", "feeds__rpz__tls_port": "0",
        "http__port": str(free_port()),
        "gateways__dns__enabled": "true", "gateways__dns__zone": "bl.test",
        "feeds__rpz__zones": '{"police": {"origin": "police.rpz.example", "networks": ["192.0.2.0/24"]}}',
        **{f"{of}__tls_{name}": str(getattr(shown, name)) for of in ("feeds__rpz", "gateways__dns")
           for name in ("certificate", "key")}, **rpz,
    }  # fmt: skip
    found: dict[str, list[tuple[str, str]]] = {}
    for row in blocker("doctor", "--json").json:
        found.setdefault(row["what"], []).append((row["state"], row["detail"]))
    return found


def test_one_that_lasts_is_good_and_others_are_told_with_the_remedy(
    blocker: CommandLine, authority: Authority, tmp_path: Path
) -> None:
    good, soon, over = (authority.sign(days=days, file=f"{days}") for days in (90, 3, 0))
    found = said(blocker, good)
    assert found[ZONES] == found[GATEWAY] == [("ok", "it ends in 90 days")]
    assert "zones' transfers" not in found, "nobody else's machine can ask"
    for shown, state, detail in (
        (soon, "warn", "it ends in 3 days: renew it"),
        (over, "fail", "it ended 0 hours ago: renew it"),
        (Pair(good.certificate, soon.key), "fail", "tls_certificate and tls_key cannot be used"),
        (Pair(tmp_path / "none.pem", good.key), "fail", "tls_certificate and tls_key cannot be used"),
    ):
        for one in (ZONES, GATEWAY):
            ((told, why),) = said(blocker, shown)[one]
            assert told == state
            assert detail in why
    found = said(blocker, good, feeds__rpz__tls_client_ca=str(good.key))
    assert [state for state, _ in found[ZONES]] == ["fail"]
    assert "tls_client_ca" in found[ZONES][0][1]
    shutil.copy(good.key, tmp_path / "open.key")
    (tmp_path / "open.key").chmod(0o644)
    states = said(
        blocker, Pair(good.certificate, tmp_path / "open.key"), feeds__rpz__tls_client_ca=str(good.certificate)
    )
    assert [state for state, _ in states[ZONES]] == ["ok", "warn"]
    assert "open.key: make its mode 0600" in states[ZONES][1][1]


def test_zones_that_cross_a_network_in_clear_text_are_told(blocker: CommandLine, authority: Authority) -> None:
    shown = authority.sign(file="clear")
    ((state, detail),) = said(blocker, shown, feeds__rpz__host="127.0.0.1, 192.0.2.10")["zones' transfers"]
    assert state == "warn"
    assert detail.startswith("police: in clear text too; set tls_only, ")
    only = blocker.settings["feeds__rpz__zones"].replace("}}", ', "tls_only": true}}')
    found = said(blocker, shown, feeds__rpz__host="192.0.2.10", feeds__rpz__zones=only)
    assert "zones' transfers" not in found


def test_a_certificate_that_clients_who_look_for_it_would_refuse_is_told(
    blocker: CommandLine, authority: Authority, tmp_path: Path
) -> None:
    told = {
        "gateways__dns__upstreams": '["192.0.2.53"]', "gateways__dns__tls_name": "DNS.isp.example.",
        "gateways__dns__host": "192.0.2.10, 127.0.0.1, 2001:db8::10, 10.0.0.1",
    }  # fmt: skip
    both = ("192.0.2.10", "2001:db8::10")
    one = "it is not for 2001:db8::10: "
    unnamed = Authority(tmp_path / "unnamed", "dns.isp.example")  # as its subject alone, which no client looks at
    right = "it ends in 30 days"
    not_its_name = "it is not for dns.isp.example, which tls_name tells clients: they will refuse it"
    for shown, expected in (
        (authority.sign("dns.isp.example", *both), [("ok", right)]),
        (authority.sign("*.isp.example", *both, file="wild"), [("ok", right)]),
        (authority.sign("*.example", *both, file="too-wild"), [("ok", right), ("fail", not_its_name)]),
        (
            authority.sign("dns.isp.example", both[0], file="one"),
            [("ok", right), ("warn", one)],
        ),
        (unnamed, [("fail", not_its_name), ("warn", "it is not for 192.0.2.10, 2001:db8::10: ")]),
    ):
        found = said(blocker, shown, **told)[GATEWAY]
        if shown is unnamed:
            found = found[1:]
        assert [state for state, _ in found] == [state for state, _ in expected]
        assert all(detail.startswith(start) for (_, detail), (_, start) in zip(found, expected, strict=True)), found
