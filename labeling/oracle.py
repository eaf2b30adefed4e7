"""A simulated annotator: answers as Bradley-Terry says from scores it alone knows, with a rate of plain errors.

For tests, benchmarks and demonstrations. Its answers depend on the seed and the slate alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from labeling.records import Annotator, Label, Slate, content_id


def oracle_label(
    slate: Slate,
    gold: Sequence[float],
    annotator: Annotator,
    seed: int,
    temperature: float,
    flip_rate: float = 0.0,
    random_labels: bool = False,
) -> Label:
    """Rank the slate's candidates by gold score plus noise.

    With Gumbel noise of scale `temperature` on each score, any two candidates i and j come out as
    P(i ≻ j) = σ((gold_i − gold_j)/temperature), Bradley-Terry exactly, and the order is transitive. With
    probability `flip_rate` (always, with `random_labels`) the order is drawn uniformly instead.
    """
    chance = random.Random(f"{seed}/{slate.id}")
    at_random = random_labels or chance.random() < flip_rate
    noisy = [(0.0 if at_random else g / temperature) + _gumbel(chance) for g in gold]
    ranks = tuple(1 + sum(other > mine for other in noisy) for mine in noisy)
    key = content_id("label", annotator.id, seed, slate.id)
    return Label(slate.id, annotator.id, "ranked", key, ranks)


def _gumbel(chance: random.Random) -> float:
    return -math.log(-math.log(chance.random() or 0.5))
