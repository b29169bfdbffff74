"""What happened to a zone since this node started: what was sent, refused and told, and how far its secondaries are.

Secondaries are those of the configuration, so that there are never more of them than an operator wrote down; whoever
else takes a zone is counted, and remembered nowhere.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import dns.name

from blocker.feeds.zone import is_newer
from blocker.sockets import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from ipaddress import IPv4Address, IPv6Address

    from blocker.feed_section import SecondarySettings

# Times that a secondary comes again for a version that it was sent to the end, until that is no chance: several views
# of one server ask one after the other.
REFUSALS = 3


class Failure(StrEnum):
    """Why a request about a zone, or a transfer of it, came to nothing."""

    ACCESS = "access"  # neither its key nor its network may have the zone
    CLEAR = "clear"  # a transfer in clear text, where it must be over TLS
    SIGNATURE = "signature"  # the key, the secret or the clock is another one
    UNREADY = "unready"  # there is no version yet
    BUSY = "busy"  # as many transfers as there may be
    CONNECTIONS = "connections"  # as many as there may be, in all or of one address: whichever zone they were for
    HANDSHAKE = "handshake"  # no TLS came of it, or not as it must be: whichever zone it was for
    CUT = "cut"  # the secondary went away, or did not read


class Notice(StrEnum):
    """What became of a notice."""

    SENT = "sent"  # each datagram, repeats too
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNANSWERED = "unanswered"  # versions of which a secondary was told in vain; it had not answered for a minute


class Sent(StrEnum):
    """What a transfer was."""

    WHOLE = "whole"
    DIFFERENCE = "difference"
    CURRENT = "current"  # the secondary had it already


class Transport(StrEnum):
    """What a transfer went over."""

    TLS = "tls"  # as RFC 9103 has it, and with a certificate where one must be shown
    CLEAR = "clear"  # all else


class Standing(StrEnum):
    """How a secondary's version compares with the present one."""

    CURRENT = "current"
    BEHIND = "behind"
    AHEAD = "ahead"  # its serial is of another primary, or of a store that is gone: it will never take this one
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Contact:
    """A secondary, as it showed itself. A transfer that was sent is not one that was taken.

    Attributes:
        expected: Since when it is looked out for, in Unix seconds.
        asked: When it last asked anything that it may, in Unix seconds; None: not since the start.
        serial: The version that it said it has, or must have since it saw a newer one and left it, or had at best when
            the present one came; None: not known.
        behind: Since when it has had an older version than there is; None: it has not, or none is known.
        sent: The version that it was last sent to the end, until it shows whether it took it.
        looks: How often it has looked at that version's serial since then, without asking for a transfer.
        again: How often it came for a version again that it had been sent to the end.
        heard: When it last acknowledged a notice, in Unix seconds; None: not since the start.
    """

    expected: float = field(default_factory=lambda: time.time())
    asked: float | None = None
    serial: int | None = None
    behind: float | None = None
    sent: int | None = None
    looks: int = 0
    again: int = 0
    heard: float | None = None

    def ask(self, current: int, known: int | None, *, transfer: bool) -> None:
        """It asked for the serial or a transfer, while a version was the present one.

        Args:
            current: That one.
            known: The version that it says it has; None: it says none.
            transfer: Whether it wants what is newer.
        """
        self.asked = time.time()
        if known is not None:
            self.serial = known
        if known is not None and known in (self.sent, current):
            self._settle()
        elif transfer:  # so it does not have what it was sent
            self.again += self.sent == current
            self.sent, self.looks = None, 0
        elif self.sent == current:
            self.looks += 1
            # A look may be followed by a transfer. One that was followed by another look was not.
            if self.looks > 1:
                self.serial = current
                self._settle()
        if self.standing(current) is not Standing.BEHIND:
            self.behind = None
        elif self.behind is None:
            self.behind = self.asked

    def was_sent(self, serial: int) -> None:
        """A transfer of a version was written to its end."""
        self.sent, self.looks = serial, 0

    def superseded(self, serial: int) -> None:
        """A newer version has taken this one's place; who has it will come and say so."""
        self.again = 0
        if self.asked is not None and self.serial is None:
            self.serial = serial
        if self.serial is not None and self.behind is None:
            self.behind = time.time()

    def standing(self, current: int) -> Standing:
        """How it compares with the present version."""
        if self.serial is not None and is_newer(self.serial, current):
            return Standing.AHEAD
        if self.serial == current:
            return Standing.CURRENT
        if self.serial is not None or self.again >= REFUSALS:
            return Standing.BEHIND
        return Standing.UNKNOWN

    def _settle(self) -> None:
        self.sent, self.looks, self.again = None, 0, 0


@dataclass(slots=True)
class Tally:
    """Of one zone.

    Attributes:
        sent: Transfers by question (`axfr`, `ixfr`), by what they were and by what they went over.
        bytes: Of their messages, by question; of those that were cut too.
        failed: What came to nothing.
        notices: What was told.
        contacts: The secondaries, by their address and port.
        built: When the present version was made; None: not by this process.
        checked: When it last was what the store has.
    """

    sent: Counter[tuple[str, Sent, Transport]] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    failed: Counter[Failure] = field(default_factory=Counter)
    notices: Counter[Notice] = field(default_factory=Counter)
    contacts: dict[str, Contact] = field(default_factory=dict)
    built: float | None = None
    checked: float | None = None

    def expect(self, secondaries: Iterable[SecondarySettings]) -> None:
        """Look out for these from now on; what is known of those that stay, stays."""
        self.contacts = {label: self.contacts.get(label) or Contact() for label in map(label_of, secondaries)}

    def met(
        self,
        secondaries: Iterable[SecondarySettings],
        peer: IPv4Address | IPv6Address | None,
        key: dns.name.Name | None,
    ) -> Iterator[Contact]:
        """Those that somebody is who may have the zone and asks about it.

        Secondaries that share an address and a key cannot be told apart, and count as one.
        """
        for one in secondaries:
            signed = one.key is None or (key is not None and dns.name.from_text(one.key) == key)
            contact = self.contacts.get(label_of(one))
            if contact is not None and signed and one.address == peer:
                yield contact

    def heard(self, secondary: SecondarySettings) -> None:
        """It has acknowledged a notice."""
        self.notices[Notice.ACKNOWLEDGED] += 1
        if (contact := self.contacts.get(label_of(secondary))) is not None:
            contact.heard = time.time()

    def superseded(self, serial: int) -> None:
        """Another version has taken this one's place."""
        for contact in self.contacts.values():
            contact.superseded(serial)


def label_of(secondary: SecondarySettings) -> str:
    """What a secondary is called: its address and port."""
    return shown(str(secondary.address), secondary.port)
