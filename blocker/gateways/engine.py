"""The one place where a request is decided and counted: gateways and the control plane call it and nothing else.

Each call reads the follower's matcher once, so everything in one call is decided by the same serials, also while a new
matcher is being put in place. The engine adds to a decision: its time, its verdict and its hits; see `blocker.hits` for
what of this may be seen. It keeps nothing of the request.
"""

from __future__ import annotations

from bisect import bisect_left
from time import perf_counter_ns
from typing import TYPE_CHECKING, Literal, Protocol

from blocker._native import Gate, canonicalize
from blocker.errors import ServeError
from blocker.hits.meters import BOUNDS_NS, Meter, Meters
from blocker.rules import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from blocker._native import Batch, Decision, Matcher
    from blocker.hits.counters import HitCounter

_ALLOW, _BLOCK = Verdict.ALLOW, Verdict.BLOCK


# List, language, header lines that end in CR LF, HTML.
StopPageBytes = tuple[str, str, bytes, bytes]


class NotReady(ServeError):  # noqa: N818 - a state, not a fault of the caller
    """This node has no matcher yet: nothing can be decided."""


class UnknownPolicy(ServeError):  # noqa: N818 - named as NotReady is
    """The policy that a caller named is not configured; the message does not repeat the name."""


class FollowerStatus(Protocol):
    """How fresh the matcher is."""

    @property
    def store_up(self) -> bool:
        """Whether the store answered last time."""

    @property
    def lag_seconds(self) -> float:
        """How far the matcher is behind the store's heads, in seconds."""

    @property
    def epoch(self) -> str | None:
        """The store's epoch that the matcher belongs to."""

    @property
    def last_sync(self) -> float | None:
        """When the matcher was last known to be the newest, in Unix seconds."""

    @property
    def checked(self) -> Mapping[str, float]:
        """List → when its source was last found good, in Unix seconds."""

    @property
    def source(self) -> Literal["store", "snapshot", "none"]:
        """Where the matcher came from."""

    @property
    def detail(self) -> str:
        """What is wrong, for people; empty if nothing is."""


class MatcherSource(Protocol):
    """Who has the matcher."""

    @property
    def matcher(self) -> Matcher | None:
        """The newest matcher; replaced whole, never changed; None before the first."""


class Follower(MatcherSource, Protocol):
    """Who keeps the matcher current."""

    @property
    def status(self) -> FollowerStatus:
        """How fresh it is."""


