"""Noise for a report, by OpenDP: the discrete Laplace mechanism on each cell.

The budget is for one request: a request is in one cell, and moves it by one, so with noise of scale 1/epsilon whoever
sees the report is at most e^epsilon times as sure that the request was among the hits as without it. Sums, threshold
and rounding are computed from the noisy cells and cost nothing more. A list and a week are in one report only, so this
is all that reports ever spend on a request. A person who made k requests is protected by k times epsilon only: this
system does not know persons, and can promise nothing for them. `/metrics` has no noise: the promise is for those
who see the report and not it.

OpenDP is an extra, `pip install 'blocker[noise]'`, since it takes 270 MB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocker.errors import ReleaseRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def laplace(epsilon: float) -> Callable[[Sequence[int]], list[int]]:
    """What adds noise to each of several cells, of which a request is in one; results may be negative.

    Args:
        epsilon: The budget for one request, above 0.

    Raises:
        ReleaseRefused: OpenDP is not installed, or cannot keep this budget.
    """
    try:
        import opendp.prelude as dp
    except ImportError:
        raise ReleaseRefused("noise needs OpenDP: pip install 'blocker[noise]'") from None
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=int)), dp.l1_distance(T=int)
    measured = dp.m.make_laplace(*space, scale=1 / epsilon)
    spent: float = measured.map(d_in=1)  # type: ignore[no-untyped-call]  # theirs has no types
    if spent > epsilon * (1 + 1e-9):
        raise ReleaseRefused("OpenDP cannot keep this budget; take a larger epsilon")
    return lambda cells: list(measured(list(cells)))
