"""The node's own questions to the resolvers that it forwards to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from blocker.gateways import upstream_watch
from blocker.gateways.upstream_watch import UpstreamWatch
from blocker.sections import DnsSettings
from tests.gateways.dns_upstream import address, upstream
from tests.gateways.test_dns_forwarding import failing, silent, truncating
from tests.ingest.checks import until
from tests.redis_server import free_port

if TYPE_CHECKING:
    import pytest

    from tests.gateways.dns_upstream import Behaviour


def watch(*ports: int, **more: object) -> UpstreamWatch:
    named = {"upstreams": [f"127.0.0.1:{port}" for port in ports], "upstream_seconds": 20, **more}
    settings = DnsSettings.model_validate(named)
    return UpstreamWatch(lambda: settings)


def last(one: UpstreamWatch) -> list[str | None]:
    return [state.last for state in one.states.values()]


async def test_each_is_asked_and_each_ends_in_its_own_way() -> None:
    away = free_port()
    async with (
        upstream(address) as one, upstream(failing) as two, upstream(silent) as three, upstream(truncating) as four,
    ):  # fmt: skip
        looking = watch(one.port, two.port, three.port, four.port, away, upstream_seconds=2.0)
        await looking.look()
        assert last(looking) == ["answered", "failed", "silent", "answered", "silent"]
        first = next(iter(looking.states.values()))
        assert first.seconds is not None
        assert 0 < first.seconds < 30
        assert len(four.asked_over_tcp) == 1, "it goes the way of clients' questions"
        for asked in (*one.asked, *two.asked, *three.asked, *four.asked):
            assert (asked.question[0].to_text(), asked.options) == (". IN NS", ())


async def test_one_is_down_after_two_and_up_again_after_one() -> None:
    behaviour: list[Behaviour] = [address]
    async with upstream(lambda *asked: behaviour[0](*asked)) as one:
        looking = watch(one.port)
        (found,) = await looked(looking, 1)
        behaviour[0] = failing
        assert await looked(looking, 1) == [True]
        assert await looked(looking, 1) == [False]
        behaviour[0] = address
        assert [found, *await looked(looking, 1)] == [True, True]
        (state,) = looking.states.values()
        assert state.results == {"answered": 2, "failed": 2}


async def looked(one: UpstreamWatch, times: int) -> list[bool]:
    for _ in range(times):
        await one.look()
    return [state.up for state in one.states.values()]


async def test_what_it_asks_for_can_be_configured_and_who_is_no_longer_there_is_forgotten() -> None:
    settings = [DnsSettings(upstreams=("127.0.0.1:9",), upstream_probe="inside.isp.example", upstream_seconds=20)]
    looking = UpstreamWatch(lambda: settings[0])
    async with upstream(address) as one:
        settings[0] = settings[0].model_copy(update={"upstreams": (f"127.0.0.1:{one.port}", "127.0.0.1:9")})
        await looking.look()
        assert one.asked[0].question[0].name.to_text().lower() == "inside.isp.example."
        settings[0] = settings[0].model_copy(update={"upstreams": (f"127.0.0.1:{one.port}",)})
        await looking.look()
        assert list(looking.states) == [f"127.0.0.1:{one.port}"]
        assert looking.states[f"127.0.0.1:{one.port}"].results == {"answered": 2}


async def test_it_looks_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_watch, "LOOK_SECONDS", 0.001)
    async with upstream(address) as one:
        looking = watch(one.port)
        running = asyncio.create_task(looking.run())
        await until(lambda: len(one.looks) > 3)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
