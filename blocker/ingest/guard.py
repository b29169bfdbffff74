"""Guards: what looks at a proposed version of a list before anybody sees it. Pure; each exists for an accident.

A finding says what is wrong and how grave it is: **refuse** (must not be published), **approve** (a second person must
say so), or **note**. Findings count rules; they never hold one in their text.

| guard | severity | what it finds |
|---|---|---|
| `never-block` | refuse | a rule for all of a popular domain, or above one |
| `own-infrastructure` | refuse | a rule for all of one of the operator's own names or addresses |
| `public-suffix` | refuse | a rule for all names under a registry's suffix |
| `canary` | refuse | the page by which the list is watched is not blocked |
| `private-suffix` | approve | a rule for all names under a company's suffix; malware lists mean it, often |
| `growth`, `shrink` | approve | many more or fewer rules than before |
| `whole-host` | approve | a rule for all of a host on which single pages are listed |
| `options` | approve | the list would no longer block, or compare otherwise |
| `empty` | approve | nothing would be left |
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING

from blocker._native import Matcher, RuleSet, Table
from blocker.errors import UpdateRefused
from blocker.ingest.limits import GuardLimits
from blocker.ingest.never_block import NeverBlock, canonical_name, popular_domains
from blocker.rules import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from blocker.ingest.plan import PublishOptions
    from blocker.ingest.source import Source
    from blocker.sections import GuardSettings

USUAL = GuardLimits()
# Rules looked at between two chances for other threads: a third of a millisecond.
SLICE = 256
# Hosts of lists that came as hashes; nobody knows what they are.
HASHED = ".bpjm-md5.invalid"

_Listed = tuple[str, str, str | None, str | None, bool, str, str]


class Severity(StrEnum):
    """What a finding means for the version."""

    REFUSE = "refuse"
    APPROVE = "approve"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one guard says of one version.

    Attributes:
        guard: Its name; see the module.
        severity: What it means.
        message: In words: counts and settings, never an entry.
        count: Rules concerned.
        rules: Those rules, for a person who asks for them.
    """

    guard: str
    severity: Severity
    message: str
    count: int = 0
    rules: RuleSet = field(default_factory=RuleSet, repr=False, compare=False)


class Guards:
    """All guards with their limits.

    Args:
        limits: For lists that have none of their own.
        own_limits: By list.
        never_block: What no list may block as a whole.
    """

    def __init__(
        self,
        limits: GuardLimits = USUAL,
        own_limits: Mapping[str, GuardLimits] | None = None,
        never_block: NeverBlock | None = None,
    ) -> None:
        self._limits = limits
        self._own_limits = dict(own_limits or {})
        self._never_block = never_block or NeverBlock()

    @classmethod
    def load(cls, settings: GuardSettings, sources: Iterable[Source] = ()) -> Guards:
        """The guards as they are configured now; reads the file of popular domains.

        Raises:
            SettingsError: That file, or a name, cannot be used.
        """
        limits = GuardLimits(
            max_growth=settings.max_growth,
            max_shrink=settings.max_shrink,
            floor=settings.floor,
            max_first=settings.max_first,
            whole_host_paths=settings.whole_host_paths,
        )
        path = settings.popular_domains
        never_block = NeverBlock(
            popular_domains(path, settings.popular_top) if path else (),
            [canonical_name(name) for name in settings.own_names],
            settings.own_networks,
        )
        return cls(limits, {source.name: source.guard_limits(limits) for source in sources}, never_block)

    def examine(
        self,
        name: str,
        *,
        options: PublishOptions,
        rules: RuleSet,
        before: RuleSet | None,
        before_options: PublishOptions | None,
        added: RuleSet,
        listed_paths: Mapping[str, int] | None = None,
        canaries: Iterable[str] = (),
    ) -> tuple[Finding, ...]:
        """Look at a version of a list.

        Args:
            name: The list.
            options: How it would act and match.
            rules: All its rules.
            before: Its rules now; None if there is no such list, or it cannot be read.
            before_options: How it acts and matches now.
            added: Rules that `before` lacks.
            listed_paths: Host → how many single pages all lists hold on it now; hosts with one may be left out.
            canaries: Addresses that it must block.

        Returns:
            What there is to say, the gravest first.

        Cost: 1 to 2 µs for each added rule, in slices that let other threads in.
        """
        limits = self._own_limits.get(name, self._limits)
        blocks = options.action == "block"
        found: list[Finding] = []
        if blocks:
            found += self._hosts(options, added, limits, listed_paths or {})
            found += _canaries(options, rules, tuple(canaries))
        found += _amount(len(rules), None if before is None else len(before), limits)
        if before is not None and len(before) and before_options is not None:
            found += _options(options, before_options)
        order = list(Severity)
        return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))

    def _hosts(
        self, options: PublishOptions, added: RuleSet, limits: GuardLimits, paths: Mapping[str, int]
    ) -> Iterator[Finding]:
        """One pass over the rules that would come."""
        never, exempt = self._never_block, limits.exempt
        tests: Sequence[tuple[str, Severity, str, Callable[[str, bool], bool]]] = (
            ("never-block", Severity.REFUSE, "block the whole of a popular domain",
             lambda host, wide: host not in exempt and never.popular(host, subdomains=wide)),
            ("own-infrastructure", Severity.REFUSE, "block names or addresses of this operator",
             lambda host, wide: never.own(host, subdomains=wide)),
            ("public-suffix", Severity.REFUSE, "block all names under a public suffix",
             lambda host, wide: wide and host not in exempt and never.public_suffix(host)),
            ("private-suffix", Severity.APPROVE, "block all customers of a service that lends them names",
             lambda host, wide: wide and host not in exempt and never.private_suffix(host)),
            ("whole-host", Severity.APPROVE,
             f"block the whole of a host on which at least {limits.whole_host_paths} single pages are listed",
             lambda host, _wide: paths.get(host, 0) >= limits.whole_host_paths),
        )  # fmt: skip
        caught = [RuleSet() for _ in tests]
        for rule in _unhurried(added):
            kind, host = rule[0], rule[1]
            if kind not in ("domain", "host") or host.endswith(HASHED):
                continue
            hosts = (host, *(_alias(host) if options.www_alias else ()))
            for (_, _, _, catches), rules in zip(tests, caught, strict=True):
                if any(catches(name, kind == "domain") for name in hosts):
                    rules.add(*rule)
        for (guard, severity, what, _), rules in zip(tests, caught, strict=True):
            if count := len(rules):
                yield Finding(
                    guard=guard,
                    severity=severity,
                    message=f"{guard}: {count} new rules {what}",
                    count=count,
                    rules=rules,
                )


