"""Soft labels: what a judge's P(i better) is worth, fitted to what people say of the same pairs.

Two maps: temperature scaling `p' = σ(logit(p) / T)` (Guo et al. 2017, arXiv 1706.04599), and isotonic regression, the
best of all that never fall (pool adjacent violators; Zadrozny & Elkan 2002). A pair may be named either way round, so
each counts from both sides, and both maps keep p'(i ≻ j) + p'(j ≻ i) = 1.

A slate gets the map that was fitted without the fifth of all slates that it belongs to: what people say of a slate
never moves its own soft label. The judge's label stays as it was given; only the preference made from it carries p', in
the form of `labeling.preferences.with_doubt`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from labeling.agreement import Pair
from labeling.records import content_id

FOLDS = 5
CERTAIN = 0.01  # a vote for one side counts as p = 0.99: its logit is finite
SHARPEST = 20.0  # the largest 1/T

Curve = Callable[[np.ndarray], np.ndarray]
Fitter = Callable[[np.ndarray, np.ndarray, np.ndarray], Curve]


class Compared(NamedTuple):
    """A pair that a judge and people answered. said: the judge's answer, 1, 0 for a tie, or −1, and p: its P(i better).

    y: people's mean, of 1, ½ or 0 each. weight: one over the chance by which its slate came to be compared.
    """

    pair: Pair
    said: int
    p: float
    y: float
    weight: float = 1.0


def fit_temperature(p: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Curve:
    """(N,) columns to the map of least log-loss, `1/T` in [0, SHARPEST]; T = ∞ for a judge no better than chance."""
    lead = _logit(p)

    def slope(sharpness: float) -> float:
        """The derivative of the log-loss by 1/T, which never falls."""
        return float((weight * lead * (1 / (1 + np.exp(-sharpness * lead)) - y)).sum())

    low, high = 0.0, SHARPEST
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return partial(scaled, sharpness=(low + high) / 2)


def scaled(p: np.ndarray, sharpness: float) -> np.ndarray:
    """`σ(sharpness · logit(p))`."""
    return 1 / (1 + np.exp(-sharpness * _logit(p)))


def _logit(p: np.ndarray) -> np.ndarray:
    inside = np.clip(p, CERTAIN, 1 - CERTAIN)
    return np.log(inside) - np.log1p(-inside)


def fit_isotonic(p: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Curve:
    """(N,) columns to the map of least squares that never falls, linear between its blocks and never quite certain."""
    x, both, w = np.concatenate([p, 1 - p]), np.concatenate([y, 1 - y]), np.concatenate([weight, weight])
    places, where = np.unique(np.round(x, 12), return_inverse=True)
    total = np.bincount(where, w)
    blocks: list[tuple[float, float, float]] = []  # weight, mean x, mean y
    for n, px, py in zip(total, places, np.bincount(where, w * both) / total, strict=True):
        block = (float(n), float(px), float(py))
        while blocks and blocks[-1][2] >= block[2]:
            before = blocks.pop()
            whole = before[0] + block[0]
            centre, value = ((before[0] * before[k] + block[0] * block[k]) / whole for k in (1, 2))
            block = (whole, centre, value)
        blocks.append(block)
    _, centres, values = (np.array(column) for column in zip(*blocks, strict=True))
    least = 1 / (len(p) + 2)
    return partial(joined, x=centres, y=np.clip(values, least, 1 - least))


def joined(p: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The values y at x, joined by straight lines."""
    return np.asarray(np.interp(p, x, y))


Method = Literal["temperature", "isotonic"]
FITTERS: dict[Method, Fitter] = {"temperature": fit_temperature, "isotonic": fit_isotonic}


@dataclass(frozen=True)
class SoftLabels:
    """A judge's fitted maps, one for each fold of slates, fitted to the other folds. slates: how many people answered.

    audit: whether these were drawn at random for that.
    """

    method: Method
    curves: tuple[Curve, ...]
    slates: int
    audit: bool

    def calibrated(self, slate_id: str, p: float) -> float:
        """The soft label in place of p on a slate."""
        return float(self.curves[fold_of(slate_id)](np.array([p]))[0])

    @property
    def id(self) -> str:
        """The name of the maps, by what they make of p = 0, 0.01, …, 1."""
        values = [[round(float(q), 6) for q in curve(np.linspace(0, 1, 101))] for curve in self.curves]
        return content_id("calibration", self.method, values)


def fit_soft_labels(method: Method, compared: Sequence[Compared], audit: bool) -> SoftLabels:
    """Fit a method of FITTERS, out of fold. Every fold but one must hold pairs."""
    folds = np.array([fold_of(c.pair.slate_id) for c in compared])
    p, y, weight = (np.array([getattr(c, name) for c in compared]) for name in ("p", "y", "weight"))
    curves = [FITTERS[method](p[folds != f], y[folds != f], weight[folds != f]) for f in range(FOLDS)]
    return SoftLabels(method, tuple(curves), len({c.pair.slate_id for c in compared}), audit)


def fold_of(slate_id: str) -> int:
    """The fold of a slate, 0 to FOLDS − 1: drawn by its id."""
    return int(content_id("fold", slate_id)[-8:], 16) % FOLDS
