"""Notices: who is told, and how it shows that somebody does not hear them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import dns.message

from blocker.feeds import notify
from blocker.feeds.notify import Notifier
from blocker.feeds.tally import Notice, Tally, label_of
from tests.e2e.processes import until
from tests.feeds.support import KEYRING, plan, version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from blocker.feeds.zone import Version

HOST = "127.0.0.1"


class Ear(asyncio.DatagramProtocol):
    """A secondary that hears everything and answers if it is told to."""

    def __init__(self) -> None:
        self.answers = False
        self.heard: asyncio.Queue[int] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, address: Any) -> None:  # noqa: ANN401 - asyncio's own
        notice = dns.message.from_wire(data, keyring=KEYRING)
        if self.answers:
            self.transport.sendto(dns.message.make_response(notice).to_wire(), address)
        self.heard.put_nowait(notice.answer[0][0].serial)


@contextlib.asynccontextmanager
async def telling() -> AsyncIterator[tuple[Notifier, Ear, Tally, dict[str, object]]]:
    transport, ear = await asyncio.get_running_loop().create_datagram_endpoint(Ear, local_addr=(HOST, 0))
    secondary = {"address": HOST, "port": transport.get_extra_info("sockname")[1], "key": "resolver"}
    notifier = Notifier()
    try:
        yield notifier, ear, Tally(), secondary
    finally:
        await notifier.stop()
        transport.close()


def numbered(serial: int, *secondaries: dict[str, object]) -> Version:
    return version(plan(secondaries=list(secondaries)), serial, [])


async def heard(ear: Ear, serial: int, times: int = 1) -> None:
    """Wait until a version was told of so often."""
    while times:
        times -= await ear.heard.get() == serial


async def settled(tally: Tally, notice: Notice, count: int) -> None:
    await asyncio.to_thread(until, lambda: tally.notices[notice] >= count)
    assert tally.notices[notice] == count


async def test_a_deaf_secondary_shows_though_new_versions_keep_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "FIRST_RETRY", 0.02)
    monkeypatch.setattr(notify, "DEAF_SECONDS", 0.05)
    async with telling() as (notifier, ear, tally, secondary):
        for serial in (7, 8, 9):  # each takes the place of the one before while it is still told of
            notifier.announce(numbered(serial, secondary), KEYRING, tally)
            await settled(tally, Notice.UNANSWERED, serial - 6)
            await heard(ear, serial, 2)
        assert tally.notices[Notice.ACKNOWLEDGED] == 0
        ear.answers = True
        await settled(tally, Notice.ACKNOWLEDGED, 1)
        ear.answers = False
        monkeypatch.setattr(notify, "DEAF_SECONDS", 3600.0)
        notifier.announce(numbered(10, secondary), KEYRING, tally)
        await heard(ear, 10, 3)
        assert tally.notices[Notice.UNANSWERED] == 3, "its silence begins anew"


async def test_versions_that_come_faster_than_it_takes_to_be_deaf_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "FIRST_RETRY", 0.02)
    monkeypatch.setattr(notify, "DEAF_SECONDS", 3.0)
    async with telling() as (notifier, ear, tally, secondary):
        serial = 0
        while not tally.notices[Notice.UNANSWERED]:
            serial += 1
            notifier.announce(numbered(serial, secondary), KEYRING, tally)
            await heard(ear, serial, 2)
        assert serial > 2


async def test_who_hears_no_notices_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "FIRST_RETRY", 0.02)
    async with telling() as (notifier, ear, tally, secondary):
        its = numbered(7, {**secondary, "notify": False})
        notifier.announce(its, KEYRING, tally)
        both = numbered(8, {**secondary, "notify": False}, {**secondary, "port": 1, "notify": True})
        notifier.announce(both, KEYRING, tally)
        await asyncio.to_thread(until, lambda: tally.notices[Notice.SENT] > 0)
        assert ear.heard.empty()


async def test_when_a_secondary_was_last_heard_is_known() -> None:
    async with telling() as (notifier, ear, tally, secondary):
        its = numbered(7, secondary)
        tally.expect(its.plan.settings.secondaries)
        (contact,) = tally.contacts.values()
        ear.answers = True
        assert contact.heard is None
        notifier.announce(its, KEYRING, tally)
        await settled(tally, Notice.ACKNOWLEDGED, 1)
        assert tally.contacts[label_of(its.plan.settings.secondaries[0])].heard is not None