def _unhurried(rules: RuleSet) -> Iterator[_Listed]:
    """The rules; other threads, which may have decisions to make, get their turn all the time."""
    iterator = iter(rules)
    while piece := list(islice(iterator, SLICE)):
        yield from piece
        time.sleep(0)


def _alias(host: str) -> tuple[str, ...]:
    """The host that is the same one for a list with `www_alias`."""
    return (host.removeprefix("www."),) if host.startswith("www.") else (f"www.{host}",)


def _amount(entries: int, before: int | None, limits: GuardLimits) -> Iterator[Finding]:
    if before is None:
        if entries > limits.max_first:
            yield Finding(
                guard="growth", severity=Severity.APPROVE, count=entries,
                message=f"growth: {entries} rules in a first version, max_first is {limits.max_first}",
            )  # fmt: skip
        return
    if before and not entries:
        yield Finding(
            guard="empty", severity=Severity.APPROVE, count=before,
            message=f"empty: none of {before} rules would be left",
        )  # fmt: skip
        return
    change = entries - before
    if change > max(limits.floor, limits.max_growth * before):
        yield Finding(
            guard="growth", severity=Severity.APPROVE, count=change,
            message=f"growth: {before} rules become {entries}; max_growth is {limits.max_growth:g}",
        )  # fmt: skip
    if -change > max(limits.floor, limits.max_shrink * before):
        yield Finding(
            guard="shrink", severity=Severity.APPROVE, count=-change,
            message=f"shrink: {before} rules become {entries}; max_shrink is {limits.max_shrink:g}",
        )  # fmt: skip


def _options(options: PublishOptions, before: PublishOptions) -> Iterator[Finding]:
    """A list that quietly stops blocking, or begins to block something else, with the same rules."""
    for option in ("action", "mode", "path_case", "www_alias"):
        old, new = getattr(before, option), getattr(options, option)
        if old != new and (option, new) != ("mode", "enforce"):
            yield Finding(
                guard="options", severity=Severity.APPROVE, message=f"options: {option} becomes {new}, it is {old}"
            )


def _canaries(options: PublishOptions, rules: RuleSet, canaries: tuple[str, ...]) -> Iterator[Finding]:
    if not canaries:
        return
    # A lookup key of its own: this matcher lives for these questions only.
    key = bytes(16)
    table = Table.build([("list", 1, False, "", options.nodes(rules, key))], key)
    matcher = Matcher(table, [("default", [("list", "enforce")], "allow")])
    missed = sum(matcher.decide(url).verdict is not Verdict.BLOCK for url in canaries)
    if missed:
        yield Finding(
            guard="canary", severity=Severity.REFUSE, count=missed,
            message=f"canary: {missed} of {len(canaries)} canaries of this list would not be blocked",
        )  # fmt: skip


def refuse_retired(*, retired: bool) -> None:
    """Refuse to bring a list back that a person has withdrawn.

    Raises:
        UpdateRefused: It is retired.
    """
    if retired:
        raise UpdateRefused("the list is retired; remove its source, or publish it by hand to bring it back")


def refuse_bad_share(*, good: int, bad: int, max_share: float) -> None:
    """Refuse a file of which too much is no entry: an error page, another format, another list.

    Args:
        good: Entries that were read, repeated ones counted.
        bad: Lines that are no entry. Comments and blank lines count as neither.
        max_share: Largest share of bad ones among both.

    Raises:
        UpdateRefused: The share is above it.
    """
    if bad and bad > max_share * (good + bad):
        raise UpdateRefused(
            f"{bad} of {good + bad} entries are bad ({bad / (good + bad):.2%}), max_bad_share allows {max_share:.2%}; "
            "check that the format is right, or raise max_bad_share"
        )


def refuse_empty(*, entries: int, before: int) -> None:
    """Refuse to empty a list that has entries: far more often a fault at the source than meant.

    Args:
        entries: Rules in the update.
        before: Rules in the list now; 0 for a new one.

    Raises:
        UpdateRefused: The update has none and the list has some.
    """
    if not entries and before:
        raise UpdateRefused(f"the update has no entries, the list has {before}; to empty it, publish it by hand")
