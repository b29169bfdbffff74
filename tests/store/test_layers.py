from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocker.store.layers import DELTA_SHARE, KEPT_LAYERS, MAX_LAYERS, kept_layers
from tests.store.publishing import make_layer


def kept(base: int, deltas: list[int], new: int) -> int:
    return kept_layers([make_layer(nodes=nodes) for nodes in (base, *deltas)], make_layer(nodes=new))


@pytest.mark.parametrize(
    ("base", "deltas", "new", "stay"),
    [
        (1000, [], 250, 1),
        (1000, [], 251, 0),
        (1000, [100, 100], 50, 3),
        (1000, [100, 100], 51, 0),
        (0, [], 1, 0),
        (0, [], 0, 1),
        (10**6, [1] * 14, 1, 15),  # sixteen layers with the base and the new one
        (10**6, [1] * 15, 1, 1),
        (10**6, [100, *[1] * 14], 1, 2),
        (10**6, [2**at for at in range(15, 0, -1)], 1, KEPT_LAYERS),
        (10**6, [100, 50, *[1] * 13], 1, 3),
        (10**6, [60, 50, *[1] * 13], 1, 1),
    ],
)
def test_what_is_folded(base: int, deltas: list[int], new: int, stay: int) -> None:
    assert kept(base, deltas, new) == stay


@given(st.lists(st.integers(1, 50), min_size=100, max_size=600))
def test_few_layers_and_little_is_written_again(sizes: list[int]) -> None:
    base, deltas, written = 10**6, list[int](), 0
    for size in sizes:
        stay = kept(base, deltas, size)
        assert stay > 0
        size += sum(deltas[stay - 1 :])
        deltas = [*deltas[: stay - 1], size]
        written += size
        assert len(deltas) < MAX_LAYERS
    changed = sum(sizes)
    assert sum(deltas) == changed
    assert written <= changed * changed.bit_length()
    assert kept(changed * DELTA_SHARE, deltas, 0) > 0
    assert kept(changed * DELTA_SHARE - 1, deltas, 0) == 0
