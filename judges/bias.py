"""What sways a judge: how many of its verdicts about pairs follow the place, the length, the truth, or chance.

A verdict is taken as drawn from one of four: with probability |α| it names a place (α > 0: the first), with |β| the
longer or the shorter answer, with τ the better one, and otherwise it tosses a coin. With y = +1 where the answer shown
first wins, −1 where the second does, 0 for a tie, and L and T = ±1 where the first is longer and better,

    E[y] = α + β·L + τ·T,    noise = 1 − |α| − |β| − |τ|.

Least squares give the three; the verdicts about one slate hang together, so the intervals come from the sandwich over
slates (Liang & Zeger 1986). Without a truth T is left out: then β holds what length and quality have in common, and the
noise is not known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from labeling.intervals import Interval

Z = 1.96
UNKNOWN = Interval(math.nan, math.nan, math.nan)


class Vote(NamedTuple):
    """One verdict about a pair, seen from the answer that was shown first. group: numbers its slate.

    chosen, longer, better: +1 where that is the first answer, −1 where it is the second, 0 where neither is.
    """

    group: int
    chosen: int
    longer: int
    better: int = 0


class Bias(NamedTuple):
    """Shares of the verdicts with 95 % intervals. place > 0: to the first place; length > 0: to the longer answer.

    truth and noise are NaN where no vote's truth is known. votes: how many verdicts this is made of.
    """

    place: Interval
    length: Interval
    truth: Interval
    noise: Interval
    votes: int


def measure_bias(votes: Sequence[Vote]) -> Bias:
    """Fit the shares to the votes; where the truth of some is known, to those alone."""
    known = [vote for vote in votes if vote.better]
    rows = np.array(known or votes, dtype=float).reshape(-1, 4)
    group, y, longer, better = rows.T
    design = np.column_stack([np.ones_like(y), longer, better][: 3 if known else 2])  # (N, 2 or 3)
    if len(np.unique(group)) <= design.shape[1]:
        return Bias(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, len(rows))
    inverse = np.linalg.pinv(design.T @ design)
    shares = inverse @ design.T @ y
    _, slate = np.unique(group, return_inverse=True)
    scores = np.zeros((slate.max() + 1, design.shape[1]))
    np.add.at(scores, slate, design * (y - design @ shares)[:, None])
    covariance = inverse @ scores.T @ scores @ inverse
    fitted = [_interval(share, variance) for share, variance in zip(shares, np.diag(covariance), strict=True)]
    place, length, truth = fitted if known else (*fitted, UNKNOWN)
    signs = -np.sign(shares)
    noise = _interval(1 + signs @ shares, signs @ covariance @ signs) if known else UNKNOWN
    return Bias(place, length, truth, noise, len(rows))


def _interval(value: float, variance: float) -> Interval:
    spread = Z * math.sqrt(max(0.0, variance))
    return Interval(float(value), float(value - spread), float(value + spread))
