"""The stream gateways of one process: the node's own, or a worker's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from blocker.gateways import check, dns, icap, spoe
from blocker.gateways.dns_probe import DnsProbe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from blocker.gateways.canaries import Probe
    from blocker.gateways.engine import StopPageBytes, VerdictEngine
    from blocker.gateways.listener import Listener
    from blocker.sections import GatewaySettings

PROBES: dict[str, Callable[[Any], Probe]] = {
    check.NAME: check.CheckProbe,
    icap.NAME: icap.IcapProbe,
    spoe.NAME: spoe.SpoeProbe,
    dns.NAME: DnsProbe,
}


class Streams:
    """All that are enabled, not yet listening.

    Args:
        engine: Decides and counts.
        settings: Which are enabled, where they listen, their limits and policies.
        pages: The stop page; see `VerdictEngine.gate`.

    Raises:
        UnknownPolicy: One of them names a policy that is not there.
    """

    def __init__(self, engine: VerdictEngine, settings: GatewaySettings, pages: Sequence[StopPageBytes]) -> None:
        self._engine = engine
        self._listeners: dict[str, Listener] = {}
        if settings.check.enabled:
            self._listeners[check.NAME] = check.check_listener(engine, settings.check, pages)
        if settings.icap.enabled:
            self._listeners[icap.NAME] = icap.icap_listener(engine, settings.icap, pages)
        if settings.spoe.enabled:
            self._listeners[spoe.NAME] = spoe.spoe_listener(engine, settings.spoe)
        if settings.dns.enabled:
            self._listeners[dns.NAME] = dns.DnsListener(engine, settings.dns)

    def __iter__(self) -> Iterator[Listener]:
        return iter(self._listeners.values())

    def __getitem__(self, name: str) -> Listener:
        return self._listeners[name]

    @property
    def dns(self) -> dns.DnsListener | None:
        """The `dns` gateway, if it is enabled."""
        return cast("dns.DnsListener | None", self._listeners.get(dns.NAME))

    def prepare(self, settings: GatewaySettings) -> None:
        """Read what `configure` with these needs, such as certificates.

        Raises:
            ServeError: Something cannot be read; nothing has changed.
        """
        for name, listener in self._listeners.items():
            listener.prepare(getattr(settings, name))

    def configure(self, settings: GatewaySettings, pages: Sequence[StopPageBytes]) -> None:
        """Take over policies, limits and the stop page, for connections that are open too; addresses stay.

        Policies count from the next swap of the matcher on.

        Raises:
            ServeError: What they need cannot be read; nothing has changed.
        """
        self.prepare(settings)
        for name, listener in self._listeners.items():
            chosen = getattr(settings, name)
            self._engine.configure(listener.gate, chosen.policy, pages)
            listener.configure(chosen)

    async def stop(self) -> None:
        """All at once: each may wait for connections that last."""
        await asyncio.gather(*(listener.stop() for listener in self))
