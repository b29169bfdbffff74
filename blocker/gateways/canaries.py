"""Canaries: pages that a list carries for testing, asked for again and again through each gateway as a client would.

Counters, serials and health can all look well while nothing is blocked, after a migration for instance. A canary is
therefore never looked up in the matcher: it is asked for through the gateway's own socket, and what comes back counts.

A canary of a list is **ok** through a gateway if, under every policy of the gateway that has the list,

1. the gateway blocks it, by that list or by one of equal standing (a list in shadow mode must be named as such), and
2. the page beside it is not blocked: a random path on the same host. A canary without a path tests a rule for the whole
   host, so that beside it is a name that nobody has.

What is not ok has one of four reasons (`Reason`). Neither log nor metric shows more than list, gateway and reason: the
addresses are entries of a list. A canary's blocks are no hits and no decisions, see `VerdictEngine.canaries`; the page
beside it counts as one allowed decision.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import structlog

from blocker._native import canonicalize
from blocker.errors import ServeError
from blocker.log import describe
from blocker.matcher import table_lists
from blocker.rules import Verdict
from blocker.sections import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from blocker.gateways.engine import Follower, VerdictEngine
    from blocker.settings import Settings

log = structlog.get_logger(__name__)

# A gateway on this machine answers in milliseconds; what takes seconds has let its clients wait as long.
PATIENCE_SECONDS = 5.0
# Lists that changed while a canary was asked for are asked for again; they change seconds apart at the most.
_TRIES = 3


class NoAnswer(ServeError):  # noqa: N818 - a state, not a fault of the caller
    """A gateway did not answer a probe, or with something else than a verdict."""


class NotShown(ServeError):  # noqa: N818 - as NoAnswer
    """A gateway has no way to treat such an address otherwise than others: nothing is expected of it."""


class Reason(StrEnum):
    """What is wrong with a canary."""

    NOT_BLOCKED = "not-blocked"  # the gateway lets it through
    WRONG_LIST = "wrong-list"  # blocked, but by another list alone
    OVER_BLOCKED = "over-blocked"  # what is beside it is blocked too
    NO_ANSWER = "no-answer"  # the gateway did not answer in time, or not with a verdict


class Answer(NamedTuple):
    """What a gateway did with an address.

    Attributes:
        verdict: `block` if a client would not get the page. Of a gateway that sees hosts alone: `inspect` if it
            is sent to be looked at.
        list: The list that it names; None if it names none.
        shadow: The lists in shadow mode that it names; None if it never names any.
    """

    verdict: Verdict
    list: str | None = None
    shadow: Sequence[str] | None = None


class Probe(Protocol):
    """Asks one gateway as its clients do: over the wire, at the address that it is bound to."""

    @property
    def gateway(self) -> str:
        """One of `blocker.hits.meters.GATEWAYS`."""

    @property
    def policies(self) -> Sequence[str]:
        """The policies that the gateway decides by."""

    async def ask(self, url: str, policy: str) -> Answer:
        """What the gateway does with an address under one of its policies.

        Raises:
            NoAnswer: It does not say. An OSError is taken for the same.
            NotShown: It cannot, by its nature or settings.
        """


@dataclass(frozen=True, slots=True)
class CanaryState:
    """The last look at a list's canaries through a gateway.

    Attributes:
        list: Whose canaries.
        gateway: Through which gateway.
        reason: What is wrong; None if they are ok.
        checked: When they were last looked at, in Unix seconds; so the others.
        last_ok: When they were last ok; None if never since the start.
        last_failed: When they last were not; None if never since the start.
    """

    list: str
    gateway: str
    reason: Reason | None
    checked: float
    last_ok: float | None
    last_failed: float | None


@dataclass(frozen=True, slots=True)
class _Canary:
    url: str = field(repr=False)  # as written: it is the gateway that must make it canonical
    beside: str = field(repr=False)
    host: str = field(repr=False)  # all that a gateway which sees hosts alone is asked about
    whole_host: bool


class Canaries:
    """Looks at every canary through every gateway, and keeps what was seen.

    Args:
        engine: Is told which blocks are not to be counted.
        follower: Whose matcher says which lists are there, and of equal standing.
        settings: `canaries`, `canary_seconds` and `policies` are used.
        more: Further canaries by list, read anew at each look; called in a thread.
        clock: Unix seconds now.
        patience: Seconds that a gateway has to answer.
    """

    def __init__(
        self,
        engine: VerdictEngine,
        follower: Follower,
        settings: Settings,
        *,
        more: Callable[[], Mapping[str, Iterable[str]]] = dict,
        clock: Callable[[], float] = time.time,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._engine = engine
        self._follower = follower
        self.configure(settings)
        self._more = more
        self._clock = clock
        self._patience = patience
        self._probes: list[Probe] = []
        self._states: dict[tuple[str, str], CanaryState] = {}
        # Drawn once: the engine must know the pages beside canaries too, so that none is counted if it is blocked.
        self._nowhere = secrets.token_hex(8)

    def configure(self, settings: Settings) -> None:
        """Take over another configuration, from the next look on."""
        self._configured = {name: chosen.blocked for name, chosen in settings.canaries.items()}
        self._policies = settings.policies
        self._seconds = settings.canary_seconds

    def register(self, probe: Probe) -> None:
        """Have a gateway looked at from the next look on."""
        self._probes.append(probe)

    @property
    def states(self) -> Sequence[CanaryState]:
        """The last look at each list through each gateway; none before the first."""
        return tuple(self._states.values())

    async def run(self) -> None:
        """Look every `canary_seconds` until cancelled; a look that fails as a whole is told, and ages grow."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._seconds
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - a fault in watching must not end what is watched
                log.error("looking at the canaries failed in an unforeseen way", **describe(error))  # noqa: TRY400
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def look(self) -> None:
        """Look at every canary once. Gateways are asked side by side, each one thing at a time."""
        wanted = self._canaries(await asyncio.to_thread(self._more))
        every = [canary for canaries in wanted.values() for canary in canaries]
        asked = [url for canary in every for url in (canary.url, canary.beside, canary.host)]
        self._engine.canaries = frozenset(map(canonicalize, asked))
        known, held = set(self._states), set[tuple[str, str]]()
        async with asyncio.TaskGroup() as tasks:
            for probe in self._probes:
                tasks.create_task(self._look_through(probe, wanted, held))
        good = [one for one in held - known if self._states[one].reason is None]
        if good:  # one line for all of them: at a start there is one for each list and gateway
            lists, gateways = ({one[at] for one in good} for at in range(2))
            log.info("canaries ok", lists=sorted(lists), gateways=sorted(gateways))
        for gone in self._states.keys() - held:
            del self._states[gone]

    def _canaries(self, more: Mapping[str, Iterable[str]]) -> dict[str, list[_Canary]]:
        names = sorted({*self._configured, *more})
        texts = {name: dict.fromkeys((*self._configured.get(name, ()), *more.get(name, ()))) for name in names}
        return {name: [self._canary(url) for url in urls] for name, urls in texts.items() if urls}

    def _canary(self, url: str) -> _Canary:
        parts = urlsplit(canonicalize(url))
        whole_host = parts.path in ("", "/") and not parts.query
        beside = (
            f"http://{self._nowhere}.invalid/" if whole_host else f"{parts.scheme}://{parts.netloc}/{self._nowhere}"
        )
        return _Canary(url, beside, f"{parts.scheme}://{parts.netloc}/", whole_host)

    async def _look_through(
        self, probe: Probe, wanted: Mapping[str, Sequence[_Canary]], held: set[tuple[str, str]]
    ) -> None:
        silent = False
        for name, canaries in wanted.items():
            places = self._places(probe, name)
            if not places:
                continue  # nothing is expected of a gateway that does not use the list
            reason: Reason | None = Reason.NO_ANSWER
            try:
                # One that let its time pass is not waited for again, so that a look takes no longer than one wait.
                reason = reason if silent else await self._check(probe, name, canaries, places)
            except TimeoutError:
                silent = True
            except NotShown:
                continue
            except (NoAnswer, OSError):
                pass
            except Exception as error:  # noqa: BLE001 - whatever a probe does, the other gateways are looked at
                log.error("a probe failed in an unforeseen way", gateway=probe.gateway, **describe(error))  # noqa: TRY400
            held.add((name, probe.gateway))
            self._keep(name, probe.gateway, reason)

    def _places(self, probe: Probe, name: str) -> list[tuple[str, Mode]]:
        """The policies of a gateway that have the list, each with what the list does there.

        A list that is not there at all counts as enforced wherever it should be: that it is missing is the fault.
        """
        matcher = self._follower.matcher
        own = {entry.name: Mode(entry.metadata.mode) for entry in table_lists(matcher.table)} if matcher else {}
        places = []
        for policy in probe.policies:
            chosen = self._policies[policy].lists if policy in self._policies else {}
            if not chosen or name in chosen:
                places.append((policy, chosen.get(name) or own.get(name, Mode.ENFORCE)))
        return places

    async def _check(
        self, probe: Probe, name: str, canaries: Sequence[_Canary], places: Sequence[tuple[str, Mode]]
    ) -> Reason | None:
        for _ in range(_TRIES):
            before = self._serials()
            reason = await self._first_fault(probe, name, canaries, places)
            if reason is None or self._serials() == before:
                break
        return reason

    async def _first_fault(
        self, probe: Probe, name: str, canaries: Sequence[_Canary], places: Sequence[tuple[str, Mode]]
    ) -> Reason | None:
        unshown: NotShown | None = None
        shown = 0
        for policy, mode in places:
            for canary in canaries:
                try:
                    reason = await self._fault(probe, name, canary, policy, mode)
                except NotShown as error:
                    unshown = error
                    continue
                shown += 1
                if reason is not None:
                    return reason
        if unshown is not None and not shown:
            raise unshown
        return None

    def _serials(self) -> object:
        """Which versions are enforced. Not the matcher itself: to hold one is to hold its memory."""
        matcher = self._follower.matcher
        return [(name, serial) for name, serial, *_ in matcher.table.lists] if matcher else None

    async def _fault(self, probe: Probe, name: str, canary: _Canary, policy: str, mode: Mode) -> Reason | None:
        answer = await self._ask(probe, canary.url, policy)
        if mode is Mode.SHADOW:
            if answer.shadow is None:
                return None  # through this gateway nobody can see what a list on trial does
            if name not in answer.shadow:
                return Reason.NOT_BLOCKED
        elif answer.verdict is not Verdict.BLOCK and (canary.whole_host or answer.verdict is not Verdict.INSPECT):
            return Reason.NOT_BLOCKED
        elif answer.list not in (None, name) and not self._equal(canary.url, policy, name):
            return Reason.WRONG_LIST
        beside = await self._ask(probe, canary.beside, policy)
        blocked = name in (beside.shadow or ()) if mode is Mode.SHADOW else beside.verdict is Verdict.BLOCK
        return Reason.OVER_BLOCKED if blocked and not self._others_cover(canary.beside, policy, name) else None

    async def _ask(self, probe: Probe, url: str, policy: str) -> Answer:
        async with asyncio.timeout(self._patience):
            return await probe.ask(url, policy)

    def _equal(self, url: str, policy: str, name: str) -> bool:
        """Whether the list blocks an address as specifically as the list that is named."""
        explained = self._explained(url, policy)
        winner = explained.get("winner") or {}
        standing = [
            {match["list"] for match in step["matches"] if match["kind"] == winner["kind"] and _enforced(match)}
            for step in explained.get("steps", ())
            if winner in step["matches"]
        ]
        return any(name in lists for lists in standing)

    def _others_cover(self, url: str, policy: str, name: str) -> bool:
        """Whether an address is rightly blocked, by rules of other lists alone."""
        explained = self._explained(url, policy)
        own = [match for step in explained.get("steps", ()) for match in step["matches"] if match["list"] == name]
        return not own and explained.get("verdict") == Verdict.BLOCK

    def _explained(self, url: str, policy: str) -> Mapping[str, Any]:
        matcher = self._follower.matcher
        return matcher.explain(url, policy) if matcher and policy in matcher.policies else {}

    def _keep(self, name: str, gateway: str, reason: Reason | None) -> None:
        now, before = self._clock(), self._states.get((name, gateway))
        self._states[name, gateway] = CanaryState(
            list=name,
            gateway=gateway,
            reason=reason,
            checked=now,
            last_ok=now if reason is None else before.last_ok if before else None,
            last_failed=now if reason is not None else before.last_failed if before else None,
        )
        if before is not None and before.reason is reason:
            return
        if reason is None and before is not None:
            log.info("canary ok", list=name, gateway=gateway)
        elif reason is not None:
            log.error("canary failed", list=name, gateway=gateway, reason=reason.value)


def _enforced(match: Mapping[str, str]) -> bool:
    return match["action"] == "block" and match["mode"] == "enforce"
