"""Holds: exceptions that a person makes, with a reason and an end, while a wrong entry is argued about.

They are rules of the list `holds`, an allow list like any other: at equal specificity it overrules every list that
blocks, and a hold covers what it says and nothing more. A hold ends by itself on its day, by the sweep that ends all
rules with an expiry. Its reason and its author are sealed with it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING

from blocker._native import RuleSet, parse_rule
from blocker.errors import NotThere, UpdateRefused
from blocker.ingest.cleartext import read_rules, sealer
from blocker.ingest.expiry import utc_day
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import PublishResult, head_manifest, publish
from blocker.ingest.source import HOLDS
from blocker.rules import Kind, Rule

if TYPE_CHECKING:
    from typing import Literal

    from blocker.store.audit import Actor
    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring

# A year is enough to settle anything; what should stay is an entry of a list of exceptions.
MAX_DAYS = 366
MAX_REASON = 200

_OPTIONS = PublishOptions(action="allow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One hold.

    Attributes:
        number: By which it is taken back.
        rule: What it covers.
        until: First day on which it holds no longer.
        reason: Why.
        person: Whose decision it was.
    """

    number: str
    rule: Rule = field(repr=False)
    until: date
    reason: str
    person: str


async def add_hold(
    store: Store, keyring: Keyring, url: str, *, until: date, reason: str, actor: Actor, now: float,
    bare: Literal["host", "domain"] = "host",
) -> tuple[Hold, PublishResult]:  # fmt: skip
    """Let an address through until a day.

    Args:
        store: Where the lists are.
        keyring: With the seal key.
        url: What to let through, as a line of the url format.
        until: First day on which it holds no longer, UTC.
        reason: Why: one line, at most 200 characters.
        actor: Who.
        now: Unix time in seconds.
        bare: What an address without a path covers.

    Raises:
        InvalidRule: The address is no rule.
        UpdateRefused: The day is not one of the next 366, or there is no reason.
        CommitConflict: Somebody else changed the holds meanwhile.
        StoreError, StoreUnavailable, KeyMaterialError: As `publish`.
    """
    today = utc_day(now)
    if not today < until <= today + timedelta(days=MAX_DAYS):
        raise UpdateRefused(f"a hold ends on one of the next {MAX_DAYS} days, from {today + timedelta(days=1)} on")
    if not reason.strip() or not reason.isprintable() or len(reason) > MAX_REASON:
        raise UpdateRefused(f"a hold has a reason: one line of at most {MAX_REASON} characters")
    kind, host, path, query, subdomains = parse_rule(url, "url", bare, "prefix", "domain")
    rule = Rule(kind=Kind(kind), host=host, path=path, query=query, subdomains=subdomains)
    hold = Hold(number=f"H-{secrets.token_hex(4)}", rule=rule, until=until, reason=reason, person=actor.person)
    metadata = {"expires": until.isoformat(), "reason": reason, "by": actor.person}
    fresh = RuleSet()
    fresh.add(
        kind, host, path, query, subdomains, hold.number,
        json.dumps(metadata, ensure_ascii=False, separators=(",", ":"), sort_keys=True),
    )  # fmt: skip
    serial, present = await _present(store, keyring)
    rules = present.patched(fresh, present.common(fresh))
    return hold, await publish(
        store, keyring, HOLDS, _OPTIONS, rules, reason=f"hold {hold.number} until {until}", now=now, actor=actor,
        expected=serial, action="hold",
    )  # fmt: skip


async def end_hold(store: Store, keyring: Keyring, number: str, *, actor: Actor, now: float) -> PublishResult:
    """Take a hold back at once.

    Raises:
        NotThere: There is no such hold.
        CommitConflict: Somebody else changed the holds meanwhile.
    """
    serial, present = await _present(store, keyring)
    gone = RuleSet()
    for rule in present:
        if rule[5] == number:
            gone.add(*rule)
    if not len(gone):
        raise NotThere("there is no hold of that number; see `blocker lists holds`")
    return await publish(
        store, keyring, HOLDS, _OPTIONS, present.patched(RuleSet(), gone), reason=f"hold {number} ended", now=now,
        actor=actor, expected=serial, action="unhold",
    )  # fmt: skip


async def all_holds(store: Store, keyring: Keyring) -> list[Hold]:
    """The holds there are, those that end first first."""
    _, present = await _present(store, keyring)
    return sorted(await asyncio.to_thread(_read, present), key=lambda hold: (hold.until, hold.number))


def _read(rules: RuleSet) -> list[Hold]:
    found = []
    for kind, host, path, query, subdomains, number, text in rules:
        metadata = json.loads(text)
        rule = Rule(kind=Kind(kind), host=host, path=path, query=query, subdomains=subdomains)
        until = date.fromisoformat(metadata["expires"])
        found.append(
            Hold(number=number, rule=rule, until=until, reason=metadata["reason"], person=metadata["by"])
        )  # fmt: skip
    return found


async def _present(store: Store, keyring: Keyring) -> tuple[int, RuleSet]:
    head = await head_manifest(store, HOLDS)
    if head is None:
        return 0, RuleSet()
    return head.serial, await read_rules(store, sealer(keyring), head)
