"""Why an address is decided as it is: every step, every rule that matches, since when, and what is about to change it.

The steps are the matcher's own. The rules are those of the store at the very serials that the matcher enforces, so they
are what was decided with and not what came since. An explanation shows the address and listed rules: it is for people
who may see the lists and asked, never for logs. It counts nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from blocker._native import RuleSet
from blocker.errors import KeyMaterialError, StoreError
from blocker.ingest.cleartext import open_layer, sealer
from blocker.ingest.matching import MatchingRule, matching_rules, table_of
from blocker.matcher import Matcher, Policy, table_lists

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from blocker._native import Matcher as NativeMatcher
    from blocker.store.draft import Draft
    from blocker.store.manifest import Layer, Manifest
    from blocker.store.redis import Store
    from blocker.store.sealing import Keyring, Sealer

Part = Literal["decides", "overruled", "shadow"]
# Serials that are looked back for the one that brought a rule; more are not kept by default.
LOOK_BACK = 100


class Since(NamedTuple):
    """Since when a rule is in its list.

    Attributes:
        serial: The first serial that has it without a break up to now.
        at: When that was published, Unix time in seconds.
        reason: Why, as its publisher said.
        exact: False if older serials are not kept: it may have been there before.
    """

    serial: int
    at: float
    reason: str
    exact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedRule:
    """One rule that matches, in one list.

    Attributes:
        list: The list.
        action: What the list does: block or allow.
        mode: What the policy makes of it: enforce or shadow.
        serial: The list's serial that is enforced.
        kind: As the rule counts here.
        part: Whether it decides, is overruled by another, or is of a shadow list.
        reference: The authority's own number for it.
        text: The rule as a line of the url format; None where this process may not see it.
        hashed: Whether the list knows it as digests only.
        metadata: Category and days, as the list has them.
        since: Since when; None where that is not known.
    """

    list: str
    action: str
    mode: str
    serial: int
    kind: str
    part: Part
    reference: str | None = None
    text: str | None = field(default=None, repr=False)
    hashed: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    since: Since | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a draft or a proposal would do to this address.

    Attributes:
        list: Its list.
        shelf: Whether it is a draft or waits for approval.
        id: Its id.
        author: Who made it.
        verdict: The verdict with it in force.
        by: The list that would decide.
        changes: Whether verdict or deciding list would be others.
        added: Rules that would match.
        removed: Rules that would match no longer.
    """

    list: str
    shelf: Literal["draft", "proposal"]
    id: str
    author: str
    verdict: str
    by: str | None
    changes: bool
    added: tuple[str, ...] = field(repr=False)
    removed: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Everything there is to say.

    Attributes:
        canonical: The canonical form.
        surt: Its SURT.
        policy: The policy.
        verdict: What is answered.
        shadow: Shadow lists that would block.
        steps: Nodes looked up, in order: prefix, found, matches.
        rules: Rules that match, first the one that counts most.
        proposed: What is about to change.
        missing: What could not be looked at, and why; empty if nothing.
    """

    canonical: str = field(repr=False)
    surt: str = field(repr=False)
    policy: str
    verdict: str
    shadow: tuple[str, ...]
    steps: Sequence[Mapping[str, Any]] = field(repr=False)
    rules: tuple[ExplainedRule, ...]
    proposed: tuple[Effect, ...]
    missing: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        told = asdict(self)
        for rule, row in zip(self.rules, told["rules"], strict=True):
            row["since"] = None if rule.since is None else rule.since._asdict()
        return told


async def explain(
    matcher: NativeMatcher, url: str | bytes, policy: Policy, store: Store | None, keyring: Keyring
) -> Explanation:
    """Explain one address.

    Args:
        matcher: What decides.
        url: The address.
        policy: Under which policy of the matcher.
        store: Where the lists are; None if it is away.
        keyring: The seal key shows rules; without it only what the matcher knows is told.

    Raises:
        InvalidURL: It is no address.
        KeyError: The matcher has no such policy.

    Cost: reads each list of the policy once, in threads: about a second for a million rules, more if its history is
    long and was folded often.
    """
    walked: Mapping[str, Any] = matcher.explain(url, policy.name)
    shadow = matcher.decide(url, policy.name).shadow
    rules, missing = _seen(walked), []
    proposed: tuple[Effect, ...] = ()
    if store is None:
        missing.append("the store is away: rules, their history and drafts are not shown")
    elif keyring.seal is None:
        missing.append("this node holds no seal key: rules, their history and drafts are not shown")
    else:
        reader = _Reader(store, sealer(keyring), walked["canonical"])
        versions = await _versions(matcher, policy, store, reader, missing)
        rules = await _rules(versions, policy, walked["canonical"], reader, rules)
        proposed = await _proposed(versions, policy, walked["canonical"], reader, missing)
    return Explanation(
        canonical=walked["canonical"], surt=walked["surt"], policy=policy.name, verdict=walked["verdict"],
        shadow=shadow, steps=walked["steps"], rules=tuple(rules), proposed=proposed, missing=tuple(missing),
    )  # fmt: skip


def _seen(walked: Mapping[str, Any]) -> list[ExplainedRule]:
    """What the matcher itself knows of the rules, the most specific first."""
    found, winner = [], walked["winner"]
    for row in reversed([row for step in walked["steps"] for row in step["matches"]]):
        decides = winner is not None and all(row[name] == winner[name] for name in ("list", "kind", "reference"))
        part: Part = "shadow" if row["mode"] == "shadow" else "decides" if decides else "overruled"
        winner = None if decides else winner
        names = ("list", "action", "mode", "serial", "reference")
        known = {name: row[name] for name in names}
        found.append(ExplainedRule(**known, kind=str(row["kind"]), part=part, hashed="hashed" in row))
    return found


class _Version(NamedTuple):
    manifest: Manifest
    near: RuleSet  # its rules near the address


class _Reader:
    """Rules near one address, in any version of any list; each layer is opened once."""

    def __init__(self, store: Store, opener: Sealer, url: str) -> None:
        self.store = store
        self._sealer = opener
        self._url = url
        self._layers: dict[tuple[str, tuple[str, ...]], tuple[RuleSet, RuleSet]] = {}

    async def near(self, version: Manifest | Draft) -> RuleSet:
        """The rules of a version that are near the address."""
        rules = RuleSet()
        for layer in version.layers:
            added, removed = await self._opened(version.list, layer)
            rules = rules.patched(added, removed)
        return rules

    async def since(self, manifest: Manifest, wanted: Iterable[tuple[object, ...]]) -> dict[tuple[object, ...], Since]:
        """By a rule's identity: the serial that brought each."""
        open_ones, found = set(wanted), {}
        later = manifest
        for older in await self.store.history(manifest.list, LOOK_BACK, before=manifest.serial):
            if not open_ones:
                break
            there = {(row[0], row[1], row[2], row[3], row[4]) for row in await self.near(older)}
            for one in open_ones - there:
                found[one] = _since(later, exact=older.serial + 1 == later.serial)
            open_ones &= there
            later = older
        found.update({one: _since(later, exact=later.serial == 1) for one in open_ones})
        return found

    async def _opened(self, name: str, layer: Layer) -> tuple[RuleSet, RuleSet]:
        key = (name, layer.sealed)
        if key not in self._layers:
            blobs = [await self.store.get_blob("sealed", blob) for blob in layer.sealed]
            self._layers[key] = await asyncio.to_thread(self._open, name, blobs)
        return self._layers[key]

    def _open(self, name: str, blobs: Sequence[bytes]) -> tuple[RuleSet, RuleSet]:
        added, removed = open_layer(self._sealer, name, blobs)
        return added.near(self._url), removed.near(self._url)