class VerdictEngine:
    """Decides for every gateway.

    Cost: about 0.5 µs a call beyond the decision itself, most of it for timer and histogram; nothing for each URL of a
    batch.

    Args:
        follower: Whose matcher decides.
        hits: Counts blocks; the engine has it call back at the end of each hour, to release blocks by gateway.
        timer: Monotonic nanoseconds.
        releases: Whether this process shows its blocks, at the end of each hour; one that does not hands them on.
    """

    def __init__(
        self,
        follower: MatcherSource,
        hits: HitCounter,
        *,
        timer: Callable[[], int] = perf_counter_ns,
        releases: bool = True,
    ) -> None:
        self.meters = Meters()
        # The decision that nothing is listed. A matcher gives the same object for all of them, so a look at its
        # identity tells all; learned from the decisions, and again after a swap. It holds on to no table.
        self.plain: Decision | None = None
        # Canonical forms whose blocks are no hits and no decisions, whoever asks: pages that lists carry for testing.
        # Replaced whole. Looked at when a list has a word on a request and at no other time.
        self._canaries: frozenset[str] = frozenset()
        self._gates: list[Gate] = []
        self._at_canaries: list[Callable[[frozenset[str]], object]] = []
        self._follower = follower
        self._hits = hits
        self._timer = timer
        if releases:
            hits.on_border(lambda: self.meters.release_blocks(hits.bin))

    @property
    def canaries(self) -> frozenset[str]:
        """Canonical forms that count as nothing."""
        return self._canaries

    @canaries.setter
    def canaries(self, canaries: frozenset[str]) -> None:
        self._canaries = canaries
        for gate in self._gates:
            gate.canaries(canaries)
        for callback in self._at_canaries:
            callback(canaries)

    def on_canaries(self, callback: Callable[[frozenset[str]], object]) -> None:
        """Have `callback` called whenever the canaries were looked up."""
        self._at_canaries.append(callback)

    def gate(self, gateway: str, policy: str, pages: Sequence[StopPageBytes] = ()) -> Gate:
        """A gate: decides for a gateway's native codecs, and counts as the engine does.

        Before bytes are fed to its codecs `tick` must be called, and `swapped` after each swap of the matcher.

        Args:
            gateway: Who asks, one of `blocker.hits.meters.GATEWAYS`.
            policy: Name of a configured policy.
            pages: The stop page: list (empty for none in particular), language, header lines, HTML.

        Raises:
            UnknownPolicy: There is no such policy.
        """
        gate = Gate(policy, BOUNDS_NS, pages)
        gate.canaries(self._canaries)
        matcher = self._follower.matcher
        if matcher is not None:
            _use(gate, matcher)
        self._gates.append(gate)
        self._hits.attach(gate.take_hits)
        self.meters.attach(gateway, gate.take_counts)
        return gate

    @staticmethod
    def configure(gate: Gate, policy: str, pages: Sequence[StopPageBytes] = ()) -> None:
        """Have a gate decide by another policy, from the next swap on, and show other pages; see `gate`."""
        gate.configure(policy, pages)

    def swapped(self, matcher: Matcher) -> None:
        """Have all gates decide with a new matcher."""
        self._hits.tick()
        for gate in self._gates:
            self._hits.credit(_use(gate, matcher))

    def tick(self) -> None:
        """Notice that an hour has ended; costs a fifth of a microsecond."""
        self._hits.tick()

    def check(self, url: str | bytes, policy: str = "default", gateway: str = "control") -> Decision:
        """Decide one URL.

        Args:
            url: Any text; what is no URL gets the policy's verdict for that.
            policy: Name of a configured policy.
            gateway: Who asks, one of `blocker.hits.meters.GATEWAYS`.

        Raises:
            NotReady: No matcher yet.
            UnknownPolicy: There is no such policy.
        """
        matcher = self._follower.matcher
        if matcher is None:
            raise NotReady(_NOT_READY)
        timer = self._timer
        started = timer()
        try:
            decision = matcher.decide(url, policy)
        except KeyError:
            raise unknown_policy(matcher) from None
        self._note(decision, url, timer() - started, self.meters[gateway])
        return decision

    def check_host(self, host: str | bytes, policy: str = "default", gateway: str = "control") -> Decision:
        """Decide a whole host, as a resolver must; arguments and errors are those of `check`."""
        matcher = self._follower.matcher
        if matcher is None:
            raise NotReady(_NOT_READY)
        timer = self._timer
        started = timer()
        try:
            decision = matcher.decide_host(host, policy)
        except KeyError:
            raise unknown_policy(matcher) from None
        self._note(decision, host, timer() - started, self.meters[gateway])
        return decision

    def answer(
        self,
        batch: Batch,
        policy: str = "default",
        gateway: str = "control",
        *,
        matcher: Matcher | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> bytes:
        """Decide a batch or a part of it; each URL counts as one decision that took the mean time of all.

        Cost: about 0.3 µs a URL, during which nothing else runs.

        Args:
            batch: What to decide.
            policy: See `check`.
            gateway: See `check`.
            matcher: Decides instead of the newest one, so that a batch cut in parts is decided by the same serials.
            start: The first URL.
            stop: The URL before which it ends; None: the end.

        Returns:
            The decisions as JSON objects (`CheckAnswer` of the control plane), in order, with commas between them.

        Raises:
            NotReady: No matcher yet.
            UnknownPolicy: There is no such policy.
        """
        matcher = matcher or self.matcher()
        meter = self.meters[gateway]
        started = self._timer()
        try:
            answers, passed, blocks, invalid, hits = batch.answer(
                matcher, policy, self._canaries, start, len(batch) if stop is None else stop
            )
        except KeyError:
            raise unknown_policy(matcher) from None
        mean = (self._timer() - started) // max(passed + blocks, 1)
        self._hits.tick()
        self._hits.credit(hits)
        meter.allow += passed
        meter.blocks += blocks
        meter.invalid += invalid
        meter.nanoseconds += mean * passed
        meter.buckets[bisect_left(BOUNDS_NS, mean)] += passed
        return answers

    def matcher(self) -> Matcher:
        """The matcher that decides now.

        Raises:
            NotReady: None yet.
        """
        matcher = self._follower.matcher
        if matcher is None:
            raise NotReady(_NOT_READY)
        return matcher

    def _note(self, decision: Decision, text: str | bytes, elapsed: int, meter: Meter) -> None:
        if decision is self.plain:
            meter.allow += 1
            meter.nanoseconds += elapsed
            meter.buckets[bisect_left(BOUNDS_NS, elapsed)] += 1
            return
        verdict = decision.verdict
        if self._canaries and self._is_canary(decision, text):
            return
        if verdict is _BLOCK:
            meter.blocks += 1
            self._hits.count(decision)
        else:
            if verdict is _ALLOW:
                meter.allow += 1
                self._learn(decision)
            else:
                meter.inspect += 1
            meter.nanoseconds += elapsed
            meter.buckets[bisect_left(BOUNDS_NS, elapsed)] += 1
            if decision.shadow:
                self._hits.count(decision)
        if decision.invalid:
            meter.invalid += 1

    def _is_canary(self, decision: Decision, text: str | bytes) -> bool:
        """Whether a block, or what a list in shadow mode would block, is a canary's. Cost: 0.3 µs for such a one."""
        if decision.invalid or (decision.verdict is not _BLOCK and not decision.shadow):
            return False
        return canonicalize(text) in self._canaries

    def _learn(self, decision: Decision) -> None:
        if decision.list is None and not decision.shadow and not decision.invalid:
            self.plain = decision


_NOT_READY = (
    "this node has no list yet: neither the store nor a snapshot on disk gave one. See the follower's state in /readyz"
)


def _use(gate: Gate, matcher: Matcher) -> list[tuple[str, bool, int]]:
    try:
        return gate.use(matcher)
    except KeyError:
        raise unknown_policy(matcher) from None


def unknown_policy(matcher: Matcher) -> UnknownPolicy:
    """The error of a caller that named a policy which this matcher has not; it names those it has."""
    return UnknownPolicy(f"no such policy; configured are: {', '.join(matcher.policies)}")
