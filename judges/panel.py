"""A panel: several judges of the same pairs, and how many independent votes they are worth together.

Judges make the same mistakes. With n judges whose errors correlate by ρ̄ in the mean, the variance of their mean error
is that of `n / (1 + (n − 1)·ρ̄)` independent judges (Kish 1965, the design effect): their effective number of votes. How
reliable each is, is fitted in `labeling.reliability`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from labeling.agreement import Answers, Pair

FEWEST_PAIRS = 10


class Panel(NamedTuple):
    """votes: the effective number, for `judges` judges on `pairs` pairs; NaN where too few pairs have a known truth."""

    judges: int
    pairs: int
    correlation: float
    votes: float


def measure_panel(answers: Answers, judges: Sequence[str], truth: Mapping[Pair, int]) -> Panel:
    """The panel's effective number of votes, from pairs that all of its judges decided and whose truth is known.

    truth: the better candidate of each pair, +1 the first, −1 the second.
    """
    rows = [
        [said[judge] != truth[pair] for judge in judges]
        for pair, said in answers.items()
        if pair in truth and all(said.get(judge) for judge in judges)
    ]
    n, nothing = len(judges), float("nan")
    if n < 2 or len(rows) < FEWEST_PAIRS:
        return Panel(n, len(rows), nothing, nothing)
    correlation = mean_correlation(np.array(rows, dtype=float))
    return Panel(n, len(rows), correlation, effective_votes(n, correlation))


def mean_correlation(errors: np.ndarray) -> float:
    """The mean correlation of two columns of errors (pairs, judges); a judge that makes none correlates with nobody."""
    centred = errors - errors.mean(0)
    spread = np.sqrt((centred**2).sum(0))
    unit = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
    both = unit.T @ unit
    n = errors.shape[1]
    return float((both.sum() - np.trace(both)) / (n * (n - 1)))


def effective_votes(n: int, correlation: float) -> float:
    """`n / (1 + (n − 1)·ρ̄)`, between 1 and n."""
    return min(float(n), n / (1 + (n - 1) * max(0.0, correlation)))
