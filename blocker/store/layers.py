"""When a list's layers are folded, and how many of them: pure arithmetic, no store.

Each layer that a publish appends is small, but a follower merges all of them, and each holds blobs that outlive the
rules in it. Folding writes again what is folded, and every follower has to fetch it, so as little as possible is:

- **A quarter of the base.** While the deltas together stay below 1/4 of the base's nodes, reading them costs at most a
  quarter more than a folded list would. Over that the whole list becomes a new base. That rewrites B nodes only after
  B/4 changed nodes were written, so each changed node is rewritten about 5 times in all, however long the list lives
  (a constant write amplification, as in a two-level log-structured merge tree).
- **Sixteen layers.** A list of 30 000 entries that changes by a few twice a day would gather hundreds of layers before
  the first limit; a follower that starts cold pays one round trip or more for each, and the merge one comparison more
  per node for each doubling. The seventeenth layer is therefore folded with the newest ones into one. It takes along
  every layer that is no larger than what is newer than it (the logarithmic method of Bentley and Saxe, 1980), so a node
  is folded some log2(B/4) times at most before it comes into a base; and at least down to the eighth layer, so that
  folding is rare.

A follower that is in step fetches the fold of a few small layers thereby and not the base: 1 000 rules on a million are
enforced as fast at a fold as between two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocker.store.manifest import Layer

# The deltas' share of the base's nodes, as 1/N; see above.
DELTA_SHARE = 4
# Layers in one manifest, the base included; see above.
MAX_LAYERS = 16
# Layers that a fold leaves at most, besides the one it makes.
KEPT_LAYERS = 8


def kept_layers(layers: Sequence[Layer], new: Layer) -> int:
    """How many of the head's layers stay; those after them are folded with the new one.

    Args:
        layers: The head's layers, oldest first; not none.
        new: The layer that would be appended.

    Returns:
        All of them where `new` is simply appended. 0 where the whole list becomes a new base: when with `new` the
        deltas would hold more than 1/4 of the base's nodes.
    """
    base, *deltas = (layer.nodes for layer in layers)
    if (sum(deltas) + new.nodes) * DELTA_SHARE > base:
        return 0
    if len(layers) < MAX_LAYERS:
        return len(layers)
    newer = new.nodes
    kept = len(layers)
    for at in range(len(layers) - 1, 0, -1):
        if layers[at].nodes <= newer:
            kept = at
        newer += layers[at].nodes
    return min(kept, KEPT_LAYERS)
