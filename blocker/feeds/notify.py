"""Tells secondaries of a new version (RFC 1996), until they say that they heard it.

A notice is a hint: a secondary that missed all of them finds the version at its next refresh.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rrset
import structlog
from dns.rdataclass import IN
from dns.rdatatype import SOA

from blocker.feeds.glance import HEAD_BYTES, is_plain
from blocker.feeds.tally import Notice

if TYPE_CHECKING:
    from blocker.feed_section import SecondarySettings
    from blocker.feeds.signing import Keyring
    from blocker.feeds.tally import Tally
    from blocker.feeds.zone import Version

# Seconds until the first repeat, doubled at each (RFC 1996 section 3.6 says 60, meant for links of that time).
FIRST_RETRY = 1.0
LAST_RETRY = 60.0
# After so long a secondary has looked by itself, or is gone.
GIVE_UP_SECONDS = 3600.0
# Silence after which a secondary counts as deaf, over all versions that it was told of meanwhile.
DEAF_SECONDS = 60.0

log = structlog.get_logger(__name__)


class Notifier:
    """Tells the secondaries of all zones. Belongs to one event loop."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, SecondarySettings], asyncio.Task[None]] = {}
        self._silent: dict[tuple[str, SecondarySettings], float] = {}  # since when, of the loop's clock

    def announce(self, version: Version, keys: Keyring, tally: Tally) -> None:
        """Tell a zone's secondaries of a version; older notices of it are given up."""
        name = version.plan.name
        told = [one for one in version.plan.settings.secondaries if one.notify]
        for at in [at for at in self._running if at[0] == name]:
            self._running.pop(at).cancel()
        for at in [at for at in self._silent if at[0] == name and at[1] not in told]:
            del self._silent[at]
        for secondary in told:
            self._running[name, secondary] = asyncio.create_task(self._tell(version, secondary, keys, tally))

    async def stop(self) -> None:
        """Tell nothing more; may be called twice."""
        running = list(self._running.values())
        self._running.clear()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _tell(self, version: Version, secondary: SecondarySettings, keys: Keyring, tally: Tally) -> None:
        zone, clock = version.plan.name, asyncio.get_running_loop().time
        wait, end, counted = FIRST_RETRY, clock() + GIVE_UP_SECONDS, False
        while clock() < end:
            notice = _notice(version, secondary, keys)
            code: int | None = None
            since = self._silent.setdefault((zone, secondary), clock())
            tally.notices[Notice.SENT] += 1
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(wait):
                    code = await _ask(notice, secondary)
            if code is not None:
                self._silent.pop((zone, secondary), None)
            if code == dns.rcode.NOERROR:
                tally.heard(secondary)
                return
            if code is not None:
                tally.notices[Notice.REFUSED] += 1
                # Its configuration does not let this node tell it, which no repeat changes.
                log.warning("a secondary refuses notices", zone=zone, rcode=dns.rcode.to_text(dns.rcode.Rcode(code)))
                return
            if not counted and clock() - since >= DEAF_SECONDS:
                counted = True
                tally.notices[Notice.UNANSWERED] += 1
                log.warning("a secondary does not answer notices", zone=zone)
            await asyncio.sleep(wait)
            wait = min(wait * 2, LAST_RETRY)


def _notice(version: Version, secondary: SecondarySettings, keys: Keyring) -> dns.message.Message:
    plan = version.plan
    notice = dns.message.make_query(plan.origin, SOA, IN)
    notice.flags = dns.flags.AA | dns.opcode.to_flags(dns.opcode.NOTIFY)
    notice.answer.append(dns.rrset.from_rdata(plan.origin, plan.settings.ttl, plan.soa(version.serial)))
    if secondary.key is not None:
        notice.use_tsig(keys[dns.name.from_text(secondary.key)])
    return notice


async def _ask(notice: dns.message.Message, secondary: SecondarySettings) -> int:
    """The code of the answer; waits for one that is no forgery."""
    loop = asyncio.get_running_loop()
    wire = notice.to_wire()
    transport, answers = await loop.create_datagram_endpoint(
        _Answers, remote_addr=(str(secondary.address), secondary.port)
    )
    try:
        transport.sendto(wire)
        while True:
            answer = await answers.get()
            if len(answer) < HEAD_BYTES or not is_plain(answer, answer=True):
                continue
            with contextlib.suppress(dns.exception.DNSException):
                told = dns.message.from_wire(
                    answer,
                    keyring=notice.keyring if notice.tsig is not None else None,
                    request_mac=notice.mac,
                )
                if told.id == notice.id and told.flags & dns.flags.QR and told.opcode() == dns.opcode.NOTIFY:
                    return int(told.rcode())
    finally:
        transport.close()


class _Answers(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | Exception] = asyncio.Queue(8)

    def datagram_received(self, data: bytes, _address: object) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(data)

    def error_received(self, error: Exception) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(error)

    async def get(self) -> bytes:
        found = await self._queue.get()
        if isinstance(found, Exception):
            raise found  # an OSError, such as nobody listens there
        return found
