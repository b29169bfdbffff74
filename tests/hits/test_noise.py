"""Noise has the distribution that the budget asks for. OpenDP's randomness has no seed, so bounds are wide: 6 sigma."""

from __future__ import annotations

import math
import sys
from collections import Counter

import pytest

from blocker.errors import ReleaseRefused
from blocker.hits.noise import laplace

DRAWS = 4000


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0])
def test_it_is_discrete_laplace(epsilon: float) -> None:
    noise = laplace(epsilon)
    drawn = [noisy - 100 for noisy in noise([100] * DRAWS)]
    factor = math.exp(-epsilon)
    variance = 2 * factor / (1 - factor) ** 2
    assert abs(sum(drawn) / DRAWS) < 6 * math.sqrt(variance / DRAWS)
    assert sum(one * one for one in drawn) / DRAWS == pytest.approx(variance, rel=0.25)
    zeros = (1 - factor) / (1 + factor)
    assert drawn.count(0) / DRAWS == pytest.approx(zeros, abs=6 * math.sqrt(zeros / DRAWS))


def test_one_request_more_makes_no_figure_more_likely_than_the_budget_says() -> None:
    noise = laplace(1.0)
    without, with_it = (Counter(noise([count] * (5 * DRAWS))) for count in (20, 21))
    for figure in range(19, 23):
        ratio = without[figure] / with_it[figure]
        assert math.exp(-1.0) * 0.8 < ratio < math.exp(1.0) * 1.25


def test_without_opendp_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opendp.prelude", None)
    with pytest.raises(ReleaseRefused, match=r"pip install 'blocker\[noise\]'"):
        laplace(1.0)
