"""One gateway alone with the million rules, in a process of its own: `gateway.py NAME PORT`, started by the others."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import uvloop

from blocker.gateways.check import check_listener
from blocker.gateways.engine import VerdictEngine
from blocker.gateways.icap import icap_listener
from blocker.gateways.spoe import spoe_listener
from blocker.hits.counters import HitCounter
from blocker.sections import CheckSettings, IcapSettings, SpoeSettings
from loadtests.workload import RULES, matcher

if TYPE_CHECKING:
    from blocker.gateways.listener import Listener


class Nowhere:
    """A store of hits that keeps nothing."""

    async def flush_hits(self, *_: object) -> None:
        """Keep nothing."""

    async def load_hits(self, _node: str) -> dict[str, int]:
        """Nothing was kept."""
        return {}

    async def folded_hits(self, _node: str) -> dict[str, int]:
        """Nothing either."""
        return {}


def alone(rules: int = RULES) -> VerdictEngine:
    """An engine with the rules and no node around it."""
    hits = HitCounter(Nowhere(), node="load", zone=ZoneInfo("UTC"))
    return VerdictEngine(SimpleNamespace(matcher=matcher(rules), status=None), hits)


def listener(name: str, engine: VerdictEngine, port: int) -> Listener:
    """A gateway by its name."""
    match name:
        case "check":
            return check_listener(engine, CheckSettings(port=port), [])
        case "icap":
            return icap_listener(engine, IcapSettings(port=port), [("", "en", b"", b"<p>stopped</p>")])
        case _:
            return spoe_listener(engine, SpoeSettings(port=port))


async def serve(name: str, port: int) -> None:
    """Serve until killed."""
    await listener(name, alone(), port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