def _since(manifest: Manifest, *, exact: bool) -> Since:
    return Since(manifest.serial, manifest.created, manifest.reason, exact)


async def _versions(
    matcher: NativeMatcher, policy: Policy, store: Store, reader: _Reader, missing: list[str]
) -> dict[str, _Version]:
    """The lists of the policy at the serials that are enforced, in the table's order."""
    found = {}
    for one in table_lists(matcher.table):
        if policy.lists is not None and one.name not in policy.lists:
            continue
        try:
            manifest = await store.manifest(one.name, one.serial)
            found[one.name] = _Version(manifest, await reader.near(manifest))
        except (StoreError, KeyMaterialError) as error:
            missing.append(f"list {one.name} serial {one.serial} cannot be read: {error}")
    return found


async def _rules(
    versions: Mapping[str, _Version], policy: Policy, url: str, reader: _Reader, seen: Sequence[ExplainedRule]
) -> list[ExplainedRule]:
    """The rules in clear, the one that counts most first; of lists that cannot be read, what the matcher knows."""
    order = [*(policy.lists or versions)]
    found: list[tuple[tuple[Any, ...], ExplainedRule]] = []
    for name, (manifest, near) in versions.items():
        matching = await asyncio.to_thread(matching_rules, near, manifest, url)
        since = await reader.since(manifest, [one.identity for one in matching])
        for one in matching:
            key = (one.rank, manifest.action == "allow", -order.index(name))
            found.append((key, _explained(one, manifest, policy, since[one.identity])))
    found.sort(key=lambda pair: pair[0], reverse=True)
    # The matcher has the last word: what cannot be read here may overrule what can.
    decides = {rule.list for rule in seen if rule.part == "decides"}
    rules = [rule for _, rule in found]
    for at, rule in enumerate(rules):
        if rule.mode == "enforce" and rule.list in decides:
            rules[at] = replace(rule, part="decides")
            break
    unread = [rule for rule in seen if rule.list not in versions]
    return [*rules, *unread]


