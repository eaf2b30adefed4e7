"""Agreement of annotators on pairs: how often they say the same, and how much more often than chance would.

A label of K candidates says something of each of its pairs: the first is better (1), the second is (−1), or neither
(0). All figures here are of such answers, taken as three kinds without an order (nominal).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from labeling.intervals import Interval
from labeling.records import Label, pairs

KINDS = (-1, 0, 1)
DRAWS = 1000


class Pair(NamedTuple):
    """Candidates i < j of a slate."""

    slate_id: str
    i: int
    j: int


# What each annotator says of each pair.
Answers = Mapping[Pair, Mapping[str, int]]


def answers_of(labels: Iterable[Label]) -> dict[Pair, dict[str, int]]:
    """The answers that ranked labels hold; of two candidates that were both left unranked nothing is said."""
    said: dict[Pair, dict[str, int]] = defaultdict(dict)
    for label in labels:
        for (i, j), answer in pair_answers(label.ranks, label.unranked).items():
            said[Pair(label.slate_id, i, j)][label.annotator] = answer
    return dict(said)


def pair_answers(ranks: Sequence[int] | None, unranked: Sequence[int] = ()) -> dict[tuple[int, int], int]:
    """What ranks say of each pair i < j: 1 when i is better, −1 when j is, 0 for a tie."""
    if ranks is None:
        return {}
    known = [(i, j) for i, j in pairs(len(ranks)) if not (i in unranked and j in unranked)]
    return {(i, j): (ranks[j] > ranks[i]) - (ranks[j] < ranks[i]) for i, j in known}


def coincidences(answers: Iterable[int]) -> np.ndarray:
    """(3, 3) how often two annotators of one pair say c and k, each of its m answers counted once in all.

    `o_ck = #{ordered pairs of answers (c, k)} / (m − 1)`; zero for a pair with fewer than two answers.
    """
    counts = Counter(answers)
    n = np.array([counts[kind] for kind in KINDS], dtype=float)
    m = n.sum()
    if m < 2:
        return np.zeros((3, 3))
    return (np.outer(n, n) - np.diag(n)) / (m - 1)


def krippendorff_alpha(matrix: np.ndarray) -> float:
    """`α = 1 − (n − 1)·Σ_{c≠k} o_ck / Σ_{c≠k} n_c·n_k` of summed coincidences (Krippendorff 2004, nominal).

    NaN when nobody was asked what another was, or all answers are the same kind: then chance says the same.
    """
    n_c = matrix.sum(1)
    n = n_c.sum()
    expected = n * n - (n_c**2).sum()
    if n < 2 or expected <= 0:
        return float("nan")
    return float(1 - (n - 1) * (n - np.trace(matrix)) / expected)


class Agreement(NamedTuple):
    """alpha: with its interval over slates. share: of two answers to one pair, P(they are the same).

    pairs: pairs with two answers or more; slates: where they are.
    """

    alpha: Interval
    share: float
    pairs: int
    slates: int


def agreement(answers: Answers) -> Agreement:
    """How far annotators agree; the interval is the 95 % percentile bootstrap over slates."""
    by_slate: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((3, 3)))
    shared = {pair: list(said.values()) for pair, said in answers.items() if len(said) > 1}
    for pair, said in shared.items():
        by_slate[pair.slate_id] += coincidences(said)
    if not shared:
        nothing = float("nan")
        return Agreement(Interval(nothing, nothing, nothing), nothing, 0, 0)
    matrices = np.stack(list(by_slate.values()))
    total = matrices.sum(0)
    chance = np.random.default_rng(0)
    chosen = chance.integers(0, len(matrices), (DRAWS, len(matrices)))
    alphas = [krippendorff_alpha(matrices[rows].sum(0)) for rows in chosen]
    known = [a for a in alphas if not np.isnan(a)]
    low, high = np.quantile(known, [0.025, 0.975]) if known else (float("nan"), float("nan"))
    alpha = Interval(krippendorff_alpha(total), float(low), float(high))
    return Agreement(alpha, float(np.trace(total) / total.sum()), len(shared), len(matrices))


def cohen_kappa(pairs_of_answers: Sequence[tuple[int, int]]) -> float:
    """`κ = (p_o − p_e) / (1 − p_e)` of two annotators' answers to the same pairs (Cohen 1960); NaN where p_e = 1."""
    n = len(pairs_of_answers)
    if n == 0:
        return float("nan")
    ours, theirs = (Counter(side) for side in zip(*pairs_of_answers, strict=True))
    observed = sum(a == b for a, b in pairs_of_answers) / n
    expected = sum(ours[kind] * theirs[kind] for kind in KINDS) / n**2
    return (observed - expected) / (1 - expected) if expected < 1 else float("nan")


def with_others(answers: Answers, annotator: str, others: Iterable[str]) -> list[tuple[int, int]]:
    """(this annotator's, another's) answer to each pair that both answered, for each of the others."""
    wanted = set(others) - {annotator}
    return [
        (said[annotator], answer)
        for said in answers.values()
        if annotator in said
        for other, answer in said.items()
        if other in wanted
    ]
