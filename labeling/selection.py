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


@dataclass(frozen=True)
class Contest:
    """A slate chosen from a pool: its number there, the selector that chose it and the chance that it would."""

    number: int
    selector: Literal["random", "disagreement"]
    propensity: float


def choose_contests(
    pool: int, disagreement: Sequence[float], count: int, random_share: float, chance: random.Random
) -> list[Contest]:
    """Choose `count` of a pool of random slates, one after the other and none twice.

    Each time the one with the largest disagreement (the variance over a reward model's members of P(i ≻ j)), or, with
    probability random_share and always where none is known, any of those left. The propensity of a choice is its
    chance given the pool and the choices before it.
    """
    left = list(range(pool))
    chosen: list[Contest] = []
    for _ in range(min(count, pool)):
        share = random_share if disagreement else 1.0
        best = max(left, key=lambda n: disagreement[n]) if disagreement else -1
        by_chance = chance.random() < share
        number = chance.choice(left) if by_chance else best
        propensity = share / len(left) + (1 - share) * (number == best)
        left.remove(number)
        chosen.append(Contest(number, "random" if by_chance else "disagreement", propensity))
    return chosen
