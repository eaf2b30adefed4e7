"""Confidence intervals by the bootstrap, over units that are independent (prompts, slates, seeds)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

Z = 1.96


class Interval(NamedTuple):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


def wilson(share: float, n: float) -> Interval:
    """The 95 % interval of a share of n independent cases (Wilson 1927)."""
    centre, spread = share + Z * Z / (2 * n), Z * math.sqrt(share * (1 - share) / n + (Z / (2 * n)) ** 2)
    low, high = ((centre + side * spread) / (1 + Z * Z / n) for side in (-1, 1))
    return Interval(share, max(0.0, low), min(1.0, high))


def bootstrap(values: ArrayLike, weights: ArrayLike | None = None, draws: int = 2000) -> Interval:
    """95 % percentile bootstrap of the (weighted) mean of independent units; NaN without any unit.

    The resampling is seeded, so that the same values give the same interval.
    """
    x = np.asarray(values, dtype=float)
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=float)
    if x.size == 0 or w.sum() == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    chosen = np.random.default_rng(0).integers(0, x.size, (draws, x.size))
    totals = w[chosen].sum(1)
    means = (x * w)[chosen].sum(1)[totals > 0] / totals[totals > 0]
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float((x * w).sum() / w.sum()), float(low), float(high))
