"""Zones of rules in memory, and a server that serves them, without a store."""

from __future__ import annotations

import base64
import contextlib
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import dns.message
import dns.name
import dns.rdatatype
import dns.tsig

from blocker._native import RuleSet, Zone
from blocker.feed_section import RpzSettings, ZoneSettings
from blocker.feeds.history import History
from blocker.feeds.listener import ZoneListener
from blocker.feeds.signing import load_keys
from blocker.feeds.transfer import Served, ZoneServer
from blocker.feeds.zone import Plan, Version
from blocker.matcher import add_rule
from blocker.rules import Rule

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

ORIGIN = "police.rpz.test."
SECRET = base64.b64encode(bytes(range(32))).decode()
KEYS = {name: {"secret": SECRET} for name in ("resolver", "other")}
KEYRING = {dns.name.from_text(name): dns.tsig.Key(name, SECRET, "hmac-sha256.") for name in KEYS}


def rule_set(lines: Iterable[str | Rule]) -> RuleSet:
    rules = RuleSet()
    for line in lines:
        add_rule(rules, Rule.parse(line) if isinstance(line, str) else line)
    return rules


def plan(**settings: Any) -> Plan:  # noqa: ANN401 - any field's own type
    return Plan.of("police", ZoneSettings(**{"origin": ORIGIN, "keys": ("resolver",), **settings}))


def version(
    its: Plan, serial: int, block: Iterable[str | Rule], allow: Iterable[str | Rule] = (), *, www_alias: bool = False
) -> Version:
    lists = [(rule_set(block), False, www_alias), (rule_set(allow), True, www_alias)]
    return Version(plan=its, serial=serial, zone=Zone.build(lists, len(its.wire_origin), inspect=its.inspect))


class Primary:
    """A server with one zone."""

    def __init__(self, its: Plan, **settings: Any) -> None:  # noqa: ANN401 - as above
        self.settings = RpzSettings(**{"port": 0, "keys": KEYS, **settings})
        self.served = Served(its, History(self.settings.history))
        self.server = ZoneServer(self.settings.max_transfers, self.settings.request_seconds)
        self.server.configure([self.served], load_keys(self.settings.keys))
        self.listener = ZoneListener(self.server, self.settings)

    def publish(self, newer: Version) -> None:
        older = self.served.version
        self.served.publish(newer, None if older is None else older.zone.diff(newer.zone))

    def sent(self) -> int:
        """Transfers to the end."""
        return self.served.tally.sent.total()

    async def ask(
        self, message: dns.message.Message | bytes, *, tcp: bool = True, peer: str = "127.0.0.1"
    ) -> list[bytes]:
        wire = message if isinstance(message, bytes) else message.to_wire()
        answer = self.server.respond(wire, tcp=tcp, peer=ip_address(peer))
        async with contextlib.aclosing(answer) as messages:
            return [one async for one in messages]

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        await self.listener.start()
        try:
            yield int(self.listener.addresses[0].rpartition(":")[2])
        finally:
            await self.listener.stop()


def query(kind: str, name: str = ORIGIN, *, key: str | None = "resolver", **more: Any) -> dns.message.QueryMessage:  # noqa: ANN401
    made = dns.message.make_query(name, kind, **more)
    if key is not None:
        made.use_tsig(KEYRING, dns.name.from_text(key))
    return made


def records(wires: Sequence[bytes], asked: dns.message.Message) -> list[tuple[str, str, str]]:
    """Owner, type and data of every record of a transfer, each message's signature checked."""
    found: list[tuple[str, str, str]] = []
    context = None
    for wire in wires:
        message = dns.message.from_wire(
            wire, keyring=KEYRING if asked.had_tsig else None, request_mac=asked.mac or b"", xfr=True,
            tsig_ctx=context, multi=True, one_rr_per_rrset=True,
        )  # fmt: skip
        assert message.id == asked.id
        assert message.rcode() == 0
        context = message.tsig_ctx
        assert message.had_tsig == asked.had_tsig
        for rrset in message.answer:
            found += [(str(rrset.name), dns.rdatatype.to_text(rrset.rdtype), str(data)) for data in rrset]
    return found
