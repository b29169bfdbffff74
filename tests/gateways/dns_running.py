"""A `dns` gateway that listens, and its clients."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import dns.asyncquery
import dns.message

from blocker.gateways.dns import DnsListener
from blocker.sections import DnsSettings
from tests.gateways.dns_desk import query
from tests.gateways.test_http_codec import Desk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.gateways.dns_upstream import Upstream

DEADLINE = 60.0
ZONE = "bl.test"


@contextlib.asynccontextmanager
async def running(
    *upstreams: Upstream | int,
    desk: Desk | None = None,
    **more: Any,  # noqa: ANN401 - settings' own
) -> AsyncIterator[DnsListener]:
    ports = [one if isinstance(one, int) else one.port for one in upstreams]
    settings = DnsSettings.model_validate(
        {
            "port": 0, "tls_port": 0, "zone": ZONE, "rate": 0, "drain_seconds": 0.5, "upstream_seconds": 20,
            "upstreams": [f"127.0.0.1:{port}" for port in ports], **more,
        }
    )  # fmt: skip
    listener = DnsListener((desk or Desk()).engine, settings)
    await listener.start()
    try:
        async with asyncio.timeout(DEADLINE):
            yield listener
    finally:
        await listener.stop()


async def ask(
    listener: DnsListener,
    name: str,
    kind: str = "A",
    *,
    tcp: bool = False,
    **options: Any,  # noqa: ANN401 - dnspython's own
) -> dns.message.Message:
    message = query(name, kind, **options)
    way = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return await way(message, "127.0.0.1", port=listener.port, timeout=10)
