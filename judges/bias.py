"""What sways a judge: how many of its verdicts follow the place, the length, the truth, or chance.

A verdict about a pair is taken as drawn from one of four: with probability |α| it names a place (α > 0: the first),
with |β| the longer or the shorter answer, with τ the better one, and otherwise it tosses a coin. With y = +1 where the
answer shown first wins, −1 where the second does, 0 for a tie, and L and T = ±1 where the first is longer and better,

    E[y] = α + β·L + τ·T,    noise = 1 − |α| − |β| − |τ|.

Least squares give the three; the verdicts about one slate hang together, so the intervals come from the sandwich over
slates (Liang & Zeger 1986). Without a truth T is left out: then β holds what length and quality have in common, and the
noise is not known.

A ranking of K > 2 is asked for in K orders in which each candidate stands in each place once, so what the candidates
deserve cancels out: a place whose rank is r in the mean over the orders lifts what is shown there by

    (K + 1 − 2r) / (K − 1),

which is +1 where it always comes out first, −1 where always last, 0 where the place says nothing, and α for a pair.
What the length does there is seen as in pairs, of which a ranking holds one verdict each: y = +1 where the answer that
was shown earlier stands above the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from labeling.intervals import Interval

Z = 1.96
UNKNOWN = Interval(math.nan, math.nan, math.nan)


class Vote(NamedTuple):
    """One verdict about a pair, seen from the answer that was shown first. group: numbers its slate.

    chosen, longer, better: +1 where that is the first answer, −1 where it is the second, 0 where neither is.
    times: how many verdicts there are like this one.
    """

    group: int
    chosen: int
    longer: int
    better: int = 0
    times: int = 1


class Bias(NamedTuple):
    """Shares of the verdicts with 95 % intervals. place > 0: to the first place; length > 0: to the longer answer.

    truth and noise are NaN where no vote's truth is known. votes: how many verdicts this is made of.
    """

    place: Interval
    length: Interval
    truth: Interval
    noise: Interval
    votes: int


class Places(NamedTuple):
    """How far the first and the last place lift what is shown there, with 95 % intervals over so many slates."""

    first: Interval
    last: Interval
    slates: int


def place_lifts(by_order: Mapping[tuple[int, ...], Sequence[float]]) -> tuple[float, float] | None:
    """The lifts of the first and the last place on one slate; None unless each candidate stood in both once.

    by_order: the ranks of the places, in the mean over samples, by the order in which the candidates stood there.
    """
    k = len(next(iter(by_order), ()))
    if k < 3 or any(sorted(order[place] for order in by_order) != list(range(k)) for place in (0, -1)):
        return None
    first, last = (sum(ranks[place] for ranks in by_order.values()) / k for place in (0, -1))
    return (k + 1 - 2 * first) / (k - 1), (k + 1 - 2 * last) / (k - 1)


def measure_places(lifts: Sequence[tuple[float, float]]) -> Places:
    """The mean lifts over slates, which are independent of each other; unknown below two."""
    if len(lifts) < 2:
        return Places(UNKNOWN, UNKNOWN, len(lifts))
    means, variances = np.mean(lifts, 0), np.var(lifts, 0, ddof=1) / len(lifts)
    return Places(_interval(means[0], variances[0]), _interval(means[1], variances[1]), len(lifts))


def measure_bias(votes: Sequence[Vote]) -> Bias:
    """Fit the shares to the votes; where the truth of some is known, to those alone."""
    known = [vote for vote in votes if vote.better]
    rows = np.array(known or votes, dtype=float).reshape(-1, 5)
    group, y, longer, better, times = rows.T
    count = int(times.sum())
    design = np.column_stack([np.ones_like(y), longer, better][: 3 if known else 2])  # (N, 2 or 3)
    if len(np.unique(group)) <= design.shape[1]:
        return Bias(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, count)
    weighted = design * times[:, None]
    inverse = np.linalg.pinv(design.T @ weighted)
    shares = inverse @ weighted.T @ y
    _, slate = np.unique(group, return_inverse=True)
    scores = np.zeros((slate.max() + 1, design.shape[1]))
    np.add.at(scores, slate, weighted * (y - design @ shares)[:, None])
    covariance = inverse @ scores.T @ scores @ inverse
    fitted = [_interval(share, variance) for share, variance in zip(shares, np.diag(covariance), strict=True)]
    place, length, truth = fitted if known else (*fitted, UNKNOWN)
    signs = -np.sign(shares)
    noise = _interval(1 + signs @ shares, signs @ covariance @ signs, 0.0) if known else UNKNOWN
    return Bias(place, length, truth, noise, count)


def _interval(value: float, variance: float, least: float = -1.0) -> Interval:
    """A share's estimate and interval, both cut to what a share can be."""
    spread = Z * math.sqrt(max(0.0, variance))
    mean, low, high = (max(least, min(1.0, float(x))) for x in (value, value - spread, value + spread))
    return Interval(mean, low, high)
