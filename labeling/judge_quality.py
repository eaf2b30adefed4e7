"""How well a judge's answers and probabilities fit those of people, pair by pair, with 95 % intervals over slates.

A judge is measured on its audit: the slates that chance gave to people (see `labeling.stored_requests`), each weighted
by one over its propensity. Where people answered too few of these, all slates that they labelled stand in; what people
happened to label is no sample, so every figure says which it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import NamedTuple

import numpy as np

from labeling.agreement import Pair, answers_of, pair_answers
from labeling.intervals import Interval
from labeling.records import Annotator, Label
from labeling.soft_labels import FITTERS, Compared, SoftLabels, fit_soft_labels

BINS = 10
DRAWS, FEWEST_DRAWS, DRAWN_AT_ONCE = 1000, 200, 4_000_000  # fewer for many slates: 32 MB of counts, if that will do
LEAST_AUDIT = 20  # slates of an audit that people answered, from which on a judge is measured on it alone
LEAST_FITTED = 40  # slates that people answered, from which on soft labels are fitted

# Of each judge: the slates drawn for its audit, with their propensities.
Audits = Mapping[str, Mapping[str, float]]


class Bin(NamedTuple):
    """Pairs whose p falls into one bin: the mean p, and how often people preferred that side, with its interval."""

    p: float
    preferred: Interval
    pairs: int


@dataclass(frozen=True)
class JudgeQuality:
    """One judge (with its model and rubric) beside people, on so many slates and pairs; audit: drawn at random.

    agreement: share of pairs on which both say the same (better, tie, worse); kappa: the same beyond chance. same, tie,
    opposite: of the pairs that the judge decided, what people say; tied_decided, tied_tie: of those that it tied.
    error: the expected calibration error of its p, by method ("raw", and out of fold those of `soft_labels.FITTERS`).
    bins: the reliability diagram of the raw p. in_use: the method whose soft labels train, "raw" where none does.
    """

    judge: str
    audit: bool
    slates: int
    pairs: int
    agreement: Interval
    kappa: Interval
    same: int
    tie: int
    opposite: int
    tied_decided: int
    tied_tie: int
    error: Mapping[str, Interval]
    bins: tuple[Bin, ...]
    in_use: str

    @property
    def measured_on(self) -> str:
        """Where the figures come from, in a word."""
        return "audit" if self.audit else "labelled"


def measuring(labels: Sequence[Label], people: Collection[str], audits: Audits) -> list[Label]:
    """The labels without those of a judge that its audit left out, where people answered enough of that."""
    answered = {label.slate_id for label in labels if label.annotator in people and label.ranks is not None}
    kept = {judge: audit for judge, audit in audits.items() if len(audit.keys() & answered) >= LEAST_AUDIT}
    return [label for label in labels if label.annotator not in kept or label.slate_id in kept[label.annotator]]


def people_say(labels: Iterable[Label], people: Collection[str]) -> dict[Pair, float]:
    """People's mean answer to each pair, of 1, ½ or 0 each. A decision of a dispute counts alone."""
    theirs = [label for label in labels if label.annotator in people]
    decided = {label.slate_id for label in theirs if label.decides}
    said = answers_of(label for label in theirs if label.decides or label.slate_id not in decided)
    return {pair: (1 + mean(sides.values())) / 2 for pair, sides in said.items()}


def judge_says(label: Label) -> dict[Pair, tuple[int, float]]:
    """A judge's answer to each pair of a slate, 1, 0 or −1, and its P(i better): ½ more or less where it gave none."""
    sides = pair_answers(label.ranks)
    given = label.probability
    return {Pair(label.slate_id, *ij): (side, (1 + side) / 2 if given is None else given) for ij, side in sides.items()}


def compare(
    judge: str, labels: Sequence[Label], people: Collection[str], audit: Mapping[str, float]
) -> tuple[list[Compared], bool]:
    """The pairs that a judge and people answered, and whether they are its audit.

    labels: of items whose answer is unknown. audit: propensities by slate.
    """
    theirs = people_say(labels, people)
    ours = {pair: said for label in labels if label.annotator == judge for pair, said in judge_says(label).items()}
    found = [Compared(pair, *said, theirs[pair]) for pair, said in ours.items() if pair in theirs]
    drawn = [c._replace(weight=1 / audit[c.pair.slate_id]) for c in found if c.pair.slate_id in audit]
    enough = len({c.pair.slate_id for c in drawn}) >= LEAST_AUDIT
    return (drawn, True) if enough else (found, False)


def soft_labels(
    method: str, labels: Sequence[Label], annotators: Mapping[str, Annotator], audits: Audits
) -> dict[str, SoftLabels]:
    """The soft labels of each judge that people can be compared with on enough slates; of nobody for "none"."""
    if method not in FITTERS:
        return {}
    people = [a.id for a in annotators.values() if a.kind == "human"]
    found = {}
    for judge in (a.id for a in annotators.values() if a.kind == "judge"):
        compared, audit = compare(judge, labels, people, audits.get(judge, {}))
        if len({c.pair.slate_id for c in compared}) >= LEAST_FITTED:
            found[judge] = fit_soft_labels(method, compared, audit)
    return found


