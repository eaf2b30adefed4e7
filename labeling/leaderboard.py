"""A leaderboard of policies: Bradley–Terry on what annotators prefer, with intervals.

`P(a ≻ b) = σ(θ_a − θ_b)`, fitted to the preferences between candidates of different policies by maximum likelihood with
a weak Gaussian prior, so that a policy that never lost stays finite. A policy's score is the share of comparisons
that it would win against each of the others in turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from labeling.intervals import Interval, wilson
from labeling.records import LabeledSlate

PRIOR = 0.05  # weight of ½·θ²: less than a tenth of one comparison
DRAWS = 200
STEPS = 25


@dataclass(frozen=True)
class Standing:
    """A policy's score in [0, 1] with its 95 % interval, and its number of comparisons.

    The interval is the bootstrap's over slates, and where that is narrower, Wilson's for as many slates as show the
    policy: who won all of three draws the same three again and again, and that is no certainty.
    """

    policy: str
    score: Interval
    comparisons: int


def leaderboard(slates: Iterable[LabeledSlate]) -> list[Standing]:
    """The policies that were compared with another, best first."""
    names: dict[str, int] = {}
    rows: list[tuple[int, int, int, float, float]] = []
    for number, labeled in enumerate(slates):
        policies = [c.policy for c in labeled.slate.candidates]
        for q in labeled.preferences:
            a, b = policies[q.i], policies[q.j]
            if a and b and a != b and q.weight > 0:
                first, second = (names.setdefault(name, len(names)) for name in (a, b))
                rows.append((number, first, second, q.p, q.weight))
    if not rows:
        return []
    slate, first_of, second_of, p, weight = (np.array(column) for column in zip(*rows, strict=True))
    places = np.unique(slate, return_inverse=True)[1]
    score = _scores(len(names), first_of, second_of, p, weight)
    chance, count = np.random.default_rng(0), int(places.max()) + 1
    drawn = []
    for _ in range(DRAWS):
        times = np.bincount(chance.integers(0, count, count), minlength=count)[places]
        drawn.append(_scores(len(names), first_of, second_of, p, weight * times))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    counts = np.bincount(np.concatenate([first_of, second_of]), minlength=len(names))
    found = []
    for name, n in names.items():
        seen = wilson(float(score[n]), np.unique(slate[(first_of == n) | (second_of == n)]).size)
        interval = Interval(seen.mean, min(float(low[n]), seen.low), max(float(high[n]), seen.high))
        found.append(Standing(name, interval, int(counts[n])))
    return sorted(found, key=lambda s: -s.score.mean)


def _scores(count: int, a: np.ndarray, b: np.ndarray, p: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(count,) mean probability to win against the others, by Newton's method on the penalised log-likelihood."""
    theta = np.zeros(count)
    for _ in range(STEPS):
        won = 1 / (1 + np.exp(theta[b] - theta[a]))
        pull, curve = weight * (p - won), weight * won * (1 - won)
        gradient = np.bincount(a, pull, count) - np.bincount(b, pull, count) - PRIOR * theta
        hessian = np.zeros((count, count))
        np.add.at(hessian, (a, b), -curve)
        np.add.at(hessian, (b, a), -curve)
        hessian[np.diag_indices(count)] = np.bincount(a, curve, count) + np.bincount(b, curve, count) + PRIOR
        step = np.linalg.solve(hessian, gradient)
        theta += np.clip(step, -2, 2)
        if abs(step).max() < 1e-8:
            break
    wins = 1 / (1 + np.exp(theta[None, :] - theta[:, None]))
    np.fill_diagonal(wins, 0)
    return wins.sum(1) / (count - 1)
