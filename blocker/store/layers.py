"""When a list's layers are folded into one: pure arithmetic, no store.

Each layer that a publish appends is small, but a follower merges all of them, and each holds blobs that outlive the
rules in it. Folding rewrites the whole list once. Two limits keep both costs low:

- **A quarter of the base.** While the deltas together stay below 1/4 of the base's nodes, reading them costs at most a
  quarter more than a folded list would. And a fold that rewrites B nodes happens only after B/4 changed nodes were
  written, so each changed node is rewritten about 5 times in all, however long the list lives (a constant write
  amplification, as in a two-level log-structured merge tree).
- **Sixteen layers.** A list of 30 000 entries that changes by a few twice a day would gather hundreds of layers before
  the first limit; a follower that starts cold pays one round trip or more for each, and the merge one comparison more
  per node for each doubling. Sixteen are eight days of a list that is updated twice a day.
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


def should_compact(layers: Sequence[Layer], new: Layer) -> bool:
    """Whether to publish the whole list as one new base instead of appending `new`.

    Args:
        layers: The head's layers, oldest first.
        new: The layer that would be appended.

    Returns:
        True when with `new` the deltas would hold more than 1/4 of the base's nodes, or the layers be more than 16.
        False without layers: `new` is the base then.
    """
    if not layers:
        return False
    base, *deltas = layers
    changed = sum(layer.nodes for layer in deltas) + new.nodes
    return changed * DELTA_SHARE > base.nodes or len(layers) + 1 > MAX_LAYERS