def measure_judge(judge: str, compared: Sequence[Compared], audit: bool, in_use: str) -> JudgeQuality:
    """All figures of a judge, from at least one compared pair."""
    names, slate = np.unique([c.pair.slate_id for c in compared], return_inverse=True)
    p, y, weight = (np.array([getattr(c, name) for c in compared]) for name in ("p", "y", "weight"))
    # (1 + draws, S) how often each slate is drawn: in the first row, once.
    count = max(FEWEST_DRAWS, min(DRAWS, DRAWN_AT_ONCE // len(names)))
    times = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), count)
    draws = _Draws(np.vstack([np.ones(len(names)), times]), slate)

    kinds = 3 * (np.array([c.said for c in compared]) + 1) + np.sign(np.round(2 * y - 1, 9)).astype(int) + 1
    named = draws.sums(weight, kinds, 9).reshape(-1, 3, 3)  # (1 + draws, judge, people)
    tables = named + named[:, ::-1, ::-1]  # from both sides: which candidate is named first is no habit of anybody's
    whole = tables.sum((1, 2))
    agreement = tables.trace(axis1=1, axis2=2) / whole
    chance = (tables.sum(1) * tables.sum(2)).sum(1) / whole**2
    kappa = np.divide(agreement - chance, 1 - chance, out=np.full_like(chance, np.nan), where=chance < 1)
    counts = np.bincount(kinds, minlength=9).reshape(3, 3)

    probabilities = {"raw": p}
    if len(names) >= LEAST_FITTED:
        for method in FITTERS:
            fitted = fit_soft_labels(method, compared, audit)
            probabilities[method] = np.array([fitted.calibrated(c.pair.slate_id, c.p) for c in compared])
    errors = {method: _calibration_errors(draws, q, y, weight) for method, q in probabilities.items()}
    return JudgeQuality(
        judge,
        audit,
        len(names),
        len(compared),
        _percentiles(agreement),
        _percentiles(kappa),
        same=int(counts[0, 0] + counts[2, 2]),
        tie=int(counts[0, 1] + counts[2, 1]),
        opposite=int(counts[0, 2] + counts[2, 0]),
        tied_decided=int(counts[1, 0] + counts[1, 2]),
        tied_tie=int(counts[1, 1]),
        error={method: _about(values) for method, values in errors.items()},
        bins=_bins(draws, p, y, weight),
        in_use=in_use,
    )


class _Draws(NamedTuple):
    """times: (D, S) how often each draw has each slate. slate: (N,) the number of each pair's slate."""

    times: np.ndarray
    slate: np.ndarray

    def sums(self, values: np.ndarray, kind: np.ndarray, kinds: int) -> np.ndarray:
        """(D, kinds) sums of the pairs' values by kind, in each draw."""
        by_slate = np.zeros((self.times.shape[1], kinds))
        np.add.at(by_slate, (self.slate, kind), values)
        return self.times @ by_slate

    def twice(self) -> _Draws:
        """The same for pairs seen from both sides, one after the other."""
        return _Draws(self.times, np.concatenate([self.slate, self.slate]))


def _both_sides(
    p: np.ndarray, y: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """p, y and weight from both sides, and the bin of each p."""
    both = np.concatenate([p, 1 - p])
    place = np.minimum((both * BINS).astype(int), BINS - 1)
    return both, np.concatenate([y, 1 - y]), np.concatenate([weight, weight]), place


def _calibration_errors(draws: _Draws, p: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(D,) `Σ_b (n_b/n)·|mean p − mean y|` over equal bins of p, each pair from both sides."""
    both, seen, w, place = _both_sides(p, y, weight)
    gaps = draws.twice().sums(w * (both - seen), place, BINS)
    return np.abs(gaps).sum(1) / draws.twice().sums(w, np.zeros_like(place), 1)[:, 0]


def _bins(draws: _Draws, p: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[Bin, ...]:
    """The reliability diagram of the side that p favours: bins that hold pairs, from ½ up."""
    both, seen, w, place = _both_sides(p, y, weight)
    whole, predicted, preferred = (draws.twice().sums(w * x, place, BINS) for x in (np.ones_like(both), both, seen))
    counts = np.bincount(place, minlength=BINS)
    shares = np.divide(preferred, whole, out=np.full_like(whole, np.nan), where=whole > 0)
    return tuple(
        Bin(float(predicted[0, b] / whole[0, b]), _percentiles(shares[:, b]), int(counts[b]))
        for b in range(BINS // 2, BINS)
        if counts[b]
    )


def _percentiles(values: np.ndarray) -> Interval:
    """The first value with the percentile interval of the others."""
    known = values[1:][~np.isnan(values[1:])]
    low, high = np.quantile(known, [0.025, 0.975]) if known.size else (np.nan, np.nan)
    return Interval(float(values[0]), float(low), float(high))


def _about(errors: np.ndarray) -> Interval:
    """The first error with the basic interval, which takes off what resampling adds to a sum of absolute values."""
    found, low, high = _percentiles(errors)
    return Interval(found, max(0.0, 2 * found - high), max(0.0, 2 * found - low))
