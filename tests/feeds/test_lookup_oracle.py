"""Real look-ups of sources that answer and fail as they like, compared with an oracle that keeps all that was ever
answered."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import pytest

from blocker.feeds.sightings import FAMILIES
from tests.feeds.test_failing_names import DAY, HOUR, LISTED, OTHER, world

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocker.feeds.resolve import Failing


class Oracle:
    """What a look must say, from all that was ever answered; as slow as it is plain."""

    def __init__(self, servers: Sequence[str]) -> None:
        self.heard: dict[str, list[float]] = {server: [0.0] for server in servers}
        self.looks: list[tuple[float, dict[tuple[str, int], Sequence[str] | None]]] = []

    def clock(self, server: str, now: float) -> float:
        """A resolver's own time: silences count for a tenth of a day at the most."""
        return sum(min(b - a, 0.1 * DAY) for a, b in itertools.pairwise(self.heard[server]) if b <= now)

    def given_up(self, pair: tuple[str, int], now: float) -> bool:
        """Whether a resolver has failed for a family for a day of its own time."""
        since = now
        for when, said in reversed(self.looks):
            if said[pair] is not None:
                break
            since = when
        return self.clock(pair[0], now) - self.clock(pair[0], since) >= DAY

    def answer(self, now: float) -> tuple[set[str], set[int]] | None:
        """Addresses of the last look, and of which families it is complete."""
        said = {
            pair: () if one is None and self.given_up(pair, now) else one for pair, one in self.looks[-1][1].items()
        }
        if all(one is None for one in said.values()):
            return None
        awaited = [server for server, times in self.heard.items() if now - times[-1] < DAY]
        complete = {one for one in FAMILIES if all(said[server, one] is not None for server in awaited)}
        return {address for one in said.values() for address in one or ()}, complete


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_resolvers_say_a_look_is_what_the_oracle_says(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - not for a secret
    fours: Sequence[list[str] | None] = (None, None, [], ["11.0.0.1"], ["11.0.0.2"])
    sixes: Sequence[list[str] | None] = (None, [], ["2a00::1"])
    async with world(2) as made:
        by_address = {source.address: source for source in made.sources}
        oracle = Oracle(list(by_address))
        failing: Failing = {}
        answers = set()
        for _ in range(150):
            made.now += chance.choice([0.1, 1, 4, 12, 40]) * HOUR
            for source in made.sources:
                if chance.random() < 0.1:
                    source.out = not source.out
                if chance.random() < 0.15:
                    source.site(chance.choice(fours), chance.choice(sixes))
            await made.resolvers.look_up(OTHER)
            found = await made.resolvers.look_up(LISTED, failing)
            said = {
                (address, family): None if source.out else source.says.get((LISTED, kind))
                for address, source in by_address.items()
                for family, kind in ((4, "A"), (6, "AAAA"))
            }
            for address, source in by_address.items():
                if not source.out:
                    oracle.heard[address].append(made.now)
            oracle.looks.append((made.now, said))
            expected = oracle.answer(made.now)
            if found is None:
                assert expected is None
            else:
                assert ({str(one) for one in found.addresses}, {*found.complete}) == expected
            answers.add(str(expected))
        assert len(answers) > 5, "it says something"