def _explained(one: MatchingRule, manifest: Manifest, policy: Policy, since: Since) -> ExplainedRule:
    mode = (policy.lists or {}).get(manifest.list) or manifest.mode
    return ExplainedRule(
        list=manifest.list, action=manifest.action, mode=mode, serial=manifest.serial, kind=one.kind.value,
        part="shadow" if mode == "shadow" else "overruled", reference=one.rule.reference, text=str(one.rule),
        hashed=one.hashed, metadata=one.metadata, since=since,
    )  # fmt: skip


async def _proposed(
    versions: Mapping[str, _Version], policy: Policy, url: str, reader: _Reader, missing: list[str]
) -> tuple[Effect, ...]:
    """What each draft, and each proposal that waits, would do by itself."""
    shelves: tuple[tuple[Literal["draft", "proposal"], Literal["drafts", "proposals"]], ...] = (
        ("draft", "drafts"), ("proposal", "proposals"),
    )  # fmt: skip
    effects = []
    now = await asyncio.to_thread(_decided, versions, policy, url, None)
    for shelf, stored in shelves:
        for draft in (await reader.store.drafts(stored)).values():
            if draft.state == "rejected" or (policy.lists is not None and draft.list not in policy.lists):
                continue
            try:
                near = await reader.near(draft)
            except (StoreError, KeyMaterialError) as error:
                missing.append(f"the {shelf} of list {draft.list} cannot be read: {error}")
                continue
            then = await asyncio.to_thread(_decided, versions, policy, url, (draft, near))
            before = versions.get(draft.list)
            had = set() if before is None else await asyncio.to_thread(_texts, before.near, before.manifest, url)
            has = await asyncio.to_thread(_texts, near, draft, url)
            effects.append(
                Effect(
                    list=draft.list, shelf=shelf, id=draft.id, author=draft.author, verdict=then[0], by=then[1],
                    changes=then != now, added=tuple(sorted(has - had)), removed=tuple(sorted(had - has)),
                )
            )  # fmt: skip
    return tuple(effects)


def _texts(near: RuleSet, version: Manifest | Draft, url: str) -> set[str]:
    return {str(one.rule) for one in matching_rules(near, version, url)}


def _decided(
    versions: Mapping[str, _Version], policy: Policy, url: str, draft: tuple[Draft, RuleSet] | None
) -> tuple[str, str | None]:
    """Verdict and deciding list, with a draft in the place of its list."""
    chosen: dict[str, tuple[Manifest | Draft, RuleSet]] = {**versions}
    if draft is not None:
        chosen[draft[0].list] = draft
    table = table_of((name, version, near) for name, (version, near) in sorted(chosen.items()))
    decision = Matcher.of(table, [policy]).decide(url, policy.name)
    return decision.verdict.value, decision.list
