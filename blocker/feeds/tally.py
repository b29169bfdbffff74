"""What happened to a zone since this node started: what was sent, refused and told, and how far its secondaries are.

Secondaries are those of the configuration, so that there are never more of them than an operator wrote down; whoever
else takes a zone is counted, and remembered nowhere.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import dns.name

from blocker.feeds.zone import is_newer
from blocker.sockets import shown

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Address, IPv6Address

    from blocker.feed_section import SecondarySettings


class Failure(StrEnum):
    """Why a request about a zone, or a transfer of it, came to nothing."""

    ACCESS = "access"  # neither its key nor its network may have the zone
    SIGNATURE = "signature"  # the key, the secret or the clock is another one
    UNREADY = "unready"  # there is no version yet
    BUSY = "busy"  # as many transfers as there may be
    CUT = "cut"  # the secondary went away, or did not read


class Notice(StrEnum):
    """What became of a notice."""

    SENT = "sent"  # each datagram, repeats too
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNANSWERED = "unanswered"  # given up


class Sent(StrEnum):
    """What a transfer was."""

    WHOLE = "whole"
    DIFFERENCE = "difference"
    CURRENT = "current"  # the secondary had it already


@dataclass(slots=True)
class Contact:
    """A secondary, as it showed itself.

    Attributes:
        expected: Since when it is looked out for, in Unix seconds.
        asked: When it last asked anything that it may, in Unix seconds; None: not since the start.
        serial: The version that it said it has, or that it was last sent whole; None: not known.
        behind: Since when it has had an older version than there is; None: it has the present one, or none is known.
    """

    expected: float
    asked: float | None = None
    serial: int | None = None
    behind: float | None = None


@dataclass(slots=True)
class Tally:
    """Of one zone.

    Attributes:
        sent: Transfers by question (`axfr`, `ixfr`) and by what they were.
        bytes: Of their messages, by question; of those that were cut too.
        failed: What came to nothing.
        notices: What was told.
        contacts: The secondaries, by their address and port.
        built: When the present version was made; None: not by this process.
        checked: When it last was what the store has.
    """

    sent: Counter[tuple[str, Sent]] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    failed: Counter[Failure] = field(default_factory=Counter)
    notices: Counter[Notice] = field(default_factory=Counter)
    contacts: dict[str, Contact] = field(default_factory=dict)
    built: float | None = None
    checked: float | None = None

    def expect(self, secondaries: Iterable[SecondarySettings]) -> None:
        """Look out for these from now on; what is known of those that stay, stays."""
        new = Contact(time.time())
        self.contacts = {label: self.contacts.get(label) or replace(new) for label in map(label_of, secondaries)}

    def seen(
        self,
        secondaries: Iterable[SecondarySettings],
        peer: IPv4Address | IPv6Address | None,
        key: dns.name.Name | None,
        serial: int | None = None,
        newest: int | None = None,
    ) -> None:
        """Somebody who may have the zone has asked about it, and has this version, while `newest` is the present one.

        Secondaries that share an address and a key cannot be told apart, and count as one.
        """
        for one in secondaries:
            signed = one.key is None or (key is not None and dns.name.from_text(one.key) == key)
            contact = self.contacts.get(label_of(one))
            if contact is not None and signed and one.address == peer:
                contact.asked = time.time()
                contact.serial = contact.serial if serial is None else serial
                if contact.serial is None or newest is None or not is_newer(newest, contact.serial):
                    contact.behind = None
                elif contact.behind is None:
                    contact.behind = contact.asked

    def outdated(self) -> None:
        """There is a new version, which no secondary has yet."""
        now = time.time()
        for contact in self.contacts.values():
            if contact.serial is not None and contact.behind is None:
                contact.behind = now


def label_of(secondary: SecondarySettings) -> str:
    """What a secondary is called: its address and port."""
    return shown(str(secondary.address), secondary.port)
