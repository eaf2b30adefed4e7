"""Choosing what to ask: which candidates of a prompt become a slate, and by which chance.

Every selector leaves a random arm: the control, and the unbiased sample for measuring.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

Selector = Literal["random", "large_gap"]


@dataclass(frozen=True)
class Choice:
    """Positions of the chosen candidates; the selector that chose them and the chance that it would."""

    positions: tuple[int, ...]
    selector: Selector
    propensity: float


def choose(
    distinct: Sequence[int],
    predicted: Sequence[float],
    k: int,
    selector: Selector,
    random_share: float,
    chance: random.Random,
) -> Choice:
    """Choose k of the positions `distinct`.

    random: uniformly. large_gap: the k whose predicted scores (of all positions) spread the most, the sum of
    pairwise distances being largest, with probability 1 − random_share; otherwise uniformly. The propensity is
    that of this set of positions under the whole rule.
    """
    sets = list(combinations(distinct, k))
    uniform = 1 / len(sets)
    if selector == "random" or not predicted:
        return Choice(_shuffled(chance.choice(sets), chance), "random", uniform)

    def spread(positions: tuple[int, ...]) -> float:
        return sum(abs(predicted[i] - predicted[j]) for i, j in combinations(positions, 2))

    widest = max(sets, key=spread)
    by_chance = chance.random() < random_share
    chosen = chance.choice(sets) if by_chance else widest
    propensity = random_share * uniform + (1 - random_share) * (chosen == widest)
    return Choice(_shuffled(chosen, chance), "random" if by_chance else "large_gap", propensity)


def _shuffled(positions: tuple[int, ...], chance: random.Random) -> tuple[int, ...]:
    """A candidate's place in a slate says nothing about when it was sampled or how it was scored."""
    return tuple(chance.sample(positions, len(positions)))
