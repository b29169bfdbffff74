from __future__ import annotations

import pytest

from blocker.store.layers import should_compact
from tests.store.publishing import make_layer


@pytest.mark.parametrize(
    ("base", "deltas", "new", "folds"),
    [
        (1000, [], 250, False),
        (1000, [], 251, True),
        (1000, [100, 100], 50, False),
        (1000, [100, 100], 51, True),
        (0, [], 1, True),
        (0, [], 0, False),
        (10**6, [1] * 14, 1, False),  # sixteen layers with the base and the new one
        (10**6, [1] * 15, 1, True),
    ],
)
def test_folds_over_a_quarter_of_the_base_or_sixteen_layers(
    base: int, deltas: list[int], new: int, folds: bool
) -> None:
    layers = [make_layer(nodes=base), *(make_layer(nodes=nodes) for nodes in deltas)]
    assert should_compact(layers, make_layer(nodes=new)) is folds


def test_the_first_layer_is_the_base() -> None:
    assert not should_compact([], make_layer(nodes=10**6))
